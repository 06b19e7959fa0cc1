/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers by place: published words, streams that stay apart, moments of the normal ones. */
#include <math.h>
#include <string.h>

#include "sim/base/rng.h"
#include "tests/support/ra_test.h"

/* First outputs of SplitMix64 as published for these seeds; a wrong constant, shift or offset. */
static void test_published_words(void **state)
{
    (void)state;
    static const uint64_t of_1234567[] = {
        UINT64_C(6457827717110365317), UINT64_C(3203168211198807973), UINT64_C(9817491932198370423),
        UINT64_C(4593380528125082431), UINT64_C(16408922859458223821)};
    static const uint64_t of_0[] = {UINT64_C(0xe220a8397b1dcdaf), UINT64_C(0x6e789e6aa1b965f4),
                                    UINT64_C(0x06c45d188009454f)};
    for (uint64_t i = 5; i-- > 0;)
        assert_true(ra_rng_word(1234567, i) == of_1234567[i]);
    for (uint64_t i = 0; i < 3; i++)
        assert_true(ra_rng_word(0, i) == of_0[i]);
}

/* A derived stream that repeats its parent, a sibling, or either one shifted by a few places. */
static void test_streams_are_apart(void **state)
{
    (void)state;
    enum { KEYS = 8, WORDS = 64 };
    uint64_t words[(KEYS + 1) * WORDS];
    for (int k = 0; k <= KEYS; k++) {
        uint64_t key = k == KEYS ? 7 : ra_rng_key(7, (uint64_t)k);
        for (int i = 0; i < WORDS; i++)
            words[k * WORDS + i] = ra_rng_word(key, (uint64_t)i);
    }
    for (int i = 0; i < (KEYS + 1) * WORDS; i++)
        for (int j = 0; j < i; j++)
            assert_true(words[i] != words[j]);
    assert_true(ra_rng_key(7, 1) != ra_rng_key(1, 7));
}

/* Bounds are reached and not passed, also at the widest span; no value is favoured. */
static void test_integers(void **state)
{
    (void)state;
    int seen[7] = {0};
    for (uint64_t i = 0; i < 70000; i++) {
        int32_t n = ra_rng_int(3, i, -2, 4);
        assert_in_range(n + 2, 0, 6);
        seen[n + 2]++;
    }
    for (int i = 0; i < 7; i++)
        assert_in_range(seen[i], 10000 - 400, 10000 + 400); /* four standard deviations */
    int32_t low = 0, high = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        int32_t n = ra_rng_int(3, i, INT32_MIN, INT32_MAX);
        low = n < low ? n : low;
        high = n > high ? n : high;
    }
    assert_true(low < -2000000000 && high > 2000000000);
    assert_int_equal(ra_rng_int(3, 0, 5, 5), 5);
}

/* Moments of a sum of eight uniforms: mean 0, variance 1, skew 0, kurtosis 3 - 6/5/8 = 2.85. Wrong
 * scale or centre, fields used twice (kurtosis 2.7), neighbours that share a word (correlation). */
static void test_normal_moments(void **state)
{
    (void)state;
    const int n = 400000;
    double sum[5] = {0}, neighbours = 0, last = 0, largest = 0;
    for (int i = 0; i < n; i++) {
        double x = ra_rng_normal(11, (uint64_t)i), power = 1;
        for (int p = 0; p < 5; p++, power *= x)
            sum[p] += power;
        neighbours += x * last;
        last = x;
        largest = fabs(x) > largest ? fabs(x) : largest;
    }
    assert_true(fabs(sum[1] / n) < 0.008);
    assert_true(fabs(sum[2] / n - 1) < 0.01);
    assert_true(fabs(sum[3] / n) < 0.02);
    assert_true(fabs(sum[4] / n - 2.85) < 0.05);
    assert_true(fabs(neighbours / n) < 0.008);
    assert_true(largest > 4 && largest < 4.9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_words),
        cmocka_unit_test(test_streams_are_apart),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_normal_moments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
