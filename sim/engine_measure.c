/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Phase 1: decide and measure, layer by layer. Tiles of consecutive steps go through the f64
 * reference in parallel; then every schedule walks the tile by itself, also in parallel. Rows of a
 * finished layer go to the store before the next begins. Schedules that see transformed keys and
 * values come after the others, and what is true is formed once more for them.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/engine_transform.h"
#include "sim/reference.h"

enum { GROUP = 4, MAX_TILE = 64 };
#define TILE_BYTES ((size_t)24 << 20)

/* One lane's recording and the reference of the tile at hand. */
struct phase {
    const struct ra_replay_config *config;
    const struct ra_shape *shape;
    const struct ra_lane *lane;
    struct ra_track *tracks;
    char *k, *v; /* [Hkv][rows][D], [Hkv][rows][Dv] as stored */
    float *q;    /* [run_steps + 1][Hq][D]; row 0 the prefill's */
    float *acc;  /* [Hq][P], NULL */
    double *prob, *out;
    struct ra_lane_view
        truth; /* as recorded: these, unless schedules at hand see transformed rows */
    struct ra_lane_view beside;        /* room for those, NULL without any */
    const struct ra_policy_spec *spec; /* the schedules at hand see what this one does */
    double *max_abs;                   /* [Hkv * MAX_TILE] */
    int tile;                          /* steps formed together */
    int32_t first;                     /* row of q where the tile starts; step first - 1 */
    int n;                             /* steps in the tile */
};

static size_t row_stride(const struct ra_shape *shape)
{
    return (size_t)(shape->P + shape->run_steps);
}

int ra_engine_tile(const struct ra_shape *shape)
{
    size_t step = (size_t)shape->model->Hq * row_stride(shape) * sizeof(double);
    size_t tile = TILE_BYTES / step;
    return tile < 1 ? 1 : tile > MAX_TILE ? MAX_TILE : (int)tile;
}

static const char *head_rows(const struct phase *ph, bool values, int kv)
{
    const struct ra_model *m = ph->shape->model;
    size_t width = (size_t)(values ? m->Dv : m->D) * ra_dtype_bytes(m->dtype);
    return (values ? ph->v : ph->k) + (size_t)kv * row_stride(ph->shape) * width;
}

static size_t step_probs(const struct phase *ph)
{
    return (size_t)ph->shape->model->Hq * row_stride(ph->shape);
}

static bool is_at_hand(const struct phase *ph, const struct ra_track *track)
{
    return ra_engine_same_rows(track->spec, ph->spec);
}

static bool sees_truth(const struct phase *ph)
{
    return !ra_policy_spec_transform(ph->spec);
}

static const struct ra_track *first_track(const struct phase *ph)
{
    const struct ra_track *track = ph->tracks;
    while (!is_at_hand(ph, track))
        track++;
    return track;
}

/* Task: one KV head's group over up to GROUP steps of the tile. */
static void form_reference(void *context, size_t index, int worker)
{
    (void)worker;
    struct phase *ph = context;
    const struct ra_model *m = ph->shape->model;
    int kv = (int)(index % (size_t)m->Hkv);
    int s = (int)(index / (size_t)m->Hkv) * GROUP;
    int n = ph->n - s < GROUP ? ph->n - s : GROUP;
    size_t head = (size_t)kv * (size_t)m->G;
    ph->max_abs[index] = first_track(ph)->max_abs_logit; /* the same in all tracks at hand */
    struct ra_reference call = {.model = m,
                                .k = head_rows(ph, false, kv),
                                .v = head_rows(ph, true, kv),
                                .q = ph->q + ((size_t)(ph->first + s) * (size_t)m->Hq + head) *
                                                 (size_t)m->D,
                                .q_step = (size_t)m->Hq * (size_t)m->D,
                                .n_steps = n,
                                .first_L = ph->shape->P + ph->first + s,
                                .prob = ph->prob + (size_t)s * step_probs(ph),
                                .step_stride = step_probs(ph),
                                .first_head = (int)head,
                                .out = ph->out + ((size_t)s * (size_t)m->Hq + head) * (size_t)m->Dv,
                                .out_step = (size_t)m->Hq * (size_t)m->Dv,
                                .max_abs = &ph->max_abs[index]};
    ra_reference_attend(&call);
}

/* What a schedule sees of one step of the tile. */
struct moment {
    struct phase *ph;
    struct ra_step step;
    struct ra_scores scores;
    const double *out; /* [Hq][Dv] over everything */
    const float *q;    /* [Hq][D] */
};

