/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file source: at open every tensor that the metadata promises is looked up once
 * (trace_tensors.c); reading is then an address and a pread.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/metadata.h"
#include "traces/shards.h"
#include "traces/trace_shape.h"
#include "traces/trace_source.h"
#include "traces/trace_tensors.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "stored values are little-endian");

struct source {
    struct ra_shards *shards;
    struct ra_trace_shape shape;
    struct ra_trace_info info;
    struct ra_trace_seq *seqs;                    /* [n_seq] */
    struct ra_trace_seq_tensors *tensors;         /* [n_seq] */
    struct ra_trace_layer_tensors *layer_tensors; /* [n_seq][n_layers], shared out to `tensors` */
};

/* "PREFIX<digits>." at *text: the number, and *text moves behind the dot; -1 for anything else. */
static int64_t numbered_part(const char **text, char prefix)
{
    const char *at = *text;
    if (*at++ != prefix)
        return -1;
    char digits[12];
    size_t n = strspn(at, "0123456789");
    int32_t number;
    snprintf(digits, sizeof digits, "%.*s", n < sizeof digits ? (int)n : 0, at);
    if (at[n] != '.' || !ra_metadata_parse_int(digits, &number))
        return -1;
    *text = at + n + 1;
    return number;
}

/* Tensors of a sequence or layer that the metadata does not list are a mistake, not an extra. */
static enum ra_status check_strays(const struct source *s, struct ra_error *err)
{
    for (size_t i = 0; i < ra_shards_count(s->shards); i++) {
        struct ra_shard_tensor found = ra_shards_at(s->shards, i);
        const char *rest = found.tensor->name;
        int64_t seq = numbered_part(&rest, 's');
        int64_t layer = seq < 0 ? -1 : numbered_part(&rest, 'l');
        if (seq >= s->info.n_seq)
            return ra_fail(err, RA_EFORMAT, "%s: %.100s: sequence %" PRId64 ", n_seq is %d",
                           ra_st_path(found.file), found.tensor->name, seq, s->info.n_seq);
        int lo = 0, hi = s->info.n_layers;
        while (lo < hi) {
            int mid = (lo + hi) / 2;
            if (s->info.layers[mid].id < layer)
                lo = mid + 1;
            else
                hi = mid;
        }
        if (layer >= 0 && (lo == s->info.n_layers || s->info.layers[lo].id != layer))
            return ra_fail(err, RA_EFORMAT, "%s: %.100s: layer %" PRId64 " is not in layers",
                           ra_st_path(found.file), found.tensor->name, layer);
    }
    return RA_OK;
}

static enum ra_status allocate_sequences(struct source *s, struct ra_error *err)
{
    /* Each sequence and layer has three tensors, so the file bounds what is allocated. */
    size_t n_layers = (size_t)s->shape.n_layers;
    size_t room = ra_shards_count(s->shards) / (3 * n_layers);
    int32_t n_seq;
    RA_TRY(ra_metadata_int(s->shards, "n_seq", true, 1, RA_ST_MAX_TENSORS, &n_seq, err));
    if ((size_t)n_seq > room)
        return ra_fail(
            err, RA_EFORMAT,
            "%s: metadata: n_seq: %d sequences of %zu layers need %zu tensors, there are "
            "%zu",
            s->info.path, n_seq, n_layers, (size_t)n_seq * n_layers * 3,
            ra_shards_count(s->shards));
    s->info.n_seq = n_seq;
    s->seqs = calloc((size_t)n_seq, sizeof *s->seqs);
    s->tensors = calloc((size_t)n_seq, sizeof *s->tensors);
    s->layer_tensors = calloc((size_t)n_seq * n_layers, sizeof *s->layer_tensors);
    if (!s->seqs || !s->tensors || !s->layer_tensors)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", s->info.path);
    for (int32_t seq = 0; seq < n_seq; seq++)
        s->tensors[seq].layers = s->layer_tensors + (size_t)seq * n_layers;
    s->info.seqs = s->seqs;
    return RA_OK;
}

static enum ra_status open_all(struct source *s, const char *name, struct ra_error *err)
{
    RA_TRY(ra_shards_open(&s->shards, name, err));
    s->info.path = ra_shards_path(s->shards);
    RA_TRY(ra_trace_shape_read(s->shards, &s->shape, err));
    s->info.model = s->shape.model;
    s->info.n_layers = s->shape.n_layers;
    s->info.layers = s->shape.layers;
    s->info.check_tolerance = s->shape.check_tolerance;
    s->info.model_id = ra_shards_metadata(s->shards, "model.id");
    if (!s->info.model_id)
        s->info.model_id = "unknown";
    s->info.synthetic = ra_shards_metadata(s->shards, "synthetic");
    ra_shards_stated_digest(s->shards, s->info.sha256);
    RA_TRY(allocate_sequences(s, err));
    RA_TRY(check_strays(s, err));
    RA_TRY(ra_trace_tensors_dtype(s->shards, s->info.layers[0].id, &s->info.model.dtype, err));
    for (int seq = 0; seq < s->info.n_seq; seq++) {
        struct ra_trace_find find = {s->shards, &s->info, seq, &s->seqs[seq], &s->tensors[seq]};
        RA_TRY(ra_trace_tensors_find(&find, err));
    }
    return RA_OK;
}

