/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.json files that are refused: every key that is not supported, by name; values of another
 * type or out of range; bytes that are no JSON; and every prefix of a file, which is an error and
 * no more than that.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/support/lm_config.h"
#include "tests/support/ra_test.h"
#include "tests/support/tmp_dir.h"

static void write_text(const char *text, size_t n)
{
    tmp_write(tmp_path(tmp_dir, "config.json"), text, n);
}

/* --- refusals --------------------------------------------------------------------------------- */

static const struct {
    const char *change, *message;
} unsupported[] = {
    {"{'model_type': 'phi3'}",
     "model_type: expected llama, mistral, qwen2, qwen3, gemma3 or gemma3_text, got \"phi3\""},
    {"{'model_type': 'DROP'}", "gemma3_text, got nothing"},
    {"{'num_local_experts': 8}", "num_local_experts: expected nothing, null or 0, got 8"},
    {"{'num_experts': 128}", "num_experts: expected"},
    {"{'n_routed_experts': 64}", "n_routed_experts: expected"},
    {"{'n_shared_experts': 2}", "n_shared_experts: expected"},
    {"{'num_experts_per_tok': 2}", "num_experts_per_tok: expected"},
    {"{'moe_intermediate_size': 2}", "moe_intermediate_size: expected"},
    {"{'kv_lora_rank': 512}", "kv_lora_rank: expected nothing or null, got 512"},
    {"{'q_lora_rank': 512}", "q_lora_rank: expected"},
    {"{'qk_rope_head_dim': 64}", "qk_rope_head_dim: expected"},
    {"{'qk_nope_head_dim': 64}", "qk_nope_head_dim: expected"},
    {"{'v_head_dim': 64}", "v_head_dim: expected"},
    {"{'attention_sinks': true}", "attention_sinks: expected"},
    {"{'use_attention_sinks': true}", "use_attention_sinks: expected"},
    {"{'attention_chunk_size': 8192}", "attention_chunk_size: expected"},
    {"{'dual_chunk_attention_config': {}}", "dual_chunk_attention_config: expected"},
    {"{'use_bidirectional_attention': true}", "use_bidirectional_attention: expected"},
    {"{'num_kv_shared_layers': 3}", "num_kv_shared_layers: expected"},
    {"{'attn_logit_softcapping': 50.0}", "attn_logit_softcapping: expected nothing, null or 0"},
    {"{'final_logit_softcapping': 30.0}", "final_logit_softcapping: expected"},
    {"{'clip_qkv': 8}", "clip_qkv: expected"},
    {"{'attention_multiplier': 1}", "attention_multiplier: expected"},
    {"{'embedding_multiplier': 12}", "embedding_multiplier: expected nothing, null or 1, got 12"},
    {"{'residual_multiplier': 0.2}", "residual_multiplier: expected"},
    {"{'logits_scaling': 8}", "logits_scaling: expected"},
    {"{'logit_scale': 0.1}", "logit_scale: expected"},
    {"{'partial_rotary_factor': 0.5}", "partial_rotary_factor: expected nothing, null or 1"},
    {"{'rotary_pct': 0.25}", "rotary_pct: expected"},
    {"{'no_rope_layers': [1, 1, 0]}", "no_rope_layers: expected nothing or null, got [1,1,0]"},
    {"{'no_rope_layer_interval': 4}", "no_rope_layer_interval: expected"},
    {"{'use_mrope': true}", "use_mrope: expected"},
    {"{'alibi': true}", "alibi: expected"},
    {"{'attention_bias': true}", "attention_bias: expected nothing, null or false, got true"},
    {"{'mlp_bias': true}", "mlp_bias: expected"},
    {"{'lm_head_bias': true}", "lm_head_bias: expected"},
    {"{'use_qk_norm': true}", "use_qk_norm: expected"},
    {"{'qk_layernorm': true}", "qk_layernorm: expected"},
    {"{'is_encoder_decoder': true}", "is_encoder_decoder: expected"},
    {"{'add_cross_attention': true}", "add_cross_attention: expected"},
    {"{'quantization_config': {'bits': 4}}", "quantization_config: expected nothing or null, got"},
    {"{'hidden_act': 'gelu'}", "hidden_act: expected silu, got \"gelu\""},
    {"{'head_dim': 20}", "head_dim: expected a multiple of 8 up to 256, got 20"},
    {"{'head_dim': 264}", "head_dim: expected a multiple of 8 up to 256, got 264"},
    {"{'num_attention_heads': 3, 'num_key_value_heads': 3}", "got hidden_size 64 / num_att"},
    {"{'num_attention_heads': 16}", "got hidden_size 64 / num_attention_heads 16"},
    {"{'rope_scaling': {'rope_type': 'yarn', 'factor': 4}}",
     "rope_scaling.rope_type: expected default, linear or llama3, got \"yarn\""},
    {"{'rope_scaling': {'type': 'dynamic', 'factor': 4}}", "rope_scaling.type: expected"},
    {"{'rope_scaling': {'type': 'longrope', 'long_factor': []}}", "rope_scaling.type: expected"},
    {"{'rope_parameters': {'rope_type': 'yarn'}}", "rope_parameters.rope_type: expected"},
    {"{'rope_scaling': {'type': 'default', 'mrope_section': [1]}}",
     "rope_scaling.mrope_section: expected no such key"},
    {"{'rope_parameters': {'partial_rotary_factor': 0.5}}",
     "rope_parameters.partial_rotary_factor: expected 1, got 0.5"},
    {"{'rope_parameters': {'full_attention': {}}}",
     "rope_parameters.full_attention: expected no such key"},
    {"{'sliding_window': 4096}", "sliding_window: expected null, got 4096"},
    {"{'layer_types': ['full_attention', 'chunked_attention', '', '', '', '']}",
     "layer_types: layer 1: expected full_attention or sliding_attention, got 'chunked_attention'"},
    {"{'query_pre_attn_scalar': 256}", "query_pre_attn_scalar: expected nothing or null, got 256"},
    {"{'eos_token_id': [1, 2, 3, 4, 5, 6, 7, 8, 9]}", "eos_token_id: expected at most 8 tokens"},
};

