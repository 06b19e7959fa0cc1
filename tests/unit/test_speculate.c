/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Speculation: what comes out is greedy decoding's, whatever is drafted; each round drafts as if
 * the schedule had been opened on a fresh prefill of what stands; and what is counted agrees with
 * formulas. Small random models in plain C products, whose rows do not depend on their number.
 */
#include <stdlib.h>
#include <string.h>

#include "sim/base/rng.h"
#include "sim/speculate.h"
#include "tests/support/ra_test.h"
#include "traces/model/gemm.h"
#include "traces/model/layers.h"
#include "traces/model/loop.h"

enum { LAYERS = 2, HIDDEN = 24, FFN = 32, VOCAB = 61, D = 8, HQ = 4, HKV = 2, P = 40, N = 24 };

static struct ra_error err;

/* A model of one seed, and plain decoding of a prompt of the same seed. */
struct bed {
    struct ra_lm_config config;
    struct ra_lm_weights weights;
    struct ra_lm_layer layers[LAYERS];
    bool slides[LAYERS];
    float *memory, *at;
    uint64_t seed, draws;
    struct ra_lm lm;
    int32_t tokens[P + N + 1]; /* the prompt, and what plain decoding makes of it */
    struct ra_lm_prompt *prompt;
    struct ra_speculate_score plain;
    int32_t done[N], n_rounds; /* of the last run */
    int32_t stop_at;           /* 0: never */
};

static const float *draw(struct bed *bed, size_t n, double scale, double mean)
{
    float *first = bed->at;
    bed->at += n;
    for (size_t i = 0; i < n; i++)
        first[i] = (float)(mean + scale * ra_rng_normal(bed->seed, bed->draws++));
    return first;
}

static bool on_round(void *context, int32_t done, int32_t total)
{
    struct bed *bed = context;
    assert_int_equal(total, N);
    assert_in_range(bed->n_rounds, 0, N - 1);
    bed->done[bed->n_rounds++] = done;
    return !bed->stop_at || done < bed->stop_at;
}

static struct ra_speculate_config config_of(struct bed *bed)
{
    return (struct ra_speculate_config){.lm = &bed->lm,
                                        .prompt = bed->prompt,
                                        .backend = ra_backend_find("cpu"),
                                        .N = N,
                                        .progress = on_round,
                                        .context = bed};
}

static void fill(struct bed *bed)
{
    bed->memory = bed->at = malloc(200000 * sizeof *bed->memory);
    assert_non_null(bed->memory);
    bed->weights.layers = bed->layers;
    bed->weights.embed = draw(bed, VOCAB * HIDDEN, 0.6, 0);
    bed->weights.head = draw(bed, VOCAB * HIDDEN, 0.6, 0);
    bed->weights.norm = draw(bed, HIDDEN, 0.06, 1);
    for (int l = 0; l < LAYERS; l++)
        bed->layers[l] = (struct ra_lm_layer){.input_norm = draw(bed, HIDDEN, 0.06, 1),
                                              .q = draw(bed, HQ * D * HIDDEN, 0.4, 0),
                                              .k = draw(bed, HKV * D * HIDDEN, 0.4, 0),
                                              .v = draw(bed, HKV * D * HIDDEN, 0.4, 0),
                                              .o = draw(bed, HIDDEN * HQ * D, 0.4, 0),
                                              .mlp_norm = draw(bed, HIDDEN, 0.06, 1),
                                              .gate = draw(bed, FFN * HIDDEN, 0.3, 0),
                                              .up = draw(bed, FFN * HIDDEN, 0.3, 0),
                                              .down = draw(bed, HIDDEN * FFN, 0.3, 0)};
}

