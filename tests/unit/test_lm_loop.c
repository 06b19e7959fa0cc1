/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding under every policy of the registry: a backend that looks on notes what is attended to,
 * and the forward pass in f64 that attends to just that must come to the same logits. Lock step
 * changes nothing, windows hold, and counts are those of what was seen.
 */
#include "tests/support/ra_test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/text.h"
#include "tests/support/lm_case.h"

enum { P = 70, N = 24, ROWS = P + N, HEADS = 6, W = 16 };

static int32_t tokens[ROWS + 1];
static float logits[32 * N * LM_VOCAB], again[32 * N * LM_VOCAB];
static double expected[ROWS * LM_VOCAB];

/* Looks on while the cpu backend attends: of one sequence, on the caller's thread. */
static struct {
    const struct ra_backend_ops *cpu;
    struct ra_backend_ops ops;
    const struct lm_case *c;
    int32_t t[LM_LAYERS]; /* step of each layer */
    bool is_all[LM_LAYERS][N];
    bool seen[LM_LAYERS][HEADS][N][ROWS];
    int64_t keys[N]; /* of layers that do not slide */
    int32_t last_full[LM_LAYERS];
    int n_checked;
} spy;

static bool slides(const struct lm_case *c, int layer)
{
    return c->config.window && c->slides[layer];
}

static enum ra_status spy_append(void *self, int layer, const void *k, const void *v,
                                 struct ra_error *err)
{
    spy.t[layer]++;
    return spy.cpu->append(self, layer, k, v, err);
}

/* Keys of each group, counted one by one. */
static void count_keys(int layer, int32_t t)
{
    int G = spy.c->config.Hq / spy.c->config.Hkv;
    for (int kv = 0; kv < spy.c->config.Hkv && !slides(spy.c, layer); kv++)
        for (int32_t pos = 0; pos <= P + t; pos++) {
            bool is_read = false;
            for (int g = 0; g < G; g++)
                is_read |= spy.seen[layer][kv * G + g][t][pos];
            spy.keys[t] += is_read;
        }
}

static enum ra_status spy_attend_full(void *self, int layer, const float *q, bool want_scores,
                                      float *out, struct ra_error *err)
{
    int32_t t = spy.t[layer];
    spy.is_all[layer][t] = true;
    for (int h = 0; h < spy.c->config.Hq; h++)
        for (int32_t pos = 0; pos <= P + t; pos++)
            spy.seen[layer][h][t][pos] = true;
    count_keys(layer, t);
    return spy.cpu->attend_full(self, layer, q, want_scores, out, err);
}

static enum ra_status spy_attend_sets(void *self, int layer, const float *q,
                                      const struct ra_positions *sets, int n_sets, float *out,
                                      struct ra_error *err)
{
    int Hq = spy.c->config.Hq, Hkv = spy.c->config.Hkv;
    int32_t t = spy.t[layer];
    assert_true(!slides(spy.c, layer) && (n_sets == Hq || n_sets == Hkv));
    for (int h = 0; h < Hq; h++) {
        const struct ra_positions *set = &sets[n_sets == Hq ? h : h / (Hq / Hkv)];
        for (int32_t i = 0; i < set->n; i++) {
            assert_true(set->pos[i] >= 0 && set->pos[i] < P + t);
            assert_true(i == 0 || set->pos[i - 1] < set->pos[i]);
            spy.seen[layer][h][t][set->pos[i]] = true;
        }
        spy.seen[layer][h][t][P + t] = true;
    }
    count_keys(layer, t);
    return spy.cpu->attend_sets(self, layer, q, sets, n_sets, out, err);
}

static void look_on(const struct lm_case *c)
{
    memset(&spy, 0, sizeof spy);
    spy.cpu = ra_backend_find("cpu");
    spy.ops = *spy.cpu;
    spy.ops.append = spy_append;
    spy.ops.attend_full = spy_attend_full;
    spy.ops.attend_sets = spy_attend_sets;
    spy.c = c;
    for (int l = 0; l < LM_LAYERS; l++)
        spy.t[l] = spy.last_full[l] = -1;
}

static bool was_seen(const void *context, int layer, int head, int32_t at, int32_t pos)
{
    (void)context;
    return at < P || spy.seen[layer][head][at - P][pos];
}

