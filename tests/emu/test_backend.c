/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cuda backend, run on the host, against naive f64 attention, a plain list as recycled cache
 * with scores, and the cpu backend's selections. Would catch a row read or moved from the wrong
 * place, a selection taken from another layer's logits, logits that a later pass spoils, self
 * attended twice or not at all, and memory announced but not what is taken.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/emu/control.h"
#include "tests/support/approx.h"
#include "tests/support/backend_case.h"
#include "tests/support/cache_life.h"
#include "tests/support/ra_test.h"

enum { HKV = 2 };

static const struct ra_backend_ops *cuda;

static void init(struct ra_case *c, enum ra_dtype dtype, int G, int D, int32_t max_rows,
                 uint64_t seed)
{
    ra_case_init(c, dtype, HKV, G, D, D, max_rows, seed);
    c->ops = cuda;
}

static struct ra_positions all_of(int32_t *room, int32_t from, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        room[i] = from + i;
    return (struct ra_positions){.pos = room, .n = n};
}

/* Ascending positions below n, each with probability 1/2. */
static struct ra_positions random_set(uint64_t *seed, int32_t n, int32_t *room)
{
    struct ra_positions set = {.pos = room};
    for (int32_t p = 0; p < n; p++)
        if (ra_case_random(seed) & 1)
            room[set.n++] = p;
    return set;
}

/* --- attention -------------------------------------------------------------------------------- */

static void attend_everything(struct ra_case *c, int32_t L, int32_t *room)
{
    struct ra_error err = {0};
    struct ra_positions list = all_of(room, 0, L);
    for (int scores = 0; scores < 2; scores++) {
        ra_assert_ok(c->ops->attend_full(c->self, 0, c->q, scores, c->out, &err));
        assert_true(ra_case_error(c, &list, 1) <= 1e-6);
    }
    int32_t window = c->window[1] < L ? c->window[1] : L;
    list = all_of(room, L - window, window);
    ra_assert_ok(c->ops->attend_full(c->self, 1, c->q, false, c->out, &err));
    assert_true(ra_case_error(c, &list, 1) <= 1e-6);
}

/* Sets of half the positions, one empty, for each KV head or each query head. */
static void attend_sets(struct ra_case *c, int32_t L, int n_sets, int32_t *room, uint64_t *seed)
{
    struct ra_error err = {0};
    struct ra_positions sets[HKV * 16], with_self[HKV * 16];
    for (int i = 0; i < n_sets; i++) {
        int32_t *list = room + i * L;
        sets[i] = random_set(seed, i == 1 ? 0 : L - 1, list);
        list[sets[i].n] = L - 1;
        with_self[i] = (struct ra_positions){.pos = list, .n = sets[i].n + 1};
    }
    ra_assert_ok(c->ops->attend_sets(c->self, 0, c->q, sets, n_sets, c->out, &err));
    assert_true(ra_case_error(c, with_self, n_sets) <= 1e-6);
}

/* C_r without self, attended as C_r and self; then self is among the adopted, and A stays. */
static void attend_recycled(struct ra_case *c, int32_t L, int32_t *room, uint64_t *seed)
{
    struct ra_error err = {0};
    struct ra_positions sets[HKV], with_self[HKV];
    for (int h = 0; h < HKV; h++) {
        int32_t *list = room + h * L;
        sets[h] = random_set(seed, h ? L - 1 : 0, list);
        list[sets[h].n] = L - 1;
        with_self[h] = (struct ra_positions){.pos = list, .n = sets[h].n + 1};
    }
    for (int pass = 0; pass < 2; pass++) {
        int64_t moved, expected = 0;
        for (int h = 0; h < HKV; h++) {
            struct ra_positions set = pass ? with_self[h] : sets[h];
            struct ra_retained retained = {.set = set, .evict = set};
            expected += pass ? 1 : set.n;
            c->ops->adopt(c->self, 0, h, &retained);
        }
        ra_assert_ok(c->ops->refresh(c->self, 0, &moved, &err));
        assert_int_equal(moved, expected);
        ra_assert_ok(c->ops->attend_recycled(c->self, 0, c->q, false, c->out, &err));
        assert_true(ra_case_error(c, with_self, HKV) <= 1e-6);
    }
}

/* Every length with every group size, type and head dimension taken in turn, so that each pair of
 * length and any other comes up, in both modes of the cache. */