static struct bed *open_bed(uint64_t seed, int32_t window)
{
    struct bed *bed = calloc(1, sizeof *bed);
    assert_non_null(bed);
    bed->seed = seed;
    bed->slides[0] = window > 0;
    bed->config = (struct ra_lm_config){.arch = "llama",
                                        .n_layers = LAYERS,
                                        .hidden = HIDDEN,
                                        .ffn = FFN,
                                        .vocab = VOCAB,
                                        .Hq = HQ,
                                        .Hkv = HKV,
                                        .D = D,
                                        .max_positions = 4096,
                                        .norm_eps = 1e-5,
                                        .attn_scale = 0.353553391,
                                        .embed_scale = 1,
                                        .window = window,
                                        .slides = bed->slides,
                                        .rope = {.type = RA_ROPE_DEFAULT, .theta = 10000},
                                        .rope_local = {.type = RA_ROPE_DEFAULT, .theta = 10000},
                                        .bos = -1};
    fill(bed);
    ra_assert_ok(ra_gemm_open(RA_GEMM_PLAIN, 1, &err));
    ra_assert_ok(ra_lm_open(&bed->lm, &bed->config, &bed->weights, RA_F32, RA_LM_CHUNK, &err));
    for (int32_t i = 0; i < P; i++)
        bed->tokens[i] = ra_rng_int(seed, 1000000 + (uint64_t)i, 0, VOCAB - 1);
    struct ra_lm_prompt_config of = {.tokens = bed->tokens, .P = P, .W = 8, .room = N};
    ra_assert_ok(ra_lm_prompt_open(&bed->prompt, &bed->lm, &of, &err));
    struct ra_speculate_config config = config_of(bed);
    bed->plain.tokens = bed->tokens + P;
    ra_assert_ok(ra_speculate_plain(&config, &bed->plain, &err));
    bed->n_rounds = 0;
    return bed;
}

static void close_bed(struct bed *bed)
{
    ra_lm_prompt_close(bed->prompt);
    ra_lm_close(&bed->lm);
    free(bed->memory);
    free(bed);
}

static struct ra_policy_spec *spec_of(const char *text)
{
    struct ra_policy_spec *spec;
    ra_assert_ok(ra_policy_parse(&spec, text, &err));
    return spec;
}

static struct ra_speculate_score speculate(struct bed *bed, const char *policy, int32_t gamma,
                                           const char *below, int32_t below_gamma)
{
    static int32_t tokens[N + 1];
    struct ra_policy_spec *spec = spec_of(policy), *lower = below ? spec_of(below) : NULL;
    struct ra_speculate_config config = config_of(bed);
    struct ra_speculate_draft draft = {spec, gamma, lower, below_gamma};
    struct ra_speculate_score score = {.tokens = tokens};
    bed->n_rounds = 0;
    ra_assert_ok(ra_speculate_run(&config, &draft, bed->tokens + P, &score, &err));
    assert_int_equal(bed->prompt->P, P);
    ra_policy_spec_close(spec);
    ra_policy_spec_close(lower);
    return score;
}

static const char *const policies[] = {
    "streaming:k=6,sinks=2",
    "recycled:k=6,stride=100,pool=3",
    "recycled:k=6,stride=2,pool=3",
    "recycled:k=1/8,stride=2,sim=0.9,pool=3",
    "triforce:k=8,chunk=2,gamma=100",
    "triforce:k=8,chunk=2,gamma=1",
    "quest:k=8,page=4",
    "snapkv:k=8,window=4",
    "full",
};
enum { N_POLICIES = sizeof policies / sizeof policies[0] };

/* The likeliest token after the prefill of everything so far. */
static void test_plain_is_prefill(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct bed *bed = open_bed(seed, seed == 3 ? 9 : 0);
        for (int32_t t = 0; t <= N; t++) {
            struct ra_lm_prompt_config of = {.tokens = bed->tokens, .P = P + t, .W = 1};
            struct ra_lm_prompt *prompt;
            ra_assert_ok(ra_lm_prompt_open(&prompt, &bed->lm, &of, &err));
            assert_int_equal(bed->tokens[P + t], ra_lm_likeliest(prompt->logits, VOCAB));
            ra_lm_prompt_close(prompt);
        }
        close_bed(bed);
    }
}

