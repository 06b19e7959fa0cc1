/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The weights of a model directory, widened to f32 at load: model.safetensors, or
 * model.safetensors.index.json and the shards it names. Matrices are [out][in], row-major, as HF
 * stores them. Norm weights are as they multiply: where the family multiplies by 1 + w, 1 is added.
 */
#ifndef RA_TRACES_MODEL_WEIGHTS_H
#define RA_TRACES_MODEL_WEIGHTS_H

#include "sim/base/hash.h"
#include "traces/model/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* NULL where the family has none. */
struct ra_lm_layer {
    const float *input_norm;               /* [hidden] before attention */
    const float *q, *k, *v;                /* [Hq * D][hidden], [Hkv * D][hidden] twice */
    const float *q_bias, *k_bias, *v_bias; /* [Hq * D], [Hkv * D] twice */
    const float *q_norm, *k_norm;          /* [D] */
    const float *o;                        /* [hidden][Hq * D] */
    const float *attn_post_norm;           /* [hidden] after attention */
    const float *mlp_norm;                 /* [hidden] before the MLP */
    const float *gate, *up;                /* [ffn][hidden] */
    const float *down;                     /* [hidden][ffn] */
    const float *mlp_post_norm;            /* [hidden] after the MLP */
};

struct ra_lm_weights {
    const float *embed; /* [vocab][hidden] */
    const float *norm;  /* [hidden] the last one */
    const float *head;  /* [vocab][hidden]; the embedding where tied */
    struct ra_lm_layer *layers;
    void *memory;
};

/* Bytes that open will take. */
size_t ra_lm_weights_bytes(const struct ra_lm_config *config);

/*
 * Errors: RA_EIO, RA_EFORMAT naming file, tensor, expected and got (missing tensors, shapes,
 * dtypes other than F32, F16, BF16, NaN or Inf, with the first element's index); RA_ENOMEM. Tensors
 * that the family does not have are refused, but for rotary tables (*.rotary_emb.inv_freq), the
 * head of a model whose head is its embedding, and the vision part of Gemma 3, whose text part then
 * is below `language_model`. progress, in bytes, may be NULL.
 */
RA_MUST_CHECK enum ra_status
ra_lm_weights_open(struct ra_lm_weights **weights, const struct ra_lm_config *config,
                   const char *dir, void (*progress)(void *context, uint64_t done, uint64_t total),
                   void *context, struct ra_error *err);
void ra_lm_weights_close(struct ra_lm_weights *weights); /* accepts NULL */

/*
 * Names the model where its directory has no provenance.json: SHA-256 of two SHA-256 in hex, one of
 * config.json, one of the weights' data (ra_shards_digest). Reads every file once more. Errors:
 * RA_EIO, RA_EFORMAT, RA_ENOMEM.
 */
RA_MUST_CHECK enum ra_status ra_lm_weights_digest(const char *dir, char hex[RA_SHA256_HEX],
                                                  struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
