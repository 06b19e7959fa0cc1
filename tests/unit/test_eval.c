/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The closed loop's judgements against the forward pass in f64: what each token cost, margins of
 * judged tokens, in whatever company a schedule runs. Intervals against their closed form.
 */
#include "tests/support/ra_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/rng.h"
#include "sim/eval.h"
#include "tests/support/approx.h"
#include "tests/support/lm_case.h"

enum { P = 30, N = 10, ROWS = P + N, MOST = 70, PROBES = 4 };

static int32_t tokens[ROWS + 1];
static double logits[ROWS * LM_VOCAB];
static const int32_t candidates[] = {3, 4, 5, 60};

/* The first is what the prefill predicts, the last what the last step does. */
static const struct ra_probe probes[PROBES] = {
    {9, P, NULL, 0}, {9, P + 1, candidates, 4}, {9, P + 6, candidates, 1}, {9, P + N, NULL, 0}};

struct sheet {
    double nll[MOST][N], kl[MOST][N];
    float since[MOST][N];
    struct ra_eval_answer answers[MOST][PROBES];
    struct ra_eval_score scores[MOST];
};

/* policies[full] is full attention. */
static void run(struct lm_case *c, int n, const char *const *policies, int full, int32_t W,
                struct sheet *sheet)
{
    struct ra_policy_spec *specs[MOST];
    struct ra_error err;
    struct ra_eval_text text = {
        .tokens = tokens, .P = P, .N = N, .probes = probes, .n_probes = PROBES};
    for (int i = 0; i < n; i++) {
        ra_assert_ok(ra_policy_parse(&specs[i], policies[i], &err));
        memset(sheet->nll[i], 0xff, sizeof sheet->nll[i]);
        memset(sheet->kl[i], 0xff, sizeof sheet->kl[i]);
        memset(sheet->answers[i], 0xff, sizeof sheet->answers[i]);
        sheet->scores[i] = (struct ra_eval_score){.nll = sheet->nll[i],
                                                  .kl = sheet->kl[i],
                                                  .since_full = sheet->since[i],
                                                  .answers = sheet->answers[i],
                                                  .full_layer_steps = 777,
                                                  .keys_read = 777};
    }
    struct ra_eval_config config = {.lm = &c->lm,
                                    .backend = ra_backend_find("cpu"),
                                    .n = n,
                                    .full = full,
                                    .specs = (const struct ra_policy_spec *const *)specs,
                                    .W = W};
    ra_assert_ok(ra_eval_text_run(&config, &text, sheet->scores, &err));
    for (int i = 0; i < n; i++)
        ra_policy_spec_close(specs[i]);
}

/* The logit of the token at `at` less the best of its rivals, predicted by the row before. */
static double margin(const struct ra_probe *probe)
{
    const double *row = logits + (size_t)(probe->at - 1) * LM_VOCAB;
    double best = -INFINITY;
    int32_t gold = tokens[probe->at];
    for (int32_t id = 0; id < LM_VOCAB; id++) {
        bool is_rival = probe->n_candidates == 0 && id != gold;
        for (int i = 0; i < probe->n_candidates; i++)
            is_rival |= probe->candidates[i] == id;
        best = is_rival ? fmax(best, row[id]) : best;
    }
    return row[gold] - best;
}

static void test_full(void **unused)
{
    (void)unused;
    static struct sheet sheet;
    static const char *const full[] = {"full"};
    for (int family = 0; family < LM_FAMILIES; family++) {
        struct lm_case c;
        lm_case_open(&c, (enum lm_family)family, RA_F32);
        lm_tokens(40, tokens, ROWS + 1);
        lm_reference(&c, tokens, ROWS, NULL, NULL, logits);
        for (int32_t W = 1; W <= 64; W += 63) {
            run(&c, 1, full, 0, W, &sheet);
            int64_t keys = 0, n_full = family == LM_GEMMA ? 1 : LM_LAYERS;
            for (int32_t t = 0; t < N; t++) {
                const double *row = logits + (size_t)(P + t) * LM_VOCAB;
                double sum = 0;
                for (int id = 0; id < LM_VOCAB; id++)
                    sum += exp(row[id]);
                double expected = log(sum) - row[tokens[P + t + 1]];
                ra_assert_close("nll", &sheet.nll[0][t], &expected, 1, 1e-3, 0);
                assert_true(sheet.since[0][t] == 0);
                assert_true(sheet.kl[0][t] >= 0 && sheet.kl[0][t] < 1e-6);
                keys += n_full * c.config.Hkv * (P + t + 1);
            }
            assert_int_equal(sheet.scores[0].full_layer_steps, n_full * N);
            assert_int_equal(sheet.scores[0].keys_read, keys);
            for (int i = 0; i < PROBES; i++) {
                double expected = margin(&probes[i]);
                ra_assert_close("margin", &sheet.answers[0][i].margin, &expected, 1, 1e-3, 0);
            }
        }
        lm_case_close(&c);
    }
}