static void test_output_is_plain(void **state)
{
    (void)state;
    int64_t drafted = 0, accepted = 0;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct bed *bed = open_bed(seed, seed == 3 ? 9 : 0);
        for (int p = 0; p < N_POLICIES; p++)
            for (int32_t gamma = 1; gamma <= 5; gamma++) {
                struct ra_speculate_score score = speculate(bed, policies[p], gamma, NULL, 0);
                assert_memory_equal(score.tokens, bed->tokens + P, (N + 1) * sizeof(int32_t));
                assert_int_equal(score.first_difference, -1);
                assert_int_equal(score.near_ties + score.wrong, 0);
                assert_int_equal(score.verifications, bed->n_rounds);
                assert_int_equal(score.accepted + score.verifications, N);
                assert_int_equal(score.passes, score.drafted + score.verifications);
                drafted += score.drafted;
                accepted += score.accepted;
            }
        close_bed(bed);
    }
    /* Drafts of both kinds were among them. */
    assert_in_range(accepted, drafted / 10, drafted * 9 / 10);
}

/* Drafts of a round after `done` tokens of the text that greedy decoding agrees with, both from a
 * fresh prefill. */
static int32_t fresh_round(struct bed *bed, const struct ra_policy_spec *spec, const int32_t *text,
                           int32_t done, int32_t gamma)
{
    struct ra_lm_prompt_config of = {.tokens = text, .P = P + done, .W = 8, .room = gamma};
    struct ra_lm_prompt *prompt;
    struct ra_lm_loop *loop;
    float logits[VOCAB];
    int32_t n = 0, choices[8] = {text[P + done]};
    ra_assert_ok(ra_lm_prompt_open(&prompt, &bed->lm, &of, &err));
    for (int32_t i = 0; i < gamma; i++) {
        ra_assert_ok(ra_lm_prompt_extend(prompt, &bed->lm, choices + i, 1, NULL, logits, &err));
        choices[i + 1] = ra_lm_likeliest(logits, VOCAB);
    }
    ra_lm_prompt_close(prompt);
    of.room = 0;
    ra_assert_ok(ra_lm_prompt_open(&prompt, &bed->lm, &of, &err));
    struct ra_lm_loop_config config = {.lm = &bed->lm,
                                       .prompt = prompt,
                                       .n = 1,
                                       .specs = &spec,
                                       .backend = ra_backend_find("cpu"),
                                       .N = gamma};
    ra_assert_ok(ra_lm_loop_open(&loop, &config, &err));
    for (bool stands = true; stands && n < gamma; n += stands) {
        const float *hidden;
        ra_assert_ok(ra_lm_loop_step(loop, &choices[n], &hidden, &err));
        ra_lm_logits(&bed->lm, 1, hidden, logits);
        stands = ra_lm_likeliest(logits, VOCAB) == choices[n + 1];
    }
    ra_lm_loop_close(loop);
    ra_lm_prompt_close(prompt);
    return n;
}

static void test_rounds_leave_no_trace(void **state)
{
    (void)state;
    struct bed *bed = open_bed(5, 0);
    for (int p = 0; p < N_POLICIES; p++) {
        struct ra_policy_spec *spec = spec_of(policies[p]);
        speculate(bed, policies[p], 4, NULL, 0);
        for (int32_t i = 0, done = 0; i < bed->n_rounds; done = bed->done[i++]) {
            int32_t gamma = N - done - 1 < 4 ? N - done - 1 : 4;
            int32_t n = gamma ? fresh_round(bed, spec, bed->tokens, done, gamma) : 0;
            assert_int_equal(bed->done[i], done + n + 1);
        }
        ra_policy_spec_close(spec);
    }
    close_bed(bed);
}

/* Keys that layer l's queries at begin..begin + n - 1 see, together. */
static int64_t seen(const struct bed *bed, int l, int32_t begin, int32_t n)
{
    int64_t count = 0;
    for (int32_t j = 0; j < begin + n; j++)
        count += !bed->slides[l] || j > begin - bed->config.window;
    return count * HKV;
}

/* What rounds read whose drafts attend to k positions and themselves. */
static int64_t rows_of(const struct bed *bed, int32_t gamma, int32_t k)
{
    int64_t rows = 0;
    for (int32_t i = 0, done = 0; i < bed->n_rounds; done = bed->done[i++])
        for (int l = 0; l < LAYERS; l++) {
            int32_t n = N - done - 1 < gamma ? N - done - 1 : gamma;
            for (int32_t t = 0; t < n; t++)
                rows += bed->slides[l] || k > P + done + t ? seen(bed, l, P + done + t, 1)
                                                           : (int64_t)HKV * (k + 1);
            rows += seen(bed, l, P + done, n + 1);
        }
    return rows;
}