static void test_attention(void **state)
{
    (void)state;
    static const int32_t lengths[] = {1, 2, 63, 64, 65, 127, 129, 300};
    static const int groups[] = {1, 2, 3, 4, 7, 8, 12}, dims[] = {64, 128, 256};
    uint64_t seed = 3;
    for (int i = 0; i < 8 * 7; i++) {
        struct ra_case c;
        enum ra_dtype dtype = (enum ra_dtype)(i % 3);
        int D = dims[i / 3 % 3], G = groups[i % 7];
        int32_t L = lengths[i % 8], *room = calloc((size_t)(HKV * G * (L + 1)), sizeof *room);
        init(&c, dtype, G, D == 256 && dtype == RA_F32 ? 128 : D, L, (uint64_t)i + 1);
        c.config.cache = i / 8 % 2 ? RA_CACHE_GATHER : RA_CACHE_COMPACT;
        c.config.n_layers = 2;
        c.window[1] = 100;
        ra_case_open(&c, L - 1);
        ra_case_append(&c, 0, L - 1);
        ra_case_append(&c, 1, L - 1);
        attend_everything(&c, L, room);
        attend_recycled(&c, L, room, &seed);
        attend_sets(&c, L, HKV, room, &seed);
        attend_sets(&c, L, c.model.Hq, room, &seed);
        free(room);
        ra_case_fini(&c);
    }
}

/* --- the recycled cache ------------------------------------------------------------------------
 */

static void test_random_sequences(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 16; seed++) {
        struct cache_life life = {.ops = cuda,
                                  .dtype = (enum ra_dtype)(seed % 3),
                                  .G = 1 + (int)(seed % 4),
                                  .cache = seed & 1 ? RA_CACHE_COMPACT : RA_CACHE_GATHER,
                                  .page = seed & 4 ? 16 : 0,
                                  .one_a_step = true,
                                  .score_error = 1e-5,
                                  .seed = seed};
        cache_life(&life);
    }
}

/* --- selection ---------------------------------------------------------------------------------
 */

/* What the cpu backend chooses from the same rows; scores do not tie. Between scoring and choosing
 * another layer is attended to, and with recompute this one too, by another query. */
static void check_selection(int number)
{
    struct ra_case cases[2];
    struct ra_error err = {0};
    struct ra_positions order[2][HKV];
    static const int32_t lengths[] = {1, 5, 129, 700};
    int32_t L = lengths[number % 4];
    struct ra_select_rule rule = {.K = number % 5 ? 1 + L / 3 : L + 5,
                                  .pool = 1,
                                  .agg = (enum ra_agg)(number % 4),
                                  .current = (enum ra_current)(number % 3),
                                  .evict = (enum ra_evict)(number / 2 % 2)};
    for (int i = 0; i < 2; i++) {
        struct ra_case *c = &cases[i];
        bool recomputes = number & 1;
        init(c, (enum ra_dtype)(number / 2 % 3), 3, 64, L, (uint64_t)number);
        c->ops = i ? cuda : ra_backend_find("cpu");
        c->config.n_layers = 2;
        c->config.scores = recomputes ? RA_SCORES_RECOMPUTE : RA_SCORES_FUSED;
        ra_case_open(c, L);
        float *other = calloc((size_t)(HKV * 3 * 64), sizeof *other);
        if (recomputes) {
            ra_assert_ok(c->ops->score(c->self, 0, c->q, &err));
            ra_assert_ok(c->ops->attend_full(c->self, 0, other, true, c->out, &err));
        } else {
            ra_assert_ok(c->ops->attend_full(c->self, 0, c->q, true, c->out, &err));
        }
        ra_assert_ok(c->ops->attend_full(c->self, 1, other, false, c->out, &err));
        ra_assert_ok(c->ops->select(c->self, 0, &rule, order[i], &err));
        free(other);
    }
    for (int h = 0; h < HKV; h++) {
        assert_int_equal(order[1][h].n, order[0][h].n);
        assert_memory_equal(order[1][h].pos, order[0][h].pos,
                            (size_t)order[0][h].n * sizeof *order[0][h].pos);
    }
    for (int i = 0; i < 2; i++)
        ra_case_fini(&cases[i]);
}

static void test_selection(void **state)
{
    (void)state;
    for (int number = 0; number < 48; number++)
        check_selection(number);
}