enum { KINDS = 7, FULL = 3 };
static const char *const kinds[KINDS] = {
    "streaming:k=5",    "h2o:k=6", "recycled:k=5,stride=3", "full", "snapkv:k=6,window=2",
    "quest:k=8,page=4", "tova:k=6"};

/* More schedules than run together: each comes out as it would with full alone, in its own place.
 */
static void test_company(void **unused)
{
    (void)unused;
    static struct sheet all, alone;
    const char *policies[MOST];
    struct lm_case c;
    for (int i = 0; i < MOST; i++)
        policies[i] = kinds[i % KINDS];
    lm_case_open(&c, LM_GEMMA, RA_F16);
    lm_tokens(41, tokens, ROWS + 1);
    run(&c, MOST, policies, FULL + KINDS, 64, &all);
    for (int i = 0; i < MOST; i++) {
        const char *const two[] = {kinds[i % KINDS], "full"};
        bool is_full = i % KINDS == FULL;
        run(&c, 2, two, 1, 64, &alone);
        assert_memory_equal(all.nll[i], alone.nll[0], sizeof alone.nll[0]);
        assert_memory_equal(all.kl[i], alone.kl[0], sizeof alone.kl[0]);
        assert_memory_equal(all.since[i], alone.since[0], sizeof alone.since[0]);
        assert_memory_equal(all.answers[i], alone.answers[0], sizeof alone.answers[0]);
        assert_int_equal(all.scores[i].keys_read, alone.scores[0].keys_read);
        assert_int_equal(all.scores[i].full_layer_steps, alone.scores[0].full_layer_steps);
        assert_true(is_full || all.scores[i].keys_read < all.scores[FULL].keys_read);
        assert_true(is_full || memcmp(all.nll[i], all.nll[FULL], sizeof all.nll[0]));
        /* What the prefill predicts is the same for all. */
        assert_memory_equal(all.answers[i], all.answers[0], sizeof all.answers[0][0]);
    }
    for (int32_t t = 0; t < N; t++) /* full at 2, 5, 8 */
        assert_true(all.since[2][t] == (float)((t + 1) % 3));
    assert_int_equal(all.scores[2].full_layer_steps, 3);
    lm_case_close(&c);
}

/* Probabilities of a row of logits, in f64. */
static void softmax(const float *row, double *p)
{
    double sum = 0;
    for (int id = 0; id < LM_VOCAB; id++)
        sum += exp((double)row[id]);
    for (int id = 0; id < LM_VOCAB; id++)
        p[id] = exp((double)row[id]) / sum;
}

/* Costs and divergences, from the logits that the same schedules come to outside the loop's judge.
 */
static void test_divergence(void **unused)
{
    (void)unused;
    static struct sheet sheet;
    static float decoded[KINDS * N * LM_VOCAB];
    const int32_t *read[KINDS];
    for (int i = 0; i < KINDS; i++)
        read[i] = tokens;
    for (int family = 0; family < LM_FAMILIES; family++) {
        struct lm_case c;
        lm_case_open(&c, (enum lm_family)family, RA_F16);
        lm_tokens(43, tokens, ROWS + 1);
        struct ra_lm_prompt *prompt = lm_prompt(&c, tokens, P, P, true, NULL);
        struct lm_run decoding = {
            .c = &c, .prompt = prompt, .n = KINDS, .policies = kinds, .tokens = read, .N = N};
        lm_decode(&decoding, decoded);
        run(&c, KINDS, kinds, FULL, 64, &sheet);
        for (int i = 0; i < KINDS; i++)
            for (int t = 0; t < N; t++) {
                double p[LM_VOCAB], q[LM_VOCAB], kl = 0, nll;
                softmax(decoded + (size_t)(FULL * N + t) * LM_VOCAB, p);
                softmax(decoded + (size_t)(i * N + t) * LM_VOCAB, q);
                for (int id = 0; id < LM_VOCAB; id++)
                    kl += p[id] * log(p[id] / q[id]);
                nll = -log(q[tokens[P + t + 1]]);
                ra_assert_close("kl", &sheet.kl[i][t], &kl, 1, 1e-5, 1e-5);
                ra_assert_close("nll", &sheet.nll[i][t], &nll, 1, 1e-9, 1e-9);
            }
        ra_lm_prompt_close(prompt);
        lm_case_close(&c);
    }
}

