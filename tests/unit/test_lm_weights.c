/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights of a model directory: every tensor of every family is where the forward pass looks for
 * it, whatever type and file it lies in. What is refused is in test_lm_weights_refused.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/lm_config.h"
#include "tests/support/lm_weights.h"
#include "tests/support/ra_test.h"
#include "tests/support/tmp_dir.h"
#include "traces/model/weights.h"

/* --- what is where ---------------------------------------------------------------------------- */

static void check(const float *got, const char *name, float plus)
{
    const struct lm_tensor *t = lm_named(name);
    assert_non_null(got);
    assert_int_equal((uintptr_t)got % 64, 0);
    for (uint64_t i = 0; i < lm_elements(t); i++)
        if (got[i] != lm_value(t->name, i) + plus)
            fail_msg("%s: element %d: %g, expected %g", name, (int)i, (double)got[i],
                     (double)(lm_value(t->name, i) + plus));
}

static void check_layer(const struct ra_lm_config *c, const struct ra_lm_layer *w, const char *body,
                        int layer)
{
    char name[128];
    float plus = c->norm_plus_one ? 1 : 0;
#define CHECK(got, text, plus_one)                                                                 \
    snprintf(name, sizeof name, "%slayers.%d." text, body, layer), check(got, name, plus_one)
    CHECK(w->input_norm, "input_layernorm.weight", plus);
    CHECK(w->q, "self_attn.q_proj.weight", 0);
    CHECK(w->k, "self_attn.k_proj.weight", 0);
    CHECK(w->v, "self_attn.v_proj.weight", 0);
    CHECK(w->o, "self_attn.o_proj.weight", 0);
    CHECK(w->gate, "mlp.gate_proj.weight", 0);
    CHECK(w->up, "mlp.up_proj.weight", 0);
    CHECK(w->down, "mlp.down_proj.weight", 0);
    if (strcmp(c->arch, "gemma3") == 0) {
        CHECK(w->attn_post_norm, "post_attention_layernorm.weight", 1);
        CHECK(w->mlp_norm, "pre_feedforward_layernorm.weight", 1);
        CHECK(w->mlp_post_norm, "post_feedforward_layernorm.weight", 1);
    } else {
        CHECK(w->mlp_norm, "post_attention_layernorm.weight", 0);
        assert_true(!w->attn_post_norm && !w->mlp_post_norm);
    }
    if (strcmp(c->arch, "qwen2") == 0) {
        CHECK(w->q_bias, "self_attn.q_proj.bias", 0);
        CHECK(w->k_bias, "self_attn.k_proj.bias", 0);
        CHECK(w->v_bias, "self_attn.v_proj.bias", 0);
    } else {
        assert_true(!w->q_bias && !w->k_bias && !w->v_bias);
    }
    if (strcmp(c->arch, "qwen3") == 0 || strcmp(c->arch, "gemma3") == 0) {
        CHECK(w->q_norm, "self_attn.q_norm.weight", plus);
        CHECK(w->k_norm, "self_attn.k_norm.weight", plus);
    } else {
        assert_true(!w->q_norm && !w->k_norm);
    }
}

/* head NULL: it is the embedding. */
static void check_weights(const struct ra_lm_config *c, const char *body, const char *head)
{
    struct ra_error err;
    struct ra_lm_weights *w;
    char name[96];
    ra_assert_ok(ra_lm_weights_open(&w, c, tmp_dir, NULL, NULL, &err));
    snprintf(name, sizeof name, "%sembed_tokens.weight", body);
    check(w->embed, name, 0);
    snprintf(name, sizeof name, "%snorm.weight", body);
    check(w->norm, name, c->norm_plus_one ? 1 : 0);
    if (head)
        check(w->head, head, 0);
    else
        assert_ptr_equal(w->head, w->embed);
    for (int layer = 0; layer < LM_LAYERS; layer++)
        check_layer(c, &w->layers[layer], body, layer);
    ra_lm_weights_close(w);
}

static void check_model(const char *base, const char *change, const char *body, const char *head)
{
    struct ra_lm_config *config = lm_write_model(base, change);
    check_weights(config, body, head);
    ra_lm_config_close(config);
}

static void test_families(void **state)
{
    (void)state;
    lm_make("model.");
    lm_add("", "lm_head.weight", LM_VOCAB, LM_HIDDEN);
    check_model(LM_LLAMA, "{" LM_CHANGE "}", "model.", "lm_head.weight");
    check_model(LM_MISTRAL, "{" LM_CHANGE "}", "model.", "lm_head.weight");
    lm_add_qwen2("model.");
    check_model(LM_QWEN2, "{" LM_CHANGE "}", "model.", "lm_head.weight");
    lm_make("model.");
    lm_add_qwen3("model.");
    check_model(LM_QWEN3, "{" LM_CHANGE ", 'tie_word_embeddings': true}", "model.", NULL);
    lm_make_gemma3("model.");
    check_model(LM_GEMMA3, "{" LM_CHANGE "}", "model.", NULL);
}