/* What the cpu backend chooses among pages of the same rows, while they grow. */
static void check_pages(int number)
{
    struct ra_case cases[2];
    struct ra_error err = {0};
    struct ra_positions order[2][HKV];
    static const int32_t prompts[] = {1, 15, 16, 100, 333};
    static const int groups[] = {1, 2, 3, 8}, dims[] = {64, 128, 256};
    int32_t P = prompts[number % 5], L = P + 20;
    struct ra_page_rule rules[] = {
        {.K = 48, .page = number % 2 ? 16 : 4, .least = 1 + number % 3, .agg = number % 4},
        {.page = 0},
        {.K = 40, .page = 8, .least = 2, .rows = P, .digest = RA_PAGE_MEAN, .agg = number / 2 % 4}};
    rules[0].takes_newest = number / 2 % 2;
    rules[0].takes_first = number / 3 % 2;
    rules[2].takes_first = number % 2;
    for (int i = 0; i < 2; i++) {
        enum ra_dtype dtype = (enum ra_dtype)(number / 2 % 3);
        int D = dims[number % 3];
        init(&cases[i], dtype, groups[number % 4], dtype == RA_F32 && D > 128 ? 128 : D, L,
             (uint64_t)number + 1);
        cases[i].ops = i ? cuda : ra_backend_find("cpu");
        cases[i].config.n_layers = 3;
        cases[i].config.page = i ? number / 3 % 2 * 16 : 0;
        cases[i].config.batch = i ? 1 + number % 2 : 1;
        cases[i].config.pages = rules;
        ra_case_open(&cases[i], P);
    }
    for (int32_t row = P; row < L; row++)
        for (int layer = 0; layer < 3; layer += 2) {
            for (int i = 0; i < 2; i++) {
                struct ra_case *c = &cases[i];
                ra_case_append(c, layer, row);
                ra_case_query(c, 1);
                ra_assert_ok(
                    c->ops->select_pages(c->self, layer, c->q, &rules[layer], order[i], &err));
            }
            for (int h = 0; h < HKV; h++) {
                assert_int_equal(order[1][h].n, order[0][h].n);
                assert_memory_equal(order[1][h].pos, order[0][h].pos,
                                    (size_t)order[0][h].n * sizeof *order[0][h].pos);
            }
        }
    for (int i = 0; i < 2; i++)
        ra_case_fini(&cases[i]);
}

static void test_pages(void **state)
{
    (void)state;
    for (int number = 0; number < 30; number++)
        check_pages(number);
}

/* --- queries, memory, refusals -------------------------------------------------------
 */

static void test_cosine_and_reset(void **state)
{
    (void)state;
    struct ra_error err = {0};
    struct ra_case c;
    double got[2], expected[2];
    init(&c, RA_F16, 3, 128, 8, 1);
    c.config.n_layers = 2;
    ra_case_open(&c, 4);
    struct ra_case twin = c;
    twin.ops = ra_backend_find("cpu");
    ra_assert_ok(twin.ops->open(&twin.self, &c.config, &err));
    for (int i = 0; i < 2; i++) {
        ra_assert_ok(c.ops->cosine(c.self, i, c.q, &got[0], &err));
        assert_true(isnan(got[0]) != 0);
        ra_assert_ok(c.ops->set_reference(c.self, i, c.q, &err));
        ra_assert_ok(twin.ops->set_reference(twin.self, i, c.q, &err));
        ra_case_query(&c, 1);
    }
    for (int i = 0; i < 2; i++) {
        ra_assert_ok(c.ops->cosine(c.self, i, c.q, &got[i], &err));
        ra_assert_ok(twin.ops->cosine(twin.self, i, c.q, &expected[i], &err));
    }
    ra_assert_close("cosine", got, expected, 2, 1e-13, 0);
    twin.ops->close(twin.self);
    c.ops->reset(c.self);
    ra_assert_ok(c.ops->cosine(c.self, 1, c.q, &got[0], &err));
    assert_true(isnan(got[0]) != 0);
    struct ra_positions self = {.pos = (int32_t[]){0}, .n = 1};
    int64_t moved;
    ra_case_append(&c, 0, 0);
    ra_assert_ok(c.ops->refresh(c.self, 0, &moved, &err));
    assert_int_equal(moved, 0);
    ra_assert_ok(c.ops->attend_recycled(c.self, 0, c.q, false, c.out, &err));
    assert_true(ra_case_error(&c, &self, 1) <= 1e-6);
    ra_case_fini(&c);
}

