/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a backend chooses in phase 2, and how the schedule takes it over. Whatever a backend chose,
 * the reference's choice is what stands, where there is a reference.
 */
#include <math.h>
#include <string.h>

#include "sim/engine_beat.h"
#include "sim/kvset.h"

enum ra_status ra_beat_install(struct ra_beat *b, struct ra_error *err)
{
    int64_t moved = 0, expected = 0;
    struct ra_retained view;
    for (int h = 0; h < b->shape->model->Hkv; h++) {
        const struct ra_positions *old = &b->track->before[h].set;
        ra_policy_view(b->track->policy, b->step.layer, h, &view);
        view.score = b->has_scores ? b->scores + (size_t)h * ra_beat_rows(b) : NULL;
        b->ops->adopt(b->dev, b->lane_number, h, &view);
        expected += view.set.n - ra_kvset_common(view.set.pos, view.set.n, old->pos, old->n);
    }
    RA_TIMED(b, RA_OP_REFRESH, b->ops->refresh(b->dev, b->lane_number, &moved, err), err);
    /* The entries moved must be those that are new. */
    if (ra_beat_is_exact(b) && moved != expected)
        return ra_fail(err, RA_EDIVERGED,
                       "layer %d, step %d: the refresh moved %lld entries, expected %lld",
                       b->lane->id, b->step.t, (long long)moved, (long long)expected);
    return RA_OK;
}

/* The backend's own choice, into b->chosen; false where it makes none. */
static enum ra_status own_choice(struct ra_beat *b, const struct ra_plan *plan, bool *is_made,
                                 struct ra_error *err)
{
    bool recomputes = plan->scores == RA_SCORES_BEFORE || b->step.t < 0 ||
                      b->config->scores == RA_SCORES_RECOMPUTE;
    *is_made = plan->rule || plan->of == RA_SCORES_OF_PAGES;
    if (plan->of == RA_SCORES_OF_PAGES) {
        RA_TIMED(b, RA_OP_SELECT,
                 b->ops->select_pages(b->dev, b->lane_number, b->q, plan->pages, b->chosen, err),
                 err);
        return RA_OK;
    }
    if (plan->of == RA_SCORES_OF_ALL && recomputes)
        RA_TIMED(b, RA_OP_SCORES, b->ops->score(b->dev, b->lane_number, b->q, err), err);
    if (plan->rule)
        RA_TIMED(b, RA_OP_SELECT,
                 b->ops->select(b->dev, b->lane_number, plan->rule, b->chosen, err), err);
    return RA_OK;
}

/* The reference's orders, and scores if it has any, from the record at hand. */
static void unpack_order(struct ra_beat *b)
{
    int Hkv = b->shape->model->Hkv;
    size_t used = (size_t)Hkv + 1;
    b->has_scores = b->record[Hkv] != 0;
    for (int h = 0; h < Hkv; h++) {
        b->sets[h] = (struct ra_positions){.pos = b->record + used, .n = b->record[h]};
        used += (size_t)b->record[h];
    }
    for (int h = 0; b->has_scores && h < Hkv; h++) {
        size_t n = (size_t)b->record[h];
        memcpy(b->scores + (size_t)h * ra_beat_rows(b), b->record + used, n * sizeof *b->scores);
        used += n * (sizeof *b->scores / sizeof *b->record);
    }
}

enum ra_status ra_beat_choose(struct ra_beat *b, const struct ra_plan *plan, struct ra_error *err)
{
    const struct ra_positions *install = b->chosen;
    bool is_made;
    RA_TRY(own_choice(b, plan, &is_made, err));
    bool checks = is_made && b->first_repeat && ra_beat_is_exact(b);
    if (!ra_track_spools_order(b->track, &b->step, plan)) /* sets: they come with the attention */
        return checks ? ra_engine_check_pages(b, plan->pages, err) : RA_OK;
    if (b->config->quality) {
        RA_TRY(ra_beat_load_record(b, RA_RECORD_ORDER, err));
        unpack_order(b);
        if (checks && plan->rule)
            RA_TRY(ra_engine_check_order(b->track, b->lane, &b->step, plan->rule, b->chosen,
                                         b->sets, err));
        if (checks && !plan->rule)
            RA_TRY(ra_engine_check_pages(b, plan->pages, err));
        install = b->sets;
    }
    for (int h = 0; h < b->shape->model->Hkv; h++)
        ra_policy_install(b->track->policy, &b->step, h, &install[h]);
    enum ra_status st = b->track->caches == RA_CACHES_FULL ? RA_OK : ra_beat_install(b, err);
    b->has_scores = false;
    return st;
}

