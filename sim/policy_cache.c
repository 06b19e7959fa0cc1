/* SPDX-License-Identifier: Apache-2.0 */
/* A set and an order over it, kept in step. */
#include "sim/policy_cache.h"

#include <stdlib.h>
#include <string.h>

enum ra_status ra_policy_cache_open(struct ra_policy_cache *cache, int32_t capacity,
                                    struct ra_error *err)
{
    int32_t *storage = calloc((size_t)capacity * 2 + 1, sizeof *storage);
    if (!storage)
        return ra_fail(err, RA_ENOMEM, "no memory for a cache of %d positions", capacity);
    ra_kvset_init(&cache->set, storage, capacity);
    cache->order = storage + capacity;
    cache->n_pinned = 0;
    return RA_OK;
}

void ra_policy_cache_close(struct ra_policy_cache *cache)
{
    free(cache->set.pos);
    memset(cache, 0, sizeof *cache);
}

enum ra_status ra_policy_caches_open(struct ra_policy_cache **caches, int n, int32_t capacity,
                                     struct ra_error *err)
{
    *caches = calloc((size_t)n, sizeof **caches);
    if (!*caches)
        return ra_fail(err, RA_ENOMEM, "no memory for the caches of %d KV heads", n);
    for (int i = 0; i < n; i++)
        RA_TRY(ra_policy_cache_open(&(*caches)[i], capacity, err));
    return RA_OK;
}

void ra_policy_caches_close(struct ra_policy_cache *caches, int n)
{
    for (int i = 0; caches && i < n; i++)
        ra_policy_cache_close(&caches[i]);
    free(caches);
}

void ra_policy_cache_replace(struct ra_policy_cache *cache, const int32_t *order, int32_t n,
                             int32_t n_pinned)
{
    ra_kvset_assign(&cache->set, order, n);
    if (n > 0)
        memmove(cache->order, order, (size_t)n * sizeof *order);
    cache->n_pinned = n_pinned;
}

void ra_policy_cache_append(struct ra_policy_cache *cache, int32_t pos)
{
    int32_t *place = cache->order + cache->set.n - cache->n_pinned;
    RA_BUG_ON(!ra_kvset_insert(&cache->set, pos));
    memmove(place + 1, place, (size_t)cache->n_pinned * sizeof *place);
    *place = pos;
}

void ra_policy_cache_evict(struct ra_policy_cache *cache, int32_t K)
{
    int32_t n = 0, most = cache->set.n - cache->n_pinned;
    for (; n < most && cache->set.n > K; n++)
        ra_kvset_remove(&cache->set, cache->order[n]);
    memmove(cache->order, cache->order + n, (size_t)cache->set.n * sizeof *cache->order);
}

void ra_policy_cache_view(const struct ra_policy_cache *cache, struct ra_retained *view)
{
    view->set = (struct ra_positions){cache->set.pos, cache->set.n};
    view->evict = (struct ra_positions){cache->order, cache->set.n};
    view->n_pinned = cache->n_pinned;
}
