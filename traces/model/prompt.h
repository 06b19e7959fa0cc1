/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A prompt run through a model under dense attention, once: what every schedule that decodes from
 * it starts with.
 */
#ifndef RA_TRACES_MODEL_PROMPT_H
#define RA_TRACES_MODEL_PROMPT_H

#include "sim/base/pool.h"
#include "traces/model/decoder.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Prompt tokens that go through the model together. */
enum { RA_LM_CHUNK = 256 };

struct ra_lm_prompt {
    int32_t P, W;
    char *k, *v;   /* [n_layers][Hkv][P][D] as stored */
    float *q;      /* [n_layers][Hq][W][D] of the last W positions */
    float *acc;    /* [n_layers][Hq][P] probability each position received, summed over all prompt
                    * queries; NULL unless asked for */
    float *logits; /* [vocab] after the last token */
};

struct ra_lm_prompt_config {
    const int32_t *tokens; /* [P] */
    int32_t P, W;          /* 1 <= W <= P */
    bool wants_acc;
    struct ra_pool *pool; /* of the attention; NULL: the caller alone */
    /* Returns false to stop, which is RA_EINTERRUPTED. NULL: nobody listens. */
    bool (*progress)(void *context, int32_t done, int32_t P);
    void *context;
};

/* lm needs room for RA_LM_CHUNK rows, or for P. Errors: RA_ENOMEM, RA_ERANGE, RA_EINTERRUPTED. */
RA_MUST_CHECK enum ra_status ra_lm_prompt_open(struct ra_lm_prompt **prompt, struct ra_lm *lm,
                                               const struct ra_lm_prompt_config *config,
                                               struct ra_error *err);
void ra_lm_prompt_close(struct ra_lm_prompt *prompt); /* accepts NULL */

/* Bytes of one layer's K: Hkv * P * D elements. */
size_t ra_lm_prompt_layer_bytes(const struct ra_lm *lm, int32_t P);

#ifdef __cplusplus
}
#endif

#endif
