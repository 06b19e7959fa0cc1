/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Portable loops, written so that a compiler vectorises them without reordering sums: dots run in
 * eight independent lanes, value sums along Dv. The plain twin that every other table is held to.
 */
#include "kernels/cpu/simd.h"

#include <math.h>
#include <string.h>

#include "sim/base/half.h"

enum {
    LANES = 8,
    QUAD = 4,        /* rows per visit to the accumulators */
    MOST_KEYS = 512, /* of one call to weigh */
};

/* Logits this far below the largest weigh nothing: less than 1e-30 is lost in any f32 sum, and
 * products of smaller weights could be subnormal, which is slow. */
#define FAR (-69.0)

static void widen(enum ra_dtype dtype, const void *stored, int n, float *restrict out)
{
    if (dtype == RA_F16) {
        const uint16_t *half = stored;
        for (int i = 0; i < n; i++)
            out[i] = ra_f16_to_f32(half[i]);
    } else if (dtype == RA_BF16) {
        const uint16_t *half = stored;
        for (int i = 0; i < n; i++)
            out[i] = ra_bf16_to_f32(half[i]);
    } else {
        memcpy(out, stored, (size_t)n * sizeof *out);
    }
}

static double sum_lanes(const double *lane)
{
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static double dot(const double *restrict a, const double *restrict b, int n)
{
    double lane[LANES] = {0};
    for (int i = 0; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += a[i + j] * b[i + j];
    return sum_lanes(lane);
}

static void dots(const struct ra_cpu_rows *rows, const double *q, int n_heads, double scale,
                 double *logit, size_t stride)
{
    for (int i = 0; i < rows->n; i++) {
        float narrow[RA_CPU_MAX_DIM];
        double wide[RA_CPU_MAX_DIM];
        widen(rows->dtype, rows->row[i], rows->dim, narrow);
        for (int d = 0; d < rows->dim; d++)
            wide[d] = (double)narrow[d];
        for (int h = 0; h < n_heads; h++)
            logit[(size_t)h * stride + (size_t)i] =
                scale * dot(q + h * RA_CPU_MAX_DIM, wide, rows->dim);
    }
}

static float dot_f32(const float *restrict a, const float *restrict b, int n)
{
    float lane[LANES] = {0};
    for (int i = 0; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += a[i + j] * b[i + j];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static void dots_f32(const struct ra_cpu_rows *rows, const float *q, int n_heads, double scale,
                     double *logit, size_t stride)
{
    for (int i = 0; i < rows->n; i++) {
        float key[RA_CPU_MAX_DIM];
        widen(rows->dtype, rows->row[i], rows->dim, key);
        for (int h = 0; h < n_heads; h++)
            logit[(size_t)h * stride + (size_t)i] =
                scale * (double)dot_f32(q + h * RA_CPU_MAX_DIM, key, rows->dim);
    }
}

/*
 * exp for FAR <= x <= 0, relative error below 1e-9. Branch-free: 2^n is made by moving n, which the
 * large addend leaves in the low bits, into the exponent field.
 */
static inline double exp_weight(double x)
{
    double shifted = x * 0x1.71547652b82fep+0 + 0x1.8p52;
    double n = shifted - 0x1.8p52;
    double r = (x - n * 0x1.62e42fefa38p-1) - n * 0x1.ef35793c7673p-45;
    double p = 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1;
    p = p * r + 1;
    uint64_t bits, exponent;
    memcpy(&bits, &p, sizeof bits);
    memcpy(&exponent, &shifted, sizeof exponent);
    bits += exponent << 52;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/*
 * Weights relative to the largest of n logits; returns the largest, and the
 * sum of the weights, as rounded, in *sum. Short loops, because each vectorises and one would not.
 */
static double weigh(const double *restrict logit, int32_t n, float *restrict weight, double *sum)
{
    double below[MOST_KEYS], lane[LANES];
    for (int j = 0; j < LANES; j++)
        lane[j] = -INFINITY;
    for (int32_t i = 0; i < n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] = logit[i + j] > lane[j] ? logit[i + j] : lane[j];
    double largest = lane[0];
    for (int j = 1; j < LANES; j++)
        largest = lane[j] > largest ? lane[j] : largest;
    /* Where all are -inf the difference is NaN, which is not above FAR either. */
    for (int32_t i = 0; i < n; i++)
        below[i] = logit[i] - largest > FAR ? logit[i] - largest : FAR;
    for (int32_t i = 0; i < n; i++)
        weight[i] = (float)exp_weight(below[i]);
    for (int32_t i = 0; i < n; i++)
        weight[i] = below[i] > FAR ? weight[i] : 0;
    memset(lane, 0, sizeof lane);
    for (int32_t i = 0; i < n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += (double)weight[i + j];
    *sum = sum_lanes(lane);
    return largest;
}

/* sum[d] += the values of four rows, weighted. */
static void add_quad(float value[QUAD][RA_CPU_MAX_DIM], const float *weight, int dim,
                     float *restrict sum)
{
    float w0 = weight[0], w1 = weight[1], w2 = weight[2], w3 = weight[3];
    for (int d = 0; d < dim; d++)
        sum[d] += (w0 * value[0][d] + w1 * value[1][d]) + (w2 * value[2][d] + w3 * value[3][d]);
}

static void add(const struct ra_cpu_rows *rows, const float *weight, size_t weight_stride,
                int n_heads, double *out, size_t stride)
{
    float sum[RA_CPU_MAX_HEADS][RA_CPU_MAX_DIM], value[QUAD][RA_CPU_MAX_DIM];
    for (int h = 0; h < n_heads; h++)
        memset(sum[h], 0, (size_t)rows->dim * sizeof sum[h][0]);
    for (int i = 0; i < rows->n; i += QUAD) {
        for (int j = 0; j < QUAD; j++)
            widen(rows->dtype, rows->row[i + j], rows->dim, value[j]);
        for (int h = 0; h < n_heads; h++)
            add_quad(value, weight + (size_t)h * weight_stride + i, rows->dim, sum[h]);
    }
    for (int h = 0; h < n_heads; h++)
        for (int d = 0; d < rows->dim; d++)
            out[(size_t)h * stride + (size_t)d] += (double)sum[h][d];
}

static bool runs_here(void)
{
    return true;
}

const struct ra_cpu_kernels ra_cpu_portable = {
    .name = "portable",
    .needs = "any processor",
    .runs_here = runs_here,
    .dots = dots,
    .dots_f32 = dots_f32,
    .weigh = weigh,
    .add = add,
};
