/* SPDX-License-Identifier: Apache-2.0 */
/* Records that phase 1 leaves in the spool: attended sets, and eviction orders of selections. */
#include <stdlib.h>
#include <string.h>

#include "sim/engine_internal.h"
#include "sim/kvset.h"

/* Room for n positions in track->record. */
static enum ra_status reserve(struct ra_track *track, size_t n, struct ra_error *err)
{
    if (n <= track->record_capacity)
        return RA_OK;
    int32_t *record = realloc(track->record, n * sizeof *record);
    if (!record)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for %zu positions", n);
    track->record = record;
    track->record_capacity = n;
    return RA_OK;
}

/* A full step that chose every position attended everything: said so, not listed. */
static bool is_listed(const struct ra_track *track, int number, const struct ra_step *step,
                      const struct ra_plan *plan)
{
    const struct ra_positions *set = &track->sets[number];
    bool chose_all = plan->is_full && plan->attend == RA_ATTEND_CACHE && set->n == step->self + 1;
    return set->pos && !chose_all;
}

enum ra_status ra_track_spool_sets(struct ra_track *track, const struct ra_step *step,
                                   const struct ra_plan *plan, struct ra_error *err)
{
    const struct ra_shape *shape = track->shape;
    int n_sets = plan->per_query_head ? shape->model->Hq : shape->model->Hkv;
    size_t used = (size_t)n_sets + 1;
    for (int i = 0; i < n_sets; i++)
        used += is_listed(track, i, step, plan) ? (size_t)track->sets[i].n : 0;
    RA_TRY(reserve(track, used, err));
    track->record[0] = n_sets;
    used = (size_t)n_sets + 1;
    for (int i = 0; i < n_sets; i++) {
        const struct ra_positions *set = &track->sets[i];
        bool listed = is_listed(track, i, step, plan);
        track->record[1 + i] = listed ? set->n : -set->n;
        if (listed)
            memcpy(track->record + used, set->pos, (size_t)set->n * sizeof *set->pos);
        used += listed ? (size_t)set->n : 0;
    }
    return ra_spool_put(track->spool, ra_shape_slot(shape, RA_RECORD_SETS, step->layer, step->t),
                        track->record, used * sizeof *track->record, err);
}

bool ra_track_spools_order(const struct ra_track *track, const struct ra_step *step,
                           const struct ra_plan *plan)
{
    bool learns = plan->scores != RA_SCORES_NONE && track->caches != RA_CACHES_FULL;
    return plan->rule || (learns && (step->t < 0 || plan->rebuilds));
}

enum ra_status ra_track_spool_cut(struct ra_track *track, const struct ra_step *step,
                                  struct ra_error *err)
{
    const struct ra_shape *shape = track->shape;
    size_t Hkv = (size_t)shape->model->Hkv;
    RA_TRY(reserve(track, Hkv, err));
    for (int h = 0; h < shape->model->Hkv; h++) {
        struct ra_retained now;
        const struct ra_positions *old = &track->before[h].set;
        ra_policy_view(track->policy, step->layer, h, &now);
        int32_t gone = ra_kvset_has(now.set.pos, now.set.n, step->self) ? -1 : step->self;
        for (int32_t i = 0; i < old->n && gone < 0; i++)
            if (!ra_kvset_has(now.set.pos, now.set.n, old->pos[i]))
                gone = old->pos[i];
        RA_BUG_ON(now.set.n != old->n + (gone < 0));
        track->record[h] = gone;
    }
    return ra_spool_put(track->spool, ra_shape_slot(shape, RA_RECORD_ORDER, step->layer, step->t),
                        track->record, Hkv * sizeof *track->record, err);
}

enum ra_status ra_track_spool_order(struct ra_track *track, const struct ra_step *step,
                                    struct ra_error *err)
{
    const struct ra_shape *shape = track->shape;
    int Hkv = shape->model->Hkv;
    size_t used = (size_t)Hkv + 1, rows = (size_t)(shape->P + shape->run_steps);
    size_t words = sizeof(double) / sizeof *track->record;
    bool scored = true;
    RA_TRY(reserve(track, used + (size_t)Hkv * rows * (1 + words), err));
    for (int h = 0; h < Hkv; h++) {
        struct ra_retained view;
        ra_policy_view(track->policy, step->layer, h, &view);
        track->record[h] = view.evict.n;
        if (view.evict.n)
            memcpy(track->record + used, view.evict.pos,
                   (size_t)view.evict.n * sizeof *track->record);
        used += (size_t)view.evict.n;
        scored = scored && view.score;
    }
    track->record[Hkv] = scored;
    for (int h = 0; scored && h < Hkv; h++) {
        struct ra_retained view;
        ra_policy_view(track->policy, step->layer, h, &view);
        memcpy(track->record + used, view.score, (size_t)view.set.n * sizeof *view.score);
        used += (size_t)view.set.n * words;
    }
    return ra_spool_put(track->spool, ra_shape_slot(shape, RA_RECORD_ORDER, step->layer, step->t),
                        track->record, used * sizeof *track->record, err);
}
