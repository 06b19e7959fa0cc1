/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Portable inner loops, written so that a compiler vectorises them without reordering sums: dots
 * run in eight independent lanes, value sums along Dv. Query heads are taken eight at a time, so
 * that all scratch fits the stack.
 */
#include "kernels/cpu/split.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "sim/base/half.h"

enum {
    LANES = 8,
    HEADS = 8,  /* query heads per pass over a split */
    BLOCK = 32, /* keys whose values are summed in f32 */
    QUAD = 4    /* keys per visit to the accumulators */
};

/* Logits this far below the largest weigh nothing: less than 1e-30 is lost in any f32 sum, and
 * products of smaller weights could be subnormal, which is slow. */
#define FAR (-69.0)

/* Scratch of one pass. */
struct pass {
    double q[HEADS][RA_CPU_MAX_DIM];
    double logit[HEADS][RA_CPU_SPLIT];
    float weight[HEADS][RA_CPU_SPLIT];
    float sum[HEADS][RA_CPU_MAX_DIM];
};

int32_t ra_cpu_keys_count(const struct ra_cpu_keys *keys)
{
    return keys->n + (keys->self_k != NULL);
}

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

static bool is_extra(const struct ra_cpu_keys *keys, int32_t i)
{
    return i >= keys->n;
}

static size_t row_of(const struct ra_cpu_keys *keys, int32_t i)
{
    return (size_t)(keys->index ? keys->index[i] : keys->first_row + i);
}

