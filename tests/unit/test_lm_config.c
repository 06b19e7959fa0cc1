/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json of each family in both versions of the spelling: what every field of the
 * configuration is. What is refused is in test_lm_config_refused.c.
 */
#include <math.h>
#include <string.h>

#include "tests/support/lm_config.h"
#include "tests/support/ra_test.h"
#include "tests/support/tmp_dir.h"

static void assert_real(double value, double expected)
{
    if (fabs(value - expected) > 1e-12 * fabs(expected))
        fail_msg("%.17g, expected %.17g", value, expected);
}

/* One letter per layer: s slides, f full. */
static void assert_slides(const struct ra_lm_config *config, const char *letters)
{
    assert_int_equal(config->n_layers, strlen(letters));
    for (int layer = 0; layer < config->n_layers; layer++)
        if (config->slides[layer] != (letters[layer] == 's'))
            fail_msg("layer %d of %s", layer, letters);
}

static void test_llama(void **state)
{
    (void)state;
    struct ra_lm_config *c = lm_config_opened(LM_LLAMA, "{'eos_token_id': 2, 'bos_token_id': 1}");
    assert_string_equal(c->arch, "llama");
    assert_int_equal(c->n_layers, 6);
    assert_int_equal(c->hidden, 64);
    assert_int_equal(c->ffn, 96);
    assert_int_equal(c->vocab, 100);
    assert_int_equal(c->Hq, 4);
    assert_int_equal(c->Hkv, 2);
    assert_int_equal(c->D, 16);
    assert_int_equal(c->max_positions, 512);
    assert_real(c->norm_eps, 1e-5);
    assert_real(c->attn_scale, 0.25);
    assert_real(c->embed_scale, 1);
    assert_int_equal(c->activation, RA_LM_SILU);
    assert_false(c->qkv_bias || c->qk_norm || c->norm_plus_one || c->post_norms || c->tied);
    assert_int_equal(c->window, 0);
    assert_slides(c, "ffffff");
    assert_int_equal(c->rope.type, RA_ROPE_DEFAULT);
    assert_real(c->rope.theta, 1e4);
    assert_real(c->rope_local.theta, 1e4);
    assert_int_equal(c->n_eos, 1);
    assert_int_equal(c->eos[0], 2);
    assert_int_equal(c->bos, 1);
    struct ra_model model = ra_lm_config_model(c, RA_BF16);
    struct ra_error err;
    ra_assert_ok(ra_model_check(&model, &err));
    assert_int_equal(model.G, 2);
    assert_int_equal(model.Dv, 16);
    assert_int_equal(model.dtype, RA_BF16);
    ra_lm_config_close(c);
}

static void test_defaults(void **state)
{
    (void)state;
    struct ra_lm_config *c = lm_config_opened(
        LM_LLAMA, "{'num_key_value_heads': 'DROP', 'rms_norm_eps': 'DROP', 'hidden_act': "
                  "'DROP', 'tie_word_embeddings': true, 'head_dim': null}");
    assert_int_equal(c->Hkv, 4);
    assert_real(c->norm_eps, 1e-6);
    assert_true(c->tied);
    assert_int_equal(c->D, 16);
    assert_int_equal(c->n_eos, 0);
    assert_int_equal(c->bos, -1);
    ra_lm_config_close(c);
    /* 24^-0.5 = 0.20412414523193150818..., in nine digits as a trace states it */
    c = lm_config_opened(LM_LLAMA, "{'head_dim': 24, 'eos_token_id': [99, 0, 7]}");
    assert_true(c->attn_scale == 0.204124145);
    assert_int_equal(c->n_eos, 3);
    assert_int_equal(c->eos[0], 99);
    assert_int_equal(c->eos[2], 7);
    ra_lm_config_close(c);
}

