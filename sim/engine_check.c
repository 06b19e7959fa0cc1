/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend's selection against the reference's. They may order two candidates differently only
 * where the reference's ranking scores are nearly equal: within 1e-5 relative, or within what f32
 * rounding of the logits explains, whichever is larger. Scores are formed anew, for the disputed
 * step only.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/engine_beat.h"
#include "sim/pages.h"
#include "sim/reference.h"
#include "sim/select.h"

struct dispute {
    int32_t L;
    size_t size;          /* L, as a size */
    double *raw, *pooled; /* [L] */
    double tolerance;
};

static bool same(const struct ra_positions *a, const struct ra_positions *b)
{
    return a->n == b->n &&
           (a->n == 0 || memcmp(a->pos, b->pos, (size_t)a->n * sizeof *a->pos) == 0);
}

static enum ra_status form_scores(struct ra_track *track, const struct ra_lane *lane,
                                  const struct ra_step *step, const struct ra_select_rule *rule,
                                  int kv, struct dispute *d, struct ra_error *err)
{
    const struct ra_model *m = track->shape->model;
    const struct ra_replay_config *config = track->config;
    size_t L = (size_t)d->L, D = (size_t)m->D, G = (size_t)m->G, e = ra_dtype_bytes(m->dtype);
    char *k = malloc(L * D * e), *stored_q = malloc(G * D * e);
    float *q = malloc(G * D * sizeof *q);
    double *prob = malloc(G * L * sizeof *prob);
    enum ra_status st = RA_OK;
    if (!k || !stored_q || !q || !prob)
        st = ra_fail(err, RA_ENOMEM, "engine: no memory to settle a near tie");
    if (st == RA_OK)
        st = ra_track_read_keys(track, lane, kv, d->L, k, err);
    for (size_t g = 0; st == RA_OK && g < G; g++)
        st = ra_shape_read(track->shape, config->trace,
                           (struct ra_trace_slice){config->seq, lane->index, RA_TRACE_Q,
                                                   kv * m->G + (int)g,
                                                   track->shape->seq->W + step->t, 1},
                           stored_q + g * D * e, err);
    if (st == RA_OK) {
        ra_widen(m->dtype, stored_q, G * D, q);
        struct ra_reference call = {
            .model = m, .k = k, .q = q, .n_steps = 1, .first_L = d->L, .prob = prob};
        ra_reference_attend(&call);
        ra_aggregate(prob, L, m->G, d->L, rule->agg, d->raw);
        ra_max_pool(d->raw, d->L, rule->pool, d->pooled);
    }
    free(k);
    free(stored_q);
    free(q);
    free(prob);
    return st;
}

/* Positions of the context, each once; the current token as the rule wants it. */
static bool is_possible(const struct dispute *d, const struct ra_select_rule *rule,
                        const struct ra_positions *backend, uint8_t *mark)
{
    bool possible = true;
    for (int32_t i = 0; i < backend->n && possible; i++) {
        int32_t pos = backend->pos[i];
        possible = pos >= 0 && pos < d->L && !mark[pos];
        if (possible)
            mark[pos] = 1;
    }
    memset(mark, 0, d->size);
    int32_t current = d->L - 1, last = backend->n ? backend->pos[backend->n - 1] : -1;
    if (rule->current == RA_CURRENT_SNAPKV)
        return possible && last == current;
    for (int32_t i = 0; i < backend->n && rule->current == RA_CURRENT_DROP; i++)
        possible = possible && backend->pos[i] != current;
    return possible;
}

/* What changed sides scores the same: nothing left out above what was taken in, or below it. */
static bool sets_agree(const struct dispute *d, const struct ra_positions *backend,
                       const struct ra_positions *reference, uint8_t *mark)
{
    double out_high = -INFINITY, out_low = INFINITY, in_high = -INFINITY, in_low = INFINITY;
    for (int32_t i = 0; i < reference->n; i++)
        mark[reference->pos[i]] |= 1;
    for (int32_t i = 0; i < backend->n; i++)
        mark[backend->pos[i]] |= 2;
    for (int32_t j = 0; j < d->L; j++) {
        if (mark[j] == 1) {
            out_high = fmax(out_high, d->pooled[j]);
            out_low = fmin(out_low, d->pooled[j]);
        }
        if (mark[j] == 2) {
            in_high = fmax(in_high, d->pooled[j]);
            in_low = fmin(in_low, d->pooled[j]);
        }
    }
    memset(mark, 0, d->size);
    if (isinf(out_high) || isinf(in_high)) /* nothing changed sides, or only one way */
        return isinf(out_high) && isinf(in_high);
    return fmax(out_high, in_high) - fmin(out_low, in_low) <=
           d->tolerance * fmax(fabs(out_high), fabs(in_high));
}

/* Along the backend's order, first to go first, the reference's scores may not fall clearly. The
 * protected current token stands outside the order of scores. */
static bool order_agrees(const struct dispute *d, const struct ra_select_rule *rule,
                         const struct ra_positions *backend)
{
    const double *score = rule->evict == RA_EVICT_RAW ? d->raw : d->pooled;
    double highest = -INFINITY;
    for (int32_t i = 0; i < backend->n; i++) {
        int32_t pos = backend->pos[i];
        if (rule->current == RA_CURRENT_SNAPKV && pos == d->L - 1)
            continue;
        if (highest - score[pos] > d->tolerance * fabs(highest))
            return false;
        highest = fmax(highest, score[pos]);
    }
    return true;
}