static bool is_free(const struct ra_cpu_keys *keys, int32_t i)
{
    return keys->live && !is_extra(keys, i) && keys->live[i] < 0;
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

/* Logits of `n_heads` <= HEADS heads from `head` on into logit[.][stride], column 0 = `first`. */
static void score(const struct ra_cpu_split *split, int head, int n_heads, struct pass *pass,
                  double *logit, size_t stride)
{
    const struct ra_model *model = split->model;
    const struct ra_cpu_keys *keys = split->keys;
    int D = model->D;
    size_t row_bytes = (size_t)D * ra_dtype_bytes(model->dtype);
    for (int h = 0; h < n_heads; h++)
        for (int d = 0; d < D; d++)
            pass->q[h][d] = (double)split->q[(size_t)(head + h) * (size_t)D + (size_t)d];
    for (int32_t i = 0; i < split->count; i++) {
        int32_t key = split->first + i;
        if (is_free(keys, key)) {
            for (int h = 0; h < n_heads; h++)
                logit[(size_t)h * stride + (size_t)i] = -INFINITY;
            continue;
        }
        float narrow[RA_CPU_MAX_DIM];
        double wide[RA_CPU_MAX_DIM];
        widen(model->dtype,
              is_extra(keys, key) ? keys->self_k : keys->k + row_of(keys, key) * row_bytes, D,
              narrow);
        for (int d = 0; d < D; d++)
            wide[d] = (double)narrow[d];
        for (int h = 0; h < n_heads; h++)
            logit[(size_t)h * stride + (size_t)i] = model->attn_scale * dot(pass->q[h], wide, D);
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
 * Weights relative to the largest of n logits, n a multiple of LANES; returns the largest, and the
 * sum of the weights, as rounded, in *sum. Short loops, because each vectorises and one would not.
 */
static double weigh(const double *restrict logit, int32_t n, float *restrict weight, double *sum)
{
    double below[RA_CPU_SPLIT], lane[LANES];
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

/* sum[h] += the weighted values of four keys from `i` on; keys past the split weigh nothing. */
static void add_quad(const struct ra_cpu_split *split, int32_t i, int n_heads, struct pass *pass)
{
    const struct ra_model *model = split->model;
    const struct ra_cpu_keys *keys = split->keys;
    int Dv = model->Dv;
    size_t row_bytes = (size_t)Dv * ra_dtype_bytes(model->dtype);
    float value[QUAD][RA_CPU_MAX_DIM];
    for (int j = 0; j < QUAD; j++) {
        int32_t key = split->first + i + j;
        if (i + j >= split->count || is_free(keys, key))
            memset(value[j], 0, (size_t)Dv * sizeof value[j][0]);
        else
            widen(model->dtype,
                  is_extra(keys, key) ? keys->self_v : keys->v + row_of(keys, key) * row_bytes, Dv,
                  value[j]);
    }
    for (int h = 0; h < n_heads; h++) {
        const float *weight = &pass->weight[h][i];
        float w0 = weight[0], w1 = weight[1], w2 = weight[2], w3 = weight[3];
        float *restrict sum = pass->sum[h];
        for (int d = 0; d < Dv; d++)
            sum[d] += (w0 * value[0][d] + w1 * value[1][d]) + (w2 * value[2][d] + w3 * value[3][d]);
    }
}

static void attend(const struct ra_cpu_split *split, int head, int n_heads, struct pass *pass)
{
    int Dv = split->model->Dv;
    int32_t padded = (split->count + LANES - 1) / LANES * LANES;
    for (int h = 0; h < n_heads; h++) {
        double *partial = split->partial + (size_t)(head + h) * split->partial_stride;
        for (int32_t i = split->count; i < padded; i++)
            pass->logit[h][i] = -INFINITY;
        partial[0] = weigh(pass->logit[h], padded, pass->weight[h], &partial[1]);
        memset(partial + 2, 0, (size_t)Dv * sizeof *partial);
    }
    for (int32_t block = 0; block < split->count; block += BLOCK) {
        for (int h = 0; h < n_heads; h++)
            memset(pass->sum[h], 0, (size_t)Dv * sizeof pass->sum[h][0]);
        for (int32_t i = block; i < block + BLOCK && i < split->count; i += QUAD)
            add_quad(split, i, n_heads, pass);
        for (int h = 0; h < n_heads; h++) {
            double *restrict out = split->partial + (size_t)(head + h) * split->partial_stride + 2;
            for (int d = 0; d < Dv; d++)
                out[d] += (double)pass->sum[h][d];
        }
    }
}

void ra_cpu_score_split(const struct ra_cpu_split *split)
{
    struct pass pass;
    for (int head = 0; head < split->n_heads; head += HEADS) {
        int n_heads = split->n_heads - head < HEADS ? split->n_heads - head : HEADS;
        score(split, head, n_heads, &pass,
              split->logits + (size_t)head * split->stride + (size_t)split->first, split->stride);
    }
}

void ra_cpu_attend_split(const struct ra_cpu_split *split)
{
    struct pass pass;
    for (int head = 0; head < split->n_heads; head += HEADS) {
        int n_heads = split->n_heads - head < HEADS ? split->n_heads - head : HEADS;
        score(split, head, n_heads, &pass, pass.logit[0], RA_CPU_SPLIT);
        for (int h = 0; split->logits && h < n_heads; h++)
            memcpy(split->logits + (size_t)(head + h) * split->stride + (size_t)split->first,
                   pass.logit[h], (size_t)split->count * sizeof(double));
        attend(split, head, n_heads, &pass);
    }
}

void ra_cpu_merge(const double *partial, size_t stride, int32_t n, int Dv, float *out)
{
    double largest = -INFINITY, sum = 0;
    double total[RA_CPU_MAX_DIM] = {0};
    for (int32_t i = 0; i < n; i++)
        largest = fmax(largest, partial[(size_t)i * stride]);
    for (int32_t i = 0; i < n; i++) {
        const double *part = partial + (size_t)i * stride;
        double weight = exp(part[0] - largest);
        sum += weight * part[1];
        for (int d = 0; d < Dv; d++)
            total[d] += weight * part[2 + d];
    }
    for (int d = 0; d < Dv; d++)
        out[d] = (float)(total[d] / sum);
}
