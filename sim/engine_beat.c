/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Phase 2: a backend executes a schedule step by step, all layers of a step before the next, as a
 * model decodes. Each operation is bracketed; everything else (reading rows, checking, deciding)
 * happens outside the brackets. After each selection the backend takes over the reference's.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/range.h"
#include "sim/engine_beat.h"
#include "sim/kvset.h"

/* Of calls that run: a recording's have none. */
void ra_beat_push_range(const struct ra_beat *b, enum ra_range_kind kind, int32_t step, int layer,
                        enum ra_op op)
{
    if (!b->is_recording)
        ra_range_push(kind, step, layer, op);
}

void ra_beat_pop_range(const struct ra_beat *b)
{
    if (!b->is_recording)
        ra_range_pop();
}

enum ra_status ra_beat_load_record(struct ra_beat *b, enum ra_record kind, struct ra_error *err)
{
    size_t slot = ra_shape_slot(b->shape, kind, b->lane->slot, b->step.t);
    size_t n = ra_spool_size(b->track->spool, slot);
    RA_BUG_ON(n == 0);
    if (n > b->record_bytes) {
        void *more = realloc(b->record, n);
        if (!more)
            return ra_fail(err, RA_ENOMEM, "engine: no memory for a record of %zu bytes", n);
        b->record = more;
        b->record_bytes = n;
    }
    return ra_spool_get(b->track->spool, slot, b->record, err);
}

size_t ra_beat_rows(const struct ra_beat *b)
{
    int32_t most = 0;
    for (int i = 0; i < b->members->n; i++) {
        const struct ra_shape *shape = &b->members->list[i].shape;
        int32_t rows = shape->P + shape->run_steps;
        most = rows > most ? rows : most;
    }
    return (size_t)most;
}

bool ra_beat_is_exact(const struct ra_beat *b)
{
    return (b->ops->caps & RA_CAP_EXACT) && !b->is_recording;
}

static enum ra_status sets_from_spool(struct ra_beat *b, int *n_sets, struct ra_error *err)
{
    RA_TRY(ra_beat_load_record(b, RA_RECORD_SETS, err));
    *n_sets = b->record[0];
    size_t used = (size_t)*n_sets + 1;
    for (int i = 0; i < *n_sets; i++) { /* stored with self, which is last */
        int32_t n = b->record[1 + i];
        b->sets[i] = (struct ra_positions){.pos = b->record + used, .n = n - 1};
        used += (size_t)n;
    }
    return RA_OK;
}

static enum ra_status attend(struct ra_beat *b, const struct ra_plan *plan, struct ra_error *err)
{
    int n_sets;
    const struct ra_positions *sets = b->sets;
    switch (plan->attend) {
    case RA_ATTEND_ALL:
        RA_TIMED(b, RA_OP_ATTEND,
                 b->ops->attend_full(b->dev, b->lane_number, b->q,
                                     plan->scores == RA_SCORES_AFTER &&
                                         b->config->scores == RA_SCORES_FUSED,
                                     b->out, err),
                 err);
        break;
    case RA_ATTEND_CACHE:
        RA_TIMED(
            b, RA_OP_ATTEND,
            b->ops->attend_recycled(b->dev, b->lane_number, b->q, plan->cut != NULL, b->out, err),
            err);
        break;
    case RA_ATTEND_SETS:
        if (b->config->quality) {
            RA_TRY(sets_from_spool(b, &n_sets, err));
        } else {
            n_sets = plan->per_query_head ? b->shape->model->Hq : b->shape->model->Hkv;
            sets = plan->sets;
        }
        RA_TIMED(b, RA_OP_ATTEND,
                 b->ops->attend_sets(b->dev, b->lane_number, b->q, sets, n_sets, b->out, err), err);
        break;
    }
    return RA_OK;
}

/* Self enters C_r where the schedule's advance put it there; both must have evicted the same. */
static enum ra_status insert_and_evict(struct ra_beat *b, struct ra_error *err)
{
    const struct ra_model *m = b->shape->model;
    struct ra_retained view;
    for (int h = 0; h < m->Hkv; h++) {
        ra_policy_view(b->track->policy, b->step.layer, h, &view);
        b->most[h] = view.set.n;
    }
    RA_TIMED(b, RA_OP_EVICT, b->ops->insert_evict(b->dev, b->lane_number, b->most, b->evicted, err),
             err);
    for (int h = 0; h < m->Hkv && ra_beat_is_exact(b); h++) {
        const struct ra_positions *old = &b->track->before[h].set;
        ra_policy_view(b->track->policy, b->step.layer, h, &view);
        bool went = b->evicted[h] >= 0;
        if (view.set.n != old->n + 1 - went ||
            (went &&
             (ra_kvset_has(view.set.pos, view.set.n, b->evicted[h]) ||
              !(ra_kvset_has(old->pos, old->n, b->evicted[h]) || b->evicted[h] == b->step.self))))
            return ra_fail(err, RA_EDIVERGED,
                           "layer %d, step %d, KV head %d: the backend evicted position %d, which "
                           "the schedule keeps",
                           b->lane->id, b->step.t, h, b->evicted[h]);
    }
    return RA_OK;
}

