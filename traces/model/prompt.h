/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A prompt run through a model under dense attention, once: what every schedule that decodes from
 * it starts with. One that was opened with room can grow by tokens that are run over it, and lose
 * its end again: what speculation verifies and rejects.
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
    int32_t opened; /* P when it was opened, below which it does not go */
    int32_t rows;   /* opened + room */
    char *k, *v;    /* [n_layers][Hkv][rows][D] as stored; the first P are */
    float *q;       /* [n_layers][Hq][W + room][D] from position opened - W on */
    float *acc;     /* [n_layers][Hq][P] probability each position received, summed over all prompt
                     * queries; NULL unless asked for */
    float *logits;  /* [vocab] after the last token that it was opened with */
};

struct ra_lm_prompt_config {
    const int32_t *tokens; /* [P] */
    int32_t P, W;          /* 1 <= W <= P */
    int32_t room;          /* tokens by which it may grow */
    bool wants_acc;        /* not with room: acc does not grow */
    struct ra_pool *pool;  /* of the attention; NULL: the caller alone */
    /* Returns false to stop, which is RA_EINTERRUPTED. NULL: nobody listens. */
    bool (*progress)(void *context, int32_t done, int32_t P);
    void *context;
};

/* lm needs room for RA_LM_CHUNK rows, or for P. Errors: RA_ENOMEM, RA_ERANGE, RA_EINTERRUPTED. */
RA_MUST_CHECK enum ra_status ra_lm_prompt_open(struct ra_lm_prompt **prompt, struct ra_lm *lm,
                                               const struct ra_lm_prompt_config *config,
                                               struct ra_error *err);
void ra_lm_prompt_close(struct ra_lm_prompt *prompt); /* accepts NULL */

/* Bytes of one layer's K: Hkv * rows * D elements. */
size_t ra_lm_prompt_layer_bytes(const struct ra_lm *lm, int32_t rows);

/* Queries [W][D] of the last W positions, of one head. */
const float *ra_lm_prompt_queries(const struct ra_lm_prompt *prompt, const struct ra_lm *lm,
                                  int layer, int head);

/* Run n more tokens, n <= RA_LM_CHUNK, over the prompt under dense causal attention: P grows by n.
 * logits [n][vocab] after each. After a failure P is as it was. Errors: RA_ENOMEM, RA_ERANGE. */
RA_MUST_CHECK enum ra_status ra_lm_prompt_extend(struct ra_lm_prompt *prompt, struct ra_lm *lm,
                                                 const int32_t *tokens, int n, struct ra_pool *pool,
                                                 float *logits, struct ra_error *err);

/* Take over rows of one layer, at their positions, made under any attention. They count once
 * ra_lm_prompt_resize says so. */
void ra_lm_prompt_put(struct ra_lm_prompt *prompt, const struct ra_lm *lm,
                      const struct ra_lm_rows *rows);

/* Make it the first P positions, opened <= P <= rows: forget the last ones, or count those that
 * were put. */
void ra_lm_prompt_resize(struct ra_lm_prompt *prompt, int32_t P);

#ifdef __cplusplus
}
#endif

#endif
