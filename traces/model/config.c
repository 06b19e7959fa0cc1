/* SPDX-License-Identifier: Apache-2.0 */
/* Families are rows of a table; what a file leaves out has the value Hugging Face gives it. */
#include "traces/model/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "traces/file.h"
#include "traces/json_members.h"
#include "traces/model/config_rope.h"
#include "traces/model/config_unsupported.h"
#include "traces/model/config_window.h"

enum {
    MAX_BYTES = 1 << 20, /* of a config.json */
    MAX_WIDTH = 1 << 20,
    MAX_FFN = 1 << 22,
    MAX_VOCAB = 1 << 24,
    MAX_HEADS = 4096,
    MAX_D = 256
};

struct family {
    const char *model_type, *arch;
    bool qkv_bias, qk_norm;
    bool has_own_head_dim; /* states it; the others fall back to hidden / heads */
    bool is_gemma;
    enum ra_lm_window_rule window;
};

static const struct family families[] = {
    {"llama", "llama", false, false, false, false, RA_LM_WINDOW_NONE},
    {"mistral", "mistral", false, false, false, false, RA_LM_WINDOW_ALL},
    {"qwen2", "qwen2", true, false, false, false, RA_LM_WINDOW_LAST},
    {"qwen3", "qwen3", false, true, true, false, RA_LM_WINDOW_LAST},
    {"gemma3_text", "gemma3", false, true, false, true, RA_LM_WINDOW_PATTERN},
};

/* A model of text and images around the text model. */
#define NESTED "gemma3"

static enum ra_status find_family(const struct ra_lm_keys *keys, const struct family **family,
                                  struct ra_error *err)
{
    const char *type = "";
    RA_TRY(ra_lm_keys_text(keys, "model_type", &type, err));
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (strcmp(type, families[i].model_type) == 0) {
            *family = &families[i];
            return RA_OK;
        }
    }
    return ra_lm_keys_fail(keys, RA_EUSAGE, "model_type",
                           "llama, mistral, qwen2, qwen3, gemma3 or gemma3_text", err);
}

/* Text and vision model together: the text model is an object of its own, whose type may be left
 * out. */
static enum ra_status enter_text(const struct ra_lm_keys *root, struct ra_lm_keys *keys,
                                 const struct family **family, struct ra_error *err)
{
    const char *type = "";
    RA_TRY(ra_lm_keys_text(root, "model_type", &type, err));
    *keys = *root;
    if (strcmp(type, NESTED) != 0)
        return find_family(root, family, err);
    RA_TRY(ra_lm_config_unsupported(root, err));
    RA_TRY(ra_lm_keys_object(root, "text_config", keys, err));
    if (!keys->object)
        return ra_lm_keys_fail(root, RA_EFORMAT, "text_config", "an object", err);
    *family = &families[sizeof families / sizeof families[0] - 1];
    type = (*family)->model_type;
    RA_TRY(ra_lm_keys_text(keys, "model_type", &type, err));
    if (strcmp(type, (*family)->model_type) != 0)
        return ra_lm_keys_fail(keys, RA_EUSAGE, "model_type", (*family)->model_type, err);
    return RA_OK;
}

static enum ra_status read_heads(struct ra_lm_config *c, const struct ra_lm_keys *keys,
                                 const struct family *family, struct ra_error *err)
{
    bool gemma = family->is_gemma;
    c->Hq = 8;
    RA_TRY(ra_lm_keys_int(keys, "num_attention_heads", !gemma, 1, MAX_HEADS, &c->Hq, err));
    c->Hkv = gemma ? 4 : c->Hq;
    RA_TRY(ra_lm_keys_int(keys, "num_key_value_heads", false, 1, MAX_HEADS, &c->Hkv, err));
    if (c->Hq % c->Hkv != 0) {
        char expected[64];
        snprintf(expected, sizeof expected, "a divisor of num_attention_heads %d", c->Hq);
        return ra_lm_keys_fail(keys, RA_EFORMAT, "num_key_value_heads", expected, err);
    }
    c->D = gemma ? 256 : 0;
    RA_TRY(ra_lm_keys_int(keys, "head_dim", family->has_own_head_dim, 1, MAX_WIDTH, &c->D, err));
    if (c->D == 0 && c->hidden % c->Hq == 0)
        c->D = c->hidden / c->Hq;
    if (c->D >= 8 && c->D <= MAX_D && c->D % 8 == 0)
        return RA_OK;
    if (ra_lm_keys_get(keys, "head_dim"))
        return ra_lm_keys_fail(keys, RA_EUSAGE, "head_dim", "a multiple of 8 up to 256", err);
    return ra_fail(err, RA_EUSAGE,
                   "%s: %shead_dim: expected a multiple of 8 up to 256, got hidden_size %d / "
                   "num_attention_heads %d",
                   keys->path, keys->inside, c->hidden, c->Hq);
}

