/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The retained cache C_r of one (layer, KV head) as policies keep it: a set of positions and the
 * order in which they will be evicted. Positions only; the rows are a backend's business.
 */
#ifndef RA_SIM_POLICY_CACHE_H
#define RA_SIM_POLICY_CACHE_H

#include "sim/kvset.h"
#include "sim/step.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_policy_cache {
    struct ra_kvset set;
    int32_t *order; /* the same positions, first to be evicted first; pinned ones last */
    int32_t n_pinned;
};

/* Empty, for at most `capacity` positions. A zeroed cache may be closed. */
RA_MUST_CHECK enum ra_status ra_policy_cache_open(struct ra_policy_cache *cache, int32_t capacity,
                                                  struct ra_error *err);
void ra_policy_cache_close(struct ra_policy_cache *cache);

/* One for each of n KV heads. */
RA_MUST_CHECK enum ra_status ra_policy_caches_open(struct ra_policy_cache **caches, int n,
                                                   int32_t capacity, struct ra_error *err);
void ra_policy_caches_close(struct ra_policy_cache *caches, int n); /* accepts NULL */

/* Become the n positions of `order`, the last n_pinned of which are never evicted. */
void ra_policy_cache_replace(struct ra_policy_cache *cache, const int32_t *order, int32_t n,
                             int32_t n_pinned);

/* Append a position that is not there yet; it goes after all others that are not pinned. */
void ra_policy_cache_append(struct ra_policy_cache *cache, int32_t pos);

/* Evict, first of the order first, until at most K remain or only pinned ones are left. */
void ra_policy_cache_evict(struct ra_policy_cache *cache, int32_t K);

/* Borrowed until the next change. */
void ra_policy_cache_view(const struct ra_policy_cache *cache, struct ra_retained *view);

#ifdef __cplusplus
}
#endif

#endif
