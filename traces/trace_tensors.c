/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every tensor is named by its sequence, layer and part, looked up once, and compared with the
 * shape that the metadata gives it; afterwards reading needs no more checks.
 */
#include "traces/trace_tensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "traces/metadata.h"

enum { MAX_TOKENS = 1 << 30, MAX_TOKEN_TYPES = 256 };

/* What a tensor must look like. */
struct expected {
    enum ra_st_dtype dtype;
    int rank;
    uint64_t shape[3];
    const char *meaning; /* of the extents: "n_kv_heads, P + N, head_dim" */
};

static void print_shape(char *out, size_t size, int rank, const uint64_t *shape)
{
    size_t used = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < rank && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%" PRIu64, i ? ", " : "", shape[i]);
    if (used < size)
        snprintf(out + used, size - used, "]");
}

static enum ra_status check_tensor(struct ra_shard_tensor found, const struct expected *want,
                                   struct ra_error *err)
{
    const struct ra_st_tensor *t = found.tensor;
    if (t->dtype != want->dtype)
        return ra_fail(err, RA_EFORMAT, "%s: %s: dtype: expected %s, got %.20s",
                       ra_st_path(found.file), t->name, ra_st_dtype_name(want->dtype),
                       t->dtype_text);
    if (t->rank == want->rank &&
        memcmp(t->shape, want->shape, (size_t)t->rank * sizeof *t->shape) == 0)
        return RA_OK;
    char expected[80], got[200];
    print_shape(expected, sizeof expected, want->rank, want->shape);
    print_shape(got, sizeof got, t->rank, t->shape);
    return ra_fail(err, RA_EFORMAT, "%s: %s: shape: expected %s (%s), got %s",
                   ra_st_path(found.file), t->name, expected, want->meaning, got);
}

/* Look a tensor up; absent, *found stays empty, and that is an error if it is required. */
static enum ra_status find(const struct ra_trace_find *s, const char *name, bool required,
                           const struct expected *want, struct ra_shard_tensor *found,
                           struct ra_error *err)
{
    *found = ra_shards_find(s->shards, name);
    if (found->tensor)
        return check_tensor(*found, want, err);
    if (required)
        return ra_fail(err, RA_EFORMAT, "%s: %s: missing", s->info->path, name);
    return RA_OK;
}

static const enum ra_st_dtype stored_dtypes[] = {
    [RA_F16] = RA_ST_F16, [RA_BF16] = RA_ST_BF16, [RA_F32] = RA_ST_F32};

enum ra_status ra_trace_tensors_dtype(const struct ra_shards *shards, int layer_id,
                                      enum ra_dtype *dtype, struct ra_error *err)
{
    char name[48];
    snprintf(name, sizeof name, "s0.l%d.k", layer_id);
    struct ra_shard_tensor found = ra_shards_find(shards, name);
    if (!found.tensor)
        return ra_fail(err, RA_EFORMAT, "%s: %s: missing", ra_shards_path(shards), name);
    for (int i = RA_F16; i <= RA_F32; i++) {
        if (found.tensor->dtype == stored_dtypes[i]) {
            *dtype = (enum ra_dtype)i;
            return RA_OK;
        }
    }
    return ra_fail(err, RA_EFORMAT, "%s: %s: dtype: expected F16, BF16 or F32, got %.20s",
                   ra_st_path(found.file), name, found.tensor->dtype_text);
}