/* What the step says of itself. A full step of these policies is one that attends to everything. */
static void check_counts(void *context, int i, int32_t t, const struct ra_lm_step_counts *counts)
{
    const char *policy = context;
    int n_full = 0, n_layers = 0;
    double since = 0;
    (void)i;
    for (int l = 0; l < LM_LAYERS; l++) {
        if (slides(spy.c, l))
            continue;
        if (spy.is_all[l][t])
            spy.last_full[l] = t;
        n_full += spy.is_all[l][t];
        n_layers++;
        since += t - spy.last_full[l];
    }
    assert_int_equal(counts->keys_read, spy.keys[t]);
    if (strncmp(policy, "full", 4) && strncmp(policy, "recycled", 8) &&
        strncmp(policy, "streaming", 9))
        return;
    assert_int_equal(counts->full_layers, n_full);
    assert_true(fabs(counts->since_full - since / n_layers) < 1e-12);
    spy.n_checked++;
}

static void check_policy(struct lm_case *c, const struct ra_lm_prompt *prompt, const char *policy)
{
    const char *const policies[] = {policy};
    const int32_t *const read[] = {tokens};
    struct lm_run run = {.c = c,
                         .prompt = prompt,
                         .n = 1,
                         .policies = policies,
                         .tokens = read,
                         .N = N,
                         .backend = &spy.ops,
                         .each = check_counts,
                         .context = (void *)policy};
    look_on(c);
    lm_decode(&run, logits);
    lm_reference(c, tokens, ROWS, was_seen, NULL, expected);
    double gap = lm_gap(logits, expected + P * LM_VOCAB, N * LM_VOCAB);
    if (!(gap < 1e-4))
        fail_msg("%s: gap to f64 over the same keys: %.3g", policy, gap);
}

/* Values that leave something out, of what has no default or one that would leave nothing out. */
static void spell(const struct ra_policy_ops *ops, char *text, size_t size)
{
    static const char *const values[][2] = {
        {"window", "3"}, {"page", "4"}, {"chunk", "4"}, {"select", "0"}, {"stride", "5"}};
    struct ra_writer out = {text, size, 0};
    ra_write(&out, "%s", ops->name);
    for (const struct ra_param *row = ops->params; row && row->name; row++) {
        const char *value = row->fallback ? NULL : "12";
        for (size_t i = 0; i < sizeof values / sizeof *values; i++)
            if (strcmp(row->name, values[i][0]) == 0 && row->type != RA_PARAM_CHOICE)
                value = values[i][1];
        if (value)
            ra_write(&out, "%c%s=%s", strchr(text, ':') ? ',' : ':', row->name, value);
    }
}

static const char *const others[] = {
    "recycled:k=9,stride=4",
    "recycled:k=9,stride=4,evict=raw",
    "recycled:k=9,stride=4,agg=mean",
    "recycled:k=9,stride=4,current=drop",
    "recycled:k=9,stride=8,sim=0.9",
    "recycled:k=9,stride=4,k@2=20",
    "streaming:k=9",
    "quest:k=12,page=4",
};

static void test_policies(void **unused)
{
    (void)unused;
    static const enum lm_family families[] = {LM_LLAMA, LM_ALONE, LM_QWEN2, LM_GEMMA};
    struct lm_case c;
    lm_tokens(11, tokens, ROWS + 1);
    for (size_t family = 0; family < sizeof families / sizeof *families; family++) {
        lm_case_open(&c, families[family], RA_F32);
        struct ra_lm_prompt *prompt = lm_prompt(&c, tokens, P, W, true, NULL);
        int n_sparse = 0;
        for (int i = 0; ra_policies[i]; i++) {
            char text[128];
            spell(ra_policies[i], text, sizeof text);
            check_policy(&c, prompt, text);
            int64_t all = 0, keys = 0;
            for (int32_t t = 0; t < N; t++) {
                for (int l = 0; l < LM_LAYERS; l++)
                    all += slides(&c, l) ? 0 : (int64_t)c.config.Hkv * (P + t + 1);
                keys += spy.keys[t];
            }
            n_sparse += keys < all;
            print_message("  %s: %s: %.2f of the keys\n", lm_family_names[families[family]], text,
                          (double)keys / (double)all);
        }
        assert_true(n_sparse >= 12); /* the others are full, or about to be */
        for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
            check_policy(&c, prompt, others[i]);
            assert_int_equal(spy.n_checked, strncmp(others[i], "quest", 5) ? N : 0);
        }
        ra_lm_prompt_close(prompt);
        lm_case_close(&c);
    }
}

