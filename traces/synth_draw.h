/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One layer of a "synth:like=" trace: rows drawn from a few numbers per head ("knobs"), which
 * traces/synth_tune.c sets. A logit is a sum of five parts: a sink, what a token is worth to
 * everybody, a nonlinear part of the same that shapes the tail, closeness to the query's own
 * position, and what changes from step to step. Internal to traces/.
 */
#ifndef RA_TRACES_SYNTH_DRAW_H
#define RA_TRACES_SYNTH_DRAW_H

#include "traces/trace.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RA_SYNTH_PACES = 5, RA_SYNTH_MIRRORS = 3, RA_SYNTH_MAX_D = 256 };

struct ra_synth_knobs {
    double *sink;    /* [Hq] logit of position 0 */
    double *spread;  /* [Hq] standard deviation of logits: how concentrated attention is */
    double *tail;    /* [Hq] extra logit of the best eighth: mass of few against mass of many */
    double *local;   /* [Hq] logit of the own position, fading over P/32 */
    double *change;  /* [Hkv] 0..1: share of the spread that is drawn anew at each step */
    double *cluster; /* [Hkv] 0..1: how much neighbouring keys resemble each other */
    double
        pace[RA_SYNTH_PACES]; /* share of query energy that varies over 1, 4, 16, 64 steps, never */
    double *block;            /* owns the arrays */
};

RA_MUST_CHECK enum ra_status ra_synth_knobs_open(struct ra_synth_knobs *knobs,
                                                 const struct ra_model *model,
                                                 struct ra_error *err);
/* Between knobs of one shape. */
void ra_synth_knobs_copy(struct ra_synth_knobs *to, const struct ra_synth_knobs *from,
                         const struct ra_model *model);
void ra_synth_knobs_close(struct ra_synth_knobs *knobs);

struct ra_synth_layer {
    const struct ra_model *model;
    int32_t P, N;
    uint64_t key;      /* of all random numbers of the layer */
    double sink_shift; /* added to every sink: keeps its mass when P is not the fitted one */
    double key_scale;  /* keys are this much longer, queries shorter */
    double mirror[RA_SYNTH_MIRRORS][RA_SYNTH_MAX_D]; /* unit vectors */
    struct ra_synth_knobs knobs;
};

/* Set everything but the knobs, for keys of the given mean length. model->D <= RA_SYNTH_MAX_D. */
void ra_synth_layer_init(struct ra_synth_layer *layer, const struct ra_model *model, int32_t P,
                         int32_t N, uint64_t key, double key_norm);

/* One row, before it is rounded to the stored type. Keys and values: `at` is the position; queries:
 * the step, down to -P for prompt tokens. */
void ra_synth_layer_row(const struct ra_synth_layer *layer, enum ra_trace_part part, int head,
                        int32_t at, float *out);

#ifdef __cplusplus
}
#endif

#endif
