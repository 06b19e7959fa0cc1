/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prefill and decode of tiny models of every family: against the forward pass in f64, in chunks
 * against token by token, alone against together, with few threads and many.
 */
#include "tests/support/ra_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/approx.h"
#include "tests/support/lm_case.h"

enum { MOST = 600 };

static int32_t tokens[MOST];

static float *room(size_t n)
{
    float *out = malloc(n * sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < n; i++)
        out[i] = NAN;
    return out;
}

static void each_family(void (*test)(struct lm_case *c), enum ra_dtype dtype)
{
    struct lm_case c;
    for (int family = 0; family < LM_FAMILIES; family++) {
        print_message("  %s\n", lm_family_names[family]);
        lm_case_open(&c, (enum lm_family)family, dtype);
        test(&c);
        lm_case_close(&c);
    }
}

/* Prompts that end within a chunk, with one, after one, and at a window's edge. */
static void check_prefill(struct lm_case *c)
{
    static const int32_t lengths[] = {1, 2, 19, 20, 21, 40, 255, 256, 257, 275, 276, 277, 512, 530};
    double *expected = malloc(MOST * LM_VOCAB * sizeof *expected);
    assert_non_null(expected);
    lm_tokens(1, tokens, MOST);
    lm_reference(c, tokens, MOST, NULL, NULL, expected);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        int32_t P = lengths[i];
        struct ra_lm_prompt *prompt = lm_prompt(c, tokens, P, 1, false, NULL);
        double gap = lm_gap(prompt->logits, expected + (size_t)(P - 1) * LM_VOCAB, LM_VOCAB);
        if (!(gap < 1e-4))
            fail_msg("P = %d: gap to f64 %.3g", P, gap);
        ra_lm_prompt_close(prompt);
    }
    free(expected);
}

static void test_prefill(void **unused)
{
    (void)unused;
    each_family(check_prefill, RA_F32);
}

/* Windows longer than a chunk, of a chunk, and one less: where the first key of a chunk's first
 * query lies in the chunk before, or before that. */
static void test_windows(void **unused)
{
    (void)unused;
    static const int32_t windows[] = {1, 2, 255, 256, 257, 300, 599, 600, 1000};
    struct lm_case c;
    double *expected = malloc(MOST * LM_VOCAB * sizeof *expected);
    assert_non_null(expected);
    lm_tokens(2, tokens, MOST);
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        lm_case_open(&c, LM_GEMMA, RA_F32);
        c.config.window = windows[i];
        lm_reference(&c, tokens, MOST, NULL, NULL, expected);
        struct ra_lm_prompt *prompt = lm_prompt(&c, tokens, MOST, 1, false, NULL);
        double gap = lm_gap(prompt->logits, expected + (size_t)(MOST - 1) * LM_VOCAB, LM_VOCAB);
        if (!(gap < 1e-4))
            fail_msg("window %d: gap to f64 %.3g", windows[i], gap);
        ra_lm_prompt_close(prompt);
        lm_case_close(&c);
    }
    free(expected);
}

/* Full attention step by step, whatever was prefilled. */
static void check_decode(struct lm_case *c)
{
    static const int32_t lengths[] = {1, 5, 18, 19, 20, 250, 257};
    static const char *const full[] = {"full"};
    enum { N = 30 };
    const int32_t *const read[] = {tokens};
    float *logits = room((size_t)N * LM_VOCAB);
    double *expected = malloc(MOST * LM_VOCAB * sizeof *expected);
    assert_non_null(expected);
    lm_tokens(3, tokens, MOST);
    lm_reference(c, tokens, 300, NULL, NULL, expected);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        int32_t P = lengths[i];
        struct ra_lm_prompt *prompt = lm_prompt(c, tokens, P, 1, false, NULL), *longer;
        struct lm_run run = {
            .c = c, .prompt = prompt, .n = 1, .policies = full, .tokens = read, .N = N};
        lm_decode(&run, logits);
        double gap = lm_gap(logits, expected + (size_t)P * LM_VOCAB, (size_t)N * LM_VOCAB);
        if (!(gap < 1e-4))
            fail_msg("P = %d: gap to f64 %.3g", P, gap);
        longer = lm_prompt(c, tokens, P + 1, 1, false, NULL);
        gap = lm_gap_f32(logits, longer->logits, LM_VOCAB);
        if (!(gap < 1e-5))
            fail_msg("P = %d: a step's gap to a prefill one token longer: %.3g", P, gap);
        ra_lm_prompt_close(prompt);
        ra_lm_prompt_close(longer);
    }
    free(expected);
    free(logits);
}