static enum ra_status read_seq_metadata(struct ra_trace_find *s, struct ra_error *err)
{
    struct ra_trace_seq *out = s->seq;
    char key[48];
    int32_t first_pos = 0;
    snprintf(key, sizeof key, "s%d.prompt_len", s->number);
    RA_TRY(ra_metadata_int(s->shards, key, true, 1, MAX_TOKENS - 1, &out->P, err));
    snprintf(key, sizeof key, "s%d.decode_len", s->number);
    RA_TRY(ra_metadata_int(s->shards, key, true, 1, MAX_TOKENS - 1, &out->N, err));
    snprintf(key, sizeof key, "s%d.q_tail", s->number);
    RA_TRY(ra_metadata_int(s->shards, key, true, 1, out->P, &out->W, err));
    snprintf(key, sizeof key, "s%d.first_pos", s->number);
    RA_TRY(ra_metadata_int(s->shards, key, false, 0, 0, &first_pos, err));
    snprintf(key, sizeof key, "s%d.prefix", s->number);
    if (ra_shards_metadata(s->shards, key))
        return ra_metadata_fail(s->shards, key, "nothing: shared prompts are not read",
                                ra_shards_metadata(s->shards, key), err);
    snprintf(key, sizeof key, "s%d.mode", s->number);
    out->mode = ra_shards_metadata(s->shards, key);
    snprintf(key, sizeof key, "s%d.policy", s->number);
    out->schedule = ra_shards_metadata(s->shards, key);
    if (!out->mode)
        out->mode = "unknown";
    if (!out->schedule)
        out->schedule = "full";
    return RA_OK;
}

/* A window layer may leave out rows that no stored query sees. */
static enum ra_status check_first_row(const struct ra_trace_find *s, int layer,
                                      struct ra_error *err)
{
    const struct ra_trace_seq *q = s->seq;
    const struct ra_trace_layer *l = &s->info->layers[layer];
    int32_t latest = q->P - q->W + 1 - l->window;
    if (l->first == 0 || l->first <= latest)
        return RA_OK;
    return ra_fail(
        err, RA_EFORMAT,
        "%s: metadata: kv_first.l%d: expected at most %d (P - W + 1 - window of sequence "
        "%d), got %d",
        s->info->path, l->id, latest > 0 ? latest : 0, s->number, l->first);
}

/* Every layer of a trace has the same geometry; the messages say so. */
static const char kv_meaning[] = "n_kv_heads, P + N - kv_first, dimension; as in every layer";
static const char q_meaning[] = "n_q_heads, W + N, head_dim; as in every layer";

static enum ra_status find_kvq(struct ra_trace_find *s, int layer, struct ra_error *err)
{
    const struct ra_model *m = &s->info->model;
    const struct ra_trace_seq *q = s->seq;
    const struct ra_trace_layer *l = &s->info->layers[layer];
    RA_TRY(check_first_row(s, layer, err));
    enum ra_st_dtype dtype = stored_dtypes[m->dtype];
    uint64_t kv_rows = (uint64_t)q->P + (uint64_t)q->N - (uint64_t)l->first;
    uint64_t q_rows = (uint64_t)q->W + (uint64_t)q->N;
    const struct expected want[3] = {
        {dtype, 3, {(uint64_t)m->Hkv, kv_rows, (uint64_t)m->D}, kv_meaning},
        {dtype, 3, {(uint64_t)m->Hkv, kv_rows, (uint64_t)m->Dv}, kv_meaning},
        {dtype, 3, {(uint64_t)m->Hq, q_rows, (uint64_t)m->D}, q_meaning},
    };
    for (int part = 0; part < 3; part++) {
        char name[48];
        snprintf(name, sizeof name, "s%d.l%d.%c", s->number, l->id, "kvq"[part]);
        struct ra_shard_tensor *found = &s->tensors->layers[layer].kvq[part];
        RA_TRY(find(s, name, true, &want[part], found, err));
    }
    return RA_OK;
}

