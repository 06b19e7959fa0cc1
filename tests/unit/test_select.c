/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Selection against its definition, by counting: a position's rank is the number of positions that
 * beat it. Whole-number scores make plateaus and ties everywhere.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/select.h"
#include "tests/support/drive.h"
#include "tests/support/ra_test.h"

enum { MOST = 70 };

/* Positions among `n` that come before j: better, or as good and lower. */
static int rank_of(const double *score, int n, int j)
{
    int rank = 0;
    for (int i = 0; i < n; i++)
        rank += score[i] > score[j] || (score[i] == score[j] && i < j);
    return rank;
}

static int random_scores(uint64_t *state, double *out)
{
    int n = 1 + (int)drive_random(state, MOST);
    uint32_t levels = 1 + drive_random(state, 12);
    for (int j = 0; j < n; j++)
        out[j] = drive_random(state, levels);
    return n;
}

static void test_aggregate(void **unused)
{
    (void)unused;
    static const double prob[] = {1, 8, 3, -1, 4, 4, 4, -1, 2, 3, 9, -1}; /* stride 4, L = 3 */
    static const double want[4][3] = {{4, 8, 9}, {7. / 3, 5, 16. / 3}, {1, 8, 3}, {7, 15, 16}};
    static const enum ra_agg aggs[] = {RA_AGG_MAX, RA_AGG_MEAN, RA_AGG_FIRST, RA_AGG_SUM};
    for (int i = 0; i < 4; i++) {
        double out[4] = {0, 0, 0, 77};
        ra_aggregate(prob, 4, 3, 3, aggs[i], out);
        for (int j = 0; j < 3; j++)
            assert_true(out[j] == want[i][j]);
        assert_true(out[3] == 77);
        ra_aggregate(prob, 4, 1, 3, aggs[i], out);
        assert_memory_equal(out, prob, 3 * sizeof out[0]);
    }
}

static void test_max_pool(void **unused)
{
    (void)unused;
    uint64_t state = 1;
    for (int i = 0; i < 2000; i++) {
        double in[MOST], out[MOST];
        int n = random_scores(&state, in), pool = 1 + 2 * (int)drive_random(&state, 50);
        if (i % 2) /* all negative: a pad of zero would show */
            for (int j = 0; j < n; j++)
                in[j] -= 100;
        ra_max_pool(in, n, pool, out);
        for (int j = 0; j < n; j++) {
            double most = -INFINITY;
            for (int k = 0; k < n; k++)
                most = abs(k - j) <= pool / 2 ? fmax(most, in[k]) : most;
            assert_true(out[j] == most);
        }
    }
}

static void test_top(void **unused)
{
    (void)unused;
    uint64_t state = 2;
    for (int i = 0; i < 5000; i++) {
        double score[MOST];
        int32_t out[MOST];
        uint64_t scratch[MOST];
        int n = random_scores(&state, score), k = (int)drive_random(&state, (uint32_t)n + 3);
        int32_t got = ra_top(score, n, k, out, scratch), at = 0;
        assert_int_equal(got, k < n ? k : n);
        for (int32_t j = 0; j < n; j++)
            if (rank_of(score, n, j) < k)
                assert_int_equal(out[at++], j);
        assert_int_equal(at, got);
    }
}

static void check_choice(const struct ra_select_rule *rule, const double *raw, const double *pooled,
                         int n)
{
    int32_t order[MOST];
    uint64_t scratch[MOST];
    int32_t got = ra_select(rule, raw, pooled, n, order, scratch);
    bool is_protected = rule->current == RA_CURRENT_SNAPKV;
    int candidates = rule->current == RA_CURRENT_PSEUDO ? n : n - 1;
    int K = is_protected ? rule->K - 1 : rule->K, chosen = candidates < K ? candidates : K;
    const double *by = rule->evict == RA_EVICT_RAW ? raw : pooled;
    assert_int_equal(got, chosen + is_protected);
    if (is_protected)
        assert_int_equal(order[got - 1], n - 1);
    for (int i = 0; i < chosen; i++) {
        assert_in_range(order[i], 0, candidates - 1);
        assert_true(rank_of(pooled, candidates, order[i]) < chosen);
        if (i > 0) { /* out goes the smaller, of equals the higher position */
            assert_true(by[order[i - 1]] < by[order[i]] ||
                        (by[order[i - 1]] == by[order[i]] && order[i - 1] > order[i]));
        }
    }
}