/* Exports of models with a vision part. */
static void test_nested(void **state)
{
    (void)state;
    lm_make_gemma3("language_model.model.");
    lm_add("vision_tower.", "vision_model.encoder.layers.0.mlp.fc1.bias", 8, 0);
    lm_add("multi_modal_projector.", "mm_input_projection_weight", 8, 8);
    lm_add("language_model.", "lm_head.weight", LM_VOCAB, LM_HIDDEN);
    check_model(LM_GEMMA3, "{" LM_CHANGE "}", "language_model.model.", NULL);
    check_model(LM_GEMMA3, "{" LM_CHANGE ", 'tie_word_embeddings': false}", "language_model.model.",
                "language_model.lm_head.weight");
    lm_make_gemma3("model.language_model.");
    lm_add("model.vision_tower.", "vision_model.embeddings.patch_embedding.bias", 8, 0);
    lm_add("", "lm_head.weight", LM_VOCAB, LM_HIDDEN);
    check_model(LM_GEMMA3, "{" LM_CHANGE "}", "model.language_model.", NULL);
    check_model(LM_GEMMA3, "{" LM_CHANGE ", 'tie_word_embeddings': false}", "model.language_model.",
                "lm_head.weight");
}

static void test_types(void **state)
{
    (void)state;
    const enum ra_st_dtype types[] = {RA_ST_F16, RA_ST_BF16, RA_ST_F32};
    lm_make("model.");
    for (int shift = 0; shift < 3; shift++) {
        for (int i = 0; i < lm_made.n; i++)
            lm_made.tensors[i].dtype = types[(i + shift) % 3];
        check_model(LM_LLAMA, "{" LM_CHANGE ", 'tie_word_embeddings': true}", "model.", NULL);
    }
}

/* A tensor of more bytes than are read at a time. */
static void test_large(void **state)
{
    (void)state;
    for (int half = 0; half < 2; half++) {
        lm_make("model.");
        struct lm_tensor *embed = lm_named("model.embed_tokens.weight");
        embed->rows = 40001;
        embed->dtype = half ? RA_ST_F16 : RA_ST_F32;
        check_model(LM_LLAMA, "{" LM_CHANGE ", 'vocab_size': 40001, 'tie_word_embeddings': true}",
                    "model.", NULL);
    }
}

/* Rotary tables of old exports, and the head of a model whose head is its embedding. */
static void test_ignored(void **state)
{
    (void)state;
    lm_make("model.");
    lm_add("", "lm_head.weight", LM_VOCAB, LM_HIDDEN);
    lm_add("model.", "layers.1.self_attn.rotary_emb.inv_freq", LM_D / 2, 0);
    check_model(LM_LLAMA, "{" LM_CHANGE ", 'tie_word_embeddings': true}", "model.", NULL);
}

/* --- several files ---------------------------------------------------------------------------- */

#define SHARD "model-0000%d-of-00002.safetensors"

static void write_index(const char *change_from, const char *change_to)
{
    char *text = calloc(1, 16384);
    assert_non_null(text);
    strcat(text, "{\"metadata\": {\"total_size\": 7}, \"weight_map\": {");
    for (int i = 0; i < lm_made.n; i++) {
        const struct lm_tensor *t = &lm_made.tensors[i];
        char entry[256], file[64];
        snprintf(file, sizeof file, SHARD, t->file);
        snprintf(entry, sizeof entry, "%s\"%s\": \"%s\"", i ? ", " : "", t->name,
                 change_from && strcmp(t->name, change_from) == 0 ? change_to : file);
        strcat(text, entry);
    }
    strcat(text, "}}");
    tmp_write(tmp_path(tmp_dir, "model.safetensors.index.json"), text, strlen(text));
    free(text);
}

/* 64 digits of sha256sum of the command's output. */
static void digest_of(const char *command, char hex[RA_SHA256_HEX])
{
    char line[2048];
    snprintf(line, sizeof line, "(%s) | sha256sum", command);
    FILE *pipe = popen(line, "r");
    assert_non_null(pipe);
    assert_int_equal(fread(hex, 1, RA_SHA256_HEX - 1, pipe), RA_SHA256_HEX - 1);
    hex[RA_SHA256_HEX - 1] = '\0';
    pclose(pipe);
}

/* Of what lies behind the header. */
static void data_digest(const char *path, char hex[RA_SHA256_HEX])
{
    uint64_t header = 0;
    size_t n;
    uint8_t *bytes = tmp_read(path, &n);
    for (int i = 7; i >= 0; i--)
        header = header << 8 | bytes[i];
    free(bytes);
    char command[1500];
    snprintf(command, sizeof command, "tail -c +%d '%s'", (int)header + 9, path);
    digest_of(command, hex);
}

