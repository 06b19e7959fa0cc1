/* SPDX-License-Identifier: Apache-2.0 */
/* 16-bit floats against their definition: value = sign * mantissa * 2^exponent, nearest even. */
#include "tests/support/ra_test.h"

#include <math.h>

#include "sim/base/half.h"

/* The definition, in arithmetic on doubles. */
static double f16_value(unsigned half)
{
    int exponent = (half >> 10) & 31, mantissa = half & 1023;
    double magnitude = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return half & 0x8000 ? -magnitude : magnitude;
}

static void every_f16_widens_exactly(void **state)
{
    (void)state;
    for (unsigned half = 0; half < 65536; half++) {
        if (!ra_f16_is_finite((uint16_t)half)) {
            assert_true((half & 0x7c00) == 0x7c00);
            continue;
        }
        float got = ra_f16_to_f32((uint16_t)half);
        if ((double)got != f16_value(half) || (signbit(got) != 0) != (half >> 15 != 0))
            fail_msg("f16 0x%04x: got %.9g, expected %.9g", half, (double)got, f16_value(half));
    }
}

static void every_f16_survives_the_round_trip(void **state)
{
    (void)state;
    for (unsigned half = 0; half < 65536; half++)
        if (ra_f16_is_finite((uint16_t)half))
            assert_int_equal(ra_f32_to_f16(ra_f16_to_f32((uint16_t)half)), half);
}

/* Between two neighbours the nearer one, on the midpoint the even one. */
static void f16_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (unsigned half = 0; half < 0x7bff; half++) {
        float low = ra_f16_to_f32((uint16_t)half), high = ra_f16_to_f32((uint16_t)(half + 1));
        float middle = (float)((f16_value(half) + f16_value(half + 1)) / 2);
        unsigned even = half & 1 ? half + 1 : half;
        assert_int_equal(ra_f32_to_f16(middle), even);
        assert_int_equal(ra_f32_to_f16(nextafterf(middle, low)), half);
        assert_int_equal(ra_f32_to_f16(nextafterf(middle, high)), half + 1);
        assert_int_equal(ra_f32_to_f16(-middle), even | 0x8000);
    }
}

static void f16_overflow_and_nan(void **state)
{
    (void)state;
    assert_int_equal(ra_f32_to_f16(65519.0f), 0x7bff); /* below the midpoint to 65536 */
    assert_int_equal(ra_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(ra_f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(ra_f32_to_f16(-INFINITY), 0xfc00);
    assert_false(ra_f16_is_finite(ra_f32_to_f16(NAN)));
    assert_true((ra_f32_to_f16(NAN) & 0x3ff) != 0);
}

static void bf16_is_the_upper_half_of_f32(void **state)
{
    (void)state;
    for (unsigned half = 0; half < 65536; half++) {
        if (!ra_bf16_is_finite((uint16_t)half))
            continue;
        float value = ra_bf16_to_f32((uint16_t)half);
        assert_int_equal(ra_f32_to_bits(value), half << 16);
        assert_int_equal(ra_f32_to_bf16(value), half);
        float middle = ra_bits_to_f32((half << 16) | 0x8000);
        assert_int_equal(ra_f32_to_bf16(middle), half & 1 ? half + 1 : half);
        assert_int_equal(ra_f32_to_bf16(ra_bits_to_f32((half << 16) | 0x7fff)), half);
        assert_int_equal(ra_f32_to_bf16(ra_bits_to_f32((half << 16) | 0x8001)), half + 1);
    }
    assert_false(ra_bf16_is_finite(ra_f32_to_bf16(NAN)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_widens_exactly),
        cmocka_unit_test(every_f16_survives_the_round_trip),
        cmocka_unit_test(f16_rounds_to_nearest_even),
        cmocka_unit_test(f16_overflow_and_nan),
        cmocka_unit_test(bf16_is_the_upper_half_of_f32),
    };
    return cmocka_run_group_tests_name("half", tests, NULL, NULL);
}