static void check_llama3(const char *change)
{
    struct ra_lm_config *c = lm_config_opened(LM_LLAMA, change);
    assert_int_equal(c->rope.type, RA_ROPE_LLAMA3);
    assert_real(c->rope.theta, 5e5);
    assert_real(c->rope.factor, 32);
    assert_real(c->rope.low_freq_factor, 1);
    assert_real(c->rope.high_freq_factor, 4);
    assert_real(c->rope.original_max_position, 8192);
    assert_int_equal(c->rope_local.type, RA_ROPE_LLAMA3);
    ra_lm_config_close(c);
}

static void test_rope_spellings(void **state)
{
    (void)state;
#define FACTORS                                                                                    \
    "'factor': 32.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4, "                              \
    "'original_max_position_embeddings': 8192"
    check_llama3("{'rope_theta': 500000.0, 'rope_scaling': {'rope_type': 'llama3', " FACTORS "}}");
    check_llama3("{'rope_theta': 500000, 'rope_scaling': {'type': 'llama3', " FACTORS "}}");
    check_llama3("{'rope_theta': 5e5, 'rope_scaling': {'type': 'llama3', 'rope_type': 'llama3', "
                 "" FACTORS "}}");
    check_llama3("{'rope_parameters': {'rope_type': 'llama3', 'rope_theta': 5e5, " FACTORS "}}");
    check_llama3("{'rope_theta': 5e5, 'rope_parameters': {'rope_type': 'llama3', 'rope_theta': "
                 "5e5, " FACTORS "}}");
    struct ra_lm_config *c =
        lm_config_opened(LM_LLAMA, "{'rope_scaling': {'type': 'linear', 'factor': 2.5}}");
    assert_int_equal(c->rope.type, RA_ROPE_LINEAR);
    assert_real(c->rope.factor, 2.5);
    ra_lm_config_close(c);
    c = lm_config_opened(LM_LLAMA, "{'rope_scaling': null, 'rope_theta': 1e5}");
    assert_int_equal(c->rope.type, RA_ROPE_DEFAULT);
    assert_real(c->rope.theta, 1e5);
    ra_lm_config_close(c);
    c = lm_config_opened(LM_LLAMA, "{'rope_scaling': {'rope_type': 'default', 'factor': 1}}");
    assert_int_equal(c->rope.type, RA_ROPE_DEFAULT);
    ra_lm_config_close(c);
    lm_config_refused(
        LM_LLAMA,
        "{'rope_theta': 1e4, 'rope_parameters': {'rope_type': 'default', 'rope_theta': 5e5}}",
        RA_EFORMAT, "rope_theta: expected the same as in rope_parameters, got 10000.0");
    lm_config_refused(
        LM_LLAMA, "{'rope_scaling': {'rope_type': 'linear', 'type': 'llama3', 'factor': 2}}",
        RA_EFORMAT, "rope_scaling.type: expected the same as rope_type, got \"llama3\"");
    lm_config_refused(LM_LLAMA, "{'rope_scaling': {'rope_type': 'linear'}}", RA_EFORMAT,
                      "rope_scaling.factor: expected a number from 1 to 1e+06, got nothing");
    lm_config_refused(LM_LLAMA,
                      "{'rope_scaling': {'type': 'llama3', 'factor': 8, 'low_freq_factor': 4, "
                      "'high_freq_factor': 4, 'original_max_position_embeddings': 64}}",
                      RA_EFORMAT,
                      "rope_scaling.high_freq_factor: expected a number above low_freq_factor");
    lm_config_refused(LM_LLAMA, "{'rope_scaling': {'factor': 2}, 'rope_parameters': {'factor': 3}}",
                      RA_EFORMAT, "rope_scaling: expected nothing beside rope_parameters");
}

