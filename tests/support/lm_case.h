/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiny language models with random weights, one of each family that the decoder has a setting for,
 * and the whole forward pass once more: in f64, token by token, in plain loops, sharing nothing
 * with the decoder but its configuration. Failures fail the test.
 */
#ifndef RA_TESTS_SUPPORT_LM_CASE_H
#define RA_TESTS_SUPPORT_LM_CASE_H

#include "sim/policy.h"
#include "traces/model/loop.h"

enum lm_family {
    LM_LLAMA, /* groups of 3, linear RoPE, tied */
    LM_ALONE, /* groups of 1, head of its own */
    LM_QWEN2, /* biases, one KV head */
    LM_QWEN3, /* norms of q and k; D is not hidden / Hq */
    LM_GEMMA, /* layers 0, 2, 3 slide; GELU, norms after, scaled embeddings, two RoPEs */
    LM_FAMILIES
};

enum { LM_LAYERS = 4, LM_VOCAB = 61, LM_WINDOW = 20 };

struct lm_case {
    struct ra_lm_config config;
    struct ra_lm_weights weights;
    struct ra_lm_layer layers[LM_LAYERS];
    bool slides[LM_LAYERS];
    float *memory;
    struct ra_lm lm; /* cache of `dtype`, room for RA_LM_CHUNK rows */
};

extern const char *const lm_family_names[LM_FAMILIES];

/* Chooses plain products for the process. */
void lm_case_open(struct lm_case *c, enum lm_family family, enum ra_dtype dtype);
void lm_case_close(struct lm_case *c);

/* n random ids. */
void lm_tokens(uint64_t key, int32_t *tokens, int n);

/* Dense prefill of tokens [P]; the caller closes. */
struct ra_lm_prompt *lm_prompt(struct lm_case *c, const int32_t *tokens, int32_t P, int32_t W,
                               bool wants_acc, struct ra_pool *pool);

/* What to decode: spelling i of `policies` [n] reads tokens[i] [P + N]. */
struct lm_run {
    struct lm_case *c;
    const struct ra_lm_prompt *prompt;
    int n;
    const char *const *policies;
    const int32_t *const *tokens;
    int32_t N;
    struct ra_pool *pool;
    const struct ra_backend_ops *backend; /* NULL: cpu */
    /* Called after every step with the counts of sequence i; NULL: nobody. */
    void (*each)(void *context, int i, int32_t t, const struct ra_lm_step_counts *counts);
    void *context;
};

/* Fill logits [n][N][vocab]. */
void lm_decode(const struct lm_run *run, float *logits);

/* Whether the query of a layer's head at `at` attends to `pos` <= at. */
typedef bool (*lm_sees)(const void *context, int layer, int head, int32_t at, int32_t pos);

/* logits [n][vocab] of tokens [n], dense where `sees` is NULL; windows apply in any case. */
void lm_reference(const struct lm_case *c, const int32_t *tokens, int n, lm_sees sees,
                  const void *context, double *logits);

/* Largest |got - expected|, divided by the largest |expected| or 1. Infinite where got is NaN. */
double lm_gap(const float *got, const double *expected, size_t n);
double lm_gap_f32(const float *got, const float *expected, size_t n);

#endif
