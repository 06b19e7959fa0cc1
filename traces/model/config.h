/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a Hugging Face config.json says of a causal language model, reduced to what one forward pass
 * needs: every family that is supported is a setting of these fields. A key that would change the
 * arithmetic and is not supported is refused by name; keys of generation or training are ignored.
 */
#ifndef RA_TRACES_MODEL_CONFIG_H
#define RA_TRACES_MODEL_CONFIG_H

#include <stdbool.h>

#include "sim/model.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RA_LM_MAX_LAYERS = 4096, RA_LM_MAX_EOS = 8 };

enum ra_lm_activation { RA_LM_SILU, RA_LM_GELU_TANH };

struct ra_lm_config {
    const char *arch; /* llama, mistral, qwen2, qwen3, gemma3: model.arch of traces */
    int n_layers, hidden, ffn, vocab;
    int Hq, Hkv, D;
    int32_t max_positions;
    double norm_eps;
    double attn_scale;  /* what a trace states, "%.9g": the decoder scales by the same */
    double embed_scale; /* embeddings are multiplied by it; 1 but for Gemma */
    enum ra_lm_activation activation;
    bool qkv_bias;             /* q, k, v projections add a bias */
    bool qk_norm;              /* RMS norm over D on q and k before RoPE */
    bool norm_plus_one;        /* norms multiply by 1 + weight */
    bool post_norms;           /* norms after attention and MLP too, before the residual is added */
    bool tied;                 /* the output projection is the embedding */
    int32_t window;            /* sliding window of the layers in `slides`; 0: none */
    bool *slides;              /* [n_layers] */
    struct ra_rope rope;       /* of layers that do not slide */
    struct ra_rope rope_local; /* of layers that do */
    int n_eos;
    int32_t eos[RA_LM_MAX_EOS];
    int32_t bos; /* -1: none is named */
};

/*
 * Read DIR/config.json. v4 and v5 spellings; a nested text_config is taken. Errors: RA_EIO,
 * RA_EFORMAT and RA_EUSAGE (unsupported: key, what was expected, what came), RA_ENOMEM; each
 * opens with the path. The caller closes.
 */
RA_MUST_CHECK enum ra_status ra_lm_config_open(struct ra_lm_config **config, const char *dir,
                                               struct ra_error *err);
void ra_lm_config_close(struct ra_lm_config *config); /* accepts NULL */

/* Shape of the attention, with K and V kept as `dtype`. */
struct ra_model ra_lm_config_model(const struct ra_lm_config *config, enum ra_dtype dtype);

#ifdef __cplusplus
}
#endif

#endif