static void test_decode(void **unused)
{
    (void)unused;
    each_family(check_decode, RA_F32);
}

/* Keys and values in 16 bits move the logits, but not far, and the decode step knows the same rows
 * as the prefill. */
static void check_halves(struct lm_case *c)
{
    static const char *const full[] = {"full"};
    enum { P = 300, N = 1 };
    const int32_t *const read[] = {tokens};
    float *logits = room(LM_VOCAB);
    double *expected = malloc(MOST * LM_VOCAB * sizeof *expected);
    assert_non_null(expected);
    lm_tokens(4, tokens, MOST);
    lm_reference(c, tokens, P + 1, NULL, NULL, expected);
    struct ra_lm_prompt *prompt = lm_prompt(c, tokens, P, 1, false, NULL);
    struct ra_lm_prompt *longer = lm_prompt(c, tokens, P + 1, 1, false, NULL);
    struct lm_run run = {
        .c = c, .prompt = prompt, .n = 1, .policies = full, .tokens = read, .N = N};
    lm_decode(&run, logits);
    double gap = lm_gap(logits, expected + (size_t)P * LM_VOCAB, LM_VOCAB);
    double bound = c->lm.shape.dtype == RA_F16 ? 0.03 : 0.25;
    if (!(gap < bound && gap > 1e-6))
        fail_msg("gap to f64 without rounding: %.3g", gap);
    gap = lm_gap_f32(logits, longer->logits, LM_VOCAB);
    if (!(gap < 0.02 * bound))
        fail_msg("a step's gap to a prefill one token longer: %.3g", gap);
    ra_lm_prompt_close(prompt);
    ra_lm_prompt_close(longer);
    free(expected);
    free(logits);
}

static void test_halves(void **unused)
{
    (void)unused;
    each_family(check_halves, RA_F16);
    each_family(check_halves, RA_BF16);
}

/* What a prompt holds besides its logits: as many rows as it has, and the same for any threads. */
static void check_snapshot(struct lm_case *c)
{
    enum { P = 530, W = 300 };
    struct ra_pool *pool;
    struct ra_error err;
    lm_tokens(5, tokens, MOST);
    struct ra_lm_prompt *one = lm_prompt(c, tokens, P, W, true, NULL);
    size_t L = LM_LAYERS, rows = ra_lm_prompt_layer_bytes(&c->lm, P) * L;
    size_t Hq = (size_t)c->config.Hq, q = L * Hq * W * (size_t)c->config.D * sizeof(float);
    for (int threads = 2; threads <= 5; threads += 3) {
        ra_assert_ok(ra_pool_open(&pool, threads, &err));
        struct ra_lm_prompt *many = lm_prompt(c, tokens, P, W, true, pool);
        assert_memory_equal(one->k, many->k, rows);
        assert_memory_equal(one->v, many->v, rows);
        assert_memory_equal(one->q, many->q, q);
        assert_memory_equal(one->acc, many->acc, L * Hq * P * sizeof(float));
        assert_memory_equal(one->logits, many->logits, LM_VOCAB * sizeof(float));
        ra_lm_prompt_close(many);
        ra_pool_close(pool);
    }
    /* Each query gives away one. */
    for (size_t head = 0; head < L * Hq; head++) {
        double sum = 0, expected = P;
        for (size_t j = 0; j < P; j++)
            sum += (double)one->acc[head * P + j];
        ra_assert_close("received", &sum, &expected, 1, 0, 1e-5);
    }
    /* Queries of a shorter tail, and rows of a shorter prompt, are those of the longer. */
    struct ra_lm_prompt *tail = lm_prompt(c, tokens, P, 7, false, NULL);
    assert_null(tail->acc);
    for (size_t head = 0; head < L * Hq; head++)
        assert_memory_equal(tail->q + head * 7 * (size_t)c->config.D,
                            one->q + (head * W + W - 7) * (size_t)c->config.D,
                            7 * (size_t)c->config.D * sizeof(float));
    ra_lm_prompt_close(tail);
    ra_lm_prompt_close(one);
}

static void test_snapshot(void **unused)
{
    (void)unused;
    each_family(check_snapshot, RA_F32);
}