static void test_unsupported(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++)
        lm_config_refused(LM_LLAMA, unsupported[i].change, RA_EUSAGE, unsupported[i].message);
}

/* Set to what switches them off, the same keys are let pass. */
static void test_switched_off(void **state)
{
    (void)state;
    ra_lm_config_close(lm_config_opened(
        LM_LLAMA, "{'num_experts': 0, 'attn_logit_softcapping': null, "
                  "'final_logit_softcapping': 0.0, 'attention_bias': false, 'mlp_bias': false, "
                  "'partial_rotary_factor': 1.0, 'kv_lora_rank': null, 'pretraining_tp': 1, "
                  "'quantization_config': null, 'use_cache': true, 'sliding_window': null, "
                  "'architectures': ['LlamaForCausalLM'], 'initializer_range': 0.02}"));
}

static const struct {
    const char *change, *message;
} malformed[] = {
    {"{'hidden_size': 'DROP'}", "hidden_size: expected an integer from 1 to 1048576, got nothing"},
    {"{'hidden_size': 64.0}", "hidden_size: expected an integer from 1 to 1048576, got 64.0"},
    {"{'hidden_size': '64'}", "hidden_size: expected an integer from 1 to 1048576, got \"64\""},
    {"{'hidden_size': 0}", "got 0"},
    {"{'hidden_size': -9223372036854775808}", "got -9223372036854775808"},
    {"{'hidden_size': 4294967360}", "got 4294967360"},
    {"{'intermediate_size': 'DROP'}", "intermediate_size: expected"},
    {"{'intermediate_size': 9223372036854775807}", "intermediate_size: expected"},
    {"{'num_hidden_layers': 'DROP'}", "num_hidden_layers: expected"},
    {"{'num_hidden_layers': 4097}", "num_hidden_layers: expected an integer from 1 to 4096"},
    {"{'num_attention_heads': 'DROP'}", "num_attention_heads: expected"},
    {"{'num_attention_heads': 4097}", "num_attention_heads: expected"},
    {"{'num_key_value_heads': 3}",
     "num_key_value_heads: expected a divisor of num_attention_heads 4, got 3"},
    {"{'num_key_value_heads': 8}", "num_key_value_heads: expected a divisor"},
    {"{'num_key_value_heads': 0}", "num_key_value_heads: expected"},
    {"{'head_dim': -8}", "head_dim: expected"},
    {"{'head_dim': true}", "head_dim: expected an integer from 1 to 1048576, got true"},
    {"{'vocab_size': 'DROP'}", "vocab_size: expected"},
    {"{'vocab_size': 16777217}", "vocab_size: expected"},
    {"{'max_position_embeddings': 'DROP'}", "max_position_embeddings: expected"},
    {"{'max_position_embeddings': 2147483648}", "max_position_embeddings: expected"},
    {"{'rms_norm_eps': 0}", "rms_norm_eps: expected a number from 1e-12 to 1, got 0"},
    {"{'rms_norm_eps': '1e-5'}", "rms_norm_eps: expected"},
    {"{'rms_norm_eps': 2}", "rms_norm_eps: expected"},
    {"{'rope_theta': 0}", "rope_theta: expected a number from 1 to 1e+15, got 0"},
    {"{'rope_theta': 1e300}", "rope_theta: expected"},
    {"{'rope_scaling': []}", "rope_scaling: expected an object, got []"},
    {"{'rope_parameters': 7}", "rope_parameters: expected an object, got 7"},
    {"{'rope_scaling': {'type': 1}}", "rope_scaling.type: expected a string, got 1"},
    {"{'rope_scaling': {'type': 'linear', 'factor': 0.5}}", "rope_scaling.factor: expected"},
    {"{'model_type': 3}", "model_type: expected a string, got 3"},
    {"{'hidden_act': ['silu']}", "hidden_act: expected a string"},
    {"{'tie_word_embeddings': 1}", "tie_word_embeddings: expected true or false, got 1"},
    {"{'use_sliding_window': 'no'}", "use_sliding_window: expected true or false"},
    {"{'bos_token_id': 100}", "bos_token_id: expected an integer from 0 to 99, got 100"},
    {"{'eos_token_id': -1}", "eos_token_id: expected tokens from 0 to 99, got -1"},
    {"{'eos_token_id': [2, 100]}", "eos_token_id: expected tokens from 0 to 99, got [2,100]"},
    {"{'eos_token_id': {}}", "eos_token_id: expected tokens from 0 to 99, got {}"},
    {"{'layer_types': 'full_attention'}", "layer_types: expected an array of 6 layers"},
    {"{'layer_types': ['full_attention']}", "layer_types: expected an array of 6 layers"},
    {"{'layer_types': [1, 2, 3, 4, 5, 6]}", "layer_types: layer 0: expected"},
};

