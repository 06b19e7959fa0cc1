/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of the cpu backend against a naive f64 attention: every pair of dtype, D, Dv, group
 * size, context length and thread count, in each operation that attends. Would catch a wrong row,
 * a lost split, a head mapped to the wrong KV head, an unstable softmax, and sums whose order
 * depends on threads.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/simd.h"
#include "tests/support/backend_case.h"
#include "tests/support/ra_test.h"

enum { N_FACTORS = 6, N_LEVELS = 6, HKV = 2, MOST_CASES = 80 };

static const int levels[N_FACTORS] = {3, 5, 5, 5, 6, 3};
static const int dims[] = {8, 64, 72, 128, 256};
static const int groups[] = {1, 2, 3, 4, 8};
static const int lengths[] = {1, 2, 511, 512, 513, 1100};
static const int dtypes[] = {RA_F16, RA_BF16, RA_F32};

struct combination {
    int level[N_FACTORS];
};

typedef bool covered_t[N_FACTORS][N_LEVELS][N_FACTORS][N_LEVELS];

static int new_pairs(const struct combination *c, covered_t covered, bool mark)
{
    int n = 0;
    for (int a = 0; a < N_FACTORS; a++)
        for (int b = a + 1; b < N_FACTORS; b++) {
            n += !covered[a][c->level[a]][b][c->level[b]];
            if (mark)
                covered[a][c->level[a]][b][c->level[b]] = true;
        }
    return n;
}

/* Greedy pairwise cover: always the combination with the most pairs not seen yet. */
static int cover(struct combination *chosen)
{
    static covered_t covered;
    memset(covered, 0, sizeof covered);
    int total = 1, n = 0;
    for (int f = 0; f < N_FACTORS; f++)
        total *= levels[f];
    for (;;) {
        struct combination best = {0};
        int gain = 0;
        for (int i = 0; i < total; i++) {
            struct combination c;
            for (int f = 0, rest = i; f < N_FACTORS; rest /= levels[f++])
                c.level[f] = rest % levels[f];
            int pairs = new_pairs(&c, covered, false);
            if (pairs > gain) {
                best = c;
                gain = pairs;
            }
        }
        if (gain == 0)
            return n;
        assert_true(n < MOST_CASES);
        new_pairs(&best, covered, true);
        chosen[n++] = best;
    }
}

/* Ascending positions below n, each with probability 1/2, into list; returns how many. */
static int32_t random_set(uint64_t *seed, int32_t n, int32_t *list)
{
    int32_t used = 0;
    for (int32_t p = 0; p < n; p++)
        if (ra_case_random(seed) & 1)
            list[used++] = p;
    return used;
}

/* What one combination computed: outputs of every operation, to compare bits across threads. */
struct outputs {
    float *values;
    size_t n;
    bool is_checked; /* against the naive attention; another run has the same bits */
    double worst;
};

static void collect(struct outputs *all, const struct ra_case *c, const struct ra_positions *lists,
                    int n_lists)
{
    size_t n = (size_t)(c->model.Hq * c->model.Dv);
    all->values = realloc(all->values, (all->n + n) * sizeof *all->values);
    assert_non_null(all->values);
    memcpy(all->values + all->n, c->out, n * sizeof *c->out);
    all->n += n;
    if (all->is_checked)
        all->worst = fmax(all->worst, ra_case_error(c, lists, n_lists));
}

static struct ra_positions tail(const int32_t *all, int32_t L, int32_t n)
{
    return (struct ra_positions){.pos = all + (L - n), .n = n};
}

static void attend_everything(struct ra_case *c, int32_t L, struct outputs *all)
{
    struct ra_error err = {0};
    int32_t *positions = calloc((size_t)L, sizeof *positions);
    for (int32_t p = 0; p < L; p++)
        positions[p] = p;
    struct ra_positions list = tail(positions, L, L);
    ra_assert_ok(c->ops->attend_full(c->self, 0, c->q, false, c->out, &err));
    collect(all, c, &list, 1);
    ra_assert_ok(c->ops->attend_full(c->self, 0, c->q, true, c->out, &err));
    collect(all, c, &list, 1);
    int32_t window = c->window[1] < L ? c->window[1] : L;
    list = tail(positions, L, window);
    ra_assert_ok(c->ops->attend_full(c->self, 1, c->q, false, c->out, &err));
    collect(all, c, &list, 1);
    free(positions);
}