static void test_select(void **unused)
{
    (void)unused;
    static const enum ra_current currents[] = {RA_CURRENT_PSEUDO, RA_CURRENT_SNAPKV,
                                               RA_CURRENT_DROP};
    uint64_t state = 3;
    for (int i = 0; i < 5000; i++) {
        double raw[MOST], pooled[MOST];
        int n = random_scores(&state, raw);
        struct ra_select_rule rule = {.K = 1 + (int32_t)drive_random(&state, (uint32_t)n + 3),
                                      .pool = 1 + 2 * (int)drive_random(&state, 6),
                                      .current = currents[drive_random(&state, 3)],
                                      .evict =
                                          drive_random(&state, 2) ? RA_EVICT_RAW : RA_EVICT_POOLED};
        if (i % 50 == 0)
            rule.K = INT32_MAX;
        ra_max_pool(raw, n, rule.pool, pooled);
        check_choice(&rule, raw, pooled, n);
    }
}

/* Max over heads and max-pool commute; the mean does not, so the order of the two matters. */
static void test_commute(void **unused)
{
    (void)unused;
    uint64_t state = 4;
    bool mean_commutes = true;
    for (int i = 0; i < 200; i++) {
        double prob[3 * 20], pooled[3 * 20], a[20], b[20], c[20], d[20], e[20];
        for (int j = 0; j < 60; j++)
            prob[j] = drive_random(&state, 9);
        for (int g = 0; g < 3; g++)
            ra_max_pool(prob + 20 * g, 20, 5, pooled + 20 * g);
        ra_aggregate(prob, 20, 3, 20, RA_AGG_MAX, a);
        ra_max_pool(a, 20, 5, b);
        ra_aggregate(pooled, 20, 3, 20, RA_AGG_MAX, c);
        assert_memory_equal(b, c, sizeof b);
        ra_aggregate(prob, 20, 3, 20, RA_AGG_MEAN, a);
        ra_max_pool(a, 20, 5, d);
        ra_aggregate(pooled, 20, 3, 20, RA_AGG_MEAN, e);
        mean_commutes &= memcmp(d, e, sizeof d) == 0;
    }
    assert_false(mean_commutes);
}

/* The three steps in a row, and a context too small for any candidate. */
static void test_selector(void **unused)
{
    (void)unused;
    static const double prob[] = {1, 5, 0, 2, 2, 3, 1, 1, 4, 1}; /* G = 2, L = 5 */
    struct ra_select_rule rule = {.K = 2, .pool = 1, .agg = RA_AGG_SUM};
    struct ra_selector *selector;
    struct ra_error err;
    ra_assert_ok(ra_selector_open(&selector, 5, &err));
    struct ra_positions order = ra_selector_choose(selector, &rule, prob, 2, 5);
    assert_int_equal(order.n, 2); /* sums 4 6 1 6 3 */
    assert_int_equal(order.pos[0], 3);
    assert_int_equal(order.pos[1], 1);
    rule.current = RA_CURRENT_DROP;
    assert_int_equal(ra_selector_choose(selector, &rule, prob, 2, 1).n, 0);
    ra_selector_close(selector);
    ra_selector_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_aggregate), cmocka_unit_test(test_max_pool),
        cmocka_unit_test(test_top),       cmocka_unit_test(test_select),
        cmocka_unit_test(test_commute),   cmocka_unit_test(test_selector),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