static struct moment moment_at(struct phase *ph, int s)
{
    const struct ra_model *m = ph->shape->model;
    int32_t t = ph->first + s - 1;
    return (struct moment){
        .ph = ph,
        .step = {.t = t,
                 .self = ph->shape->P + t,
                 .layer = ph->lane->full,
                 .layer_id = ph->lane->id},
        .scores = {.prob = ph->prob + (size_t)s * step_probs(ph), .L = ph->shape->P + t + 1},
        .out = ph->out + (size_t)s * (size_t)m->Hq * (size_t)m->Dv,
        .q = ph->q + (size_t)(ph->first + s) * (size_t)m->Hq * (size_t)m->D};
}

/* The last n prompt queries of a head, widened. */
static enum ra_status read_tail(void *context, int head, int32_t n, float *q, struct ra_error *err)
{
    const struct phase *ph = context;
    const struct ra_model *m = ph->shape->model;
    size_t size = (size_t)n * (size_t)m->D;
    int32_t W = ph->shape->seq->W;
    RA_BUG_ON(n > W);
    char *stored = malloc(size * ra_dtype_bytes(m->dtype));
    if (!stored)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the prompt's last %d queries", n);
    struct ra_trace_slice slice = {ph->config->seq, ph->lane->index, RA_TRACE_Q, head, W - n, n};
    enum ra_status st = ra_shape_read(ph->shape, ph->config->trace, slice, stored, err);
    if (st == RA_OK)
        ra_widen(m->dtype, stored, size, q);
    free(stored);
    return st;
}

/* Form the scores that the plan asks for, and let the schedule learn from them. */
static enum ra_status learn(struct ra_track *track, const struct moment *at, struct ra_plan *plan,
                            struct ra_error *err)
{
    struct phase *ph = at->ph;
    struct ra_scores scores;
    struct ra_scores_input input = {.step = &at->step,
                                    .prob = at->scores.prob,
                                    .q = at->q,
                                    .k = ph->k,
                                    .k_stride = (size_t)(head_rows(ph, false, 1) - ph->k),
                                    .acc = at->step.t < 0 ? ph->acc : NULL,
                                    .attended = track->sets,
                                    .tail = read_tail,
                                    .context = ph};
    RA_TRY(ra_scorer_form(track->scorer, plan, &input, &scores, err));
    return ra_policy_learn(track->policy, &at->step, &scores, plan, err);
}

static void measure(struct ra_track *track, const struct moment *at, const struct ra_plan *plan,
                    struct ra_layer_step_row *row)
{
    const struct phase *ph = at->ph;
    ra_track_measure(track,
                     &(struct ra_seen){.step = &at->step,
                                       .is_true = sees_truth(ph),
                                       .true_prob = ph->truth.prob + (at->scores.prob - ph->prob),
                                       .true_out = ph->truth.out + (at->out - ph->out),
                                       .prob = at->scores.prob,
                                       .out = at->out,
                                       .k = ph->k,
                                       .v = ph->v,
                                       .q = at->q},
                     plan, row);
}

/* Records that phase 2 and the export read. */
static enum ra_status spool_attended(struct ra_track *track, const struct ra_step *step,
                                     const struct ra_plan *plan, struct ra_error *err)
{
    const struct ra_shape *shape = track->shape;
    const struct ra_model *m = shape->model;
    size_t n_out = (size_t)m->Hq * (size_t)m->Dv;
    if (ra_shape_counts(shape, step->t))
        RA_TRY(ra_spool_put(track->spool, ra_shape_slot(shape, RA_RECORD_OUT, step->layer, step->t),
                            track->attended, n_out * sizeof *track->attended, err));
    bool exported = ra_track_exports(track) && ra_shape_counts(shape, step->t);
    if (plan->attend != RA_ATTEND_SETS && !exported)
        return RA_OK;
    return ra_track_spool_sets(track, step, plan, err);
}