/* Random sets, one empty; with_self is the same and the newest position. room [n_sets][L + 1]. */
static void make_sets(int32_t L, int n_sets, int32_t *room, struct ra_positions *sets,
                      struct ra_positions *with_self)
{
    uint64_t seed = (uint64_t)L + 17;
    for (int i = 0; i < n_sets; i++) {
        int32_t *list = room + i * (L + 1), n = i == 1 ? 0 : random_set(&seed, L - 1, list);
        list[n] = L - 1;
        sets[i] = (struct ra_positions){.pos = list, .n = n};
        with_self[i] = (struct ra_positions){.pos = list, .n = n + 1};
    }
}

static void attend_sets(struct ra_case *c, int32_t L, int n_sets, struct outputs *all)
{
    struct ra_error err = {0};
    struct ra_positions sets[HKV * 8], with_self[HKV * 8];
    int32_t *room = calloc((size_t)n_sets * (size_t)(L + 1), sizeof *room);
    make_sets(L, n_sets, room, sets, with_self);
    ra_assert_ok(c->ops->attend_sets(c->self, 0, c->q, sets, n_sets, c->out, &err));
    collect(all, c, with_self, n_sets);
    free(room);
}

/* C_r without self, attended as C_r and self; then self enters it, and A stays the same. */
static void attend_recycled(struct ra_case *c, int32_t L, struct outputs *all)
{
    struct ra_error err = {0};
    struct ra_positions sets[HKV], with_self[HKV];
    int32_t *room = calloc((size_t)HKV * (size_t)(L + 1), sizeof *room);
    make_sets(L, HKV, room, sets, with_self);
    for (int pass = 0; pass < 2; pass++) {
        int64_t moved, expected = 0;
        for (int h = 0; h < HKV; h++) {
            const struct ra_positions *set = pass ? &with_self[h] : &sets[h];
            struct ra_retained retained = {.set = *set, .evict = *set};
            expected += pass ? 1 : set->n;
            c->ops->adopt(c->self, 0, h, &retained);
        }
        ra_assert_ok(c->ops->refresh(c->self, 0, &moved, &err));
        assert_int_equal(moved, expected);
        ra_assert_ok(c->ops->attend_recycled(c->self, 0, c->q, pass, c->out, &err));
        collect(all, c, with_self, HKV);
    }
    free(room);
}

static struct outputs run(const struct combination *combination, int n_threads,
                          enum ra_cache_mode cache, bool is_checked)
{
    const int *level = combination->level;
    struct outputs all = {.is_checked = is_checked};
    struct ra_case c;
    int32_t L = lengths[level[4]];
    ra_case_init(&c, (enum ra_dtype)dtypes[level[0]], HKV, groups[level[3]], dims[level[1]],
                 dims[level[2]], L, 5);
    c.config.n_threads = n_threads;
    c.config.cache = cache;
    c.config.n_layers = 2;
    c.window[1] = 600;
    ra_case_open(&c, L - 1);
    ra_case_append(&c, 0, L - 1);
    ra_case_append(&c, 1, L - 1);
    attend_everything(&c, L, &all);
    attend_recycled(&c, L, &all);
    attend_sets(&c, L, HKV, &all);
    attend_sets(&c, L, c.model.Hq, &all);
    ra_case_fini(&c);
    return all;
}