/* Without phase 1 the books are kept here, once, of the layers as they were recorded. */
static bool keeps_books(const struct ra_beat *b)
{
    return !b->config->quality && b->first_repeat && b->track->tile == 0;
}

static enum ra_status full_lane_step(struct ra_beat *b, struct ra_error *err)
{
    struct ra_plan plan = {.query_cosine = NAN};
    struct ra_layer_step_row row = ra_track_blank_row();
    ra_track_before(b->track, &b->step);
    RA_TRY(ra_policy_plan(b->track->policy, &b->step, &plan, err));
    bool prefill = b->step.t < 0;
    bool chooses = plan.rule || ra_track_spools_order(b->track, &b->step, &plan);
    bool chosen_before = plan.scores == RA_SCORES_BEFORE || (prefill && chooses);
    RA_TRY(ra_beat_decide(b, &plan, err));
    RA_TRY(ra_beat_begin_branch(b, &plan, err));
    if (chosen_before && !plan.scores_are_free)
        RA_TRY(ra_beat_choose(b, &plan, err));
    else if (plan.rebuilds && !chooses && !prefill)
        RA_TRY(ra_beat_install(b, err));
    if (!prefill) {
        RA_TRY(attend(b, &plan, err));
        RA_TRY(ra_beat_check_output(b, err));
        RA_TRY(ra_track_widen(b->track, &plan, err));
        if (keeps_books(b))
            ra_track_attend(b->track, &b->step, &plan, &row);
        if (ra_shape_counts(b->shape, b->step.t))
            b->full_lanes[b->step.t - b->shape->first_step] += plan.is_full;
    }
    if (chooses && !chosen_before)
        RA_TRY(ra_beat_choose(b, &plan, err));
    if (plan.cut && !prefill)
        RA_TRY(ra_beat_cut(b, &plan, err));
    ra_policy_advance(b->track->policy, &b->step);
    if (b->track->caches != RA_CACHES_FULL && !chooses && !plan.cut) {
        if (prefill)
            RA_TRY(ra_beat_install(b, err));
        else if (!plan.rebuilds)
            RA_TRY(insert_and_evict(b, err));
    }
    RA_TRY(ra_beat_end_branch(b, &plan, err));
    return keeps_books(b) ? ra_track_close_step(b->track, b->lane, &b->step, &plan, &row, err)
                          : RA_OK;
}

static enum ra_status lane_step(struct ra_beat *b, int number, int32_t t, struct ra_error *err)
{
    const struct ra_shape *shape = b->shape;
    const struct ra_model *m = shape->model;
    size_t e = ra_dtype_bytes(m->dtype), lane = (size_t)number;
    size_t steps = (size_t)shape->run_steps;
    size_t k_row = (size_t)(m->Hkv * m->D) * e, v_row = (size_t)(m->Hkv * m->Dv) * e;
    size_t q_row = (size_t)(m->Hq * m->D) * e;
    b->lane = &shape->lanes[number];
    b->lane_number = b->track->tile * shape->n_lanes + number;
    b->step = (struct ra_step){
        .t = t, .self = shape->P + t, .layer = b->lane->full, .layer_id = b->lane->id};
    ra_widen(m->dtype, b->rows->q + (lane * (steps + 1) + (size_t)(t + 1)) * q_row,
             (size_t)(m->Hq * m->D), b->q);
    if (t >= 0) {
        const char *k = b->rows->k + (lane * steps + (size_t)t) * k_row;
        const char *v = b->rows->v + (lane * steps + (size_t)t) * v_row;
        RA_TIMED(b, RA_OP_APPEND, b->ops->append(b->dev, b->lane_number, k, v, err), err);
    }
    if (!b->lane->window)
        return full_lane_step(b, err);
    if (keeps_books(b))
        RA_TRY(ra_track_window(b->track, b->lane, t, err));
    if (t < 0)
        return RA_OK;
    RA_TIMED(b, RA_OP_ATTEND, b->ops->attend_full(b->dev, b->lane_number, b->q, false, b->out, err),
             err);
    return ra_beat_check_output(b, err);
}

void ra_beat_turn(struct ra_beat *b, int member)
{
    struct ra_member *at_hand = &b->members->list[member];
    b->member = member;
    b->config = &at_hand->config;
    b->shape = &at_hand->shape;
    b->rows = b->transformed ? ra_transformed_rows(b->transformed, member) : &at_hand->rows;
    b->track = &at_hand->tracks[b->policy];
    if (b->members->n > 1 && b->dev)
        b->ops->turn(b->dev, member);
}

