/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forward pass of a causal language model, but for its attention, which the caller supplies:
 * dense for a prompt, or what a schedule says. One code path for all families (config.h) and for
 * rows of one sequence or of many. f32; q, k and v are rounded to the cache's type before attention
 * sees them, so that a recording holds what was attended.
 */
#ifndef RA_TRACES_MODEL_DECODER_H
#define RA_TRACES_MODEL_DECODER_H

#include "traces/model/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One layer's rows as its attention gets them: rotated, rounded. Borrowed during the call. */
struct ra_lm_rows {
    int n, layer;
    const int32_t *positions;  /* [n] */
    const float *q, *k, *v;    /* [n][Hq][D], [n][Hkv][D] twice */
    const void *k_raw, *v_raw; /* the same k and v as stored in the cache's type */
    float *out;                /* [n][Hq][D], to be filled */
};

struct ra_lm_attention {
    enum ra_status (*attend)(void *context, const struct ra_lm_rows *rows, struct ra_error *err);
    void *context;
};

/* A model and room to run up to `max_rows` rows at once. */
struct ra_lm {
    const struct ra_lm_config *config;
    const struct ra_lm_weights *weights;
    struct ra_model shape; /* of its attention; dtype: of the cache */
    struct ra_lm_space *space;
    int max_rows;
};

/* Both are borrowed until close. Errors: RA_ENOMEM. A zeroed struct may be closed. */
RA_MUST_CHECK enum ra_status ra_lm_open(struct ra_lm *lm, const struct ra_lm_config *config,
                                        const struct ra_lm_weights *weights, enum ra_dtype dtype,
                                        int max_rows, struct ra_error *err);
void ra_lm_close(struct ra_lm *lm);

/*
 * Run n <= max_rows tokens [n] at `positions` [n] through all layers. *hidden [n][hidden], after
 * the last norm, is borrowed until the next call. Errors: of `attend`; RA_ERANGE naming layer and
 * position where a query, key or value does not fit the cache's type.
 */
RA_MUST_CHECK enum ra_status ra_lm_forward(struct ra_lm *lm, int n, const int32_t *tokens,
                                           const int32_t *positions,
                                           const struct ra_lm_attention *attention,
                                           const float **hidden, struct ra_error *err);

/* logits [n][vocab] of n rows of hidden states. */
void ra_lm_logits(const struct ra_lm *lm, int n, const float *hidden, float *logits);

#ifdef __cplusplus
}
#endif

#endif