/* Score of a position among those that a cut may let go: NaN for others. scores are in the order of
 * the old set, self last. */
static double cut_score(const struct ra_beat *b, const struct ra_cut_rule *rule, int h, int32_t pos)
{
    const struct ra_positions *old = &b->track->before[h].set;
    int32_t at = pos == b->step.self ? old->n : ra_kvset_find(old->pos, old->n, pos);
    bool is_entry = at < old->n ? old->pos[at] == pos : pos == b->step.self;
    if (!is_entry || at > old->n - rule->recent)
        return NAN;
    if (!rule->of_layer)
        return (double)b->entry_scores[h][at];
    int Hkv = b->shape->model->Hkv;
    double all = (double)b->entry_scores[0][at];
    for (int i = 1; i < Hkv && rule->agg != RA_AGG_FIRST; i++) {
        double one = (double)b->entry_scores[i][at];
        all = rule->agg == RA_AGG_MAX ? fmax(all, one) : all + one;
    }
    return rule->agg == RA_AGG_MEAN ? all / Hkv : all;
}

/* The backend's accumulated scores may order two entries otherwise only where they nearly tie. */
static enum ra_status check_cut(struct ra_beat *b, const struct ra_cut_rule *rule, int h,
                                int32_t expected, struct ra_error *err)
{
    b->track->selections += b->track->tile == 0;
    if (b->evicted[h] == expected)
        return RA_OK;
    struct ra_cut_rule of_head = ra_cut_rule_of(rule, h);
    double own = cut_score(b, &of_head, h, b->evicted[h]);
    double other = cut_score(b, &of_head, h, expected);
    double tolerance = fmax(1e-5, 2 * (ra_kernel_err_bound(b->track->max_abs_logit) - 1e-5));
    if (!(fabs(own - other) <= tolerance * fmax(fabs(own), fabs(other))))
        return ra_fail(err, RA_EDIVERGED,
                       "layer %d, step %d, KV head %d: the %s backend evicts position %d, expected "
                       "%d, beyond near ties",
                       b->lane->id, b->step.t, h, b->config->backend->name, b->evicted[h],
                       expected);
    b->track->near_ties += b->track->tile == 0;
    return RA_OK;
}

/* The set without the one that goes, and with self. */
static void install_cut(struct ra_beat *b, int h, int32_t gone)
{
    const struct ra_positions *old = &b->track->before[h].set;
    int32_t *out = b->cut_order, n = 0;
    for (int32_t i = 0; i < old->n; i++)
        if (old->pos[i] != gone)
            out[n++] = old->pos[i];
    if (gone != b->step.self)
        out[n++] = b->step.self;
    ra_policy_install(b->track->policy, &b->step, h, &(struct ra_positions){out, n});
}

enum ra_status ra_beat_cut(struct ra_beat *b, const struct ra_plan *plan, struct ra_error *err)
{
    const struct ra_cut_rule *rule = plan->cut;
    bool checks = b->first_repeat && ra_beat_is_exact(b);
    RA_TRY(ra_beat_load_record(b, RA_RECORD_ORDER, err));
    RA_TIMED(
        b, RA_OP_SCORES,
        b->ops->accumulate(b->dev, b->lane_number, rule->agg, rule->adds_up, b->entry_scores, err),
        err);
    RA_TIMED(b, RA_OP_EVICT, b->ops->cut(b->dev, b->lane_number, rule, b->record, b->evicted, err),
             err);
    for (int h = 0; h < b->shape->model->Hkv; h++) {
        if (checks)
            RA_TRY(check_cut(b, rule, h, b->record[h], err));
        install_cut(b, h, b->record[h]);
    }
    return RA_OK;
}