static enum ra_status all_members(struct ra_beat *b, int lane, int32_t t, struct ra_error *err)
{
    enum ra_status st = RA_OK;
    for (int i = 0; st == RA_OK && i < b->members->n; i++) {
        ra_beat_turn(b, i);
        st = ra_member_fail(b->members, i, lane_step(b, lane, t, err), err);
    }
    ra_beat_turn(b, 0);
    return st;
}

static enum ra_status all_lanes(struct ra_beat *b, int32_t t, struct ra_error *err)
{
    for (int l = 0; l < b->shape->n_lanes; l++) {
        ra_beat_push_range(b, RA_RANGE_LAYER, t, b->shape->lanes[l].id, RA_OP_COUNT);
        enum ra_status st = all_members(b, l, t, err);
        ra_beat_pop_range(b);
        RA_TRY(st);
    }
    return RA_OK;
}

static void turn_tile(const struct ra_beat *b, int tile)
{
    for (int i = 0; i < b->members->n; i++)
        ra_track_turn(&b->members->list[i].tracks[b->policy], tile);
}

/* As a model decodes that has the lanes again and again. */
static enum ra_status all_tiles(struct ra_beat *b, int32_t t, struct ra_error *err)
{
    int n_tiles = b->track->n_tiles;
    for (int tile = 0; tile < n_tiles; tile++) {
        turn_tile(b, tile);
        enum ra_status st = all_lanes(b, t, err);
        if (st == RA_EDIVERGED && n_tiles > 1)
            return ra_fail_context(err, st, "tile %d", tile);
        RA_TRY(st);
    }
    return RA_OK;
}

/* Prompt rows of a lane as they were recorded of the member at hand. */
static enum ra_status read_prompt(struct ra_beat *b, int lane, struct ra_prompt_rows *rows,
                                  struct ra_error *err)
{
    const struct ra_shape *shape = b->shape;
    const struct ra_model *m = shape->model;
    size_t e = ra_dtype_bytes(m->dtype), P = (size_t)shape->P;
    size_t k_head = P * (size_t)m->D * e, v_head = P * (size_t)m->Dv * e;
    char *values = b->prompt + (size_t)m->Hkv * k_head;
    int32_t first = ra_shape_first_row(shape, &shape->lanes[lane]);
    memset(b->prompt, 0, (size_t)m->Hkv * (k_head + v_head));
    for (int h = 0; h < m->Hkv; h++) {
        char *k = b->prompt + (size_t)h * k_head + (size_t)first * (size_t)m->D * e;
        char *v = values + (size_t)h * v_head + (size_t)first * (size_t)m->Dv * e;
        struct ra_trace_slice slice = {b->config->seq, shape->lanes[lane].index, RA_TRACE_K, h,
                                       first,          shape->P - first};
        RA_TRY(ra_shape_read(shape, b->config->trace, slice, k, err));
        slice.part = RA_TRACE_V;
        RA_TRY(ra_shape_read(shape, b->config->trace, slice, v, err));
    }
    *rows = (struct ra_prompt_rows){
        .k = b->prompt, .v = values, .k_stride = k_head, .v_stride = v_head, .P = shape->P};
    return RA_OK;
}

static bool is_transformed(const struct ra_beat *b, int lane)
{
    return b->transformed && !b->shape->lanes[lane].window;
}

/* Those that the member at hand has, for each tile. */
static enum ra_status load_lane(struct ra_beat *b, int lane, struct ra_prompt_rows rows,
                                struct ra_error *err)
{
    const struct ra_model *m = b->shape->model;
    size_t e = ra_dtype_bytes(m->dtype), drop = (size_t)b->shape->drop;
    drop = is_transformed(b, lane) ? 0 : drop; /* such rows are the member's own */
    rows.k = (const char *)rows.k + drop * (size_t)m->D * e;
    rows.v = (const char *)rows.v + drop * (size_t)m->Dv * e;
    rows.P = b->shape->P;
    for (int tile = 0; tile < b->track->n_tiles; tile++)
        RA_TRY(b->ops->load(b->dev, tile * b->shape->n_lanes + lane, &rows, err));
    return RA_OK;
}

static enum ra_status load_prompts(struct ra_beat *b, struct ra_error *err)
{
    struct ra_prompt_rows rows = {0};
    for (int l = 0; l < b->shape->n_lanes; l++)
        for (int i = 0; i < b->members->n; i++) {
            ra_beat_turn(b, i);
            enum ra_status st = RA_OK;
            if (is_transformed(b, l))
                st = ra_transformed_load(b->transformed, i, l, &rows, err);
            else if (i == 0 || b->config->with)
                st = read_prompt(b, l, &rows, err);
            if (st == RA_OK)
                st = load_lane(b, l, rows, err);
            RA_TRY(ra_member_fail(b->members, i, st, err));
        }
    ra_beat_turn(b, 0);
    return RA_OK;
}

