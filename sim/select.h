/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Selection of the recycled cache from one step's scores, in f64: aggregate over the query heads
 * of a group, max-pool along positions, take the K best, and fix the order in which they will be
 * evicted. The reference for every backend's own selection.
 */
#ifndef RA_SIM_SELECT_H
#define RA_SIM_SELECT_H

#include "sim/step.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Aggregate a group's probabilities: out[j] = agg over g of prob[g * stride + j], j < L.
 * Mean and sum add heads in index order.
 */
void ra_aggregate(const double *prob, size_t stride, int G, int32_t L, enum ra_agg agg,
                  double *out);

/* Max-pool of odd length `pool`, same length, ends padded with -inf. out may not overlap in. */
void ra_max_pool(const double *in, int32_t L, int pool, double *out);

/* Pool of odd length `pool`, same length. out may not overlap in. */
void ra_pool_along(const double *in, int32_t L, int pool, enum ra_pooling pooling, double *out);

/*
 * Choose from scores of positions 0..L-1, the last of which is "current".
 *
 *   raw      [L] aggregated, unpooled
 *   pooled   [L] ranking scores
 *   order    [min(K, L)] filled: chosen positions, first to be evicted first
 *   scratch  [L]
 *
 * Ranks by (pooled descending, position ascending). Candidates, protection of the current token
 * and eviction order follow `rule`. Returns the number chosen: min(K, candidates).
 * Source: arXiv:2411.05787, Algorithm 1 lines 1 and 12.
 */
int32_t ra_select(const struct ra_select_rule *rule, const double *raw, const double *pooled,
                  int32_t L, int32_t *order, uint64_t *scratch);

/* Buffers for the three steps in a row: aggregate, pool, choose. */
struct ra_selector;
RA_MUST_CHECK enum ra_status ra_selector_open(struct ra_selector **selector, int32_t max_L,
                                              struct ra_error *err);
void ra_selector_close(struct ra_selector *selector); /* accepts NULL */

/*
 * Choose by `rule` for one KV head.
 *
 *   prob  [G][L], row stride L: full softmax of the group's query heads
 *
 * Returns the chosen positions, first to be evicted first; borrowed until the next call.
 */
struct ra_positions ra_selector_choose(struct ra_selector *selector,
                                       const struct ra_select_rule *rule, const double *prob, int G,
                                       int32_t L);

/*
 * The n positions of 0..L-1 with the largest scores (ties: lower position), ascending, into out.
 * scratch [L]. Returns min(n, L).
 */
int32_t ra_top(const double *scores, int32_t L, int32_t n, int32_t *out, uint64_t *scratch);

#ifdef __cplusplus
}
#endif

#endif
