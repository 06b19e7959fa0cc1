/* SPDX-License-Identifier: Apache-2.0 */
/* Decode rows as phase 2 appends them: a step's, of all heads, in one piece. */
#include <stdlib.h>
#include <string.h>

#include "sim/engine_member.h"

void ra_decode_rows_close(struct ra_decode_rows *rows)
{
    free(rows->k);
    free(rows->v);
    free(rows->q);
}

/* Turn head-major rows as recorded into one contiguous row per step, all heads together. */
static void scatter(const char *from, size_t n, size_t row, char *to, size_t step)
{
    for (size_t i = 0; i < n; i++)
        memcpy(to + i * step, from + i * row, row);
}

static enum ra_status read_lane_rows(struct ra_decode_rows *rows,
                                     const struct ra_replay_config *config,
                                     const struct ra_shape *shape, int lane, char *buffer,
                                     struct ra_error *err)
{
    const struct ra_model *m = shape->model;
    size_t e = ra_dtype_bytes(m->dtype), n = (size_t)shape->run_steps, l = (size_t)lane;
    size_t D = (size_t)m->D * e, Dv = (size_t)m->Dv * e;
    size_t Hkv = (size_t)m->Hkv, Hq = (size_t)m->Hq;
    int index = shape->lanes[lane].index;
    for (int h = 0; h < m->Hkv; h++) {
        struct ra_trace_slice slice = {config->seq, index,    RA_TRACE_K,
                                       h,           shape->P, shape->run_steps};
        RA_TRY(ra_shape_read(shape, config->trace, slice, buffer, err));
        scatter(buffer, n, D, rows->k + l * n * Hkv * D + (size_t)h * D, Hkv * D);
        slice.part = RA_TRACE_V;
        RA_TRY(ra_shape_read(shape, config->trace, slice, buffer, err));
        scatter(buffer, n, Dv, rows->v + l * n * Hkv * Dv + (size_t)h * Dv, Hkv * Dv);
    }
    for (int h = 0; h < m->Hq; h++) {
        RA_TRY(ra_trace_read(config->trace,
                             &(struct ra_trace_slice){config->seq, index, RA_TRACE_Q, h,
                                                      shape->seq->W - 1, shape->run_steps + 1},
                             buffer, err));
        scatter(buffer, n + 1, D, rows->q + l * (n + 1) * Hq * D + (size_t)h * D, Hq * D);
    }
    return RA_OK;
}

static enum ra_status read_rows(struct ra_decode_rows *rows, const struct ra_replay_config *config,
                                const struct ra_shape *shape, struct ra_error *err)
{
    const struct ra_model *m = shape->model;
    size_t e = ra_dtype_bytes(m->dtype), n = (size_t)shape->run_steps;
    size_t lanes = (size_t)shape->n_lanes, widest = (size_t)(m->D > m->Dv ? m->D : m->Dv);
    *rows = (struct ra_decode_rows){0};
    rows->k = malloc(lanes * n * (size_t)(m->Hkv * m->D) * e);
    rows->v = malloc(lanes * n * (size_t)(m->Hkv * m->Dv) * e);
    rows->q = malloc(lanes * (n + 1) * (size_t)(m->Hq * m->D) * e);
    char *buffer = malloc((n + 1) * widest * e);
    enum ra_status st = RA_OK;
    if (!rows->k || !rows->v || !rows->q || !buffer)
        st = ra_fail(err, RA_ENOMEM, "engine: no memory for %zu decode rows of %zu layers", n,
                     lanes);
    for (int l = 0; st == RA_OK && l < shape->n_lanes; l++)
        st = read_lane_rows(rows, config, shape, l, buffer, err);
    free(buffer);
    return st;
}

enum ra_status ra_members_read_rows(struct ra_members *members, struct ra_error *err)
{
    for (int i = 0; i < members->n; i++) {
        struct ra_member *member = &members->list[i];
        if (i == 0 || member->config.with)
            RA_TRY(read_rows(&member->rows, &member->config, &member->shape, err));
        else
            member->rows = members->list[0].rows;
    }
    return RA_OK;
}
