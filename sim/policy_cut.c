/* SPDX-License-Identifier: Apache-2.0 */
/* A set and scores beside it, kept in step. */
#include "sim/policy_cut.h"

#include <stdlib.h>
#include <string.h>

#include "sim/select.h"

enum ra_status ra_policy_cuts_open(struct ra_policy_cut **cuts, int n, int32_t capacity,
                                   struct ra_error *err)
{
    struct ra_policy_cut *list = calloc((size_t)n, sizeof *list);
    *cuts = list;
    if (!list)
        return ra_fail(err, RA_ENOMEM, "no memory for the caches of %d KV heads", n);
    for (int i = 0; i < n; i++) {
        RA_TRY(ra_policy_cache_open(&list[i].cache, capacity, err));
        list[i].score = calloc((size_t)capacity + 1, sizeof *list[i].score);
        if (!list[i].score)
            return ra_fail(err, RA_ENOMEM, "no memory for the scores of %d positions", capacity);
    }
    return RA_OK;
}

void ra_policy_cuts_close(struct ra_policy_cut *cuts, int n)
{
    for (int i = 0; cuts && i < n; i++) {
        ra_policy_cache_close(&cuts[i].cache);
        free(cuts[i].score);
    }
    free(cuts);
}

void ra_policy_cut_choose(struct ra_policy_cut *cut, const struct ra_cut_rule *rule,
                          const double *score, int32_t L, uint64_t *scratch)
{
    int32_t *order = cut->cache.order, older = L > rule->recent ? L - rule->recent : 0;
    struct ra_select_rule best = {.K = L > rule->K ? rule->K - rule->recent : older,
                                  .pool = 1,
                                  .agg = rule->agg,
                                  .current = RA_CURRENT_PSEUDO,
                                  .evict = RA_EVICT_RAW};
    int32_t n = ra_select(&best, score, score, older, order, scratch);
    for (int32_t pos = older; pos < L; pos++)
        order[n++] = pos;
    ra_kvset_assign(&cut->cache.set, order, n);
    for (int32_t i = 0; i < n; i++)
        cut->score[i] = score[cut->cache.set.pos[i]];
    cut->is_scored = true;
}

/* Index of the least score below the newest `recent`; of equal ones the highest position. */
static int32_t weakest(const double *score, int32_t n)
{
    int32_t at = 0;
    for (int32_t i = 1; i < n; i++)
        at = score[i] <= score[at] ? i : at;
    return at;
}

void ra_policy_cut_step(struct ra_policy_cut *cut, const struct ra_cut_rule *rule,
                        const double *received, int32_t self)
{
    struct ra_kvset *set = &cut->cache.set;
    for (int32_t i = 0; i < set->n; i++)
        cut->score[i] = (rule->adds_up ? cut->score[i] : 0) + received[set->pos[i]];
    cut->score[set->n] = received[self];
    RA_BUG_ON(!ra_kvset_insert(set, self));
    if (set->n > rule->K) {
        int32_t at = weakest(cut->score, set->n - rule->recent);
        size_t after = (size_t)(set->n - at - 1);
        memmove(cut->score + at, cut->score + at + 1, after * sizeof *cut->score);
        ra_kvset_remove(set, set->pos[at]);
    }
    memcpy(cut->cache.order, set->pos, (size_t)set->n * sizeof *set->pos);
}

void ra_policy_cut_install(struct ra_policy_cut *cut, const struct ra_positions *order)
{
    ra_policy_cache_replace(&cut->cache, order->pos, order->n, 0);
    cut->is_scored = false;
}

void ra_policy_cut_view(const struct ra_policy_cut *cut, struct ra_retained *view)
{
    ra_policy_cache_view(&cut->cache, view);
    view->score = cut->is_scored ? cut->score : NULL;
    view->evictions = RA_EVICTIONS_BY_SCORE;
}
