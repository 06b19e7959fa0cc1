/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recycled cache of the cpu backend against a plain list: random refreshes, insertions with
 * changing budgets, pinned entries, accumulated scores; after each, attention and counts must be
 * those of the list. Would catch a slot that is reused too early, a row copied from the wrong
 * place, an eviction out of order, and a score that stays behind when its entry moves.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/support/approx.h"
#include "tests/support/backend_case.h"
#include "tests/support/ra_test.h"

enum { HKV = 2, G = 2, ROWS = 160, PROMPT = 40 };

/* One KV head, as a list in eviction order with pinned entries at the end. */
struct model {
    int32_t order[ROWS + 1];
    int32_t n, n_pinned;
    double score[ROWS]; /* by position */
    int32_t scored_self;
};

static bool has(const struct model *m, int32_t p)
{
    for (int32_t i = 0; i < m->n; i++)
        if (m->order[i] == p)
            return true;
    return false;
}

static int by_value(const void *a, const void *b)
{
    return *(const int32_t *)a - *(const int32_t *)b;
}

/* Ascending copy; returns n. */
static int32_t ascending(const struct model *m, int32_t *list)
{
    memcpy(list, m->order, (size_t)m->n * sizeof *list);
    qsort(list, (size_t)m->n, sizeof *list, by_value);
    return m->n;
}

static void remove_first(struct model *m)
{
    m->score[m->order[0]] = 0;
    memmove(m->order, m->order + 1, (size_t)(m->n - 1) * sizeof m->order[0]);
    m->n--;
}

static int32_t insert(struct model *m, int32_t self, int32_t K)
{
    int32_t evicted = -1;
    while (m->n + 1 > K && m->n > m->n_pinned) {
        evicted = evicted < 0 ? m->order[0] : evicted;
        remove_first(m);
    }
    int32_t at = m->n - m->n_pinned;
    memmove(m->order + at + 1, m->order + at, (size_t)m->n_pinned * sizeof m->order[0]);
    m->order[at] = self;
    m->n++;
    return evicted;
}

/* A random new order of random positions; returns how many were not there before. */
static int32_t rebuild(struct model *m, int32_t rows, uint64_t *seed)
{
    struct model old = *m;
    int32_t moved = 0, keep = 1 + ra_case_below(seed, 4), self = rows - 1;
    m->n = 0;
    for (int32_t p = 0; p < rows; p++) {
        bool was = has(&old, p);
        if (ra_case_below(seed, 4) < (was ? keep : 1))
            m->order[m->n++] = p;
    }
    for (int32_t i = m->n - 1; i > 0; i--) {
        int32_t j = ra_case_below(seed, i + 1), swap = m->order[i];
        m->order[i] = m->order[j];
        m->order[j] = swap;
    }
    m->n_pinned = m->n > 0 && ra_case_below(seed, 3) == 0 ? ra_case_below(seed, m->n) : 0;
    for (int32_t p = 0; p < rows; p++) {
        moved += has(m, p) && !has(&old, p);
        bool scored = has(m, p) && (has(&old, p) || (p == self && m->scored_self == self));
        m->score[p] = scored ? m->score[p] : 0;
    }
    m->scored_self = -1;
    return moved;
}

struct run {
    struct ra_case c;
    struct model heads[HKV];
    int32_t rows;
    uint64_t seed;
};

static void check_attention(struct run *run, bool want_scores)
{
    struct ra_error err = {0};
    struct ra_positions lists[HKV];
    int32_t room[HKV][ROWS + 1];
    for (int h = 0; h < HKV; h++) {
        int32_t n = ascending(&run->heads[h], room[h]);
        if (!has(&run->heads[h], run->rows - 1))
            room[h][n++] = run->rows - 1;
        lists[h] = (struct ra_positions){.pos = room[h], .n = n};
    }
    ra_assert_ok(
        run->c.ops->attend_recycled(run->c.self, 0, run->c.q, want_scores, run->c.out, &err));
    assert_true(ra_case_error(&run->c, lists, HKV) <= 1e-6);
}

