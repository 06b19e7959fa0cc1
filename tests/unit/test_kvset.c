/* SPDX-License-Identifier: Apache-2.0 */
/* Position sets against a table of flags, one flag per position. */
#include <stdbool.h>
#include <string.h>

#include "sim/kvset.h"
#include "tests/support/drive.h"
#include "tests/support/ra_test.h"

enum { RANGE = 40 };

static void assert_is(const int32_t *list, int32_t n, const bool *flags)
{
    int32_t i = 0;
    for (int32_t pos = 0; pos < RANGE; pos++) {
        if (flags[pos])
            assert_true(i < n && list[i++] == pos);
        assert_int_equal(ra_kvset_has(list, n, pos), flags[pos]);
    }
    assert_int_equal(i, n);
}

static void test_insert_remove(void **unused)
{
    (void)unused;
    int32_t storage[RANGE];
    bool flags[RANGE] = {false};
    uint64_t state = 1;
    struct ra_kvset set;
    ra_kvset_init(&set, storage, RANGE);
    for (int i = 0; i < 5000; i++) {
        int32_t pos = (int32_t)drive_random(&state, RANGE);
        if (drive_random(&state, 2)) {
            assert_int_equal(ra_kvset_insert(&set, pos), !flags[pos]);
            flags[pos] = true;
        } else {
            assert_int_equal(ra_kvset_remove(&set, pos), flags[pos]);
            flags[pos] = false;
        }
        assert_is(set.pos, set.n, flags);
    }
}

/* Filled to its capacity from the back, then again in any order. */
static void test_capacity(void **unused)
{
    (void)unused;
    int32_t storage[5] = {0, 0, 0, 0, 77};
    static const int32_t mixed[] = {9, 2, 30, 4};
    struct ra_kvset set;
    ra_kvset_init(&set, storage, 4);
    for (int32_t pos = 3; pos >= 0; pos--)
        assert_true(ra_kvset_insert(&set, pos));
    assert_false(ra_kvset_insert(&set, 2)); /* there already: no room needed */
    ra_kvset_assign(&set, mixed, 4);
    assert_int_equal(set.n, 4);
    assert_int_equal(storage[0], 2);
    assert_int_equal(storage[3], 30);
    ra_kvset_assign(&set, NULL, 0);
    assert_int_equal(set.n, 0);
    assert_int_equal(storage[4], 77);
}

static int32_t random_list(uint64_t *state, bool *flags, int32_t *list)
{
    int32_t n = 0;
    for (int32_t pos = 0; pos < RANGE; pos++) {
        flags[pos] = drive_random(state, 3) == 0;
        if (flags[pos])
            list[n++] = pos;
    }
    return n;
}

static void test_two_lists(void **unused)
{
    (void)unused;
    uint64_t state = 2;
    for (int i = 0; i < 500; i++) {
        bool in_a[RANGE], in_b[RANGE], either[RANGE];
        int32_t a[RANGE], b[RANGE], out[2 * RANGE], both = 0;
        int32_t n_a = random_list(&state, in_a, a), n_b = random_list(&state, in_b, b);
        for (int32_t pos = 0; pos < RANGE; pos++) {
            either[pos] = in_a[pos] || in_b[pos];
            both += in_a[pos] && in_b[pos];
        }
        assert_int_equal(ra_kvset_common(a, n_a, b, n_b), both);
        assert_is(out, ra_kvset_union(a, n_a, b, n_b, out), either);
        int32_t pos = (int32_t)drive_random(&state, RANGE), below = 0;
        for (int32_t j = 0; j < pos; j++)
            below += in_a[j];
        assert_int_equal(ra_kvset_find(a, n_a, pos), below);
    }
}

static void test_sort(void **unused)
{
    (void)unused;
    uint64_t state = 3;
    for (int i = 0; i < 500; i++) {
        bool flags[RANGE];
        int32_t list[RANGE], n = random_list(&state, flags, list);
        for (int32_t j = n - 1; j > 0; j--) {
            int32_t other = (int32_t)drive_random(&state, (uint32_t)j + 1), kept = list[j];
            list[j] = list[other];
            list[other] = kept;
        }
        ra_kvset_sort(list, n);
        assert_is(list, n, flags);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_insert_remove),
        cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_two_lists),
        cmocka_unit_test(test_sort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