static void test_mistral(void **state)
{
    (void)state;
    struct ra_lm_config *c = lm_config_opened(LM_MISTRAL, "{}");
    assert_string_equal(c->arch, "mistral");
    assert_int_equal(c->D, 24);
    assert_int_equal(c->window, 32);
    assert_slides(c, "ssssss");
    assert_false(c->qkv_bias || c->qk_norm);
    ra_lm_config_close(c);
    c = lm_config_opened(LM_MISTRAL, "{'sliding_window': null}");
    assert_int_equal(c->window, 0);
    assert_slides(c, "ffffff");
    ra_lm_config_close(c);
    lm_config_refused(LM_MISTRAL, "{'sliding_window': 'DROP'}", RA_EFORMAT,
                      "sliding_window: expected null or a number of tokens, got nothing");
    lm_config_refused(LM_MISTRAL,
                      "{'layer_types': ['sliding_attention', 'full_attention', 'full_attention', "
                      "'full_attention', 'full_attention', 'full_attention']}",
                      RA_EUSAGE,
                      "layer_types: layer 1: expected sliding_attention, got full_attention");
}

static void test_qwen2(void **state)
{
    (void)state;
    struct ra_lm_config *c = lm_config_opened(LM_QWEN2, "{'rope_theta': 1000000.0}");
    assert_string_equal(c->arch, "qwen2");
    assert_true(c->qkv_bias);
    assert_false(c->qk_norm);
    assert_int_equal(c->window, 0);
    assert_real(c->rope.theta, 1e6);
    assert_slides(c, "ffffff");
    ra_lm_config_close(c);
    c = lm_config_opened(LM_QWEN2, "{'use_sliding_window': true}");
    assert_int_equal(c->window, 40);
    assert_slides(c, "ffffss");
    ra_lm_config_close(c);
    c = lm_config_opened(LM_QWEN2, "{'use_sliding_window': true, 'max_window_layers': 28}");
    assert_int_equal(c->window, 0);
    assert_slides(c, "ffffff");
    ra_lm_config_close(c);
    c = lm_config_opened(LM_QWEN2,
                         "{'use_sliding_window': true, 'max_window_layers': 'DROP', 'layer_types': "
                         "['full_attention', 'sliding_attention', 'full_attention', "
                         "'full_attention', 'sliding_attention', 'full_attention']}");
    assert_int_equal(c->window, 40);
    assert_slides(c, "fsffsf");
    ra_lm_config_close(c);
    lm_config_refused(LM_QWEN2, "{'use_sliding_window': true, 'max_window_layers': 'DROP'}",
                      RA_EFORMAT,
                      "max_window_layers: expected an integer from 0 to 2147483647, got nothing");
    lm_config_refused(LM_QWEN2,
                      "{'layer_types': ['full_attention', 'full_attention', 'full_attention', "
                      "'full_attention', 'full_attention', 'sliding_attention']}",
                      RA_EFORMAT, "sliding_window: expected a number of tokens, since layer_types");
}

static void test_qwen3(void **state)
{
    (void)state;
    struct ra_lm_config *c =
        lm_config_opened(LM_QWEN3, "{'dtype': 'bfloat16', 'torch_dtype': 'bfloat16'}");
    assert_string_equal(c->arch, "qwen3");
    assert_true(c->qk_norm);
    assert_false(c->qkv_bias);
    assert_int_equal(c->D, 128);
    assert_true(c->attn_scale == 0.0883883476); /* 128^-0.5 = 0.08838834764831845 */
    ra_lm_config_close(c);
    lm_config_refused(LM_QWEN3, "{'head_dim': 'DROP'}", RA_EFORMAT,
                      "head_dim: expected an integer from");
    lm_config_refused(LM_QWEN3, "{'attention_bias': true}", RA_EUSAGE,
                      "attention_bias: expected nothing, null or false, got true");
}

