/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Selection of the cpu backend against a full sort, with logits drawn from a few integers so that
 * ties decide nearly everything. Would catch logits kept in less than double precision, a tie going
 * to the higher position, a pool that slips at an end, a protected token that is counted twice, and
 * an eviction order by the wrong score.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/approx.h"
#include "tests/support/backend_case.h"
#include "tests/support/ra_test.h"

enum { HKV = 2, G = 3, D = 8 };

/*
 * Query head g reads coordinate g of the key, g + 1 times: any table of logits can be had, and two
 * positions whose logits are permuted among the heads do not tie but for rounding. To each the last
 * coordinate adds 2^25, which changes no softmax, but takes more bits than f32 has.
 */
static void tied_case(struct ra_case *c, int32_t L, int n_values, uint64_t seed)
{
    ra_case_init(c, RA_F16, HKV, G, D, 8, L, seed);
    c->model.attn_scale = 1;
    for (int i = 0; i < HKV * L * D; i++)
        c->kf[i] =
            i % D == D - 1 ? 0x1p11f : (float)(ra_case_below(&seed, n_values) - n_values / 2);
    ra_narrow(RA_F16, c->kf, (size_t)(HKV * L * D), c->k);
    for (int h = 0; h < HKV * G; h++)
        for (int d = 0; d < D; d++)
            c->q[h * D + d] = d == D - 1 ? 0x1p14f : d == h % G ? (float)(1 + h % G) : 0;
}

/* --- the naive selection ------------------------------------------------------------------- */

struct candidate {
    int32_t pos;
    double raw, pooled;
    bool is_protected;
};

static int by_rank(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->pooled != y->pooled)
        return x->pooled > y->pooled ? -1 : 1;
    return x->pos < y->pos ? -1 : 1;
}

static int by_raw(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    if (x->is_protected != y->is_protected)
        return x->is_protected ? 1 : -1;
    if (x->raw != y->raw)
        return x->raw < y->raw ? -1 : 1;
    return x->pos > y->pos ? -1 : 1;
}

static double aggregate(enum ra_agg agg, const double prob[G])
{
    switch (agg) {
    case RA_AGG_MAX:
        return fmax(prob[0], fmax(prob[1], prob[2]));
    case RA_AGG_MEAN:
        return (prob[0] + prob[1] + prob[2]) / 3;
    case RA_AGG_SUM:
        return prob[0] + prob[1] + prob[2];
    case RA_AGG_FIRST:
        break;
    }
    return prob[0];
}

static void naive_scores(const struct ra_case *c, int kv_head, const struct ra_select_rule *rule,
                         struct candidate *all)
{
    int32_t L = c->config.max_rows, *positions = calloc((size_t)L, sizeof *positions);
    double *prob = calloc((size_t)(G * L), sizeof *prob), out[8];
    for (int32_t p = 0; p < L; p++)
        positions[p] = p;
    for (int g = 0; g < G; g++)
        ra_case_attend(c, kv_head * G + g, positions, L, prob + g * L, out);
    for (int32_t p = 0; p < L; p++) {
        double column[G] = {prob[p], prob[L + p], prob[2 * L + p]};
        all[p] = (struct candidate){.pos = p, .raw = aggregate(rule->agg, column)};
    }
    for (int32_t p = 0; p < L; p++) {
        all[p].pooled = -INFINITY;
        for (int32_t i = p - rule->pool / 2; i <= p + rule->pool / 2; i++)
            if (i >= 0 && i < L)
                all[p].pooled = fmax(all[p].pooled, all[i].raw);
    }
    free(positions);
    free(prob);
}

/* DESIGN's rule, literally. order has room for L; returns how many. */
static int32_t naive_select(const struct ra_case *c, int kv_head, const struct ra_select_rule *rule,
                            int32_t *order)
{
    int32_t L = c->config.max_rows;
    struct candidate *all = calloc((size_t)L, sizeof *all);
    naive_scores(c, kv_head, rule, all);
    struct candidate current = all[L - 1];
    int32_t n_rest = rule->current == RA_CURRENT_PSEUDO ? L : L - 1;
    int32_t take = rule->current == RA_CURRENT_SNAPKV ? rule->K - 1 : rule->K;
    qsort(all, (size_t)n_rest, sizeof *all, by_rank);
    int32_t n = take < n_rest ? take : n_rest;
    if (rule->current == RA_CURRENT_SNAPKV) {
        all[n] = current;
        all[n++].is_protected = true;
    }
    if (rule->evict == RA_EVICT_RAW) {
        qsort(all, (size_t)n, sizeof *all, by_raw);
        for (int32_t i = 0; i < n; i++)
            order[i] = all[i].pos;
    } else {
        int32_t used = 0;
        for (int32_t i = n - 1; i >= 0; i--)
            if (!all[i].is_protected)
                order[used++] = all[i].pos;
        if (used < n)
            order[used] = current.pos;
    }
    free(all);
    return n;
}

/* ------------------------------------------------------------------------------------------- */