static bool stop(void *context, const char *what, int32_t done, int32_t total)
{
    int *left = context;
    assert_true(done >= 1 && done <= total);
    assert_int_equal(total, strcmp(what, "prefill") == 0 ? P : N);
    return --*left > 0;
}

static void test_interrupted(void **unused)
{
    (void)unused;
    static struct sheet sheet;
    struct lm_case c;
    struct ra_policy_spec *spec;
    struct ra_error err;
    lm_case_open(&c, LM_LLAMA, RA_F16);
    lm_tokens(42, tokens, ROWS + 1);
    ra_assert_ok(ra_policy_parse(&spec, "full", &err));
    struct ra_eval_text text = {.tokens = tokens, .P = P, .N = N};
    for (int after = 1; after <= N + 2; after++) {
        int left = after;
        const struct ra_policy_spec *specs[] = {spec};
        struct ra_eval_config config = {.lm = &c.lm,
                                        .backend = ra_backend_find("cpu"),
                                        .n = 1,
                                        .specs = specs,
                                        .W = 4,
                                        .progress = stop,
                                        .context = &left};
        sheet.scores[0] = (struct ra_eval_score){
            .nll = sheet.nll[0], .kl = sheet.kl[0], .since_full = sheet.since[0]};
        enum ra_status st = ra_eval_text_run(&config, &text, sheet.scores, &err);
        assert_int_equal(st, after <= N + 1 ? RA_EINTERRUPTED : RA_OK);
    }
    ra_policy_spec_close(spec);
    lm_case_close(&c);
}

static void test_bootstrap(void **unused)
{
    (void)unused;
    static double values[400];
    struct ra_eval_interval interval, again;
    struct ra_error err;
    double mean = 0, square = 0;
    values[0] = 3;
    ra_assert_ok(ra_eval_bootstrap(values, 1, 7, &interval, &err));
    assert_true(interval.mean == 3 && isnan(interval.low) && isnan(interval.high));
    assert_int_equal(interval.n, 1);
    for (int i = 0; i < 400; i++)
        values[i] = 0.25;
    ra_assert_ok(ra_eval_bootstrap(values, 400, 7, &interval, &err));
    assert_true(interval.mean == 0.25 && interval.low == 0.25 && interval.high == 0.25);
    /* The middle 95 % of a mean of many: 1.96 standard errors to each side. */
    for (int i = 0; i < 400; i++) {
        values[i] = 5 + 2 * ra_rng_normal(3, (uint64_t)i);
        mean += values[i] / 400;
        square += values[i] * values[i] / 400;
    }
    double error = sqrt((square - mean * mean) / 400);
    double ends[2], expected[2] = {mean - 1.96 * error, mean + 1.96 * error};
    for (uint64_t seed = 0; seed < 5; seed++) {
        ra_assert_ok(ra_eval_bootstrap(values, 400, seed, &interval, &err));
        ends[0] = interval.low;
        ends[1] = interval.high;
        assert_true(fabs(interval.mean - mean) < 1e-12);
        ra_assert_close("interval", ends, expected, 2, 0.15 * error, 0);
        ra_assert_ok(ra_eval_bootstrap(values, 400, seed, &again, &err));
        assert_memory_equal(&interval, &again, sizeof again);
    }
    /* Of two values the resamples' means are three: a quarter, a half, a quarter of them. */
    values[0] = -1;
    values[1] = 1;
    ra_assert_ok(ra_eval_bootstrap(values, 2, 1, &interval, &err));
    assert_true(interval.mean == 0 && interval.low == -1 && interval.high == 1);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),       cmocka_unit_test(test_company),
        cmocka_unit_test(test_divergence), cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_bootstrap),
    };
    return cmocka_run_group_tests_name("eval", tests, NULL, NULL);
}
