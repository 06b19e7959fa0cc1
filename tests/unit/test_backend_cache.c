/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recycled cache of the cpu backend against a plain list: random refreshes, insertions, scores
 * and cuts by them. Would catch a slot that is reused too early, a row copied from the wrong
 * place, an eviction out of order, and a score that stays behind when its entry moves.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/support/approx.h"
#include "tests/support/backend_case.h"
#include "tests/support/cache_life.h"
#include "tests/support/ra_test.h"

static void test_random_sequences(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= RA_ROUNDS(24); seed++) {
        struct cache_life life = {.dtype = RA_F16,
                                  .G = 1 + (int)(seed % 4),
                                  .cache = seed & 1 ? RA_CACHE_COMPACT : RA_CACHE_GATHER,
                                  .n_threads = 1 + (int)(seed % 3),
                                  .score_error = 2e-7,
                                  .seed = seed};
        cache_life(&life);
    }
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
