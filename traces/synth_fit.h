/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What "synth:like=" reproduces of a layer, measured the same way on any trace: full attention at
 * up to eight pairs of steps 16 apart, evenly spread over the run, averaged over them and over
 * heads. Budgets are shares of the prompt, as in policies. Compares what was asked with what a
 * generated trace has.
 */
#ifndef RA_TRACES_SYNTH_FIT_H
#define RA_TRACES_SYNTH_FIT_H

#include "traces/trace.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * sink-mass        probability on positions 0..3; mean over query heads
 * top-mass-n       probability on the max(1, P/n) positions with the largest maximum over the group
 *                  (ties: lower position), n = 64, 16, 8, 4; mean over query heads
 * run-length       mean length of unbroken runs of positions in the cache that the default rule of
 *                  `recycled:k=1/8` (pool=7, agg=max, current=pseudo) chooses; per KV head
 * refresh-overlap  share of the cache chosen 16 steps after a refresh that was still there just
 *                  before: `refresh_overlap` of `recycled:k=1/8,stride=16`; per KV head
 * query-cosine-l   cosine of the mean over query heads of a step's query and that of l steps later,
 *                  mean over all such pairs; before rotation where the trace says how to undo it,
 *                  as schedules with sim= compare; as recorded where it does not
 * recent-mass      probability on the newest max(1, P/64) positions, self included; mean over query
 *                  heads. Not promised, but fitted, because `streaming` lives on it.
 *
 * NaN where the run is too short to have it (overlap: N <= 16; cosine at lag l: N <= l).
 */
enum ra_fit_stat {
    RA_FIT_SINK,
    RA_FIT_TOP_64,
    RA_FIT_TOP_16,
    RA_FIT_TOP_8,
    RA_FIT_TOP_4,
    RA_FIT_RUN,
    RA_FIT_OVERLAP,
    RA_FIT_COSINE_1,
    RA_FIT_COSINE_4,
    RA_FIT_COSINE_16,
    RA_FIT_COSINE_64,
    RA_FIT_RECENT,
    RA_FIT_N
};

enum { RA_FIT_LAG = 16, RA_FIT_BUDGETS = 4, RA_FIT_COSINES = 4 };

struct ra_fit_definition {
    const char *name;
    double tolerance; /* largest difference that counts as reproduced */
    bool is_relative; /* tolerance is a share of the target, else absolute */
    bool is_promised; /* false: reported only */
};
extern const struct ra_fit_definition ra_fit_definitions[RA_FIT_N];

struct ra_fit_stats {
    double value[RA_FIT_N];
};

/* Measure one full-attention layer (index into info->layers) of a sequence. Holds one KV head's
 * keys as f32. Errors: those of reading; RA_EUSAGE for a window layer; RA_ENOMEM. */
RA_MUST_CHECK enum ra_status ra_fit_measure(const struct ra_trace *trace, int seq, int layer,
                                            struct ra_fit_stats *stats, struct ra_error *err);

/* Difference in units of the tolerance: reproduced if at most 1. NaN if either is NaN. */
double ra_fit_miss(enum ra_fit_stat stat, double target, double obtained);

struct ra_fit_row {
    int layer_id, source_layer_id;
    struct ra_fit_stats target, obtained;
    double worst; /* largest miss of what is promised */
};

struct ra_fit_report {
    char *name;   /* the generated trace, "synth:like=..." */
    char *source; /* the trace it was fitted to */
    struct ra_model source_model;
    int n_rows;
    struct ra_fit_row *rows;
};

/*
 * Open a "synth:like=" name, or "synth:like=NAME" for the name of a recorded trace, and measure
 * each of its layers beside the layer that it was fitted to. `progress`, which may be NULL, is
 * called after each layer. Caller closes. Errors: RA_EUSAGE for another "synth:" name; those of
 * opening.
 */
RA_MUST_CHECK enum ra_status ra_fit_report_open(struct ra_fit_report *report, const char *name,
                                                void (*progress)(void *context, int done, int n),
                                                void *context, struct ra_error *err);
void ra_fit_report_close(struct ra_fit_report *report);

#ifdef __cplusplus
}
#endif

#endif
