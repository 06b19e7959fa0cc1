/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A replay as a safetensors file that anyone can audit: which steps were full, which positions were
 * attended, the mass they held, the error, and the backend's output.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/engine_internal.h"
#include "traces/safetensors.h"

struct export
{
    struct ra_track *track;
    struct ra_st_writer *writer;
    size_t out, mass, rel_err, is_full, attended, attended_len, layer_ids;
    int H;           /* heads that have sets of their own */
    int32_t longest; /* A: longest set that is not everything, at least 1 */
    int32_t *record;
    size_t record_bytes;
    int32_t *row;  /* [H][longest] */
    float *narrow; /* [Hq] */
};

static enum ra_status load(struct export *x, const struct ra_spool *spool, enum ra_record kind,
                           int full, int32_t t, struct ra_error *err)
{
    size_t slot = ra_shape_slot(x->track->shape, kind, full, t);
    size_t n = ra_spool_size(spool, slot);
    RA_BUG_ON(n == 0);
    if (n > x->record_bytes) {
        void *more = realloc(x->record, n);
        if (!more)
            return ra_fail(err, RA_ENOMEM, "export: no memory for a record of %zu bytes", n);
        x->record = more;
        x->record_bytes = n;
    }
    return ra_spool_get((struct ra_spool *)(uintptr_t)spool, slot, x->record, err);
}

/* First pass over the sets: how many heads, how long the longest. */
static enum ra_status survey(struct export *x, struct ra_error *err)
{
    const struct ra_shape *shape = x->track->shape;
    x->longest = 1;
    for (int l = 0; l < shape->n_full; l++)
        for (int32_t s = 0; s < shape->n_steps; s++) {
            RA_TRY(load(x, x->track->spool, RA_RECORD_SETS, l, shape->first_step + s, err));
            x->H = x->record[0] > x->H ? x->record[0] : x->H;
            for (int i = 0; i < x->record[0]; i++)
                x->longest = x->record[1 + i] > x->longest ? x->record[1 + i] : x->longest;
        }
    return RA_OK;
}

static enum ra_status declare(struct export *x, struct ra_error *err)
{
    const struct ra_shape *shape = x->track->shape;
    uint64_t N = (uint64_t)shape->n_steps, layers = (uint64_t)shape->n_full;
    uint64_t Hq = (uint64_t)shape->model->Hq, Dv = (uint64_t)shape->model->Dv;
    uint64_t H = (uint64_t)x->H, A = (uint64_t)x->longest;
    struct ra_st_writer *w = x->writer;
    char first[16], seq[16];
    snprintf(first, sizeof first, "%d", shape->first_step);
    snprintf(seq, sizeof seq, "%d", x->track->config->seq);
    const char *const metadata[][2] = {{"format", "rattn-export"},
                                       {"version", "1.0"},
                                       {"policy", ra_policy_spec_canonical(x->track->spec)},
                                       {"trace", shape->info->path},
                                       {"trace.sha256", shape->info->sha256},
                                       {"sequence", seq},
                                       {"first_step", first},
                                       {"backend", x->track->config->backend->name},
                                       {"attended_heads", x->track->is_wide ? "query" : "kv"}};
    for (size_t i = 0; i < sizeof metadata / sizeof metadata[0]; i++)
        RA_TRY(ra_st_writer_metadata(w, metadata[i][0], metadata[i][1], err));
    const uint64_t out[] = {N, layers, Hq, Dv}, per_head[] = {N, layers, Hq};
    const uint64_t attended[] = {N, layers, H, A};
    RA_TRY(ra_st_writer_tensor(w, "out", RA_ST_F32, 4, out, &x->out, err));
    RA_TRY(ra_st_writer_tensor(w, "mass", RA_ST_F32, 3, per_head, &x->mass, err));
    RA_TRY(ra_st_writer_tensor(w, "rel_err", RA_ST_F32, 3, per_head, &x->rel_err, err));
    RA_TRY(ra_st_writer_tensor(w, "attended", RA_ST_I32, 4, attended, &x->attended, err));
    RA_TRY(ra_st_writer_tensor(w, "attended_len", RA_ST_I32, 3, attended, &x->attended_len, err));
    RA_TRY(ra_st_writer_tensor(w, "layer_ids", RA_ST_I32, 1, &layers, &x->layer_ids, err));
    RA_TRY(ra_st_writer_tensor(w, "is_full", RA_ST_U8, 2, out, &x->is_full, err));
    return ra_st_writer_begin(w, err);
}

