/* SPDX-License-Identifier: Apache-2.0 */
/* Measures a layer, recorded or just drawn, per head: what the fit works with. Internal to traces/.
 */
#ifndef RA_TRACES_SYNTH_MEASURE_H
#define RA_TRACES_SYNTH_MEASURE_H

#include "traces/synth_fit.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where rows come from. */
struct ra_measure_source {
    const struct ra_model *model;
    int32_t P, N;
    const void *context;
    /* Rows as f32, rounded as stored. K: positions [first, first + n); Q: steps likewise. */
    enum ra_status (*read)(const void *context, enum ra_trace_part part, int head, int32_t first,
                           int32_t n, float *out, struct ra_error *err);
};

/* One layer's statistics, apart by head. */
struct ra_measure {
    double *sink, *recent; /* [Hq] */
    double *top;           /* [Hq][RA_FIT_BUDGETS] */
    double *run, *overlap; /* [Hkv] */
    double cosine[RA_FIT_COSINES];
    double *block; /* owns the arrays */
};

RA_MUST_CHECK enum ra_status ra_measure_open(struct ra_measure *measure,
                                             const struct ra_model *model, struct ra_error *err);
void ra_measure_close(struct ra_measure *measure);

RA_MUST_CHECK enum ra_status ra_measure_run(struct ra_measure *measure,
                                            const struct ra_measure_source *source,
                                            struct ra_error *err);

/*
 * Spread the statistics of `from` over another number of heads, `to`, so that every mean over heads
 * stays: heads share one line, each a piece of equal length, and a head of `to` takes the mean over
 * its piece; KV heads first, then the members of a group. The same shape gives the same values.
 */
void ra_measure_reshape(const struct ra_measure *from, const struct ra_model *from_model,
                        struct ra_measure *to, const struct ra_model *to_model);

/* Means over heads. */
void ra_measure_stats(const struct ra_measure *measure, const struct ra_model *model,
                      struct ra_fit_stats *stats);

#ifdef __cplusplus
}
#endif

#endif
