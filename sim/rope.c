/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary embedding and its inverse. */
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

void ra_rope_frequencies(const struct ra_rope *rope, int D, float *frequencies)
{
    RA_BUG_ON(rope->type == RA_ROPE_UNKNOWN);
    for (int i = 0; i < D / 2; i++)
        frequencies[i] = rope->type == RA_ROPE_NONE ? 0 : inverse_frequency(rope, D, i);
}

static void turn_pair(float frequency, int half, int32_t pos, int sign, double *pair)
{
    double angle = (float)pos * frequency;
    double c = cos(angle), s = sign * sin(angle), a = pair[0], b = pair[half];
    pair[0] = a * c - b * s;
    pair[half] = b * c + a * s;
}

void ra_rope_turn(const float *frequencies, int D, int32_t pos, double *vec)
{
    for (int i = 0; i < D / 2; i++)
        turn_pair(frequencies[i], D / 2, pos, 1, vec + i);
}

void ra_rope_turn_back(const float *frequencies, int D, int32_t pos, double *vec)
{
    for (int i = 0; i < D / 2; i++)
        turn_pair(frequencies[i], D / 2, pos, -1, vec + i);
}

void ra_rope_unrotate(const struct ra_rope *rope, int D, int32_t pos, double *vec)
{
    RA_BUG_ON(rope->type == RA_ROPE_UNKNOWN);
    if (rope->type == RA_ROPE_NONE)
        return;
    for (int i = 0; i < D / 2; i++)
        turn_pair(inverse_frequency(rope, D, i), D / 2, pos, -1, vec + i);
}