/* Tensors of a layer that may be absent; o must be there for all recorded layers or none. */
static enum ra_status find_optional(struct ra_trace_find *s, int layer, struct ra_error *err)
{
    const struct ra_model *m = &s->info->model;
    struct ra_trace_seq *q = s->seq;
    struct ra_trace_layer_tensors *t = &s->tensors->layers[layer];
    int id = s->info->layers[layer].id;
    uint64_t C = (uint64_t)q->n_check, Hq = (uint64_t)m->Hq;
    const struct expected acc = {RA_ST_F32, 2, {Hq, (uint64_t)q->P}, "n_q_heads, P"};
    const struct expected o = {
        RA_ST_F32, 3, {Hq, C, (uint64_t)m->Dv}, "n_q_heads, check steps, v_head_dim"};
    const struct expected lse = {RA_ST_F32, 2, {Hq, C}, "n_q_heads, check steps"};
    char name[48];
    snprintf(name, sizeof name, "s%d.l%d.acc", s->number, id);
    RA_TRY(find(s, name, false, &acc, &t->acc, err));
    if (!t->acc.tensor && s->info->layers[layer].window == 0)
        q->has_acc = false; /* policies start every full layer from it, or none */
    char lse_name[48];
    snprintf(name, sizeof name, "s%d.l%d.o", s->number, id);
    snprintf(lse_name, sizeof lse_name, "s%d.l%d.lse", s->number, id);
    if (!q->has_check &&
        (ra_shards_find(s->shards, name).tensor || ra_shards_find(s->shards, lse_name).tensor))
        return ra_fail(err, RA_EFORMAT,
                       "%s: s%d.check_steps: missing, there are check rows of layer %d",
                       s->info->path, s->number, id);
    RA_TRY(find(s, name, q->has_check, &o, &t->o, err));
    return find(s, lse_name, false, &lse, &t->lse, err);
}

static enum ra_status find_check_steps(struct ra_trace_find *s, struct ra_error *err)
{
    struct ra_trace_seq *q = s->seq;
    char name[48];
    snprintf(name, sizeof name, "s%d.check_steps", s->number);
    struct ra_shard_tensor found = ra_shards_find(s->shards, name);
    uint64_t C = found.tensor && found.tensor->rank == 1 ? found.tensor->shape[0] : 0;
    C = C < 1 ? 1 : C > (uint64_t)q->N ? (uint64_t)q->N : C;
    const struct expected want = {RA_ST_I32, 1, {C}, "1 to N check steps"};
    RA_TRY(find(s, name, false, &want, &s->tensors->check_steps, err));
    q->has_check = found.tensor != NULL;
    q->n_check = found.tensor ? (int32_t)C : 0;
    return RA_OK;
}

static enum ra_status find_token_types(struct ra_trace_find *s, struct ra_error *err)
{
    struct ra_trace_seq *q = s->seq;
    const struct expected want = {RA_ST_U8, 1, {(uint64_t)(q->P + q->N)}, "P + N"};
    char name[48];
    snprintf(name, sizeof name, "s%d.token_type", s->number);
    RA_TRY(find(s, name, false, &want, &s->tensors->token_type, err));
    q->has_token_type = s->tensors->token_type.tensor != NULL;
    if (!q->has_token_type)
        return RA_OK;
    const char *names;
    RA_TRY(ra_metadata_text(s->shards, "token_types", &names, err));
    int n = 0;
    for (const char *rest = names; rest; n++) {
        char item[32];
        if (!ra_metadata_item(&rest, item, sizeof item) || n == MAX_TOKEN_TYPES)
            return ra_metadata_fail(s->shards, "token_types",
                                    "up to 256 names of 1 to 31 characters", names, err);
    }
    return RA_OK;
}

enum ra_status ra_trace_tensors_find(struct ra_trace_find *s, struct ra_error *err)
{
    RA_TRY(read_seq_metadata(s, err));
    struct ra_trace_seq *q = s->seq;
    struct ra_trace_seq_tensors *t = s->tensors;
    const struct expected tokens = {RA_ST_I32, 1, {(uint64_t)(q->P + q->N) + 1}, "P + N + 1"};
    const struct expected logprob = {RA_ST_F32, 1, {(uint64_t)q->N}, "N"};
    char name[48];
    snprintf(name, sizeof name, "s%d.tokens", s->number);
    RA_TRY(find(s, name, false, &tokens, &t->tokens, err));
    snprintf(name, sizeof name, "s%d.logprob", s->number);
    RA_TRY(find(s, name, false, &logprob, &t->logprob, err));
    q->has_tokens = t->tokens.tensor != NULL;
    q->has_logprob = t->logprob.tensor != NULL;
    q->has_acc = true;
    RA_TRY(find_token_types(s, err));
    RA_TRY(find_check_steps(s, err));
    for (int layer = 0; layer < s->info->n_layers; layer++) {
        RA_TRY(find_kvq(s, layer, err));
        RA_TRY(find_optional(s, layer, err));
    }
    return RA_OK;
}
