/* SPDX-License-Identifier: Apache-2.0 */
/* Weights that do not fit the configuration: refused by name, with what was expected and what came.
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

static void weights_refused(const char *message)
{
    struct ra_error err;
    struct ra_lm_weights *w;
    struct ra_lm_config *config = lm_write_model(LM_LLAMA, "{" LM_CHANGE ", 'tie_word_embeddings': "
                                                           "true}");
    ra_assert_fails(ra_lm_weights_open(&w, config, tmp_dir, NULL, NULL, &err), RA_EFORMAT, message);
    assert_null(w);
    ra_lm_config_close(config);
}

static void test_missing(void **state)
{
    (void)state;
    lm_make("model.");
    for (int i = lm_made.n - 1; i >= 0; i--) {
        char kept[96], message[160];
        memcpy(kept, lm_made.tensors[i].name, sizeof kept);
        snprintf(message, sizeof message, "model.safetensors: %s: missing", kept);
        snprintf(lm_made.tensors[i].name, sizeof lm_made.tensors[i].name, "x");
        weights_refused(message);
        memcpy(lm_made.tensors[i].name, kept, sizeof kept);
    }
    struct ra_error err;
    struct ra_lm_weights *w;
    struct ra_lm_config *config = lm_write_model(LM_LLAMA, "{" LM_CHANGE "}");
    ra_assert_fails(ra_lm_weights_open(&w, config, tmp_dir, NULL, NULL, &err), RA_EFORMAT,
                    "lm_head.weight: missing");
    unlink(tmp_path(tmp_dir, "model.safetensors"));
    ra_assert_fails(ra_lm_weights_open(&w, config, tmp_dir, NULL, NULL, &err), RA_EIO,
                    "expected model.safetensors or model.safetensors.index.json, found neither");
    ra_lm_config_close(config);
    ra_lm_weights_close(NULL);
}

static void test_others(void **state)
{
    (void)state;
    const char *const others[] = {
        "model.layers.0.self_attn.q_proj.bias",        "model.layers.2.input_layernorm.weight",
        "model.layers.0.self_attn.q_norm.weight",      "vision_tower.x",
        "model.layers.0.block_sparse_moe.gate.weight", "rotary_emb.inv_freq.x",
        "language_model.model.embed_tokens.weight"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char message[160];
        snprintf(message, sizeof message, "%s: expected no such tensor in a llama model",
                 others[i]);
        lm_make("model.");
        lm_add("", others[i], LM_HIDDEN, 0);
        weights_refused(message);
    }
}

static void test_shapes_and_types(void **state)
{
    (void)state;
    lm_make("model.");
    struct lm_tensor *up = lm_named("model.layers.1.mlp.up_proj.weight");
    up->rows = LM_HIDDEN;
    up->cols = LM_FFN;
    weights_refused("model.layers.1.mlp.up_proj.weight: expected shape [96, 64], got [64, 96]");
    up->rows = (uint64_t)LM_HIDDEN * LM_FFN;
    up->cols = 0;
    weights_refused("model.layers.1.mlp.up_proj.weight: expected shape [96, 64], got [6144]");
    up->rows = LM_FFN;
    up->cols = LM_HIDDEN;
    lm_named("model.norm.weight")->cols = 1;
    weights_refused("model.norm.weight: expected shape [64], got [64, 1]");
    lm_named("model.norm.weight")->cols = 0;
    up->dtype = RA_ST_F64;
    weights_refused("model.layers.1.mlp.up_proj.weight: expected dtype F32, F16 or BF16, got F64");
    up->dtype = RA_ST_U8;
    weights_refused("got U8");
}

/* Element 77 of a matrix in the middle, in each type; the file is written, then patched. */
static void test_nonfinite(void **state)
{
    (void)state;
    const struct {
        enum ra_st_dtype dtype;
        uint8_t bits[4];
    } cases[] = {{RA_ST_F32, {0, 0, 0xc0, 0x7f}},
                 {RA_ST_F32, {0, 0, 0x80, 0xff}},
                 {RA_ST_F16, {0, 0x7c}},
                 {RA_ST_BF16, {0xc1, 0x7f}}};
    const char *name = "model.layers.1.self_attn.k_proj.weight";
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lm_make("model.");
        lm_named(name)->dtype = cases[i].dtype;
        struct ra_error err;
        struct ra_lm_weights *w;
        struct ra_st_file *file;
        struct ra_lm_config *config =
            lm_write_model(LM_LLAMA, "{" LM_CHANGE ", 'tie_word_embeddings': true}");
        const char *path = tmp_path(tmp_dir, "model.safetensors");
        size_t width = ra_st_dtype_bytes(cases[i].dtype), n;
        ra_assert_ok(ra_st_open(&file, path, &err));
        uint8_t *bytes = tmp_read(path, &n);
        size_t at = n - ra_st_data_bytes(file) + ra_st_find(file, name)->offset + 77 * width;
        memcpy(bytes + at, cases[i].bits, width);
        tmp_write(path, bytes, n);
        ra_assert_fails(
            ra_lm_weights_open(&w, config, tmp_dir, NULL, NULL, &err), RA_EFORMAT,
            "model.layers.1.self_attn.k_proj.weight: element 77: expected a number, got NaN or");
        assert_null(w);
        free(bytes);
        ra_st_close(file);
        ra_lm_config_close(config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_shapes_and_types),
        cmocka_unit_test(test_nonfinite),
    };
    return cmocka_run_group_tests(tests, tmp_dir_setup, tmp_dir_teardown);
}
