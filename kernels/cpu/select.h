/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing the recycled cache from logits, in double throughout: softmax, aggregation over a
 * group, max-pool, the K best by a radix select, and a sort of those K alone. Pure functions over
 * one KV head; the rule is ra_select's (sim/select.h), computed independently of it.
 */
#ifndef RA_KERNELS_CPU_SELECT_H
#define RA_KERNELS_CPU_SELECT_H

#include "sim/step.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_cpu_rank {
    uint64_t key;
    int32_t pos;
};

/* Scratch of one KV head. */
struct ra_cpu_select {
    double *raw, *pooled, *window; /* [L] */
    uint64_t *keys;                /* [L] */
    struct ra_cpu_rank *ranks;     /* [2 * min(K, L)] */
};

/* Logits become probabilities: exp(x - max) / sum. -inf gives 0. */
void ra_cpu_softmax(double *logits, int32_t n);

/* agg over G rows of probabilities, `stride` apart, at one column. */
double ra_cpu_aggregate(const double *prob, size_t stride, int G, enum ra_agg agg);

/*
 * Choose from the probabilities prob [G][stride] of positions 0..L-1. order [min(K, L)] is filled,
 * first to be evicted first; returns how many.
 */
int32_t ra_cpu_choose(const struct ra_select_rule *rule, const double *prob, size_t stride, int G,
                      int32_t L, const struct ra_cpu_select *scratch, int32_t *order);

#ifdef __cplusplus
}
#endif

#endif