static void test_rows_by_formula(void **state)
{
    (void)state;
    for (int32_t window = 0; window <= 9; window += 9) {
        struct bed *bed = open_bed(7, window);
        int64_t plain = 0;
        for (int32_t t = 0; t < N; t++)
            plain += seen(bed, 0, P + t, 1) + seen(bed, 1, P + t, 1);
        assert_int_equal(bed->plain.rows, plain);
        assert_int_equal(bed->plain.passes, N);
        for (int32_t gamma = 1; gamma <= 5; gamma++) {
            struct ra_speculate_score score =
                speculate(bed, "streaming:k=6,sinks=2", gamma, NULL, 0);
            assert_int_equal(score.rows, rows_of(bed, gamma, 6));
            score = speculate(bed, "recycled:k=10,stride=100", gamma, NULL, 0);
            assert_int_equal(score.rows, rows_of(bed, gamma, 10));
            score = speculate(bed, "full", gamma, NULL, 0);
            assert_int_equal(score.rows, rows_of(bed, gamma, INT32_MAX));
        }
        close_bed(bed);
    }
}

static void test_full_drafts_are_accepted(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct bed *bed = open_bed(seed, seed == 3 ? 9 : 0);
        for (int32_t gamma = 1; gamma <= 5; gamma++) {
            struct ra_speculate_score score = speculate(bed, "full", gamma, NULL, 0);
            assert_int_equal(score.accepted, score.drafted);
            assert_int_equal(score.verifications, (N + gamma) / (gamma + 1));
            score = speculate(bed, "streaming:k=1,sinks=0", gamma, NULL, 0);
            assert_true(score.accepted < score.drafted);
        }
        close_bed(bed);
    }
}

/* Guesses change what is read, never what is drafted. */
static void test_hierarchy_drafts_the_same(void **state)
{
    (void)state;
    int64_t guessed = 0, right = 0;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct bed *bed = open_bed(seed, seed == 3 ? 9 : 0);
        for (int p = 0; p < N_POLICIES; p++)
            for (int32_t n = 1; n <= 3; n++) {
                struct ra_speculate_score alone = speculate(bed, policies[p], 5, NULL, 0);
                struct ra_speculate_score both =
                    speculate(bed, policies[p], 5, "streaming:k=4,sinks=1", n);
                assert_int_equal(both.first_difference, -1);
                assert_int_equal(both.drafted, alone.drafted);
                assert_int_equal(both.accepted, alone.accepted);
                assert_int_equal(both.verifications, alone.verifications);
                assert_int_equal(both.passes, both.guessed + both.drafted - both.guesses_accepted +
                                                  both.verifications);
                guessed += both.guessed;
                right += both.guesses_accepted;
            }
        close_bed(bed);
    }
    assert_in_range(right, guessed / 10, guessed * 9 / 10);
}

static void test_hierarchy_rows(void **state)
{
    (void)state;
    struct bed *bed = open_bed(2, 0);
    struct ra_speculate_score score = speculate(bed, "full", 5, "full", 2);
    int64_t rows = 0;
    assert_int_equal(N % 6, 0);
    assert_int_equal(score.guesses_accepted, score.guessed);
    /* Of each round: two guesses, a check of three rows, a guess, a check of two, a verification.
     */
    for (int64_t C = P; C < P + N; C += 6)
        rows += (C + 1) + (C + 2) + (C + 3) + (C + 4) + (C + 5) + (C + 6);
    assert_int_equal(score.rows, rows * LAYERS * HKV);
    assert_int_equal(score.passes, N / 6 * 6);
    close_bed(bed);
}

/* A text that is what plain decoding gives changes nothing; any other has rounds as if each were
 * the first after a prompt. */