static void test_shards(void **state)
{
    (void)state;
    char first[64], second[64], command[1500];
    snprintf(first, sizeof first, SHARD, 1);
    snprintf(second, sizeof second, SHARD, 2);
    lm_make("model.");
    for (int i = 0; i < lm_made.n; i++)
        lm_made.tensors[i].file = 1 + i % 2;
    unlink(tmp_path(tmp_dir, "model.safetensors"));
    lm_write_file(first, 1);
    lm_write_file(second, 2);
    write_index(NULL, NULL);
    struct ra_lm_config *config =
        lm_config_opened(LM_LLAMA, "{" LM_CHANGE ", 'tie_word_embeddings': true}");
    check_weights(config, "model.", NULL);

    struct ra_error err;
    char got[RA_SHA256_HEX], one[RA_SHA256_HEX], two[RA_SHA256_HEX], both[RA_SHA256_HEX];
    ra_assert_ok(ra_lm_weights_digest(tmp_dir, got, &err));
    data_digest(tmp_path(tmp_dir, first), one);
    data_digest(tmp_path(tmp_dir, second), two);
    snprintf(command, sizeof command, "printf %s%s", one, two);
    digest_of(command, both);
    snprintf(command, sizeof command, "cat '%s'", tmp_path(tmp_dir, "config.json"));
    digest_of(command, one);
    snprintf(command, sizeof command, "printf %s%s", one, both);
    digest_of(command, two);
    assert_string_equal(got, two);

    struct ra_lm_weights *w;
    write_index("model.norm.weight", "../model.safetensors");
    ra_assert_fails(ra_lm_weights_open(&w, config, tmp_dir, NULL, NULL, &err), RA_EFORMAT,
                    "model.norm.weight: expected a plain file name, got '../model.safetensors'");
    write_index("model.norm.weight", first);
    ra_assert_fails(ra_lm_weights_open(&w, config, tmp_dir, NULL, NULL, &err), RA_EFORMAT,
                    "model.norm.weight: the index says it is in model-00001");
    write_index("model.norm.weight", "absent.safetensors");
    ra_assert_fails(ra_lm_weights_open(&w, config, tmp_dir, NULL, NULL, &err), RA_EIO,
                    "absent.safetensors: cannot open");
    ra_lm_config_close(config);
}

static void test_digest_of_one(void **state)
{
    (void)state;
    struct ra_error err;
    char got[RA_SHA256_HEX], config[RA_SHA256_HEX], data[RA_SHA256_HEX], command[1500];
    lm_make("model.");
    ra_lm_config_close(lm_write_model(LM_LLAMA, "{" LM_CHANGE "}"));
    ra_assert_ok(ra_lm_weights_digest(tmp_dir, got, &err));
    data_digest(tmp_path(tmp_dir, "model.safetensors"), data);
    snprintf(command, sizeof command, "cat '%s'", tmp_path(tmp_dir, "config.json"));
    digest_of(command, config);
    snprintf(command, sizeof command, "printf %s%s", config, data);
    digest_of(command, data);
    assert_string_equal(got, data);
}

/* --- size and progress ------------------------------------------------------------------------ */

static struct {
    uint64_t done, total;
    int calls;
} seen;

static void on_progress(void *context, uint64_t done, uint64_t total)
{
    assert_ptr_equal(context, &seen);
    assert_true(done > seen.done && done <= total);
    seen.done = done;
    seen.total = total;
    seen.calls++;
}

static void test_progress_and_size(void **state)
{
    (void)state;
    struct ra_error err;
    struct ra_lm_weights *w;
    lm_make("model.");
    uint64_t bytes = 0;
    for (int i = 0; i < lm_made.n; i++)
        bytes += lm_elements(&lm_made.tensors[i]) * sizeof(float);
    struct ra_lm_config *config =
        lm_write_model(LM_LLAMA, "{" LM_CHANGE ", 'tie_word_embeddings': true}");
    memset(&seen, 0, sizeof seen);
    ra_assert_ok(ra_lm_weights_open(&w, config, tmp_dir, on_progress, &seen, &err));
    assert_int_equal(seen.done, bytes);
    assert_int_equal(seen.total, bytes);
    assert_true(seen.calls >= lm_made.n);
    size_t stated = ra_lm_weights_bytes(config);
    assert_in_range(stated, bytes, bytes + 64u * (unsigned)lm_made.n + 4096);
    ra_lm_weights_close(w);
    ra_lm_config_close(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),      cmocka_unit_test(test_nested),
        cmocka_unit_test(test_types),         cmocka_unit_test(test_large),
        cmocka_unit_test(test_ignored),       cmocka_unit_test(test_shards),
        cmocka_unit_test(test_digest_of_one), cmocka_unit_test(test_progress_and_size),
    };
    return cmocka_run_group_tests(tests, tmp_dir_setup, tmp_dir_teardown);
}