static void close_source(void *self)
{
    struct source *s = self;
    if (!s)
        return;
    free(s->seqs);
    free(s->tensors);
    free(s->layer_tensors);
    ra_trace_shape_fini(&s->shape);
    ra_shards_close(s->shards);
    free(s);
}

static enum ra_status open_source(void **self, const char *name, struct ra_error *err)
{
    *self = NULL;
    struct source *s = calloc(1, sizeof *s);
    if (!s)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", name);
    enum ra_status st = open_all(s, name, err);
    if (st == RA_OK)
        *self = s;
    else
        close_source(s);
    return st;
}

static const struct ra_trace_info *get_info(const void *self)
{
    return &((const struct source *)self)->info;
}

static const char *get_metadata(const void *self, const char *key)
{
    return ra_shards_metadata(((const struct source *)self)->shards, key);
}

static enum ra_status read_rows(const void *self, const struct ra_trace_slice *slice, void *out,
                                struct ra_error *err)
{
    const struct source *s = self;
    struct ra_shard_tensor t = s->tensors[slice->seq].layers[slice->layer].kvq[slice->part];
    uint64_t row_bytes = t.tensor->shape[2] * ra_st_dtype_bytes(t.tensor->dtype);
    int32_t begin = slice->part == RA_TRACE_Q ? 0 : s->info.layers[slice->layer].first;
    uint64_t row = (uint64_t)slice->head * t.tensor->shape[1] + (uint64_t)(slice->first - begin);
    return ra_st_read(t.file, t.tensor, row * row_bytes, out,
                      (size_t)((uint64_t)slice->n * row_bytes), err);
}

static enum ra_status read_whole(struct ra_shard_tensor t, void *out, struct ra_error *err)
{
    return ra_st_read(t.file, t.tensor, 0, out, (size_t)t.tensor->bytes, err);
}

static enum ra_status read_acc(const void *self, int seq, int layer, float *out,
                               struct ra_error *err)
{
    const struct source *s = self;
    struct ra_shard_tensor t = s->tensors[seq].layers[layer].acc;
    if (!t.tensor) /* a window layer may lack it where full layers have it */
        return ra_fail(err, RA_EUSAGE, "%s: s%d.l%d.acc: not in this trace", s->info.path, seq,
                       s->info.layers[layer].id);
    return read_whole(t, out, err);
}

static enum ra_status read_tokens(const void *self, int seq, int32_t *out, struct ra_error *err)
{
    return read_whole(((const struct source *)self)->tensors[seq].tokens, out, err);
}

static enum ra_status read_logprob(const void *self, int seq, float *out, struct ra_error *err)
{
    return read_whole(((const struct source *)self)->tensors[seq].logprob, out, err);
}

static enum ra_status read_check_steps(const void *self, int seq, int32_t *out,
                                       struct ra_error *err)
{
    return read_whole(((const struct source *)self)->tensors[seq].check_steps, out, err);
}

static enum ra_status read_check_rows(const void *self, int seq, int layer, float *o, float *lse,
                                      struct ra_error *err)
{
    const struct source *s = self;
    const struct ra_trace_layer_tensors *t = &s->tensors[seq].layers[layer];
    RA_TRY(read_whole(t->o, o, err));
    if (!lse)
        return RA_OK;
    size_t n = (size_t)s->info.model.Hq * (size_t)s->seqs[seq].n_check;
    for (size_t i = 0; i < n; i++)
        lse[i] = __builtin_nanf("");
    if (!t->lse.tensor)
        return RA_OK;
    RA_TRY(read_whole(t->lse, lse, err));
    if (ra_first_nonfinite(RA_F32, lse, n) == n)
        return RA_OK;
    return ra_fail(err, RA_EFORMAT, "%s: %s: row %zu: expected a number, got NaN or Inf",
                   s->info.path, t->lse.tensor->name, ra_first_nonfinite(RA_F32, lse, n));
}

static enum ra_status read_token_types(const void *self, int seq, uint8_t *out, const char **names,
                                       struct ra_error *err)
{
    const struct source *s = self;
    *names = ra_shards_metadata(s->shards, "token_types");
    return read_whole(s->tensors[seq].token_type, out, err);
}

static enum ra_status verify_digest(const void *self, struct ra_error *err)
{
    return ra_shards_verify_digest(((const struct source *)self)->shards, err);
}

const struct ra_trace_source_ops ra_trace_source_file = {
    .name = "safetensors",
    .open = open_source,
    .info = get_info,
    .metadata = get_metadata,
    .read = read_rows,
    .acc = read_acc,
    .tokens = read_tokens,
    .logprob = read_logprob,
    .check_steps = read_check_steps,
    .check_rows = read_check_rows,
    .token_types = read_token_types,
    .verify_digest = verify_digest,
    .close = close_source,
};