static void refresh(struct run *run)
{
    struct ra_error err = {0};
    int64_t moved, expected = 0;
    int32_t set[ROWS];
    for (int h = 0; h < HKV; h++) {
        struct model *m = &run->heads[h];
        expected += rebuild(m, run->rows, &run->seed);
        ascending(m, set);
        struct ra_retained retained = {.set = {.pos = set, .n = m->n},
                                       .evict = {.pos = m->order, .n = m->n},
                                       .n_pinned = m->n_pinned};
        run->c.ops->adopt(run->c.self, 0, h, &retained);
    }
    ra_assert_ok(run->c.ops->refresh(run->c.self, 0, &moved, &err));
    assert_int_equal(moved, expected);
}

static void insert_evict(struct run *run)
{
    struct ra_error err = {0};
    int32_t evicted[HKV], self = run->rows - 1;
    if (has(&run->heads[0], self) || has(&run->heads[1], self))
        return;
    int32_t K = run->heads[0].n + ra_case_below(&run->seed, 3) - 1;
    K = K < 1 ? 1 : K;
    ra_assert_ok(run->c.ops->insert_evict(run->c.self, 0, ra_case_each(K), evicted, &err));
    for (int h = 0; h < HKV; h++) {
        struct model *m = &run->heads[h];
        assert_int_equal(evicted[h], insert(m, self, K));
        m->score[self] = m->scored_self == self ? m->score[self] : 0;
        m->scored_self = -1;
    }
}

/* Scores of entries and self, ascending, after adding what `agg` makes of two heads. */
static void accumulate(struct run *run)
{
    struct ra_error err = {0};
    const float *scores[HKV];
    bool keep = ra_case_below(&run->seed, 4) != 0;
    enum ra_agg agg = (enum ra_agg)ra_case_below(&run->seed, 4);
    check_attention(run, true);
    ra_assert_ok(run->c.ops->accumulate(run->c.self, 0, agg, keep, scores, &err));
    for (int h = 0; h < HKV; h++) {
        struct model *m = &run->heads[h];
        int32_t list[ROWS + 1], n = ascending(m, list), self = run->rows - 1;
        double prob[G][ROWS + 1], got[ROWS + 1], expected[ROWS + 1], out[64];
        bool inside = has(m, self);
        if (!inside) {
            list[n++] = self;
            m->score[self] = 0;
            m->scored_self = self;
        }
        for (int g = 0; g < G; g++)
            ra_case_attend(&run->c, h * G + g, list, n, prob[g], out);
        for (int32_t i = 0; i < n; i++) {
            double a = prob[0][i], b = prob[1][i];
            double value = agg == RA_AGG_SUM     ? a + b
                           : agg == RA_AGG_MEAN  ? (a + b) / 2
                           : agg == RA_AGG_FIRST ? a
                           : a > b               ? a
                                                 : b;
            m->score[list[i]] = value + (keep ? m->score[list[i]] : 0);
            expected[i] = m->score[list[i]];
            got[i] = (double)scores[h][i];
        }
        ra_assert_close("accumulated", got, expected, (size_t)n, 1e-12, 2e-7);
    }
}

static void random_run(enum ra_cache_mode cache, int n_threads, uint64_t seed)
{
    struct run run = {.rows = PROMPT, .seed = seed};
    for (int h = 0; h < HKV; h++)
        run.heads[h].scored_self = -1;
    ra_case_init(&run.c, RA_F16, HKV, G, 64, 64, ROWS, seed);
    run.c.config.cache = cache;
    run.c.config.n_threads = n_threads;
    ra_case_open(&run.c, PROMPT);
    refresh(&run);
    while (run.rows < ROWS) {
        ra_case_append(&run.c, 0, run.rows++);
        ra_case_query(&run.c, 1);
        if (ra_case_below(&run.seed, 2))
            accumulate(&run);
        else
            check_attention(&run, false);
        if (ra_case_below(&run.seed, 5) == 0)
            refresh(&run);
        else
            insert_evict(&run);
        check_attention(&run, false);
    }
    ra_case_fini(&run.c);
}

