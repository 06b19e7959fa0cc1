/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache of one (layer, KV head) whose entries have scores, by which it is cut when a position
 * enters: what H2O and TOVA have in common.
 */
#ifndef RA_SIM_POLICY_CUT_H
#define RA_SIM_POLICY_CUT_H

#include "sim/policy_cache.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_policy_cut {
    struct ra_policy_cache cache; /* in no order of eviction: scores decide at each cut */
    double *score;                /* [capacity] of the set's positions, ascending */
    bool is_scored;               /* false once the cache was chosen elsewhere */
};

/* One for each of n KV heads, empty, for at most `capacity` positions while one enters. */
RA_MUST_CHECK enum ra_status ra_policy_cuts_open(struct ra_policy_cut **cuts, int n,
                                                 int32_t capacity, struct ra_error *err);
void ra_policy_cuts_close(struct ra_policy_cut *cuts, int n); /* accepts NULL */

/* Become what `rule` leaves of positions 0..L-1 with score [L]. scratch [L]. */
void ra_policy_cut_choose(struct ra_policy_cut *cut, const struct ra_cut_rule *rule,
                          const double *score, int32_t L, uint64_t *scratch);

/* Add what each entry and self received [self + 1], or put it in the place of its score; self
 * enters; cut. */
void ra_policy_cut_step(struct ra_policy_cut *cut, const struct ra_cut_rule *rule,
                        const double *received, int32_t self);

/* Become these positions; scores are known elsewhere. */
void ra_policy_cut_install(struct ra_policy_cut *cut, const struct ra_positions *order);

/* Borrowed until the next change. */
void ra_policy_cut_view(const struct ra_policy_cut *cut, struct ra_retained *view);

#ifdef __cplusplus
}
#endif

#endif