static void test_malformed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++)
        lm_config_refused(LM_LLAMA, malformed[i].change, RA_EFORMAT, malformed[i].message);
    lm_config_refused(LM_MISTRAL, "{'sliding_window': 0}", RA_EFORMAT,
                      "sliding_window: expected an integer");
    lm_config_refused(LM_GEMMA3, "{'sliding_window_pattern': 0}", RA_EFORMAT,
                      "sliding_window_pattern: expec");
    lm_config_refused(LM_GEMMA3, "{'query_pre_attn_scalar': 0}", RA_EFORMAT,
                      "query_pre_attn_scalar: expected");
    lm_config_refused(
        LM_GEMMA3, "{'rope_parameters': {'full_attention': {}, 'chunked_attention': {}}}",
        RA_EUSAGE, "rope_parameters.chunked_attention: expected full_attention or sliding");
}

/* A long value is cut, and what is no text does not reach the terminal. */
static void test_long_value(void **state)
{
    (void)state;
    char change[600] = "{'hidden_act': '";
    for (int i = 0; i < 60; i++)
        strcat(change, "\\u001b[2J");
    strcat(change, "'}");
    lm_config_refused(LM_LLAMA, change, RA_EUSAGE, "hidden_act: expected silu, got \"\\u001B[2J");
    struct ra_error err;
    struct ra_lm_config *config;
    assert_int_equal(ra_lm_config_open(&config, tmp_dir, &err), RA_EUSAGE);
    assert_string_equal(err.msg + strlen(err.msg) - 3, "...");
}

