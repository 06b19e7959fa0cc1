/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x = n ln 2 + r, |r| <= ln(2)/2: ln 2 in two parts, the first short enough that its product with n
 * is exact; a polynomial in r; 2^n in two factors, so that small results round once.
 */
#include "sim/base/exp.h"

#include <string.h>

#include "sim/base/wide.h"

enum { LANES = 4 };
typedef double quad __attribute__((vector_size(32)));
typedef int64_t quad_bits __attribute__((vector_size(32)));

#define RA_TILE static inline __attribute__((always_inline))

/* Adding this leaves an integer in the low bits of a double. */
static const double magic = 0x1.8p52;

/* *power = 2^n for the integer in the low bits of `shifted`, |n| <= 1022. */
RA_TILE void power_of_two(const quad *shifted, quad *power)
{
    *power = (quad)(((quad_bits)*shifted << 52) + 0x3ff0000000000000);
}

RA_TILE void exp_quad(quad *value)
{
    static const double term[] = {
        1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
        1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      0.5};
    quad_bits is_small = *value < -800; /* exp is 0 long before */
    quad x = (quad)((quad_bits)*value & ~is_small) +
             (quad)((quad_bits)(quad){-800, -800, -800, -800} & is_small);
    quad n = (x * 0x1.71547652b82fep+0 + magic) - magic;
    quad r = (x - n * 0x1.62e42fefa38p-1) - n * 0x1.ef35793c7673p-45;
    quad p = r * (1.0 / 6227020800) + term[0];
    for (int i = 1; i < 11; i++)
        p = p * r + term[i];
    p = 1 + (r + r * r * p);
    quad half = (n * 0.5 + magic) - magic, shifted = half + magic, first, second;
    power_of_two(&shifted, &first);
    shifted = n - half + magic;
    power_of_two(&shifted, &second);
    *value = p * first * second;
}

RA_WIDE void ra_exp_below(double *values, int32_t n, double top)
{
    int32_t i = 0;
    quad x;
    for (; i + LANES <= n; i += LANES) {
        memcpy(&x, values + i, sizeof x);
        x -= top;
        exp_quad(&x);
        memcpy(values + i, &x, sizeof x);
    }
    if (i == n)
        return;
    size_t rest = (size_t)(n - i) * sizeof *values;
    x = (quad){0};
    memcpy(&x, values + i, rest);
    x -= top;
    exp_quad(&x);
    memcpy(values + i, &x, rest);
}
