/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the engine meets transformations. Both phases transform what they read of a layer anew:
 * the result is the same, and no second cache of all layers is held.
 */
#include "sim/engine_transform.h"

#include <stdlib.h>
#include <string.h>

bool ra_engine_same_rows(const struct ra_policy_spec *a, const struct ra_policy_spec *b)
{
    const struct ra_transform_chain *x = ra_policy_spec_transform(a);
    const struct ra_transform_chain *y = ra_policy_spec_transform(b);
    return x && y ? strcmp(ra_transform_canonical(x), ra_transform_canonical(y)) == 0 : x == y;
}

static bool transforms(const struct ra_replay_config *config)
{
    for (int p = 0; p < config->n_policies; p++)
        if (ra_policy_spec_transform(config->specs[p]))
            return true;
    return false;
}

bool ra_engine_opens_rows(const struct ra_replay_config *config, int p)
{
    for (int i = 0; i < p; i++)
        if (ra_engine_same_rows(config->specs[i], config->specs[p]))
            return false;
    return true;
}

uint64_t ra_engine_count_rows(const struct ra_replay_config *config)
{
    uint64_t n = 0;
    for (int p = 0; p < config->n_policies; p++)
        n += ra_engine_opens_rows(config, p);
    return n;
}

static size_t lane_rows(const struct ra_shape *shape)
{
    return (size_t)(shape->P + shape->run_steps);
}

enum ra_status ra_track_open_transform(struct ra_track *track, struct ra_error *err)
{
    size_t n = (size_t)track->shape->n_full;
    if (!ra_policy_spec_transform(track->spec))
        return RA_OK;
    track->row_bits = calloc(n, sizeof *track->row_bits);
    if (!track->row_bits)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for %zu layers", n);
    return ra_spool_open(&track->keys, n * (size_t)track->shape->model->Hkv, err);
}

enum ra_status ra_track_read_keys(const struct ra_track *track, const struct ra_lane *lane, int kv,
                                  int32_t n, char *k, struct ra_error *err)
{
    const struct ra_shape *shape = track->shape;
    const struct ra_replay_config *config = track->config;
    const struct ra_model *m = shape->model;
    struct ra_trace_slice slice = {config->seq, lane->index, RA_TRACE_K, kv, 0, n};
    if (!track->keys)
        return ra_shape_read(shape, config->trace, slice, k, err);
    size_t slot = (size_t)lane->full * (size_t)m->Hkv + (size_t)kv;
    size_t row = (size_t)m->D * ra_dtype_bytes(m->dtype);
    char *all = malloc(ra_spool_size(track->keys, slot) + 1);
    if (!all)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the keys of layer %d", lane->id);
    RA_BUG_ON(ra_spool_size(track->keys, slot) < (size_t)n * row);
    enum ra_status st = ra_spool_get(track->keys, slot, all, err);
    if (st == RA_OK)
        memcpy(k, all, (size_t)n * row);
    free(all);
    return st;
}

/* n of a lane's rows, which take `bits` together. */
static int64_t share_of(const struct ra_track *track, int64_t bits, int64_t n)
{
    int64_t rows = (int64_t)track->shape->model->Hkv * (int64_t)lane_rows(track->shape);
    double exact = (double)bits / 8 / (double)rows * (double)n;
    RA_BUG_ON(exact > 0x1p62);
    int64_t whole = bits / (8 * rows), rest = bits % (8 * rows);
    return whole * n + (rest * n + 8 * rows - 1) / (8 * rows);
}

int64_t ra_track_kv_bytes(const struct ra_track *track, int full, int64_t n)
{
    if (!track->row_bits)
        return n * (int64_t)ra_model_row_bytes(track->shape->model);
    return share_of(track, track->row_bits[full].k + track->row_bits[full].v, n);
}

int64_t ra_track_k_bytes(const struct ra_track *track, int full, int64_t n)
{
    const struct ra_model *m = track->shape->model;
    if (!track->row_bits)
        return n * m->D * (int64_t)ra_dtype_bytes(m->dtype);
    return share_of(track, track->row_bits[full].k, n);
}

uint64_t ra_engine_transform_bytes(const struct ra_replay_config *config,
                                   const struct ra_shape *shape, int phase)
{
    const struct ra_model *m = shape->model;
    uint64_t rows = lane_rows(shape);
    uint64_t row = (uint64_t)m->Hkv * ra_model_row_bytes(m), bytes = rows * row;
    if (phase == 1)
        bytes += (uint64_t)ra_engine_tile(shape) * (uint64_t)m->Hq * rows * 8;
    else
        bytes += (uint64_t)shape->n_lanes * (uint64_t)shape->run_steps * row;
    return transforms(config) ? bytes : 0;
}