static enum ra_status put_floats(struct export *x, size_t tensor, const double *values, size_t at,
                                 struct ra_error *err)
{
    size_t Hq = (size_t)x->track->shape->model->Hq;
    for (size_t h = 0; h < Hq; h++)
        x->narrow[h] = (float)values[h];
    return ra_st_writer_put(x->writer, tensor, at * Hq * 4, x->narrow, Hq * 4, err);
}

static enum ra_status put_sets(struct export *x, size_t at, struct ra_error *err)
{
    size_t H = (size_t)x->H, A = (size_t)x->longest, used = (size_t)x->record[0] + 1;
    int32_t n_sets = x->record[0];
    int32_t *lengths = x->track->set_storage; /* [Hq] at least */
    for (size_t i = 0; i < H * A; i++)
        x->row[i] = -1;
    for (size_t i = 0; i < H; i++) {
        /* A layer-step of another shape (everything, per KV head) is repeated over its group. */
        size_t from = i * (size_t)n_sets / H;
        int32_t n = x->record[1 + from];
        lengths[i] = n < 0 ? -n : n;
    }
    for (size_t i = 0; i < (size_t)n_sets; i++) {
        int32_t n = x->record[1 + i];
        if (n > 0) {
            memcpy(x->row + i * A, x->record + used, (size_t)n * sizeof *x->row);
            used += (size_t)n;
        }
    }
    RA_TRY(ra_st_writer_put(x->writer, x->attended, at * H * A * 4, x->row, H * A * 4, err));
    return ra_st_writer_put(x->writer, x->attended_len, at * H * 4, lengths, H * 4, err);
}

static enum ra_status put_layer_step(struct export *x, int l, int32_t s, struct ra_error *err)
{
    const struct ra_track *track = x->track;
    const struct ra_shape *shape = track->shape;
    size_t Hq = (size_t)shape->model->Hq, Dv = (size_t)shape->model->Dv;
    size_t at = (size_t)s * (size_t)shape->n_full + (size_t)l; /* [N][layers] */
    size_t from = ra_shape_at(shape, l, shape->first_step + s);
    uint8_t is_full = (track->flags[from] & RA_FLAG_FULL) != 0;
    RA_TRY(load(x, track->spool, RA_RECORD_SETS, l, shape->first_step + s, err));
    RA_TRY(put_sets(x, at, err));
    RA_TRY(put_floats(x, x->mass, track->mass + from * Hq, at, err));
    RA_TRY(put_floats(x, x->rel_err, track->err + from * Hq, at, err));
    RA_TRY(ra_st_writer_put(x->writer, x->is_full, at, &is_full, 1, err));
    RA_TRY(load(x, track->output, RA_RECORD_OUT, l, shape->first_step + s, err));
    return ra_st_writer_put(x->writer, x->out, at * Hq * Dv * 4, x->record, Hq * Dv * 4, err);
}

static enum ra_status write_file(struct export *x, const char *path, struct ra_error *err)
{
    const struct ra_shape *shape = x->track->shape;
    RA_TRY(survey(x, err));
    x->row = malloc((size_t)x->H * (size_t)x->longest * sizeof *x->row);
    x->narrow = malloc((size_t)shape->model->Hq * sizeof *x->narrow);
    if (!x->row || !x->narrow)
        return ra_fail(err, RA_ENOMEM, "export: no memory for sets of %d", x->longest);
    RA_TRY(ra_st_writer_open(&x->writer, path, err));
    RA_TRY(declare(x, err));
    for (int32_t s = 0; s < shape->n_steps; s++)
        for (int l = 0; l < shape->n_full; l++)
            RA_TRY(put_layer_step(x, l, s, err));
    RA_TRY(ra_st_writer_put(x->writer, x->layer_ids, 0, shape->full_ids,
                            (size_t)shape->n_full * sizeof *shape->full_ids, err));
    return ra_st_writer_commit(x->writer, err);
}

enum ra_status ra_engine_export(struct ra_track *track, const char *path, struct ra_error *err)
{
    struct export x = {.track = track};
    enum ra_status st = write_file(&x, path, err);
    ra_st_writer_close(x.writer);
    free(x.record);
    free(x.row);
    free(x.narrow);
    return st;
}
