/* SPDX-License-Identifier: Apache-2.0 */
/* SplitMix64 addressed by index: its state after i + 1 steps is key + (i + 1) * gamma. */
#include "sim/base/rng.h"

static const uint64_t gamma_step = UINT64_C(0x9e3779b97f4a7c15);

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t ra_rng_word(uint64_t key, uint64_t i)
{
    return mix(key + (i + 1) * gamma_step);
}

uint64_t ra_rng_key(uint64_t key, uint64_t number)
{
    /* Mixed twice: word `number` of one stream must not be the key of the next. */
    return mix(ra_rng_word(key, number) ^ UINT64_C(0x5851f42d4c957f2d));
}

int32_t ra_rng_int(uint64_t key, uint64_t i, int32_t low, int32_t high)
{
    uint64_t span = (uint64_t)((int64_t)high - low) + 1;
    return (int32_t)(low + (int64_t)(((ra_rng_word(key, i) >> 32) * span) >> 32));
}

/* Sum of the four 16-bit fields of a word. */
static uint32_t fields(uint64_t word)
{
    const uint64_t even = UINT64_C(0x0000ffff0000ffff);
    uint64_t pairs = (word & even) + ((word >> 16) & even);
    return (uint32_t)pairs + (uint32_t)(pairs >> 32);
}

double ra_rng_normal(uint64_t key, uint64_t i)
{
    /* Eight uniforms over 0..65535: mean 8 * 32767.5, variance 8 * (2^32 - 1) / 12. */
    const double per_sigma = 1.0 / 53509.91992145008;
    uint32_t sum = fields(ra_rng_word(key, 2 * i)) + fields(ra_rng_word(key, 2 * i + 1));
    return ((double)sum - 262140.0) * per_sigma;
}