enum ra_status ra_engine_open_beside(const struct ra_replay_config *config,
                                     const struct ra_shape *shape, struct ra_lane_view *view,
                                     struct ra_error *err)
{
    const struct ra_model *m = shape->model;
    size_t rows = (size_t)m->Hkv * lane_rows(shape), tile = (size_t)ra_engine_tile(shape);
    size_t element = ra_dtype_bytes(m->dtype), Hq = (size_t)m->Hq;
    *view = (struct ra_lane_view){0};
    if (!transforms(config))
        return RA_OK;
    view->k = malloc(rows * (size_t)m->D * element);
    view->v = malloc(rows * (size_t)m->Dv * element);
    view->prob = malloc(tile * Hq * lane_rows(shape) * sizeof *view->prob);
    view->out = malloc(tile * Hq * (size_t)m->Dv * sizeof *view->out);
    if (!view->k || !view->v || !view->prob || !view->out)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for a transformed layer of %zu rows",
                       lane_rows(shape));
    return RA_OK;
}

void ra_engine_close_beside(struct ra_lane_view *view)
{
    free(view->k);
    free(view->v);
    free(view->prob);
    free(view->out);
}

enum ra_status ra_engine_transform(const struct ra_replay_config *config,
                                   const struct ra_shape *shape, const struct ra_lane *lane,
                                   const struct ra_transform_chain *chain, struct ra_lane_kv *kv,
                                   struct ra_error *err)
{
    const struct ra_model *m = shape->model;
    struct ra_transform_rows rows = {
        .model = m, .P = shape->P, .n = (int32_t)lane_rows(shape), .k = kv->k, .v = kv->v};
    float *acc = NULL, *q = NULL;
    RA_BUG_ON(lane->window);
    rows.W = shape->seq->W < shape->P ? shape->seq->W : shape->P;
    q = malloc((size_t)m->Hq * (size_t)rows.W * (size_t)m->D * sizeof *q);
    enum ra_status st = q ? ra_shape_read_tail(shape, config, lane, rows.W, q, err)
                          : ra_fail(err, RA_ENOMEM, "engine: no memory for queries");
    if (st == RA_OK && shape->seq->has_acc) {
        acc = malloc((size_t)m->Hq * (size_t)shape->seq->P * sizeof *acc);
        st = acc ? ra_shape_read_acc(shape, config, lane, acc, err)
                 : ra_fail(err, RA_ENOMEM, "engine: no memory for acc of layer %d", lane->id);
    }
    rows.acc = acc;
    rows.q = q;
    if (st == RA_OK)
        st = ra_transform_apply(chain, &rows, &kv->bits, err);
    free(acc);
    free(q);
    return st;
}

struct ra_transformed {
    const struct ra_members *members;
    int policy;
    const struct ra_transform_chain *chain;
    struct ra_decode_rows *rows; /* [members->n]; q is the member's own */
    struct ra_lane_kv kv;        /* a lane of any member */
};

static enum ra_status copy_rows(const struct ra_member *member, struct ra_decode_rows *rows,
                                struct ra_error *err)
{
    const struct ra_model *m = member->shape.model;
    size_t n = (size_t)member->shape.n_lanes * (size_t)member->shape.run_steps * (size_t)m->Hkv;
    size_t e = ra_dtype_bytes(m->dtype), k = n * (size_t)m->D * e, v = n * (size_t)m->Dv * e;
    rows->q = member->rows.q;
    rows->k = malloc(k + 1);
    rows->v = malloc(v + 1);
    if (!rows->k || !rows->v)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for transformed rows of %zu bytes",
                       k + v);
    memcpy(rows->k, member->rows.k, k);
    memcpy(rows->v, member->rows.v, v);
    return RA_OK;
}

static enum ra_status open_rows(struct ra_transformed *t, struct ra_error *err)
{
    const struct ra_model *m = t->members->list[0].shape.model;
    size_t e = ra_dtype_bytes(m->dtype), most = 0;
    t->rows = calloc((size_t)t->members->n, sizeof *t->rows);
    if (!t->rows)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for rows of %d copies", t->members->n);
    for (int i = 0; i < t->members->n; i++) {
        size_t own = lane_rows(&t->members->list[i].shape);
        most = own > most ? own : most;
        RA_TRY(copy_rows(&t->members->list[i], &t->rows[i], err));
    }
    most *= (size_t)m->Hkv;
    t->kv.k = malloc(most * (size_t)m->D * e);
    t->kv.v = malloc(most * (size_t)m->Dv * e);
    if (!t->kv.k || !t->kv.v)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for a layer of %zu rows", most);
    return RA_OK;
}