/* A cache that holds everything, and one that is always made anew. */
static void test_nothing_left_out(void **unused)
{
    (void)unused;
    static const char *const policies[] = {"full", "recycled:k=93,stride=7",
                                           "recycled:k=4,stride=1", "streaming:k=93"};
    const int32_t *const read[] = {tokens, tokens, tokens, tokens};
    for (int family = 0; family < LM_FAMILIES; family++) {
        struct lm_case c;
        lm_case_open(&c, (enum lm_family)family, RA_F16);
        lm_tokens(12, tokens, ROWS + 1);
        struct ra_lm_prompt *prompt = lm_prompt(&c, tokens, P, 1, false, NULL);
        struct lm_run run = {
            .c = &c, .prompt = prompt, .n = 4, .policies = policies, .tokens = read, .N = N};
        lm_decode(&run, logits);
        for (size_t i = 1; i < 4; i++) {
            double gap = lm_gap_f32(logits + i * N * LM_VOCAB, logits, N * LM_VOCAB);
            if (!(gap < (i == 2 ? 1e-7 : 2e-3))) /* roundings to f16 may fall otherwise */
                fail_msg("%s: %s: gap to full %.3g", lm_family_names[family], policies[i], gap);
        }
        ra_lm_prompt_close(prompt);
        lm_case_close(&c);
        lm_case_open(&c, (enum lm_family)family, RA_F32);
        run.prompt = prompt = lm_prompt(&c, tokens, P, 1, false, NULL);
        lm_decode(&run, logits);
        for (size_t i = 1; i < 4; i++)
            assert_true(lm_gap_f32(logits + i * N * LM_VOCAB, logits, N * LM_VOCAB) < 1e-5);
        ra_lm_prompt_close(prompt);
        lm_case_close(&c);
    }
}

/* Each sequence decodes what it would alone, bit for bit, whoever decodes beside it. */
static void check_lock_step(struct lm_case *c, const struct ra_lm_prompt *prompt)
{
    enum { MANY = 7 };
    static const char *const policies[MANY] = {
        "streaming:k=9", "full",       "recycled:k=9,stride=4",        "h2o:k=9",
        "tova:k=9",      "quest:k=12", "recycled:k=9,stride=8,sim=0.9"};
    static int32_t own[MANY][ROWS + 1];
    const int32_t *read[MANY];
    for (int i = 0; i < MANY; i++) {
        memcpy(own[i], tokens, P * sizeof *tokens);
        lm_tokens(20 + (uint64_t)i / 2, own[i] + P, N + 1);
        read[i] = own[i];
        struct lm_run alone = {
            .c = c, .prompt = prompt, .n = 1, .policies = &policies[i], .tokens = &read[i], .N = N};
        lm_decode(&alone, logits + (size_t)i * N * LM_VOCAB);
    }
    for (int threads = 1; threads <= 5; threads += 2) {
        struct ra_pool *pool;
        struct ra_error err;
        ra_assert_ok(ra_pool_open(&pool, threads, &err));
        struct lm_run run = {.c = c,
                             .prompt = prompt,
                             .n = MANY,
                             .policies = policies,
                             .tokens = read,
                             .N = N,
                             .pool = pool};
        lm_decode(&run, again);
        for (size_t i = 0; i < MANY; i++)
            if (memcmp(again + i * N * LM_VOCAB, logits + i * N * LM_VOCAB,
                       N * LM_VOCAB * sizeof *again))
                fail_msg("%s decodes otherwise beside others, %d threads", policies[i], threads);
        run.n = 1;
        lm_decode(&run, again); /* alone, with all the threads for itself */
        assert_memory_equal(again, logits, N * LM_VOCAB * sizeof *again);
        ra_pool_close(pool);
    }
}

static void test_lock_step(void **unused)
{
    (void)unused;
    struct lm_case c;
    struct ra_pool *pool;
    struct ra_error err;
    ra_assert_ok(ra_pool_open(&pool, 3, &err));
    lm_tokens(13, tokens, ROWS + 1);
    for (int family = 0; family < LM_FAMILIES; family++) {
        lm_case_open(&c, (enum lm_family)family, RA_F16);
        struct ra_lm_prompt *prompt = lm_prompt(&c, tokens, P, W, true, pool);
        check_lock_step(&c, prompt);
        ra_lm_prompt_close(prompt);
        lm_case_close(&c);
    }
    ra_pool_close(pool);
}