static void test_random_sequences(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= RA_ROUNDS(24); seed++)
        random_run(seed & 1 ? RA_CACHE_COMPACT : RA_CACHE_GATHER, 1 + (int)(seed % 3), seed);
}

/*
 * A compact refresh copies what is new and nothing else: when C_f is replaced in between, what
 * stayed still shows the old rows, what came shows the new ones.
 */
static void test_survivors_are_not_copied(void **state)
{
    (void)state;
    struct ra_error err = {0};
    struct ra_case c;
    int64_t moved;
    int32_t first[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9},
            second[] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
    int32_t with_self[] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 19};
    ra_case_init(&c, RA_F16, 1, 1, 64, 64, 20, 7);
    c.config.max_retained = 10;
    ra_case_open(&c, 20);
    struct ra_retained retained = {.set = {first, 10}, .evict = {first, 10}};
    c.ops->adopt(c.self, 0, 0, &retained);
    ra_assert_ok(c.ops->refresh(c.self, 0, &moved, &err));
    assert_int_equal(moved, 10);

    size_t old_k = 10 * 64, old_v = 10 * 64;
    float kept_k[10 * 64], kept_v[10 * 64];
    memcpy(kept_k, c.kf, sizeof kept_k);
    memcpy(kept_v, c.vf, sizeof kept_v);
    ra_case_fill(&c, 1, 1);
    ra_assert_ok(
        c.ops->load(c.self, 0, &(struct ra_prompt_rows){.k = c.k, .v = c.v, .P = 20}, &err));
    retained = (struct ra_retained){.set = {second, 10}, .evict = {second, 10}};
    c.ops->adopt(c.self, 0, 0, &retained);
    ra_assert_ok(c.ops->refresh(c.self, 0, &moved, &err));
    assert_int_equal(moved, 5);
    memcpy(c.kf, kept_k, old_k * sizeof *kept_k);
    memcpy(c.vf, kept_v, old_v * sizeof *kept_v);
    struct ra_positions list = {.pos = with_self, .n = 11};
    ra_assert_ok(c.ops->attend_recycled(c.self, 0, c.q, false, c.out, &err));
    assert_true(ra_case_error(&c, &list, 1) <= 1e-6);
    ra_case_fini(&c);
}

/* K may exceed everything there is: the cache only grows, up to all rows. */
static void test_budget_beyond_the_context(void **state)
{
    (void)state;
    struct ra_error err = {0};
    struct ra_case c;
    int32_t all[12], evicted;
    int64_t moved;
    for (int32_t p = 0; p < 12; p++)
        all[p] = p;
    ra_case_init(&c, RA_F32, 1, 2, 8, 16, 12, 7);
    ra_case_open(&c, 4);
    struct ra_retained retained = {.set = {all, 4}, .evict = {all, 4}};
    c.ops->adopt(c.self, 0, 0, &retained);
    ra_assert_ok(c.ops->refresh(c.self, 0, &moved, &err));
    for (int32_t row = 4; row < 12; row++) {
        struct ra_positions list = {.pos = all, .n = row + 1};
        ra_case_append(&c, 0, row);
        ra_assert_ok(c.ops->attend_recycled(c.self, 0, c.q, false, c.out, &err));
        assert_true(ra_case_error(&c, &list, 1) <= 1e-6);
        ra_assert_ok(c.ops->insert_evict(c.self, 0, ra_case_each(1000), &evicted, &err));
        assert_int_equal(evicted, -1);
    }
    ra_case_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_sequences),
        cmocka_unit_test(test_survivors_are_not_copied),
        cmocka_unit_test(test_budget_beyond_the_context),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
