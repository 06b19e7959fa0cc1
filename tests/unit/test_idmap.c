/* SPDX-License-Identifier: Apache-2.0 */
/* Ids by key, against a plain list: keys that collide, that differ in any one bit, that repeat. */
#include "tests/support/ra_test.h"

#include "profiler/idmap.h"

enum { N = 3000 };

static uint64_t key_of(int i)
{
    static const uint64_t bases[] = {0, 0x8000000000000000u, 0xffffffff00000000u};
    return bases[i % 3] + (i % 2 ? (uint64_t)i << 20 : (uint64_t)i);
}

static void keys_keep_their_ids(void **state)
{
    (void)state;
    struct ra_idmap map = {0};
    struct ra_error err;
    assert_int_equal(ra_idmap_get(&map, 0), 0);
    for (int i = 0; i < N; i++) {
        ra_assert_ok(ra_idmap_put(&map, key_of(i), i + 1, &err));
        assert_int_equal(map.n, i + 1);
        if (i % 100 != 0)
            continue;
        for (int j = 0; j < N; j++) /* those put in, and those not yet */
            assert_int_equal(ra_idmap_get(&map, key_of(j)), j <= i ? j + 1 : 0);
    }
    for (int i = 0; i < N; i += 7)
        ra_assert_ok(ra_idmap_put(&map, key_of(i), -i - 1, &err));
    assert_int_equal(map.n, N);
    for (int i = 0; i < N; i++)
        assert_int_equal(ra_idmap_get(&map, key_of(i)), i % 7 ? i + 1 : -i - 1);
    ra_idmap_clear(&map);
    assert_int_equal(ra_idmap_get(&map, key_of(5)), 0);
}

static void each_bit_of_a_key_counts(void **state)
{
    (void)state;
    struct ra_idmap map = {0};
    struct ra_error err;
    for (int bit = 0; bit < 64; bit++)
        ra_assert_ok(ra_idmap_put(&map, (uint64_t)1 << bit, bit + 1, &err));
    for (int bit = 0; bit < 64; bit++)
        assert_int_equal(ra_idmap_get(&map, (uint64_t)1 << bit), bit + 1);
    assert_int_equal(ra_idmap_get(&map, 0), 0);
    ra_idmap_clear(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_keep_their_ids),
        cmocka_unit_test(each_bit_of_a_key_counts),
    };
    return cmocka_run_group_tests_name("idmap", tests, NULL, NULL);
}
