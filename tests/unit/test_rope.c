/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Un-rotation against complex numbers and against published inverse frequencies. The frequencies
 * are formed here in f64 from the published formula; the code forms them in f32, as models do, so
 * angles agree to f32 rounding times the position.
 */
#include <complex.h>
#include <math.h>
#include <string.h>

#include "sim/rope.h"
#include "tests/support/drive.h"
#include "tests/support/ra_test.h"

static const struct ra_rope llama3 = {.type = RA_ROPE_LLAMA3,
                                      .theta = 500000,
                                      .factor = 8,
                                      .low_freq_factor = 1,
                                      .high_freq_factor = 4,
                                      .original_max_position = 8192};

/* In f64, by the published formula. */
static double frequency(const struct ra_rope *rope, int D, int i)
{
    double f = pow(rope->theta, -2.0 * i / D);
    if (rope->type == RA_ROPE_LINEAR)
        return f / rope->factor;
    if (rope->type != RA_ROPE_LLAMA3)
        return f;
    double turns = rope->original_max_position * f / (2 * acos(-1)); /* within the trained length */
    double smooth =
        (turns - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    if (turns < rope->low_freq_factor)
        return f / rope->factor;
    if (turns > rope->high_freq_factor)
        return f;
    return (1 - smooth) * f / rope->factor + smooth * f;
}

/* Forward rotation as multiplication by exp(i angle); dimension i pairs with i + D/2. */
static void rotate(const struct ra_rope *rope, int D, int32_t pos, double *vec)
{
    for (int i = 0; i < D / 2; i++) {
        double complex z = vec[i] + vec[i + D / 2] * I;
        z *= cexp(I * (pos * frequency(rope, D, i)));
        vec[i] = creal(z);
        vec[i + D / 2] = cimag(z);
    }
}

static void check(const struct ra_rope *rope, int D, int32_t pos)
{
    double vec[256], original[256];
    uint64_t state = (uint64_t)pos;
    for (int d = 0; d < D; d++)
        original[d] = vec[d] = drive_random(&state, 2001) / 1000.0 - 1;
    rotate(rope, D, pos, vec);
    ra_rope_unrotate(rope, D, pos, vec);
    for (int d = 0; d < D; d++)
        assert_true(fabs(vec[d] - original[d]) < 1e-9 + 4e-7 * pos);
}

static void test_inverse(void **state)
{
    (void)state;
    static const struct ra_rope plain = {.type = RA_ROPE_DEFAULT, .theta = 10000};
    static const struct ra_rope smollm = {.type = RA_ROPE_DEFAULT, .theta = 100000};
    static const struct ra_rope linear = {.type = RA_ROPE_LINEAR, .theta = 10000, .factor = 4};
    static const struct ra_rope *const all[] = {&plain, &smollm, &linear, &llama3};
    static const int32_t positions[] = {0, 1, 2, 17, 100, 1000, 8191};
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 7; j++) {
            check(all[i], 64, positions[j]);
            check(all[i], 128, positions[j]);
            check(all[i], 8, positions[j]);
        }
}

/* Lengths of all pairs stay, position 0 stays, and no rotation is no change. */
static void test_norms(void **state)
{
    (void)state;
    double vec[64], before[64];
    for (int d = 0; d < 64; d++)
        before[d] = vec[d] = d - 20.5;
    ra_rope_unrotate(&llama3, 64, 0, vec);
    assert_memory_equal(vec, before, sizeof vec);
    ra_rope_unrotate(&(struct ra_rope){.type = RA_ROPE_NONE}, 64, 999, vec);
    assert_memory_equal(vec, before, sizeof vec);
    ra_rope_unrotate(&llama3, 64, 100000, vec);
    for (int d = 0; d < 32; d++)
        assert_true(fabs(hypot(vec[d], vec[d + 32]) - hypot(before[d], before[d + 32])) < 1e-12);
    assert_true(vec[0] != before[0]);
}

/* Llama 3.1's three bands at D = 128: fast frequencies stay, slow ones are divided by 8. */
static void test_bands(void **state)
{
    (void)state;
    double vec[128] = {0};
    for (int i = 0; i < 64; i++)
        vec[i] = 1;
    ra_rope_unrotate(&llama3, 128, 1, vec);
    int kept = 0, divided = 0, blended = 0;
    for (int i = 0; i < 64; i++) {
        double angle = atan2(-vec[i + 64], vec[i]), plain = pow(500000, -2.0 * i / 128);
        kept += fabs(angle / plain - 1) < 1e-6;
        divided += fabs(angle / plain - 0.125) < 1e-6;
        blended += angle / plain < 1 - 1e-6 && angle / plain > 0.125 + 1e-6;
    }
    assert_int_equal(kept, 29); /* 500000^(2i/128) * 2 pi < 8192 / 4: i <= 28 */
    assert_int_equal(divided, 29);
    assert_int_equal(blended, 6);
}

/* Vectors turned by stored frequencies: forth as complex numbers are, back to what they were, and
 * as one alone is turned back. */
static void test_turns(void **state)
{
    (void)state;
    static const struct ra_rope plain = {.type = RA_ROPE_DEFAULT, .theta = 10000};
    static const struct ra_rope none = {.type = RA_ROPE_NONE};
    static const struct ra_rope *const all[] = {&plain, &llama3, &none};
    float frequencies[32];
    for (size_t i = 0; i < 3; i++) {
        double vec[64], before[64], expected[64];
        ra_rope_frequencies(all[i], 64, frequencies);
        for (int d = 0; d < 64; d++)
            expected[d] = vec[d] = before[d] = d - 20.5;
        if (all[i] != &none)
            rotate(all[i], 64, 300, expected);
        ra_rope_turn(frequencies, 64, 300, vec);
        for (int d = 0; d < 64; d++)
            assert_true(fabs(vec[d] - expected[d]) < 1e-2);
        assert_true((vec[0] != before[0]) == (all[i] != &none));
        memcpy(expected, vec, sizeof vec);
        ra_rope_turn_back(frequencies, 64, 300, vec);
        ra_rope_unrotate(all[i], 64, 300, expected);
        assert_memory_equal(vec, expected, sizeof vec);
        for (int d = 0; d < 64; d++)
            assert_true(fabs(vec[d] - before[d]) < 1e-12);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inverse),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_bands),
        cmocka_unit_test(test_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
