/* SPDX-License-Identifier: Apache-2.0 */
/* One table. A key that is absent, null, or has the value that switches it off is let pass. */
#include "traces/model/config_unsupported.h"

enum off { OFF_NULL, OFF_ZERO, OFF_FALSE, OFF_ONE };

static const char *const expected[] = {"nothing or null", "nothing, null or 0",
                                       "nothing, null or false", "nothing, null or 1"};

static const struct {
    const char *key;
    enum off off;
} unsupported[] = {
    /* mixture of experts */
    {"num_local_experts", OFF_ZERO},
    {"num_experts", OFF_ZERO},
    {"n_routed_experts", OFF_ZERO},
    {"n_shared_experts", OFF_ZERO},
    {"num_experts_per_tok", OFF_ZERO},
    {"moe_intermediate_size", OFF_ZERO},
    /* latent attention, sinks, chunks */
    {"kv_lora_rank", OFF_NULL},
    {"q_lora_rank", OFF_NULL},
    {"qk_rope_head_dim", OFF_NULL},
    {"qk_nope_head_dim", OFF_NULL},
    {"v_head_dim", OFF_NULL},
    {"attention_sinks", OFF_FALSE},
    {"use_attention_sinks", OFF_FALSE},
    {"attention_chunk_size", OFF_ZERO},
    {"dual_chunk_attention_config", OFF_NULL},
    {"use_bidirectional_attention", OFF_FALSE},
    {"num_kv_shared_layers", OFF_ZERO},
    /* caps and factors */
    {"attn_logit_softcapping", OFF_ZERO},
    {"final_logit_softcapping", OFF_ZERO},
    {"clip_qkv", OFF_NULL},
    {"attention_multiplier", OFF_NULL},
    {"embedding_multiplier", OFF_ONE},
    {"residual_multiplier", OFF_ONE},
    {"logits_scaling", OFF_ONE},
    {"logit_scale", OFF_ONE},
    /* position */
    {"partial_rotary_factor", OFF_ONE},
    {"rotary_pct", OFF_ONE},
    {"no_rope_layers", OFF_NULL},
    {"no_rope_layer_interval", OFF_ZERO},
    {"use_mrope", OFF_FALSE},
    {"alibi", OFF_FALSE},
    /* biases: of o too where attention has them */
    {"attention_bias", OFF_FALSE},
    {"mlp_bias", OFF_FALSE},
    {"lm_head_bias", OFF_FALSE},
    /* others */
    {"use_qk_norm", OFF_FALSE},
    {"qk_layernorm", OFF_FALSE},
    {"is_encoder_decoder", OFF_FALSE},
    {"add_cross_attention", OFF_FALSE},
    {"quantization_config", OFF_NULL},
};

static bool is_off(const json_t *value, enum off off)
{
    if (!value)
        return true;
    double number = json_is_number(value) ? json_number_value(value) : -1;
    switch (off) {
    case OFF_NULL:
        return false;
    case OFF_ZERO:
        return number >= 0 && number <= 0;
    case OFF_FALSE:
        return json_is_false(value);
    case OFF_ONE:
        return number >= 1 && number <= 1;
    }
    return false;
}

enum ra_status ra_lm_config_unsupported(const struct ra_lm_keys *keys, struct ra_error *err)
{
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++)
        if (!is_off(ra_lm_keys_get(keys, unsupported[i].key), unsupported[i].off))
            return ra_lm_keys_fail(keys, RA_EUSAGE, unsupported[i].key,
                                   expected[unsupported[i].off], err);
    return RA_OK;
}