static enum ra_status walk_step(struct ra_track *track, const struct moment *at,
                                struct ra_error *err)
{
    const struct ra_shape *shape = track->shape;
    const struct ra_step *step = &at->step;
    struct ra_plan plan = {.query_cosine = NAN};
    struct ra_layer_step_row row = ra_track_blank_row();
    bool counted = ra_shape_counts(shape, step->t);
    ra_track_before(track, step);
    RA_TRY(ra_policy_plan(track->policy, step, &plan, err));
    if (plan.rule)
        track->agg = plan.rule->agg;
    if (plan.scores == RA_SCORES_BEFORE)
        RA_TRY(learn(track, at, &plan, err));
    RA_TRY(ra_track_widen(track, &plan, err));
    if (step->t >= 0) {
        ra_track_attend(track, step, &plan, &row);
        if (counted)
            measure(track, at, &plan, &row);
        RA_TRY(spool_attended(track, step, &plan, err));
    }
    if (plan.scores == RA_SCORES_AFTER)
        RA_TRY(learn(track, at, &plan, err));
    if (ra_track_spools_order(track, step, &plan))
        RA_TRY(ra_track_spool_order(track, step, err));
    ra_policy_advance(track->policy, step);
    if (plan.cut && step->t >= 0)
        RA_TRY(ra_track_spool_cut(track, step, err));
    return ra_track_close_step(track, at->ph->lane, step, &plan, &row, err);
}

/* Task: one schedule over the tile. */
static void walk_tile(void *context, size_t index, int worker)
{
    (void)worker;
    struct phase *ph = context;
    struct ra_track *track = &ph->tracks[index];
    for (int s = 0; is_at_hand(ph, track) && s < ph->n && track->status == RA_OK; s++) {
        struct moment at = moment_at(ph, s);
        track->status = walk_step(track, &at, &track->error);
    }
}

static enum ra_status first_failure(const struct ra_replay_config *config,
                                    const struct ra_track *tracks, struct ra_error *err)
{
    for (int p = 0; p < config->n_policies; p++)
        if (tracks[p].status != RA_OK) {
            if (err)
                *err = tracks[p].error;
            return ra_fail_context(err, tracks[p].status, "%s",
                                   ra_policy_spec_canonical(tracks[p].spec));
        }
    return RA_OK;
}

static enum ra_status read_lane(struct phase *ph, struct ra_error *err)
{
    const struct ra_shape *shape = ph->shape;
    const struct ra_trace *trace = ph->config->trace;
    int32_t first = ra_shape_first_row(shape, ph->lane);
    int32_t rows = shape->P + shape->run_steps - first;
    size_t e = ra_dtype_bytes(shape->model->dtype), skipped = (size_t)first * e;
    for (int h = 0; h < shape->model->Hkv; h++) {
        char *k = ph->k + (head_rows(ph, false, h) - ph->k) + skipped * (size_t)shape->model->D;
        char *v = ph->v + (head_rows(ph, true, h) - ph->v) + skipped * (size_t)shape->model->Dv;
        struct ra_trace_slice slice = {
            ph->config->seq, ph->lane->index, RA_TRACE_K, h, first, rows};
        RA_TRY(ra_shape_read(shape, trace, slice, k, err));
        slice.part = RA_TRACE_V;
        RA_TRY(ra_shape_read(shape, trace, slice, v, err));
    }
    RA_TRY(ra_shape_read_q(ph->config, shape, ph->lane, ph->q, err));
    if (ph->acc && !ph->lane->window)
        RA_TRY(ra_shape_read_acc(shape, ph->config, ph->lane, ph->acc, err));
    return RA_OK;
}

static void set_views(struct phase *ph, struct ra_lane_view seen, struct ra_lane_view truth)
{
    ph->k = seen.k;
    ph->v = seen.v;
    ph->prob = seen.prob;
    ph->out = seen.out;
    ph->truth = truth;
}

/* What is true of the tile, and what the schedules at hand see of it. */
static void form_tile(struct phase *ph, struct ra_pool *pool)
{
    size_t groups = (size_t)(ph->n + GROUP - 1) / GROUP;
    size_t n = groups * (size_t)ph->shape->model->Hkv;
    struct ra_lane_view seen = {ph->k, ph->v, ph->prob, ph->out}, truth = ph->truth;
    if (!sees_truth(ph)) {
        set_views(ph, truth, truth);
        ra_pool_run(pool, n, form_reference, ph);
        set_views(ph, seen, truth);
    }
    ra_pool_run(pool, n, form_reference, ph);
    for (size_t i = 0; i < n; i++)
        for (int p = 0; p < ph->config->n_policies; p++) {
            struct ra_track *track = &ph->tracks[p];
            if (is_at_hand(ph, track))
                track->max_abs_logit = fmax(track->max_abs_logit, ph->max_abs[i]);
        }
}