static void test_pairwise(void **state)
{
    (void)state;
    static struct combination chosen[MOST_CASES];
    static const int threads[] = {1, 2, 3};
    int n = cover(chosen);
    double worst = 0;
    for (int i = 0; i < n; i++) {
        int n_threads = threads[chosen[i].level[5]];
        struct outputs one = run(&chosen[i], 1, RA_CACHE_COMPACT, true);
        struct outputs many = run(&chosen[i], n_threads, RA_CACHE_COMPACT, false);
        struct outputs gather = run(&chosen[i], n_threads, RA_CACHE_GATHER, true);
        assert_int_equal(one.n, many.n);
        assert_memory_equal(one.values, many.values, one.n * sizeof *one.values);
        worst = fmax(worst, fmax(one.worst, gather.worst));
        free(one.values);
        free(many.values);
        free(gather.values);
    }
    print_message("%d shapes: worst relative error %.2g, bound 1e-6\n", n, worst);
    assert_true(worst <= 1e-6);
}

/* Largest over keys and heads of attn_scale * sum_d |q_d k_d|. */
static double largest_logit(const struct ra_case *c, int32_t n)
{
    double largest = 0;
    const struct ra_model *m = &c->model;
    for (int32_t row = 0; row < m->Hq * n; row++) {
        int head = row / n, D = m->D;
        size_t key = (size_t)(head / m->G) * (size_t)c->config.max_rows + (size_t)(row % n);
        double sum = 0;
        for (int d = 0; d < D; d++)
            sum += fabs((double)c->q[head * D + d] * (double)c->kf[key * (size_t)D + (size_t)d]);
        largest = fmax(largest, m->attn_scale * sum);
    }
    return largest;
}

/* Logits of +-1e4: exp overflows or 0/0 without the shift by the largest. Where they are kept they
 * are exact, else as good as f32 and the bound of the contract. */
static void test_extreme_logits(void **state)
{
    (void)state;
    for (int dtype = RA_F16; dtype <= RA_F32; dtype++) {
        struct ra_case c;
        struct ra_error err = {0};
        int32_t positions[700];
        ra_case_init(&c, (enum ra_dtype)dtype, HKV, 2, 64, 64, 700, 9);
        ra_case_fill(&c, 60, 1);
        ra_case_query(&c, 100);
        ra_case_open(&c, 700);
        for (int32_t p = 0; p < 700; p++)
            positions[p] = p;
        struct ra_positions list = {.pos = positions, .n = 700};
        double largest = largest_logit(&c, 700);
        assert_true(largest > 1e4);
        ra_assert_ok(c.ops->attend_full(c.self, 0, c.q, true, c.out, &err));
        assert_true(ra_case_error(&c, &list, 1) <= 1e-6);
        ra_assert_ok(c.ops->attend_full(c.self, 0, c.q, false, c.out, &err));
        assert_true(ra_case_error(&c, &list, 1) <= ra_kernel_err_bound(largest));
        ra_case_fini(&c);
    }
}

/* Products beyond f32, which rows of bf16 and f32 can have: no infinity takes part. */
static void test_logits_beyond_f32(void **state)
{
    (void)state;
    for (int dtype = RA_BF16; dtype <= RA_F32; dtype++) {
        struct ra_case c;
        struct ra_error err = {0};
        int32_t positions[300];
        ra_case_init(&c, (enum ra_dtype)dtype, HKV, 2, 64, 64, 300, 9);
        ra_case_fill(&c, 1e20F, 1);
        ra_case_query(&c, 1e20F);
        ra_case_open(&c, 300);
        for (int32_t p = 0; p < 300; p++)
            positions[p] = p;
        struct ra_positions list = {.pos = positions, .n = 300};
        assert_true(largest_logit(&c, 300) > (double)FLT_MAX);
        ra_assert_ok(c.ops->attend_full(c.self, 0, c.q, false, c.out, &err));
        assert_true(ra_case_error(&c, &list, 1) <= 1e-6);
        ra_case_fini(&c);
    }
}

