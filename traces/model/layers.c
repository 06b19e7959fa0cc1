/* SPDX-License-Identifier: Apache-2.0 */
#include "traces/model/layers.h"

#include <math.h>
#include <string.h>

void ra_lm_rms_norm(const float *x, const float *weight, int n, double eps, float *out)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    float scale = (float)(1 / sqrt(sum / n + eps));
    for (int i = 0; i < n; i++)
        out[i] = x[i] * scale * weight[i];
}

/* 2^n * polynomial: e^x for -87 <= x <= 88. The polynomial is Taylor's to the sixth power, on half
 * a binary order to each side of zero. */
static inline float exp_of(float x)
{
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* nearest whole number */
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

static inline float clamp(float x)
{
    x = x > -87.0f ? x : -87.0f;
    return x < 88.0f ? x : 88.0f;
}

/* Below -88 both gates are so near 0 that their value there does for all. No number stays none. */
static inline float not_too_low(float x)
{
    return x < -88.0f ? -88.0f : x;
}

/* x / (1 + e^-x). */
static void gate_silu(const float *restrict up, int n, float *restrict gate)
{
    for (int i = 0; i < n; i++) {
        float x = not_too_low(gate[i]);
        gate[i] = x / (1.0f + exp_of(clamp(-x))) * up[i];
    }
}

/* 0.5 x (1 + tanh(y)) = x / (1 + e^-2y), y = sqrt(2/pi) (x + 0.044715 x^3). */
static void gate_gelu(const float *restrict up, int n, float *restrict gate)
{
    for (int i = 0; i < n; i++) {
        float x = not_too_low(gate[i]), y = 0.7978845608f * (x + 0.044715f * x * x * x);
        gate[i] = x / (1.0f + exp_of(clamp(-2.0f * y))) * up[i];
    }
}

void ra_lm_gate(enum ra_lm_activation activation, const float *up, int n, float *gate)
{
    if (activation == RA_LM_SILU)
        gate_silu(up, n, gate);
    else
        gate_gelu(up, n, gate);
}

void ra_lm_rope_table(const float *frequencies, int D, int32_t pos, float *cosines, float *sines)
{
    for (int i = 0; i < D / 2; i++) {
        float angle = (float)pos * frequencies[i];
        cosines[i] = (float)cos((double)angle);
        sines[i] = (float)sin((double)angle);
    }
}

void ra_lm_rotate(const float *cosines, const float *sines, int D, float *vec)
{
    int half = D / 2;
    for (int i = 0; i < half; i++) {
        float a = vec[i], b = vec[i + half];
        vec[i] = a * cosines[i] - b * sines[i];
        vec[i + half] = b * cosines[i] + a * sines[i];
    }
}

float ra_lm_exp_below(float *values, int n, float top)
{
    enum { LANES = 16 };
    float part[LANES] = {0}, sum = 0;
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float x = values[i + j] - top, y = exp_of(clamp(x));
            y = x < -87.0f ? 0.0f : y;
            values[i + j] = y;
            part[j] += y;
        }
    for (; i < n; i++) {
        float x = values[i] - top;
        values[i] = x < -87.0f ? 0.0f : exp_of(clamp(x));
        sum += values[i];
    }
    for (int j = 0; j < LANES; j++)
        sum += part[j];
    return sum;
}

int32_t ra_lm_likeliest(const float *logits, int n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

double ra_lm_log_sum(const float *logits, int n)
{
    double top = (double)logits[0];
    for (int i = 1; i < n; i++)
        top = fmax(top, (double)logits[i]);
    double sum = exp((double)logits[0] - top);
    for (int i = 1; i < n; i++)
        sum += exp((double)logits[i] - top);
    return top + log(sum);
}

double ra_lm_logprob(const float *logits, int n, int32_t index)
{
    return (double)logits[index] - ra_lm_log_sum(logits, n);
}