/* The schedules at hand, over all tiles of the lane. */
static enum ra_status walk_lane(struct phase *ph, struct ra_pool *pool, uint64_t done_before,
                                uint64_t total, struct ra_error *err)
{
    const struct ra_shape *shape = ph->shape;
    const struct ra_replay_config *config = ph->config;
    for (int32_t first = 0; first <= shape->run_steps; first += ph->tile) {
        int32_t left = shape->run_steps + 1 - first;
        ph->first = first;
        ph->n = left < ph->tile ? left : ph->tile;
        form_tile(ph, pool);
        ra_pool_run(pool, (size_t)config->n_policies, walk_tile, ph);
        RA_TRY(first_failure(config, ph->tracks, err));
        if (config->progress)
            config->progress(config->progress_context, "measure",
                             done_before + (uint64_t)(first + ph->n), total);
    }
    return RA_OK;
}

/* Make the rows those that the schedules at hand see; the recorded ones stay beside them. */
static enum ra_status transform_lane(struct phase *ph, struct ra_error *err)
{
    const struct ra_model *m = ph->shape->model;
    size_t n = (size_t)m->Hkv * row_stride(ph->shape) * ra_dtype_bytes(m->dtype);
    struct ra_lane_kv kv = {.k = ph->k, .v = ph->v};
    memcpy(ph->k, ph->truth.k, n * (size_t)m->D);
    memcpy(ph->v, ph->truth.v, n * (size_t)m->Dv);
    RA_TRY(ra_engine_transform(ph->config, ph->shape, ph->lane, ra_policy_spec_transform(ph->spec),
                               &kv, err));
    for (int p = 0; p < ph->config->n_policies; p++)
        if (is_at_hand(ph, &ph->tracks[p]))
            ph->tracks[p].row_bits[ph->lane->full] = kv.bits;
    return RA_OK;
}

/* The schedules that see what was recorded, then those of each transformation. */
static enum ra_status measure_lane(struct phase *ph, struct ra_pool *pool, uint64_t done_before,
                                   uint64_t total, struct ra_error *err)
{
    const struct ra_replay_config *config = ph->config;
    struct ra_lane_view own = {ph->k, ph->v, ph->prob, ph->out}, beside = ph->beside;
    enum ra_status st = read_lane(ph, err);
    for (int pass = 0; st == RA_OK && pass < 2; pass++)
        for (int p = 0; st == RA_OK && p < config->n_policies; p++) {
            bool transformed = ra_policy_spec_transform(config->specs[p]) != NULL;
            if (transformed != (pass == 1) || !ra_engine_opens_rows(config, p))
                continue;
            ph->spec = config->specs[p];
            set_views(ph, transformed ? beside : own, own);
            if (transformed)
                st = transform_lane(ph, err);
            if (st == RA_OK)
                st = walk_lane(ph, pool, done_before, total, err);
            done_before += (uint64_t)ph->shape->run_steps + 1;
        }
    set_views(ph, own, own);
    return st;
}

/* What a backend's window layer is held to: attention over the window, the same for every
 * schedule. */
static enum ra_status reference_of_window(struct phase *ph, struct ra_error *err)
{
    const struct ra_shape *shape = ph->shape;
    const struct ra_model *m = shape->model;
    size_t e = ra_dtype_bytes(m->dtype), n_out = (size_t)m->Hq * (size_t)m->Dv;
    RA_TRY(read_lane(ph, err));
    for (int32_t t = shape->first_step; t < shape->run_steps; t++) {
        int32_t L = shape->P + t + 1, visible = L < ph->lane->window ? L : ph->lane->window;
        size_t hidden = (size_t)(L - visible) * e;
        for (int kv = 0; kv < m->Hkv; kv++) {
            size_t head = (size_t)kv * (size_t)m->G;
            ph->max_abs[kv] = ph->tracks[0].max_abs_window; /* the same in all tracks */
            struct ra_reference call = {.model = m,
                                        .k = head_rows(ph, false, kv) + hidden * (size_t)m->D,
                                        .v = head_rows(ph, true, kv) + hidden * (size_t)m->Dv,
                                        .q = ph->q + ((size_t)(t + 1) * (size_t)m->Hq + head) *
                                                         (size_t)m->D,
                                        .n_steps = 1,
                                        .first_L = visible,
                                        .prob = ph->prob,
                                        .out = ph->out + head * (size_t)m->Dv,
                                        .max_abs = &ph->max_abs[kv]};
            ra_reference_attend(&call);
        }
        for (int p = 0; p < ph->config->n_policies; p++) {
            struct ra_track *track = &ph->tracks[p];
            for (int kv = 0; kv < m->Hkv; kv++)
                track->max_abs_window = fmax(track->max_abs_window, ph->max_abs[kv]);
            RA_TRY(ra_spool_put(track->spool,
                                ra_shape_slot(shape, RA_RECORD_OUT, ph->lane->slot, t), ph->out,
                                n_out * sizeof *ph->out, err));
        }
    }
    return RA_OK;
}