static void test_gemma3(void **state)
{
    (void)state;
    struct ra_lm_config *c = lm_config_opened(LM_GEMMA3, "{}");
    assert_string_equal(c->arch, "gemma3");
    assert_int_equal(c->D, 256);
    assert_real(c->embed_scale, 8);
    assert_true(c->attn_scale == 0.0771516750); /* 168^-0.5 = 0.07715167498104595 */
    assert_int_equal(c->activation, RA_LM_GELU_TANH);
    assert_true(c->norm_plus_one && c->qk_norm && c->post_norms && c->tied);
    assert_false(c->qkv_bias);
    assert_int_equal(c->window, 16);
    assert_slides(c, "sssssf");
    assert_real(c->rope.theta, 1e6);
    assert_real(c->rope_local.theta, 1e4);
    ra_lm_config_close(c);
    c = lm_config_opened(LM_GEMMA3,
                         "{'sliding_window_pattern': 2, 'rope_theta': 2e6, 'rope_local_base_freq': "
                         "5000, 'rope_scaling': {'rope_type': 'linear', 'factor': 8}}");
    assert_slides(c, "sfsfsf");
    assert_int_equal(c->rope.type, RA_ROPE_LINEAR);
    assert_real(c->rope.factor, 8);
    assert_real(c->rope.theta, 2e6);
    assert_int_equal(c->rope_local.type, RA_ROPE_DEFAULT);
    assert_real(c->rope_local.theta, 5000);
    ra_lm_config_close(c);
    c = lm_config_opened(
        LM_GEMMA3,
        "{'layer_types': ['full_attention', 'sliding_attention', 'full_attention', "
        "'full_attention', 'full_attention', 'full_attention'], "
        "'_sliding_window_pattern': 3, 'rope_parameters': {'sliding_attention': "
        "{'rope_type': 'default', 'rope_theta': 7000.0}, 'full_attention': {'rope_type': "
        "'linear', 'factor': 4.0, 'rope_theta': 3e6}}}");
    assert_slides(c, "fsffff");
    assert_int_equal(c->rope.type, RA_ROPE_LINEAR);
    assert_real(c->rope.theta, 3e6);
    assert_int_equal(c->rope_local.type, RA_ROPE_DEFAULT);
    assert_real(c->rope_local.theta, 7000);
    ra_lm_config_close(c);
    lm_config_refused(LM_GEMMA3, "{'hidden_activation': 'gelu'}", RA_EUSAGE,
                      "hidden_activation: expected gelu_pytorch_tanh, got \"gelu\"");
}

static void test_gemma3_nested(void **state)
{
    (void)state;
    struct ra_lm_config *c = lm_config_opened(LM_NESTED, "{}");
    assert_string_equal(c->arch, "gemma3");
    assert_int_equal(c->hidden, 2560);
    assert_int_equal(c->vocab, 262208);
    assert_int_equal(c->Hq, 8);
    assert_int_equal(c->Hkv, 4);
    assert_int_equal(c->D, 256);
    assert_int_equal(c->max_positions, 131072);
    assert_real(c->attn_scale, 1.0 / 16);
    assert_true(c->tied);
    assert_int_equal(c->window, 1024);
    assert_slides(c, "sssssfsssssfsssssfsssssfsssssfssss");
    assert_real(c->rope.factor, 8);
    assert_int_equal(c->n_eos, 2);
    assert_int_equal(c->eos[1], 106);
    ra_lm_config_close(c);
    lm_config_refused(LM_NESTED, "{'text_config': null}", RA_EFORMAT,
                      "text_config: expected an object");
    lm_config_refused(LM_NESTED, "{'text_config': {'model_type': 'llama'}}", RA_EUSAGE,
                      "text_config.model_type: expected gemma3_text, got \"llama\"");
    lm_config_refused(LM_NESTED, "{'text_config': {'num_hidden_layers': 2, 'kv_lora_rank': 8}}",
                      RA_EUSAGE, "text_config.kv_lora_rank: expected nothing or null, got 8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama),          cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_rope_spellings), cmocka_unit_test(test_mistral),
        cmocka_unit_test(test_qwen2),          cmocka_unit_test(test_qwen3),
        cmocka_unit_test(test_gemma3),         cmocka_unit_test(test_gemma3_nested),
    };
    return cmocka_run_group_tests(tests, tmp_dir_setup, tmp_dir_teardown);
}
