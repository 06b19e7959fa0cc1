/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of the names; values are a hash of name and element. */
#include "tests/support/lm_weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/lm_config.h"
#include "tests/support/ra_test.h"
#include "tests/support/tmp_dir.h"

struct lm_made lm_made;

static const struct lm_tensor of_all[] = {
    {"self_attn.q_proj.weight", LM_Q, LM_HIDDEN, 0, 0},
    {"self_attn.k_proj.weight", LM_KV, LM_HIDDEN, 0, 0},
    {"self_attn.v_proj.weight", LM_KV, LM_HIDDEN, 0, 0},
    {"self_attn.o_proj.weight", LM_HIDDEN, LM_Q, 0, 0},
    {"mlp.gate_proj.weight", LM_FFN, LM_HIDDEN, 0, 0},
    {"mlp.up_proj.weight", LM_FFN, LM_HIDDEN, 0, 0},
    {"mlp.down_proj.weight", LM_HIDDEN, LM_FFN, 0, 0},
    {"input_layernorm.weight", LM_HIDDEN, 0, 0, 0},
    {"post_attention_layernorm.weight", LM_HIDDEN, 0, 0, 0},
};
static const struct lm_tensor of_qwen2[] = {
    {"self_attn.q_proj.bias", LM_Q, 0, 0, 0},
    {"self_attn.k_proj.bias", LM_KV, 0, 0, 0},
    {"self_attn.v_proj.bias", LM_KV, 0, 0, 0},
};
static const struct lm_tensor of_qwen3[] = {
    {"self_attn.q_norm.weight", LM_D, 0, 0, 0},
    {"self_attn.k_norm.weight", LM_D, 0, 0, 0},
};
static const struct lm_tensor of_gemma3[] = {
    {"pre_feedforward_layernorm.weight", LM_HIDDEN, 0, 0, 0},
    {"post_feedforward_layernorm.weight", LM_HIDDEN, 0, 0, 0},
};

struct lm_tensor *lm_add(const char *prefix, const char *name, uint64_t rows, uint64_t cols)
{
    struct lm_tensor *t = &lm_made.tensors[lm_made.n++];
    *t = (struct lm_tensor){.rows = rows, .cols = cols, .dtype = RA_ST_F32};
    snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    return t;
}

static void add_layers(const char *body, const struct lm_tensor *rows, size_t n)
{
    for (int layer = 0; layer < LM_LAYERS; layer++)
        for (size_t i = 0; i < n; i++) {
            char prefix[64];
            snprintf(prefix, sizeof prefix, "%slayers.%d.", body, layer);
            lm_add(prefix, rows[i].name, rows[i].rows, rows[i].cols);
        }
}
#define ADD_LAYERS(body, rows) add_layers(body, rows, sizeof(rows) / sizeof(rows)[0])

void lm_make(const char *body)
{
    lm_made.n = 0;
    lm_add(body, "embed_tokens.weight", LM_VOCAB, LM_HIDDEN);
    lm_add(body, "norm.weight", LM_HIDDEN, 0);
    ADD_LAYERS(body, of_all);
}

void lm_add_qwen2(const char *body)
{
    ADD_LAYERS(body, of_qwen2);
}

void lm_add_qwen3(const char *body)
{
    ADD_LAYERS(body, of_qwen3);
}

void lm_make_gemma3(const char *body)
{
    lm_make(body);
    lm_add_qwen3(body);
    ADD_LAYERS(body, of_gemma3);
}

struct lm_tensor *lm_named(const char *name)
{
    for (int i = 0; i < lm_made.n; i++)
        if (strcmp(lm_made.tensors[i].name, name) == 0)
            return &lm_made.tensors[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

float lm_value(const char *name, uint64_t i)
{
    uint64_t h = 1469598103934665603u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 1099511628211u;
    h = (h ^ (i + 1)) * 6364136223846793005u;
    return (float)((int)(h >> 56) - 128) / 64;
}

uint64_t lm_elements(const struct lm_tensor *t)
{
    return t->rows * (t->cols ? t->cols : 1);
}

static void put(struct ra_st_writer *writer, size_t index, const struct lm_tensor *t)
{
    struct ra_error err;
    size_t n = lm_elements(t), width = ra_st_dtype_bytes(t->dtype);
    float *values = malloc(n * sizeof *values);
    char *stored = calloc(n, width);
    assert_true(values && stored);
    for (size_t i = 0; i < n; i++)
        values[i] = lm_value(t->name, i);
    if (t->dtype == RA_ST_F32 || t->dtype == RA_ST_F16 || t->dtype == RA_ST_BF16)
        ra_narrow(t->dtype == RA_ST_F32   ? RA_F32
                  : t->dtype == RA_ST_F16 ? RA_F16
                                          : RA_BF16,
                  values, n, stored);
    ra_assert_ok(ra_st_writer_put(writer, index, 0, stored, n * width, &err));
    free(values);
    free(stored);
}

void lm_write_file(const char *name, int file)
{
    struct ra_error err;
    struct ra_st_writer *writer;
    size_t index[64];
    ra_assert_ok(ra_st_writer_open(&writer, tmp_path(tmp_dir, name), &err));
    ra_assert_ok(ra_st_writer_metadata(writer, "format", "pt", &err));
    for (int i = 0; i < lm_made.n; i++) {
        struct lm_tensor *t = &lm_made.tensors[i];
        if (t->file == file)
            ra_assert_ok(ra_st_writer_tensor(writer, t->name, t->dtype, t->cols ? 2 : 1,
                                             (uint64_t[]){t->rows, t->cols}, &index[i], &err));
    }
    ra_assert_ok(ra_st_writer_begin(writer, &err));
    for (int i = 0; i < lm_made.n; i++)
        if (lm_made.tensors[i].file == file)
            put(writer, index[i], &lm_made.tensors[i]);
    ra_assert_ok(ra_st_writer_commit(writer, &err));
    ra_st_writer_close(writer);
}

struct ra_lm_config *lm_write_model(const char *base, const char *change)
{
    unlink(tmp_path(tmp_dir, "model.safetensors.index.json"));
    lm_write_file("model.safetensors", 0);
    return lm_config_opened(base, change);
}
