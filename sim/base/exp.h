/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exp for softmax: of numbers that are not positive, without a branch, so that loops over keys
 * vectorise. Plain double operations in one order: the same bits on every machine, which the C
 * library's exp does not promise.
 */
#ifndef RA_SIM_BASE_EXP_H
#define RA_SIM_BASE_EXP_H

#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 2^n for the integer that adding 1.5 * 2^52 left in the low bits of `shifted`, |n| <= 1022. */
static inline double ra_exp_power(double shifted)
{
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 52) + 0x3ff0000000000000u;
    double power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

/*
 * exp(x) for x <= 0, to 1.5 units in the last place where the result is normal; 0 below the
 * smallest number, -Inf included. x = n ln 2 + r, |r| <= ln(2)/2; ln 2 in two parts, the first
 * short enough that its product with n is exact; 2^n in two factors, so that small results round
 * once.
 */
static inline double ra_exp_below(double x)
{
    const double magic = 0x1.8p52;
    x = x > -800 ? x : -800;
    double n = (x * 0x1.71547652b82fep+0 + magic) - magic;
    double r = (x - n * 0x1.62e42fefa38p-1) - n * 0x1.ef35793c7673p-45;
    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = 1 + (r + r * r * p);
    double half = (n * 0.5 + magic) - magic;
    return p * ra_exp_power(half + magic) * ra_exp_power(n - half + magic);
}

#ifdef __cplusplus
}
#endif

#endif