/* After a cache shrank, whole splits hold free slots only; their "largest logit" is -inf. */
static void test_split_of_free_slots(void **state)
{
    (void)state;
    struct ra_case c;
    struct ra_error err = {0};
    int64_t moved;
    int32_t all[1100], few[] = {1050, 1097}, with_self[] = {1050, 1097, 1099};
    ra_case_init(&c, RA_F16, HKV, 3, 64, 64, 1100, 11);
    ra_case_open(&c, 1100);
    for (int32_t p = 0; p < 1100; p++)
        all[p] = p;
    for (int pass = 0; pass < 2; pass++) {
        struct ra_positions set =
            pass ? (struct ra_positions){few, 2} : (struct ra_positions){all, 1100};
        struct ra_retained retained = {.set = set, .evict = set};
        for (int h = 0; h < HKV; h++)
            c.ops->adopt(c.self, 0, h, &retained);
        ra_assert_ok(c.ops->refresh(c.self, 0, &moved, &err));
        assert_int_equal(moved, pass ? 0 : HKV * 1100);
    }
    struct ra_positions list = {.pos = with_self, .n = 3};
    ra_assert_ok(c.ops->attend_recycled(c.self, 0, c.q, false, c.out, &err));
    assert_true(ra_case_error(&c, &list, 1) <= 1e-6);
    ra_case_fini(&c);
}

/* Free slots below a live one hold rows that are no longer attended, however large they were. */
static void test_stale_rows_weigh_nothing(void **state)
{
    (void)state;
    struct ra_case c;
    struct ra_error err = {0};
    int64_t moved;
    int32_t before[] = {0, 1, 2, 3}, after[] = {3}, with_self[] = {3, 4};
    ra_case_init(&c, RA_F32, 1, 1, 8, 8, 5, 3);
    for (int d = 0; d < 8; d++) /* position 0 would take the whole softmax */
        c.kf[d] = 50 * c.q[d];
    ra_narrow(RA_F32, c.kf, 8, c.k);
    ra_case_open(&c, 5);
    for (int pass = 0; pass < 2; pass++) {
        struct ra_positions set = {.pos = pass ? after : before, .n = pass ? 1 : 4};
        struct ra_retained retained = {.set = set, .evict = set};
        c.ops->adopt(c.self, 0, 0, &retained);
        ra_assert_ok(c.ops->refresh(c.self, 0, &moved, &err));
    }
    struct ra_positions list = {.pos = with_self, .n = 2};
    ra_assert_ok(c.ops->attend_recycled(c.self, 0, c.q, true, c.out, &err));
    assert_true(ra_case_error(&c, &list, 1) <= 1e-6);
    ra_case_fini(&c);
}

static void test_sets_outside_the_context(void **state)
{
    (void)state;
    struct ra_case c;
    struct ra_error err = {0};
    ra_case_init(&c, RA_F16, 1, 1, 8, 8, 8, 3);
    ra_case_open(&c, 6);
    int32_t self[] = {5}, negative[] = {-1};
    struct ra_positions set = {.pos = self, .n = 1};
    ra_assert_fails(c.ops->attend_sets(c.self, 0, c.q, &set, 1, c.out, &err), RA_ERANGE,
                    "expected positions 0 to 4, got 5");
    set.pos = negative;
    ra_assert_fails(c.ops->attend_sets(c.self, 0, c.q, &set, 1, c.out, &err), RA_ERANGE, "got -1");
    ra_case_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairwise),
        cmocka_unit_test(test_extreme_logits),
        cmocka_unit_test(test_logits_beyond_f32),
        cmocka_unit_test(test_split_of_free_slots),
        cmocka_unit_test(test_stale_rows_weigh_nothing),
        cmocka_unit_test(test_sets_outside_the_context),
    };
    int failed = 0;
    for (size_t i = 0; ra_cpu_kernels[i]; i++) {
        struct ra_error err = {0};
        /* Only an emulated processor's own instructions are of interest. */
        if (RA_EMULATED && ra_cpu_kernels[i] == &ra_cpu_portable)
            continue;
        setenv("RATTN_SIMD", ra_cpu_kernels[i]->name, 1);
        if (ra_backend_find("cpu")->probe(&err)) /* test_backend_simd counts it as skipped */
            continue;
        print_message("RATTN_SIMD=%s\n", ra_cpu_kernels[i]->name);
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    }
    return failed;
}