/* A row of the prompt is another one, in layers that slide or in those that do not. */
static void spoil(const struct lm_case *c, struct ra_lm_prompt *prompt, bool sliding, int32_t pos,
                  float by)
{
    size_t D = (size_t)c->config.D;
    for (size_t l = 0; l < LM_LAYERS; l++)
        for (size_t h = 0; slides(c, (int)l) == sliding && h < (size_t)c->config.Hkv; h++) {
            size_t at = ((l * (size_t)c->config.Hkv + h) * P + (size_t)pos) * D;
            for (size_t d = 0; d < D; d++) {
                ((float *)(void *)prompt->k)[at + d] += by;
                ((float *)(void *)prompt->v)[at + d] += by;
            }
        }
}

/* Step t sees its own row and the 19 before it. */
static void test_window(void **unused)
{
    (void)unused;
    static const char *const policies[] = {"full", "recycled:k=9,stride=4"};
    const int32_t *const read[] = {tokens, tokens};
    enum { STEPS = 3 };
    struct lm_case c;
    lm_case_open(&c, LM_GEMMA, RA_F32);
    lm_tokens(14, tokens, ROWS + 1);
    struct ra_lm_prompt *prompt = lm_prompt(&c, tokens, P, 1, false, NULL);
    struct lm_run run = {
        .c = &c, .prompt = prompt, .n = 2, .policies = policies, .tokens = read, .N = STEPS};
    lm_decode(&run, logits);
    for (int32_t pos = P - LM_WINDOW - 2; pos <= P - LM_WINDOW + STEPS; pos++) {
        spoil(&c, prompt, true, pos, 8);
        lm_decode(&run, again);
        spoil(&c, prompt, true, pos, -8);
        for (int i = 0; i < 2; i++) {
            bool is_seen = pos > P - LM_WINDOW; /* by step 0, and by later ones through it */
            size_t at = (size_t)i * STEPS * LM_VOCAB;
            bool same = memcmp(logits + at, again + at, LM_VOCAB * sizeof *again) == 0;
            if (same == is_seen)
                fail_msg("%s: row %d is %s by the layers that slide", policies[i], pos,
                         is_seen ? "not seen" : "seen");
        }
    }
    spoil(&c, prompt, false, 0, 8);
    lm_decode(&run, again);
    assert_memory_not_equal(logits, again, LM_VOCAB * sizeof *again);
    ra_lm_prompt_close(prompt);
    lm_case_close(&c);
}

/* Opening [full, spelling] fails, and says because of which. */
static void check_refused(struct lm_case *c, const struct ra_lm_prompt *prompt,
                          const char *spelling, const char *why)
{
    struct ra_policy_spec *specs[2];
    struct ra_error err;
    struct ra_lm_loop *loop;
    ra_assert_ok(ra_policy_parse(&specs[0], "full", &err));
    ra_assert_ok(ra_policy_parse(&specs[1], spelling, &err));
    struct ra_lm_loop_config config = {.lm = &c->lm,
                                       .prompt = prompt,
                                       .n = 2,
                                       .specs = (const struct ra_policy_spec *const *)specs,
                                       .backend = ra_backend_find("cpu"),
                                       .N = N};
    ra_assert_fails(ra_lm_loop_open(&loop, &config, &err), RA_EUSAGE, why);
    assert_null(loop);
    const char *canonical = ra_policy_spec_canonical(specs[strcmp(spelling, "full") != 0]);
    assert_memory_equal(err.msg, canonical, strlen(canonical));
    ra_policy_spec_close(specs[0]);
    ra_policy_spec_close(specs[1]);
}

static void test_refusals(void **unused)
{
    (void)unused;
    static const char *const cases[][2] = {
        {"streaming:k=9+int4", "expected a policy alone"},
        {"h2o:k=9", "h2o:"},
        {"snapkv:k=20,window=17", "17"},
    };
    struct lm_case c;
    lm_case_open(&c, LM_LLAMA, RA_F32);
    lm_tokens(15, tokens, ROWS + 1);
    struct ra_lm_prompt *prompt = lm_prompt(&c, tokens, P, W, false, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_refused(&c, prompt, cases[i][0], cases[i][1]);
    ra_lm_prompt_close(prompt);
    lm_case_close(&c);
    lm_case_open(&c, LM_GEMMA, RA_F32);
    c.slides[1] = true; /* as are all the others */
    prompt = lm_prompt(&c, tokens, P, W, false, NULL);
    check_refused(&c, prompt, "full", "got window layers only");
    ra_lm_prompt_close(prompt);
    lm_case_close(&c);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policies),  cmocka_unit_test(test_nothing_left_out),
        cmocka_unit_test(test_lock_step), cmocka_unit_test(test_window),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("lm_loop", tests, NULL, NULL);
}