/* --- bytes ------------------------------------------------------------------------------------ */

static void bytes_refused(const char *text, size_t n, const char *message)
{
    struct ra_error err;
    struct ra_lm_config *config;
    write_text(text, n);
    ra_assert_fails(ra_lm_config_open(&config, tmp_dir, &err), RA_EFORMAT, message);
    assert_null(config);
}

static void test_bytes(void **state)
{
    (void)state;
    bytes_refused("[]", 2, "expected a JSON object");
    bytes_refused("7", 1, "expected a JSON object");
    bytes_refused("{\"a\": 1, \"a\": 1}", 16, "duplicate");
    bytes_refused("{\"a\": \"\xff\"}", 9, "unable to decode byte 0xff");
    bytes_refused("{\"a\": 1e999}", 12, "real number overflow");
    bytes_refused("{\"a\": 99999999999999999999}", 27, "too big integer");
    bytes_refused("{} {}", 5, "end of file expected");
    bytes_refused("{\"model_type\": \"lla\\u0000ma\"}", 29, "\\u0000");
    size_t n = 100000;
    char *deep = malloc(n);
    assert_non_null(deep);
    memset(deep, '[', n);
    bytes_refused(deep, n, "maximum parsing depth");
    free(deep);
    n = (1 << 20) + 1;
    char *blank = malloc(n);
    assert_non_null(blank);
    memset(blank, ' ', n);
    bytes_refused(blank, n, "expected at most 1048576 bytes, got 1048577");
    free(blank);
}

/* Cut anywhere, or with one byte changed, a file opens or is refused with a message of its own. */
static void test_prefixes(void **state)
{
    (void)state;
    const char *const all[] = {LM_LLAMA, LM_MISTRAL, LM_QWEN2, LM_QWEN3, LM_GEMMA3, LM_NESTED};
    for (size_t f = 0; f < sizeof all / sizeof all[0]; f++) {
        char *text = lm_json(all[f]);
        size_t length = strlen(text);
        for (size_t n = 0; n < length; n++)
            bytes_refused(text, n, "/config.json: ");
        for (size_t i = 0; i < length; i++) {
            struct ra_error err = {RA_OK, ""};
            struct ra_lm_config *config;
            char kept = text[i];
            text[i] = (char)(kept ^ (1 << i % 8));
            write_text(text, length);
            enum ra_status st = ra_lm_config_open(&config, tmp_dir, &err);
            assert_true(st == RA_OK ? config != NULL : err.code == st && strstr(err.msg, "json: "));
            ra_lm_config_close(config);
            text[i] = kept;
        }
        free(text);
    }
}

static void test_files(void **state)
{
    (void)state;
    struct ra_error err;
    struct ra_lm_config *config;
    ra_assert_fails(ra_lm_config_open(&config, tmp_path(tmp_dir, "absent"), &err), RA_EIO,
                    "absent/config.json: cannot open");
    const char *dir = tmp_path(tmp_dir, "folder");
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(mkdir(tmp_path(dir, "config.json"), 0700), 0);
    ra_assert_fails(ra_lm_config_open(&config, dir, &err), RA_EIO, "expected a regular file");
    char long_path[5000];
    memset(long_path, 'x', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = '\0';
    ra_assert_fails(ra_lm_config_open(&config, long_path, &err), RA_EIO, "the path is too long");
    ra_lm_config_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unsupported), cmocka_unit_test(test_switched_off),
        cmocka_unit_test(test_malformed),   cmocka_unit_test(test_long_value),
        cmocka_unit_test(test_bytes),       cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, tmp_dir_setup, tmp_dir_teardown);
}