enum ra_status ra_engine_check_order(struct ra_track *track, const struct ra_lane *lane,
                                     const struct ra_step *step, const struct ra_select_rule *rule,
                                     const struct ra_positions *backend,
                                     const struct ra_positions *reference, struct ra_error *err)
{
    const struct ra_model *m = track->shape->model;
    struct dispute d = {.L = step->self + 1};
    enum ra_status st = RA_OK;
    RA_BUG_ON(d.L < 1);
    d.size = (size_t)d.L;
    /* Two logits, each off by the f32 rounding of its sum, move a ratio of probabilities twice. */
    d.tolerance = fmax(1e-5, 2 * (ra_kernel_err_bound(track->max_abs_logit) - 1e-5));
    d.raw = malloc((size_t)d.L * sizeof *d.raw);
    d.pooled = malloc((size_t)d.L * sizeof *d.pooled);
    if (!d.raw || !d.pooled)
        st = ra_fail(err, RA_ENOMEM, "engine: no memory to settle a near tie");
    for (int h = 0; st == RA_OK && h < m->Hkv; h++) {
        track->selections += track->tile == 0;
        if (same(&backend[h], &reference[h]))
            continue;
        st = form_scores(track, lane, step, rule, h, &d, err);
        if (st != RA_OK)
            break;
        if (backend[h].n != reference[h].n || !is_possible(&d, rule, &backend[h], track->mark) ||
            !sets_agree(&d, &backend[h], &reference[h], track->mark) ||
            !order_agrees(&d, rule, &backend[h]))
            st = ra_fail(
                err, RA_EDIVERGED,
                "layer %d, step %d, KV head %d: the %s backend's selection of %d positions "
                "differs from the reference's %d beyond near ties",
                lane->id, step->t, h, track->config->backend->name, backend[h].n, reference[h].n);
        track->near_ties += track->tile == 0;
    }
    free(d.raw);
    free(d.pooled);
    return st;
}

/* Reference's scores of the pages of one KV head at this step. */
static enum ra_status form_pages(struct ra_beat *b, const struct ra_page_rule *rule, int kv,
                                 double *score, struct ra_error *err)
{
    const struct ra_shape *shape = b->shape;
    const struct ra_model *m = shape->model;
    int32_t L = ra_pages_rows(rule, b->step.self + 1), n = ra_pages_count(L, rule->page);
    size_t head = (size_t)(kv * m->G) * (size_t)m->D;
    struct ra_pages *pages = NULL;
    char *k = malloc((size_t)L * (size_t)m->D * ra_dtype_bytes(m->dtype));
    double *each = malloc((size_t)m->G * (size_t)n * sizeof *each);
    enum ra_status st = RA_OK;
    if (!k || !each)
        st = ra_fail(err, RA_ENOMEM, "engine: no memory to settle a near tie");
    if (st == RA_OK)
        st = ra_pages_open(&pages, m, rule->page, rule->digest, L, err);
    if (st == RA_OK)
        st = ra_track_read_keys(b->track, b->lane, kv, L, k, err);
    if (st == RA_OK) {
        ra_pages_extend(pages, kv, k, L);
        ra_pages_score(pages, kv, b->q + head, each);
        ra_aggregate(each, (size_t)n, m->G, n, rule->agg, score);
    }
    ra_pages_close(pages);
    free(k);
    free(each);
    return st;
}

/* A page that was left out may not score clearly better than one that was taken, but for those that
 * are always taken. */
static bool pages_agree(const struct ra_page_rule *rule, const double *score, int32_t n,
                        const uint8_t *taken, double tolerance)
{
    double weakest = INFINITY, strongest = -INFINITY, largest = 0;
    int32_t n_taken = 0, want = ra_pages_wanted(rule, n);
    bool newest = rule->takes_newest, first = rule->takes_first && want > newest;
    for (int32_t i = 0; i < n; i++) {
        n_taken += taken[i];
        largest = fmax(largest, fabs(score[i]));
        if ((newest && i == n - 1) || (first && i == 0))
            continue;
        weakest = taken[i] ? fmin(weakest, score[i]) : weakest;
        strongest = taken[i] ? strongest : fmax(strongest, score[i]);
    }
    return n_taken == want && (!newest || taken[n - 1]) && (!first || taken[0]) &&
           strongest - weakest <= tolerance * largest;
}

enum ra_status ra_engine_check_pages(struct ra_beat *b, const struct ra_page_rule *rule,
                                     struct ra_error *err)
{
    int32_t L = ra_pages_rows(rule, b->step.self + 1), n = ra_pages_count(L, rule->page);
    double tolerance = fmax(1e-5, 2 * (ra_kernel_err_bound(b->track->max_abs_logit) - 1e-5));
    double *score = malloc((size_t)n * sizeof *score);
    enum ra_status st = RA_OK;
    if (!score)
        return ra_fail(err, RA_ENOMEM, "engine: no memory to settle a near tie");
    for (int h = 0; st == RA_OK && h < b->shape->model->Hkv; h++) {
        const struct ra_positions *chosen = &b->chosen[h];
        uint8_t *taken = b->track->mark;
        b->track->selections += b->track->tile == 0;
        for (int32_t i = 0; i < chosen->n; i++)
            if (chosen->pos[i] >= 0 && chosen->pos[i] < L)
                taken[chosen->pos[i] / rule->page] = 1;
        struct ra_page_rule own = ra_page_rule_of(rule, h);
        st = form_pages(b, rule, h, score, err);
        if (st == RA_OK && !pages_agree(&own, score, n, taken, tolerance))
            st = ra_fail(err, RA_EDIVERGED,
                         "layer %d, step %d, KV head %d: the %s backend's choice of %d positions "
                         "in pages differs from the reference's beyond near ties",
                         b->lane->id, b->step.t, h, b->config->backend->name, chosen->n);
        memset(taken, 0, (size_t)n);
    }
    free(score);
    return st;
}
