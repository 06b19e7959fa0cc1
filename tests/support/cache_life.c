/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/cache_life.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/approx.h"
#include "tests/support/backend_case.h"
#include "tests/support/ra_test.h"

enum { HKV = 2, MOST_G = 8, ROWS = 160, PROMPT = 40 };

/* One KV head, as a list in eviction order with pinned entries at the end. */
struct model {
    int32_t order[ROWS + 1];
    int32_t n, n_pinned;
    double score[ROWS + 1]; /* by position */
    int32_t scored_self;
};

struct run {
    const struct cache_life *life;
    struct ra_case c;
    struct model heads[HKV];
    int32_t rows;
    uint64_t seed;
    bool is_cut;    /* since the last refresh: the order of evictions says nothing */
    bool is_shared; /* scores became those of the layer: they are not added to */
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

static void remove_at(struct model *m, int32_t at)
{
    m->score[m->order[at]] = 0;
    memmove(m->order + at, m->order + at + 1, (size_t)(m->n - at - 1) * sizeof m->order[0]);
    m->n--;
}

static int32_t insert(struct model *m, int32_t self, int32_t K)
{
    int32_t evicted = -1;
    while (m->n + 1 > K && m->n > m->n_pinned) {
        evicted = evicted < 0 ? m->order[0] : evicted;
        remove_at(m, 0);
    }
    int32_t at = m->n - m->n_pinned;
    memmove(m->order + at + 1, m->order + at, (size_t)m->n_pinned * sizeof m->order[0]);
    m->order[at] = self;
    m->n++;
    return evicted;
}

/* A random new order of random positions. */
static void redraw(struct model *m, int32_t rows, uint64_t *seed)
{
    struct model old = *m;
    int32_t of = 4 + 20 * ra_case_below(seed, 2), keep = 1 + ra_case_below(seed, 4);
    m->n = 0;
    for (int32_t p = 0; p < rows; p++)
        if (ra_case_below(seed, of) < (has(&old, p) ? keep : 1))
            m->order[m->n++] = p;
    for (int32_t i = m->n - 1; i > 0; i--) {
        int32_t j = ra_case_below(seed, i + 1), swap = m->order[i];
        m->order[i] = m->order[j];
        m->order[j] = swap;
    }
}

/* Scores of who stays; of who comes those given, or self's if it has one. Returns how many come. */
static int32_t score_anew(struct model *m, const struct model *old, const double *given)
{
    int32_t set[ROWS + 1], n = ascending(m, set), came = 0;
    double score[ROWS + 1] = {0};
    for (int32_t i = 0; i < n; i++) {
        bool was = has(old, set[i]);
        came += !was;
        score[set[i]] = was                          ? old->score[set[i]]
                        : given                      ? given[i]
                        : set[i] == old->scored_self ? old->score[set[i]]
                                                     : 0;
    }
    memcpy(m->score, score, sizeof score);
    m->scored_self = -1;
    return came;
}

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

/* Sometimes all heads to the same positions, sometimes to what has scores. */
static void refresh(struct run *run)
{
    struct ra_error err = {0};
    int64_t moved, came = 0;
    int32_t set[ROWS];
    bool alike = ra_case_below(&run->seed, 2), scored = ra_case_below(&run->seed, 3) == 0;
    int32_t pinned = ra_case_below(&run->seed, 3) == 0 ? ra_case_below(&run->seed, 9) : 0;
    for (int h = 0; h < HKV; h++) {
        struct model *m = &run->heads[h], old = *m;
        double given[ROWS];
        redraw(m, run->rows, &run->seed);
        if (alike && h > 0) {
            memcpy(m->order, run->heads[0].order, sizeof m->order);
            m->n = run->heads[0].n;
        }
        for (int32_t i = 0; i < m->n; i++)
            given[i] = 3 * (double)ra_case_below(&run->seed, 1000) / 1000;
        m->n_pinned = pinned < m->n ? pinned : m->n;
        came += score_anew(m, &old, scored ? given : NULL);
        ascending(m, set);
        struct ra_retained retained = {.set = {.pos = set, .n = m->n},
                                       .evict = {.pos = m->order, .n = m->n},
                                       .n_pinned = pinned,
                                       .score = scored ? given : NULL};
        retained.n_pinned = run->life->one_a_step ? pinned : m->n_pinned;
        run->c.ops->adopt(run->c.self, 0, h, &retained);
    }
    ra_assert_ok(run->c.ops->refresh(run->c.self, 0, &moved, &err));
    assert_int_equal(moved, came);
    run->is_cut = false;
}

static void insert_evict(struct run *run)
{
    struct ra_error err = {0};
    int32_t evicted[HKV], most[HKV], self = run->rows - 1, least = run->life->one_a_step ? 0 : 1;
    if (has(&run->heads[0], self) || has(&run->heads[1], self))
        return;
    for (int h = 0; h < HKV; h++) {
        most[h] = run->heads[h].n + ra_case_below(&run->seed, 2 + least) - least;
        most[h] = most[h] < 1 ? 1 : most[h];
    }
    ra_assert_ok(run->c.ops->insert_evict(run->c.self, 0, most, evicted, &err));
    for (int h = 0; h < HKV; h++) {
        struct model *m = &run->heads[h];
        assert_int_equal(evicted[h], insert(m, self, most[h]));
        m->score[self] = m->scored_self == self ? m->score[self] : 0;
        m->scored_self = -1;
    }
}

/* --- scores ------------------------------------------------------------------------------------
 */

static double combine(enum ra_agg agg, const double *x, int n)
{
    double sum = 0, most = x[0];
    for (int i = 0; i < n; i++) {
        sum += x[i];
        most = x[i] > most ? x[i] : most;
    }
    return agg == RA_AGG_MAX ? most : agg == RA_AGG_MEAN ? sum / n : agg == RA_AGG_SUM ? sum : x[0];
}

/* Scores of entries and self, ascending, after adding what `agg` makes of the group's. */
static void accumulate(struct run *run, enum ra_agg agg)
{
    struct ra_error err = {0};
    const float *scores[HKV];
    int G = run->life->G;
    bool keep = ra_case_below(&run->seed, 4) != 0 && !run->is_shared;
    check_attention(run, true);
    ra_assert_ok(run->c.ops->accumulate(run->c.self, 0, agg, keep, scores, &err));
    run->is_shared = false;
    for (int h = 0; h < HKV; h++) {
        struct model *m = &run->heads[h];
        int32_t list[ROWS + 1], n = ascending(m, list), self = run->rows - 1;
        double prob[MOST_G][ROWS + 1], got[ROWS + 1], expected[ROWS + 1], out[64];
        if (!has(m, self)) {
            list[n++] = self;
            m->score[self] = 0;
            m->scored_self = self;
        }
        for (int g = 0; g < G; g++)
            ra_case_attend(&run->c, h * G + g, list, n, prob[g], out);
        for (int32_t i = 0; i < n; i++) {
            double column[MOST_G] = {0};
            for (int g = 0; g < G; g++)
                column[g] = prob[g][i];
            m->score[list[i]] = combine(agg, column, G) + (keep ? m->score[list[i]] : 0);
            expected[i] = m->score[list[i]];
            got[i] = (double)scores[h][i];
        }
        ra_assert_close("accumulated", got, expected, (size_t)n, 1e-12, run->life->score_error);
    }
}

static bool are_alike(const struct run *run)
{
    int32_t first[ROWS + 1], second[ROWS + 1], n = ascending(&run->heads[0], first);
    return n == ascending(&run->heads[1], second) &&
           memcmp(first, second, (size_t)n * sizeof *first) == 0;
}

/* Who goes by the rule, of a head: -1 where nobody does. */
static int32_t weakest(const struct run *run, int head, const struct ra_cut_rule *of_all)
{
    struct ra_cut_rule own = ra_cut_rule_of(of_all, head), *rule = &own;
    int32_t list[ROWS + 1], n = ascending(&run->heads[head], list), found = -1;
    double least = INFINITY;
    list[n++] = run->rows - 1;
    for (int32_t i = 0; i < n - rule->recent && n > rule->K; i++) {
        double each[HKV] = {0}, score = run->heads[head].score[list[i]];
        for (int h = 0; h < HKV; h++)
            each[h] = run->heads[h].score[list[i]];
        score = rule->of_layer ? combine(rule->agg, each, HKV) : score;
        found = score <= least ? list[i] : found;
        least = fmin(score, least);
    }
    return found;
}

static void enter(struct model *m, int32_t self, int32_t victim)
{
    for (int32_t i = 0; i < m->n; i++)
        if (m->order[i] == victim)
            remove_at(m, i);
    m->scored_self = -1;
    if (victim != self)
        m->order[m->n++] = self;
    else
        m->score[self] = 0;
}

/* Right after `accumulate`; sometimes others go than the rule says. */
static void cut(struct run *run, enum ra_agg agg)
{
    struct ra_error err = {0};
    int32_t evicted[HKV], expected[HKV], instead[HKV], self = run->rows - 1;
    if (has(&run->heads[0], self) || has(&run->heads[1], self))
        return;
    struct ra_cut_rule rule = {.K = 1 + ra_case_below(&run->seed, run->heads[0].n + 1), .agg = agg};
    rule.recent = ra_case_below(&run->seed, rule.K + 1) / (1 + ra_case_below(&run->seed, 3));
    rule.of_layer = are_alike(run) && ra_case_below(&run->seed, 3) != 0;
    int32_t K[HKV] = {1 + ra_case_below(&run->seed, run->heads[0].n + 1), rule.K}, recent[HKV];
    for (int h = 0; h < HKV; h++)
        recent[h] = ra_case_below(&run->seed, K[h] + 1);
    if (!rule.of_layer && ra_case_below(&run->seed, 3) == 0) {
        rule.K_heads = K;
        rule.K = K[0] > K[1] ? K[0] : K[1];
        rule.recent_heads = recent;
    }
    bool is_told = ra_case_below(&run->seed, 3) == 0;
    for (int h = 0; h < HKV; h++) {
        const struct model *m = &run->heads[h];
        int32_t any = ra_case_below(&run->seed, m->n + 2);
        instead[h] = any < m->n ? m->order[any] : any == m->n ? self : -1;
        instead[h] = rule.of_layer && h > 0 ? instead[0] : instead[h];
        expected[h] = weakest(run, h, &rule);
    }
    ra_assert_ok(run->c.ops->cut(run->c.self, 0, &rule, is_told ? instead : NULL, evicted, &err));
    for (int h = 0; h < HKV; h++) {
        assert_int_equal(evicted[h], expected[h]);
        enter(&run->heads[h], self, is_told && instead[h] >= 0 ? instead[h] : evicted[h]);
    }
    run->is_shared = rule.of_layer;
    run->is_cut = true;
}

static void live(struct run *run)
{
    ra_case_append(&run->c, 0, run->rows++);
    ra_case_query(&run->c, 1);
    enum ra_agg agg = (enum ra_agg)ra_case_below(&run->seed, 4);
    bool accumulates = ra_case_below(&run->seed, 2), cuts = ra_case_below(&run->seed, 3) != 0;
    if (accumulates)
        accumulate(run, agg);
    else
        check_attention(run, false);
    if (ra_case_below(&run->seed, 8) == 0)
        refresh(run);
    else if (accumulates && (cuts || run->is_cut))
        cut(run, agg);
    else if (!run->is_cut)
        insert_evict(run);
    check_attention(run, false);
}

void cache_life(const struct cache_life *life)
{
    struct run run = {.life = life, .rows = PROMPT, .seed = life->seed};
    for (int h = 0; h < HKV; h++)
        run.heads[h].scored_self = -1;
    ra_case_init(&run.c, life->dtype, HKV, life->G, 64, 64, ROWS, life->seed);
    run.c.ops = life->ops ? life->ops : run.c.ops;
    run.c.config.cache = life->cache;
    run.c.config.n_threads = life->n_threads;
    run.c.config.page = life->page;
    ra_case_open(&run.c, PROMPT);
    refresh(&run);
    while (run.rows < ROWS)
        live(&run);
    ra_case_fini(&run.c);
}
