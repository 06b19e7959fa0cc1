/* SPDX-License-Identifier: Apache-2.0 */
/* Inverse rotary embedding. One frequency at a time: checks of a schedule are rare. */
#include "sim/rope.h"

#include <math.h>

/* Frequencies slow enough to leave the trained context are divided by `factor`, fast ones stay, and
 * those between are blended. f32, in the models' order of operations. */
static float scale_llama3(const struct ra_rope *rope, float frequency)
{
    const float pi = 3.14159265358979323846f;
    float original = (float)rope->original_max_position;
    float low = (float)rope->low_freq_factor, high = (float)rope->high_freq_factor;
    float wavelength = 2 * pi / frequency;
    if (wavelength > original / low)
        return frequency / (float)rope->factor;
    if (wavelength < original / high)
        return frequency;
    float smooth = (original / wavelength - low) / (high - low);
    return (1 - smooth) * frequency / (float)rope->factor + smooth * frequency;
}

static float inverse_frequency(const struct ra_rope *rope, int D, int i)
{
    float exponent = (float)(2 * i) / (float)D;
    float frequency = 1 / (float)pow(rope->theta, exponent);
    if (rope->type == RA_ROPE_LINEAR)
        return frequency / (float)rope->factor;
    return rope->type == RA_ROPE_LLAMA3 ? scale_llama3(rope, frequency) : frequency;
}

void ra_rope_unrotate(const struct ra_rope *rope, int D, int32_t pos, double *vec)
{
    RA_BUG_ON(rope->type == RA_ROPE_UNKNOWN);
    if (rope->type == RA_ROPE_NONE)
        return;
    int half = D / 2;
    for (int i = 0; i < half; i++) {
        double angle = (float)pos * inverse_frequency(rope, D, i);
        double c = cos(angle), s = sin(angle), a = vec[i], b = vec[i + half];
        vec[i] = a * c + b * s;
        vec[i + half] = b * c - a * s;
    }
}
