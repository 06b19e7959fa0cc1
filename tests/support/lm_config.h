/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small config.json files of each family, as their publishers spell them, and changes to them.
 * JSON is written with ' for ". Files are written to tmp_dir. Failures fail the test.
 */
#ifndef RA_TESTS_SUPPORT_LM_CONFIG_H
#define RA_TESTS_SUPPORT_LM_CONFIG_H

#include "traces/model/config.h"

#define LM_SIZES                                                                                   \
    "'hidden_size': 64, 'intermediate_size': 96, 'num_hidden_layers': 6, 'vocab_size': 100,"       \
    "'num_attention_heads': 4, 'num_key_value_heads': 2, 'max_position_embeddings': 512,"          \
    "'rms_norm_eps': 1e-5"
#define LM_LLAMA "{'model_type': 'llama', 'hidden_act': 'silu', " LM_SIZES "}"
#define LM_MISTRAL                                                                                 \
    "{'model_type': 'mistral', 'hidden_act': 'silu', 'head_dim': 24, 'sliding_window': "           \
    "32, " LM_SIZES "}"
#define LM_QWEN2                                                                                   \
    "{'model_type': 'qwen2', 'use_sliding_window': false, 'sliding_window': 40, "                  \
    "'max_window_layers': 4, " LM_SIZES "}"
#define LM_QWEN3                                                                                   \
    "{'model_type': 'qwen3', 'head_dim': 128, 'attention_bias': false, 'sliding_window': null, "   \
    "'use_sliding_window': false, 'max_window_layers': 4, " LM_SIZES "}"
#define LM_GEMMA3                                                                                  \
    "{'model_type': 'gemma3_text', 'hidden_activation': 'gelu_pytorch_tanh', 'head_dim': 256, "    \
    "'query_pre_attn_scalar': 168, 'sliding_window': 16, 'attention_bias': false, " LM_SIZES "}"
/* What the publisher of the 4B model leaves out is a default of its class. */
#define LM_NESTED                                                                                  \
    "{'model_type': 'gemma3', 'eos_token_id': [1, 106], 'text_config': {'hidden_size': 2560, "     \
    "'intermediate_size': 10240, 'model_type': 'gemma3_text', 'num_hidden_layers': 34, "           \
    "'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'}, 'sliding_window': 1024}, "            \
    "'vision_config': {'hidden_size': 1152, 'num_experts': 4}}"

/* JSON with " as it should be. Caller frees. */
char *lm_json(const char *text);

/* Write `base` with the members of `change`; 'DROP' removes one. */
void lm_config_write(const char *base, const char *change);

/* The same, opened; and one that must be refused with a message that holds the path and `text`. */
struct ra_lm_config *lm_config_opened(const char *base, const char *change);
void lm_config_refused(const char *base, const char *change, enum ra_status status,
                       const char *text);

#endif