static enum ra_status leave_lane(struct phase *ph, struct ra_error *err)
{
    for (int p = 0; p < ph->config->n_policies; p++) {
        struct ra_track *track = &ph->tracks[p];
        for (int32_t t = -1; ph->lane->window && t < ph->shape->run_steps; t++)
            RA_TRY(ra_track_window(track, ph->lane, t, err));
        if (ph->lane->full >= 0)
            RA_TRY(ra_track_leave(track, ph->lane->full, err));
        RA_TRY(ra_track_store(track, err));
    }
    return ph->config->store ? ra_store_flush(ph->config->store, err) : RA_OK;
}

static enum ra_status open_phase(struct phase *ph, struct ra_error *err)
{
    const struct ra_shape *shape = ph->shape;
    const struct ra_model *m = shape->model;
    size_t rows = row_stride(shape), element = ra_dtype_bytes(m->dtype);
    bool needs_acc = false;
    for (int p = 0; p < ph->config->n_policies; p++)
        needs_acc |= (ra_policy_spec_needs(ph->config->specs[p]) & RA_NEEDS_ACC) != 0;
    ph->tile = ra_engine_tile(shape);
    ph->k = malloc((size_t)m->Hkv * rows * (size_t)m->D * element);
    ph->v = malloc((size_t)m->Hkv * rows * (size_t)m->Dv * element);
    ph->q = malloc((size_t)(shape->run_steps + 1) * (size_t)(m->Hq * m->D) * sizeof *ph->q);
    ph->acc = needs_acc ? malloc((size_t)m->Hq * (size_t)shape->seq->P * sizeof *ph->acc) : NULL;
    ph->prob = malloc((size_t)ph->tile * step_probs(ph) * sizeof *ph->prob);
    ph->out = malloc((size_t)ph->tile * (size_t)(m->Hq * m->Dv) * sizeof *ph->out);
    ph->max_abs = calloc((size_t)m->Hkv * MAX_TILE, sizeof *ph->max_abs);
    ph->truth = (struct ra_lane_view){ph->k, ph->v, ph->prob, ph->out};
    if (!ph->k || !ph->v || !ph->q || !ph->prob || !ph->out || !ph->max_abs ||
        (needs_acc && !ph->acc))
        return ra_fail(err, RA_ENOMEM, "engine: no memory for a layer of %zu rows", rows);
    return ra_engine_open_beside(ph->config, shape, &ph->beside, err);
}

enum ra_status ra_engine_measure(const struct ra_replay_config *config,
                                 const struct ra_shape *shape, struct ra_track *tracks,
                                 struct ra_pool *pool, struct ra_error *err)
{
    struct phase ph = {.config = config, .shape = shape, .tracks = tracks};
    uint64_t per_lane = (uint64_t)shape->run_steps + 1, done = 0;
    uint64_t groups = ra_engine_count_rows(config),
             total = per_lane * groups * (uint64_t)shape->n_full;
    enum ra_status st = open_phase(&ph, err);
    for (int l = 0; st == RA_OK && l < shape->n_lanes; l++) {
        ph.lane = &shape->lanes[l];
        if (config->stop && config->stop()) {
            st = ra_fail(err, RA_EINTERRUPTED, "interrupted before layer %d of the measurement",
                         ph.lane->id);
            break;
        }
        if (ph.lane->full >= 0) {
            st = measure_lane(&ph, pool, done, total, err);
            done += per_lane * groups;
        } else {
            st = reference_of_window(&ph, err);
        }
        if (st == RA_OK)
            st = leave_lane(&ph, err);
    }
    free(ph.k);
    free(ph.v);
    free(ph.q);
    free(ph.acc);
    free(ph.prob);
    free(ph.out);
    free(ph.max_abs);
    ra_engine_close_beside(&ph.beside);
    return st;
}