static enum ra_status read_sizes(struct ra_lm_config *c, const struct ra_lm_keys *keys,
                                 const struct family *family, struct ra_error *err)
{
    bool gemma = family->is_gemma;
    c->vocab = 262208;
    c->max_positions = 131072;
    c->norm_eps = 1e-6;
    c->tied = gemma;
    RA_TRY(ra_lm_keys_int(keys, "num_hidden_layers", true, 1, RA_LM_MAX_LAYERS, &c->n_layers, err));
    RA_TRY(ra_lm_keys_int(keys, "hidden_size", true, 1, MAX_WIDTH, &c->hidden, err));
    RA_TRY(ra_lm_keys_int(keys, "intermediate_size", true, 1, MAX_FFN, &c->ffn, err));
    RA_TRY(ra_lm_keys_int(keys, "vocab_size", !gemma, 1, MAX_VOCAB, &c->vocab, err));
    RA_TRY(ra_lm_keys_int(keys, "max_position_embeddings", !gemma, 1, INT32_MAX, &c->max_positions,
                          err));
    return ra_lm_keys_real(keys, "rms_norm_eps", false, 1e-12, 1, &c->norm_eps, err);
}

/* The number a trace states, so that its readers scale by the very same one. */
static double nine_digits(double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.9g", value);
    return strtod(text, NULL);
}

static enum ra_status read_activation(const struct ra_lm_keys *keys, const char *key,
                                      const char *name, const char *alias, struct ra_error *err)
{
    const char *text = name;
    RA_TRY(ra_lm_keys_text(keys, key, &text, err));
    if (strcmp(text, name) != 0 && strcmp(text, alias) != 0)
        return ra_lm_keys_fail(keys, RA_EUSAGE, key, name, err);
    return RA_OK;
}

static enum ra_status read_family(struct ra_lm_config *c, const struct ra_lm_keys *keys,
                                  const struct family *family, struct ra_error *err)
{
    bool gemma = family->is_gemma;
    const char *name = gemma ? "gelu_pytorch_tanh" : "silu", *alias = gemma ? name : "swish";
    RA_TRY(read_activation(keys, "hidden_act", name, alias, err));
    RA_TRY(read_activation(keys, "hidden_activation", name, alias, err));
    double scalar = gemma ? 256 : c->D;
    if (gemma)
        RA_TRY(ra_lm_keys_real(keys, "query_pre_attn_scalar", false, 1e-6, 1e6, &scalar, err));
    else if (ra_lm_keys_get(keys, "query_pre_attn_scalar"))
        return ra_lm_keys_fail(keys, RA_EUSAGE, "query_pre_attn_scalar", "nothing or null", err);
    c->attn_scale = nine_digits(1 / sqrt(scalar));
    c->embed_scale = gemma ? sqrt(c->hidden) : 1;
    c->activation = gemma ? RA_LM_GELU_TANH : RA_LM_SILU;
    c->arch = family->arch;
    c->qkv_bias = family->qkv_bias;
    c->qk_norm = family->qk_norm;
    c->norm_plus_one = c->post_norms = gemma;
    return RA_OK;
}

static enum ra_status read_eos(struct ra_lm_config *c, const struct ra_lm_keys *keys,
                               struct ra_error *err)
{
    const char *key = "eos_token_id";
    const json_t *eos = ra_lm_keys_get(keys, key);
    bool is_list = json_is_array(eos);
    size_t n = is_list ? json_array_size(eos) : eos != NULL;
    if (n > RA_LM_MAX_EOS)
        return ra_lm_keys_fail(keys, RA_EUSAGE, key, "at most 8 tokens", err);
    for (size_t i = 0; i < n; i++) {
        const json_t *token = is_list ? json_array_get(eos, i) : eos;
        if (!json_is_integer(token) || json_integer_value(token) < 0 ||
            json_integer_value(token) >= c->vocab) {
            char expected[64];
            snprintf(expected, sizeof expected, "tokens from 0 to %d", c->vocab - 1);
            return ra_lm_keys_fail(keys, RA_EFORMAT, key, expected, err);
        }
        c->eos[i] = (int32_t)json_integer_value(token);
    }
    c->n_eos = (int)n;
    return RA_OK;
}