static void test_memory_is_what_is_taken(void **state)
{
    (void)state;
    static const struct ra_page_rule rules[3] = {
        {.K = 9, .page = 4, .least = 1}, {.page = 0}, {.K = 9, .page = 4, .digest = RA_PAGE_MEAN}};
    assert_int_equal(ra_emu_allocated(), 0);
    for (int i = 0; i < 8; i++) {
        struct ra_case c;
        struct ra_error err = {0};
        init(&c, i & 1 ? RA_F32 : RA_F16, 1 + i, 64, 700, 1);
        c.config.n_layers = 3;
        c.window[1] = 64;
        c.config.max_retained = i & 2 ? 0 : 300;
        c.config.cache = i & 4 ? RA_CACHE_GATHER : RA_CACHE_COMPACT;
        c.config.pages = i & 2 ? rules : NULL;
        c.config.model = &c.model;
        c.config.window = c.window;
        size_t announced = c.ops->memory(&c.config);
        ra_emu_set_card(announced, 8);
        ra_assert_ok(c.ops->fits(&c.config, &err));
        ra_case_open(&c, 0);
        assert_true(ra_emu_allocated() >= announced);
        ra_case_close(&c);
        ra_emu_set_card(announced - 1, 8);
        ra_assert_fails(c.ops->fits(&c.config, &err), RA_ENOMEM, "cuda: the replay needs");
        ra_assert_fails(c.ops->open(&c.self, &c.config, &err), RA_ENOMEM, "cuda: 3 layers of 700");
        ra_emu_set_card((size_t)4 << 30, 8);
        ra_case_fini(&c);
        assert_int_equal(ra_emu_allocated(), 0);
    }
}

static void refuses(enum ra_dtype dtype, int D, int Dv, int G, int32_t max_retained,
                    const char *words)
{
    struct ra_case c;
    struct ra_error err = {0};
    ra_case_init(&c, dtype, 1, G, D, Dv, 12000, 1);
    c.config.max_retained = max_retained;
    c.config.model = &c.model;
    c.config.window = c.window;
    ra_assert_fails(cuda->fits(&c.config, &err), RA_EUSAGE, words);
    ra_assert_fails(cuda->open(&c.self, &c.config, &err), RA_EUSAGE, words);
    assert_null(c.self);
    ra_case_fini(&c);
}

static void test_refusals(void **state)
{
    (void)state;
    struct ra_error err = {0};
    refuses(RA_F16, 72, 72, 1, 0, "got D = 72, Dv = 72 in f16");
    refuses(RA_F16, 64, 128, 1, 0, "got D = 64, Dv = 128 in f16");
    refuses(RA_F32, 256, 256, 1, 0, "got D = 256, Dv = 256 in f32");
    refuses(RA_F16, 64, 64, 33, 0, "at most 32 query heads of a KV head, got 33");
    refuses(RA_F16, 64, 64, 1, 8194, "expected k of at most 8192, got 8193");
    struct ra_case c;
    struct ra_page_rule rule = {.K = 1, .page = 1, .least = 1};
    ra_case_init(&c, RA_F16, 1, 1, 64, 64, 12000, 1);
    c.config.model = &c.model;
    c.config.window = c.window;
    c.config.pages = &rule;
    c.config.max_retained = 0;
    ra_assert_fails(cuda->fits(&c.config, &err), RA_EUSAGE,
                    "layer 0: expected at most 8192 pages of 1 keys, got 12000");
    ra_case_fini(&c);
    init(&c, RA_F16, 1, 64, 8, 3);
    ra_case_open(&c, 6);
    int32_t self[] = {5}, negative[] = {-1};
    struct ra_positions sets[HKV] = {{.pos = self, .n = 1}, {.pos = self, .n = 0}};
    ra_assert_fails(c.ops->attend_sets(c.self, 0, c.q, sets, HKV, c.out, &err), RA_ERANGE,
                    "expected positions 0 to 4, got 5");
    sets[0].pos = negative;
    ra_assert_fails(c.ops->attend_sets(c.self, 0, c.q, sets, HKV, c.out, &err), RA_ERANGE,
                    "got -1");
    ra_assert_fails(
        c.ops->load(c.self, 0, &(struct ra_prompt_rows){.k = c.k, .v = c.v, .P = 9}, &err),
        RA_ERANGE, "expected at most 8 rows, got 9");
    ra_case_append(&c, 0, 6);
    ra_case_append(&c, 0, 7);
    ra_assert_fails(c.ops->append(c.self, 0, c.k, c.v, &err), RA_ERANGE, "got one more");
    ra_case_fini(&c);
    ra_emu_set_card((size_t)4 << 30, 0);
    ra_assert_fails(cuda->probe(&err), RA_ENODEV, "cuda: no GPU found");
    ra_emu_set_card((size_t)4 << 30, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention),        cmocka_unit_test(test_random_sequences),
        cmocka_unit_test(test_selection),        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_cosine_and_reset), cmocka_unit_test(test_memory_is_what_is_taken),
        cmocka_unit_test(test_refusals),
    };
    cuda = ra_backend_find("cuda");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