/* What a position received, from the recorded tail alone: W = P, so all queries are there. */
static void check_received(struct lm_case *c)
{
    enum { P = 280 };
    lm_tokens(6, tokens, MOST);
    struct ra_lm_prompt *prompt = lm_prompt(c, tokens, P, P, true, NULL);
    size_t D = (size_t)c->config.D, G = (size_t)(c->config.Hq / c->config.Hkv);
    for (int l = 0; l < LM_LAYERS; l++)
        for (size_t h = 0; h < (size_t)c->config.Hq; h++) {
            size_t head = (size_t)l * (size_t)c->config.Hq + h;
            const float *q = prompt->q + head * P * D;
            const float *k = (const float *)(const void *)prompt->k +
                             ((size_t)l * (size_t)c->config.Hkv + h / G) * P * D;
            double expected[P] = {0}, got[P], weight[P];
            int32_t window = c->config.window && c->slides[l] ? c->config.window : P;
            for (int32_t i = 0; i < P; i++) {
                int32_t low = i - window + 1 > 0 ? i - window + 1 : 0;
                double sum = 0;
                for (int32_t j = low; j <= i; j++) {
                    double logit = 0;
                    for (size_t d = 0; d < D; d++)
                        logit += (double)q[(size_t)i * D + d] * (double)k[(size_t)j * D + d];
                    weight[j] = exp(logit * c->config.attn_scale);
                    sum += weight[j];
                }
                for (int32_t j = low; j <= i; j++)
                    expected[j] += weight[j] / sum;
            }
            for (size_t j = 0; j < P; j++)
                got[j] = (double)prompt->acc[head * P + j];
            ra_assert_close("received", got, expected, P, 1e-6, 1e-5);
        }
    ra_lm_prompt_close(prompt);
}

static void test_received(void **unused)
{
    (void)unused;
    each_family(check_received, RA_F32);
}

static bool stop_at_300(void *context, int32_t done, int32_t P)
{
    *(int *)context += 1;
    assert_int_equal(P, 600);
    return done < 300;
}

static void test_interrupted(void **unused)
{
    (void)unused;
    struct lm_case c;
    struct ra_lm_prompt *prompt = NULL;
    struct ra_error err;
    int calls = 0;
    lm_case_open(&c, LM_LLAMA, RA_F16);
    lm_tokens(7, tokens, MOST);
    struct ra_lm_prompt_config config = {
        .tokens = tokens, .P = MOST, .W = 1, .progress = stop_at_300, .context = &calls};
    ra_assert_fails(ra_lm_prompt_open(&prompt, &c.lm, &config, &err), RA_EINTERRUPTED,
                    "interrupted");
    assert_null(prompt);
    assert_int_equal(calls, 2);
    lm_case_close(&c);
}

/* A value that f16 cannot hold is named by layer and position. */
static void test_overflow(void **unused)
{
    (void)unused;
    struct lm_case c;
    struct ra_lm_prompt *prompt = NULL;
    struct ra_error err;
    lm_case_open(&c, LM_LLAMA, RA_F16);
    for (int i = 0; i < 300; i++)
        tokens[i] = 3;
    tokens[277] = 4;
    float *at = (float *)(c.weights.embed + 4 * c.config.hidden);
    for (int i = 0; i < c.config.hidden; i++) /* the only token whose embedding is of one axis */
        at[i] = i == 5 ? 1 : 0;
    for (int token = 0; token < LM_VOCAB; token++)
        if (token != 4)
            ((float *)c.weights.embed)[token * c.config.hidden + 5] = 0;
    ((float *)c.layers[0].v)[3 * c.config.hidden + 5] = 1e6f;
    struct ra_lm_prompt_config config = {.tokens = tokens, .P = 300, .W = 1};
    ra_assert_fails(ra_lm_prompt_open(&prompt, &c.lm, &config, &err), RA_ERANGE,
                    "layer 0, position 277: expected a value that fits f16, got ");
    lm_case_close(&c);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prefill),     cmocka_unit_test(test_windows),
        cmocka_unit_test(test_decode),      cmocka_unit_test(test_halves),
        cmocka_unit_test(test_snapshot),    cmocka_unit_test(test_received),
        cmocka_unit_test(test_interrupted), cmocka_unit_test(test_overflow),
    };
    return cmocka_run_group_tests_name("lm_decode", tests, NULL, NULL);
}