/* Where both objects of a nested model state these, the outer one is that of the chat model. */
static enum ra_status read_tokens(struct ra_lm_config *c, const struct ra_lm_keys *root,
                                  const struct ra_lm_keys *keys, struct ra_error *err)
{
    c->bos = -1;
    RA_TRY(ra_lm_keys_int(keys, "bos_token_id", false, 0, c->vocab - 1, &c->bos, err));
    RA_TRY(ra_lm_keys_int(root, "bos_token_id", false, 0, c->vocab - 1, &c->bos, err));
    RA_TRY(ra_lm_keys_bool(root, "tie_word_embeddings", &c->tied, err));
    RA_TRY(ra_lm_keys_bool(keys, "tie_word_embeddings", &c->tied, err));
    return read_eos(c, ra_lm_keys_get(root, "eos_token_id") ? root : keys, err);
}

static enum ra_status read_config(struct ra_lm_config *c, const struct ra_lm_keys *root,
                                  struct ra_error *err)
{
    struct ra_lm_keys keys;
    const struct family *family = &families[0];
    RA_TRY(enter_text(root, &keys, &family, err));
    RA_TRY(ra_lm_config_unsupported(&keys, err));
    RA_TRY(read_sizes(c, &keys, family, err));
    RA_TRY(read_heads(c, &keys, family, err));
    RA_TRY(read_family(c, &keys, family, err));
    RA_TRY(read_tokens(c, root, &keys, err));
    RA_TRY(ra_lm_config_rope(&keys, family->is_gemma, &c->rope, &c->rope_local, err));
    c->slides = calloc((size_t)c->n_layers, sizeof *c->slides);
    if (!c->slides)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", keys.path);
    return ra_lm_config_window(&keys, family->window, c->n_layers, c->slides, &c->window, err);
}

static enum ra_status parse(struct ra_lm_config *c, const char *path, const char *text, size_t n,
                            struct ra_error *err)
{
    json_t *value = NULL;
    RA_TRY(ra_json_load(path, (struct ra_json_text){text, n, 0, 0, false}, &value, err));
    struct ra_lm_keys root = {path, "", value};
    enum ra_status st = json_is_object(value)
                            ? read_config(c, &root, err)
                            : ra_fail(err, RA_EFORMAT, "%s: expected a JSON object", path);
    json_decref(value);
    return st;
}

static enum ra_status read_file(struct ra_lm_config *c, const char *path, struct ra_error *err)
{
    int fd = -1;
    uint64_t bytes = 0;
    RA_TRY(ra_file_open(path, &fd, &bytes, err));
    char *text = NULL;
    enum ra_status st = RA_OK;
    if (bytes > MAX_BYTES)
        st = ra_fail(err, RA_EFORMAT, "%s: expected at most %d bytes, got %llu", path, MAX_BYTES,
                     (unsigned long long)bytes);
    else if (!(text = calloc((size_t)bytes + 1, 1)))
        st = ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    if (st == RA_OK)
        st = ra_file_read(fd, path, 0, text, (size_t)bytes, err);
    if (st == RA_OK)
        st = parse(c, path, text, (size_t)bytes, err);
    free(text);
    close(fd);
    return st;
}

enum ra_status ra_lm_config_open(struct ra_lm_config **config, const char *dir,
                                 struct ra_error *err)
{
    char path[4096];
    *config = NULL;
    if (snprintf(path, sizeof path, "%s/config.json", dir) >= (int)sizeof path)
        return ra_fail(err, RA_EIO, "%.100s...: the path is too long", dir);
    struct ra_lm_config *c = calloc(1, sizeof *c);
    if (!c)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    enum ra_status st = read_file(c, path, err);
    if (st == RA_OK)
        *config = c;
    else
        ra_lm_config_close(c);
    return st;
}

void ra_lm_config_close(struct ra_lm_config *config)
{
    if (!config)
        return;
    free(config->slides);
    free(config);
}

struct ra_model ra_lm_config_model(const struct ra_lm_config *config, enum ra_dtype dtype)
{
    return (struct ra_model){
        .n_layers = config->n_layers,
        .Hq = config->Hq,
        .Hkv = config->Hkv,
        .G = config->Hq / config->Hkv,
        .D = config->D,
        .Dv = config->D,
        .dtype = dtype,
        .attn_scale = config->attn_scale,
        .rope = config->rope,
    };
}