static void check_rule(struct ra_case *c, const struct ra_select_rule *rule)
{
    struct ra_error err = {0};
    struct ra_positions order[HKV];
    int32_t *expected = calloc((size_t)c->config.max_rows + 1, sizeof *expected);
    ra_assert_ok(c->ops->select(c->self, 0, rule, order, &err));
    for (int h = 0; h < HKV; h++) {
        int32_t n = naive_select(c, h, rule, expected);
        bool same = order[h].n == n && memcmp(order[h].pos, expected, (size_t)n * 4) == 0;
        if (!same)
            fail_msg("L=%d K=%d pool=%d agg=%d current=%d evict=%d head %d: %d chosen, expected %d "
                     "(or in another order)",
                     (int)c->config.max_rows, (int)rule->K, rule->pool, (int)rule->agg,
                     (int)rule->current, (int)rule->evict, h, (int)order[h].n, (int)n);
    }
    free(expected);
}

static void test_rules_with_ties(void **state)
{
    (void)state;
    static const int32_t lengths[] = {1, 2, 3, 10, 200, 700};
    static const int pools[] = {1, 3, 7, 9, 101};
    uint64_t seed = 1;
    struct ra_error err = {0};
    for (int i = 0; i < RA_ROUNDS(150); i++) {
        struct ra_case c;
        int32_t L = lengths[i % 6];
        tied_case(&c, L, 1 + ra_case_below(&seed, 5), ra_case_random(&seed));
        c.config.n_threads = 1 + i % 2;
        ra_case_open(&c, L);
        if (i % 3)
            ra_assert_ok(c.ops->score(c.self, 0, c.q, &err));
        else
            ra_assert_ok(c.ops->attend_full(c.self, 0, c.q, true, c.out, &err));
        int32_t budgets[] = {1, 2, 5, 64, L - 1, L, L + 5};
        for (int rule_number = 0; rule_number < 4 * 3 * 2; rule_number++) {
            struct ra_select_rule rule = {.K = budgets[ra_case_below(&seed, 7)],
                                          .pool = pools[ra_case_below(&seed, 5)],
                                          .agg = (enum ra_agg)(rule_number % 4),
                                          .current = (enum ra_current)(rule_number / 4 % 3),
                                          .evict = (enum ra_evict)(rule_number / 12)};
            rule.K = rule.K < 1 ? 1 : rule.K;
            check_rule(&c, &rule);
        }
        ra_case_fini(&c);
    }
}

/* Real-valued scores: nothing ties, so any order but the naive one is a wrong score. */
static void test_rules_without_ties(void **state)
{
    (void)state;
    struct ra_error err = {0};
    for (int dtype = RA_F16; dtype <= RA_F32; dtype++) {
        struct ra_case c;
        ra_case_init(&c, (enum ra_dtype)dtype, HKV, G, 64, 8, 1100, 21);
        ra_case_open(&c, 1100);
        ra_assert_ok(c.ops->score(c.self, 0, c.q, &err));
        for (int i = 0; i < 24; i++) {
            struct ra_select_rule rule = {.K = 300,
                                          .pool = 1,
                                          .agg = (enum ra_agg)(i % 4),
                                          .current = (enum ra_current)(i / 4 % 3),
                                          .evict = (enum ra_evict)(i / 12)};
            check_rule(&c, &rule);
        }
        ra_case_fini(&c);
    }
}

/* With --scores recompute attending leaves no logits; `score` does, and to the same selection. */
static void test_recompute_equals_fused(void **state)
{
    (void)state;
    struct ra_error err = {0};
    struct ra_select_rule rule = {.K = 100, .pool = 7};
    int32_t orders[2][HKV][100];
    for (int mode = 0; mode < 2; mode++) {
        struct ra_case c;
        struct ra_positions order[HKV];
        ra_case_init(&c, RA_BF16, HKV, G, 72, 64, 900, 2);
        c.config.scores = mode ? RA_SCORES_RECOMPUTE : RA_SCORES_FUSED;
        ra_case_open(&c, 900);
        if (mode) { /* scores of another query, which attending must not replace */
            ra_assert_ok(c.ops->score(c.self, 0, c.q, &err));
            float *q = c.q;
            c.q = calloc((size_t)(c.model.Hq * c.model.D), sizeof *q);
            ra_assert_ok(c.ops->attend_full(c.self, 0, c.q, true, c.out, &err));
            free(c.q);
            c.q = q;
        } else {
            ra_assert_ok(c.ops->attend_full(c.self, 0, c.q, true, c.out, &err));
        }
        ra_assert_ok(c.ops->select(c.self, 0, &rule, order, &err));
        for (int h = 0; h < HKV; h++) {
            assert_int_equal(order[h].n, 100);
            memcpy(orders[mode][h], order[h].pos, sizeof orders[mode][h]);
        }
        ra_case_fini(&c);
    }
    assert_memory_equal(orders[0], orders[1], sizeof orders[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules_with_ties),
        cmocka_unit_test(test_rules_without_ties),
        cmocka_unit_test(test_recompute_equals_fused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