static void test_rounds_from_a_text(void **state)
{
    (void)state;
    struct bed *bed = open_bed(4, 0);
    int32_t tokens[N + 1], choices[N + 1], text[P + N + 1];
    struct ra_policy_spec *spec = spec_of("recycled:k=6,stride=2,pool=3");
    struct ra_speculate_draft draft = {spec, 3, NULL, 0};
    struct ra_speculate_config config = config_of(bed);
    struct ra_speculate_score score = {.tokens = tokens}, plain = {.tokens = choices};
    struct ra_speculate_score greedy = speculate(bed, "recycled:k=6,stride=2,pool=3", 3, NULL, 0);
    config.text = bed->tokens + P;
    bed->n_rounds = 0;
    ra_assert_ok(ra_speculate_run(&config, &draft, bed->tokens + P, &score, &err));
    assert_int_equal(score.accepted, greedy.accepted);
    assert_int_equal(score.rows, greedy.rows);
    assert_int_equal(score.first_difference, -1);

    memcpy(text, bed->tokens, P * sizeof *text);
    for (int32_t i = 0; i <= N; i++)
        text[P + i] = ra_rng_int(99, (uint64_t)i, 0, VOCAB - 1);
    config.text = text + P;
    bed->n_rounds = 0;
    ra_assert_ok(ra_speculate_plain(&config, &plain, &err));
    assert_int_equal(plain.rows, bed->plain.rows);
    bed->n_rounds = 0;
    ra_assert_ok(ra_speculate_run(&config, &draft, choices, &score, &err));
    assert_int_equal(score.first_difference, -1);
    assert_memory_equal(tokens, choices, sizeof tokens);
    for (int32_t i = 0, done = 0; i < bed->n_rounds; done = bed->done[i++]) {
        int32_t gamma = N - done - 1 < 3 ? N - done - 1 : 3;
        int32_t n = gamma ? fresh_round(bed, spec, text, done, gamma) : 0;
        assert_int_equal(bed->done[i], done + n + 1);
    }
    ra_policy_spec_close(spec);
    close_bed(bed);
}

/* A difference to what is called plain decoding is shown, and is none to the model's own choice. */
static void test_differences_are_judged(void **state)
{
    (void)state;
    struct bed *bed = open_bed(2, 0);
    int32_t tokens[N + 1], other[N + 1];
    struct ra_policy_spec *spec = spec_of("streaming:k=6");
    struct ra_speculate_config config = config_of(bed);
    struct ra_speculate_draft draft = {spec, 3, NULL, 0};
    struct ra_speculate_score score = {.tokens = tokens};
    memcpy(other, bed->tokens + P, sizeof other);
    other[7] = (other[7] + 1) % VOCAB;
    config.progress = NULL;
    ra_assert_ok(ra_speculate_run(&config, &draft, other, &score, &err));
    assert_int_equal(score.first_difference, 7);
    assert_int_equal(score.near_ties + score.wrong, 0);
    ra_policy_spec_close(spec);
    close_bed(bed);
}

static void test_refusals(void **state)
{
    (void)state;
    struct bed *bed = open_bed(2, 0);
    int32_t tokens[N + 1];
    struct ra_policy_spec *spec = spec_of("h2o:k=8");
    struct ra_speculate_config config = config_of(bed);
    struct ra_speculate_draft draft = {spec, 3, NULL, 0};
    struct ra_speculate_score score = {.tokens = tokens};
    ra_assert_fails(ra_speculate_run(&config, &draft, bed->tokens + P, &score, &err), RA_EUSAGE,
                    "h2o:k=8");
    ra_policy_spec_close(spec);
    spec = spec_of("recycled:k=8,stride=9");
    draft.spec = spec;
    bed->stop_at = 5;
    ra_assert_fails(ra_speculate_run(&config, &draft, bed->tokens + P, &score, &err),
                    RA_EINTERRUPTED, "interrupted");
    assert_int_equal(bed->prompt->P, P);
    ra_policy_spec_close(spec);
    close_bed(bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_is_prefill),
        cmocka_unit_test(test_output_is_plain),
        cmocka_unit_test(test_rounds_leave_no_trace),
        cmocka_unit_test(test_rows_by_formula),
        cmocka_unit_test(test_full_drafts_are_accepted),
        cmocka_unit_test(test_hierarchy_drafts_the_same),
        cmocka_unit_test(test_hierarchy_rows),
        cmocka_unit_test(test_rounds_from_a_text),
        cmocka_unit_test(test_differences_are_judged),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