static size_t prompt_bytes(const struct ra_members *members)
{
    size_t longest = 0;
    for (int i = 0; i < members->n; i++) {
        const struct ra_shape *shape = &members->list[i].shape;
        size_t bytes = (size_t)shape->P * ra_model_row_bytes(shape->model);
        longest = bytes > longest ? bytes : longest;
    }
    return longest * (size_t)members->list[0].shape.model->Hkv;
}

enum ra_status ra_beat_repeat(struct ra_beat *b, uint64_t done_before, uint64_t total,
                              struct ra_error *err)
{
    const struct ra_shape *shape = b->shape;
    b->ops->reset(b->dev);
    for (int i = 0; i < b->members->n; i++)
        RA_TRY(ra_track_restart(&b->members->list[i].tracks[b->policy], ra_engine_tiles(b->config),
                                err));
    RA_TRY(load_prompts(b, err));
    for (int i = 0; i < b->members->n; i++)
        ra_sha256_init(&b->output[i]);
    for (int32_t t = -1; t < shape->run_steps; t++) {
        if (b->config->stop && b->config->stop())
            return ra_fail(err, RA_EINTERRUPTED, "interrupted before step %d", t);
        if (b->is_recording)
            RA_TRY(b->ops->record_step(b->dev, t, err));
        ra_beat_push_range(b, RA_RANGE_STEP, t, RA_RANGE_ALL_LAYERS, RA_OP_COUNT);
        enum ra_status st = all_tiles(b, t, err);
        ra_beat_pop_range(b);
        RA_TRY(st);
        if (b->config->progress)
            b->config->progress(b->config->progress_context, "time",
                                done_before + (uint64_t)(t + 2), total);
    }
    turn_tile(b, 0);
    if (keeps_books(b)) {
        for (int l = 0; l < shape->n_full; l++)
            RA_TRY(ra_track_leave(b->track, l, err));
        RA_TRY(ra_track_store(b->track, err));
    }
    return RA_OK;
}

enum ra_status ra_beat_open(struct ra_beat *b, struct ra_error *err)
{
    RA_TRY(ra_transformed_open(&b->transformed, b->members, b->policy, err));
    ra_beat_turn(b, 0);
    const struct ra_model *m = b->shape->model;
    size_t Hq = (size_t)m->Hq, n_outs = (size_t)b->members->n * (size_t)b->shape->n_lanes;
    b->q = malloc(Hq * (size_t)m->D * sizeof *b->q);
    b->unrotated = malloc(Hq * (size_t)m->D * sizeof *b->unrotated);
    b->head = malloc((size_t)m->D * sizeof *b->head);
    b->out = malloc(Hq * (size_t)m->Dv * sizeof *b->out);
    b->first_out = malloc(n_outs * Hq * (size_t)m->Dv * sizeof *b->first_out);
    b->sets = calloc(Hq, sizeof *b->sets);
    b->chosen = calloc((size_t)m->Hkv, sizeof *b->chosen);
    b->evicted = malloc((size_t)m->Hkv * sizeof *b->evicted);
    b->most = malloc((size_t)m->Hkv * sizeof *b->most);
    b->scores = malloc((size_t)m->Hkv * ra_beat_rows(b) * sizeof *b->scores);
    b->entry_scores = calloc((size_t)m->Hkv, sizeof *b->entry_scores);
    b->cut_order = malloc(ra_beat_rows(b) * sizeof *b->cut_order);
    b->prompt = malloc(prompt_bytes(b->members) + 1);
    b->output = calloc((size_t)b->members->n, sizeof *b->output);
    b->step_outputs = calloc((size_t)b->shape->run_steps + 1, sizeof *b->step_outputs);
    b->full_lanes = calloc((size_t)b->shape->n_steps + 1, sizeof *b->full_lanes);
    if (!b->q || !b->unrotated || !b->head || !b->out || !b->first_out || !b->sets || !b->chosen ||
        !b->evicted || !b->most || !b->scores || !b->entry_scores || !b->cut_order || !b->prompt ||
        !b->output || !b->step_outputs || !b->full_lanes)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for a step's rows");
    return RA_OK;
}

void ra_beat_close(struct ra_beat *b)
{
    free(b->q);
    free(b->unrotated);
    free(b->head);
    free(b->out);
    free(b->first_out);
    free(b->sets);
    free(b->chosen);
    free(b->evicted);
    free(b->most);
    free(b->scores);
    free(b->entry_scores);
    free(b->cut_order);
    free(b->prompt);
    ra_transformed_close(b->transformed);
    free(b->output);
    free(b->step_outputs);
    free(b->full_lanes);
    free(b->record);
}
