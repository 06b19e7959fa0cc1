/* SPDX-License-Identifier: Apache-2.0 */
/* Range reduction by powers of two, then a series that ends below the last bit. */
#include "traces/synth_math.h"

#include <stdint.h>
#include <string.h>

static const double ln2_high = 0x1.62e42fefa0000p-1, ln2_low = 0x1.cf79abc9e3b3ap-40;

static const double inverse[] = {1.0,     1.0 / 2, 1.0 / 3,  1.0 / 4,  1.0 / 5,  1.0 / 6, 1.0 / 7,
                                 1.0 / 8, 1.0 / 9, 1.0 / 10, 1.0 / 11, 1.0 / 12, 1.0 / 13};

double ra_synth_exp(double x)
{
    if (x < -700)
        return 0;
    int64_t k = (int64_t)(x * 1.4426950408889634 - 0.5);
    double r = x - (double)k * ln2_high - (double)k * ln2_low;
    double sum = 1;
    for (int i = 12; i >= 0; i--)
        sum = 1 + sum * (r * inverse[i]);
    uint64_t bits = (uint64_t)(k + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return sum * power;
}

double ra_synth_log(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int64_t exponent = (int64_t)(bits >> 52) - 1023;
    bits = (bits & UINT64_C(0x000fffffffffffff)) | (UINT64_C(1023) << 52);
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m /= 2;
        exponent++;
    }
    double s = (m - 1) / (m + 1), square = s * s, sum = 0;
    for (int i = 21; i >= 1; i -= 2)
        sum = sum * square + 1.0 / i;
    return (double)exponent * ln2_high + (2 * s * sum + (double)exponent * ln2_low);
}

double ra_synth_logit(double p)
{
    const double edge = 1e-5;
    p = p < edge ? edge : p > 1 - edge ? 1 - edge : p;
    return ra_synth_log(p / (1 - p));
}