enum ra_status ra_transformed_open(struct ra_transformed **transformed,
                                   const struct ra_members *members, int policy,
                                   struct ra_error *err)
{
    const struct ra_replay_config *config = &members->list[0].config;
    const struct ra_transform_chain *chain = ra_policy_spec_transform(config->specs[policy]);
    *transformed = NULL;
    if (!chain)
        return RA_OK;
    struct ra_transformed *t = calloc(1, sizeof *t);
    if (!t)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for transformed rows");
    *t = (struct ra_transformed){.members = members, .policy = policy, .chain = chain};
    *transformed = t;
    return open_rows(t, err);
}

void ra_transformed_close(struct ra_transformed *t)
{
    if (!t)
        return;
    for (int i = 0; t->rows && i < t->members->n; i++) {
        free(t->rows[i].k);
        free(t->rows[i].v);
    }
    free(t->rows);
    free(t->kv.k);
    free(t->kv.v);
    free(t);
}

const struct ra_decode_rows *ra_transformed_rows(const struct ra_transformed *t, int member)
{
    return &t->rows[member];
}

/* Rows P.. of all heads of a lane, one contiguous row per step, as they are appended. */
static void keep_decoded(const struct ra_shape *shape, int lane, const char *from, size_t row,
                         char *to)
{
    size_t Hkv = (size_t)shape->model->Hkv, n = (size_t)shape->run_steps, rows = lane_rows(shape);
    char *out = to + (size_t)lane * n * Hkv * row;
    for (size_t h = 0; h < Hkv; h++)
        for (size_t i = 0; i < n; i++)
            memcpy(out + (i * Hkv + h) * row, from + (h * rows + (size_t)shape->P + i) * row, row);
}

/* What rows take, and the keys, to which selections are held: the same in each repeat. */
static enum ra_status keep_books(const struct ra_transformed *t, const struct ra_member *member,
                                 const struct ra_lane *lane, struct ra_error *err)
{
    struct ra_track *track = &member->tracks[t->policy];
    size_t Hkv = (size_t)member->shape.model->Hkv, e = ra_dtype_bytes(member->shape.model->dtype);
    size_t head = lane_rows(&member->shape) * (size_t)member->shape.model->D * e;
    track->row_bits[lane->full] = t->kv.bits;
    for (size_t h = 0; h < Hkv; h++) {
        size_t slot = (size_t)lane->full * Hkv + h;
        if (ra_spool_size(track->keys, slot) == 0)
            RA_TRY(ra_spool_put(track->keys, slot, t->kv.k + h * head, head, err));
    }
    return RA_OK;
}

enum ra_status ra_transformed_load(struct ra_transformed *t, int member, int lane,
                                   struct ra_prompt_rows *rows, struct ra_error *err)
{
    const struct ra_member *own = &t->members->list[member];
    const struct ra_shape *shape = &own->shape;
    const struct ra_model *m = shape->model;
    size_t e = ra_dtype_bytes(m->dtype), n = lane_rows(shape);
    size_t k_row = (size_t)m->D * e, v_row = (size_t)m->Dv * e;
    for (int h = 0; h < m->Hkv; h++) {
        struct ra_trace_slice slice = {own->config.seq, shape->lanes[lane].index, RA_TRACE_K, h, 0,
                                       (int32_t)n};
        RA_TRY(
            ra_shape_read(shape, own->config.trace, slice, t->kv.k + (size_t)h * n * k_row, err));
        slice.part = RA_TRACE_V;
        RA_TRY(
            ra_shape_read(shape, own->config.trace, slice, t->kv.v + (size_t)h * n * v_row, err));
    }
    RA_TRY(ra_engine_transform(&own->config, shape, &shape->lanes[lane], t->chain, &t->kv, err));
    RA_TRY(keep_books(t, own, &shape->lanes[lane], err));
    keep_decoded(shape, lane, t->kv.k, k_row, t->rows[member].k);
    keep_decoded(shape, lane, t->kv.v, v_row, t->rows[member].v);
    *rows = (struct ra_prompt_rows){
        .k = t->kv.k, .v = t->kv.v, .k_stride = n * k_row, .v_stride = n * v_row, .P = shape->P};
    return RA_OK;
}
