/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks the keys of a split: which row each key is, free slots, the extra key; blocks of rows go to
 * the arithmetic of simd.h. Query heads are taken eight at a time, so that all scratch fits the
 * stack.
 */
#include "kernels/cpu/split.h"

#include <math.h>
#include <string.h>

enum { CACHE_LINE = 64 };

/* Scratch of one pass. */
struct pass {
    double q[RA_CPU_MAX_HEADS][RA_CPU_MAX_DIM];
    double logit[RA_CPU_MAX_HEADS][RA_CPU_SPLIT];
    float weight[RA_CPU_MAX_HEADS][RA_CPU_SPLIT];
};

/* Stands for a free slot, whose row may hold anything, and for keys that fill up a block. */
static const float no_row[RA_CPU_MAX_DIM];

int32_t ra_cpu_keys_count(const struct ra_cpu_keys *keys)
{
    return keys->n + (keys->self_k != NULL);
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

enum which { KEYS, VALUES };

/* Rows of up to RA_CPU_BLOCK keys from key `first` of the split on. */
static struct ra_cpu_rows block_of(const struct ra_cpu_split *split, int32_t first,
                                   enum which which)
{
    const struct ra_model *model = split->model;
    const struct ra_cpu_keys *keys = split->keys;
    int32_t left = split->count - first, n = left < RA_CPU_BLOCK ? left : RA_CPU_BLOCK;
    const char *base = which == KEYS ? keys->k : keys->v;
    const char *extra = which == KEYS ? keys->self_k : keys->self_v;
    struct ra_cpu_rows rows = {.dtype = model->dtype, .n = (n + 3) / 4 * 4};
    rows.dim = which == KEYS ? model->D : model->Dv;
    size_t bytes = (size_t)rows.dim * ra_dtype_bytes(model->dtype);
    for (int32_t i = 0; i < rows.n; i++) {
        int32_t key = split->first + first + i;
        if (i >= n || is_free(keys, key))
            rows.row[i] = (const char *)no_row;
        else
            rows.row[i] = is_extra(keys, key) ? extra : base + row_of(keys, key) * bytes;
    }
    return rows;
}

/* Rows of a block are visited a few columns at a time: bring whole rows in before that. */
static void prefetch(const struct ra_cpu_split *split, int32_t first, enum which which)
{
    if (first >= split->count)
        return;
    struct ra_cpu_rows rows = block_of(split, first, which);
    size_t bytes = (size_t)rows.dim * ra_dtype_bytes(rows.dtype);
    for (int i = 0; i < rows.n; i++)
        for (size_t at = 0; at < bytes; at += CACHE_LINE)
            __builtin_prefetch(rows.row[i] + at);
}

/* Logits of `n_heads` <= RA_CPU_MAX_HEADS heads from `head` on, into the pass. */
static void score(const struct ra_cpu_split *split, int head, int n_heads, struct pass *pass)
{
    int D = split->model->D;
    for (int h = 0; h < n_heads; h++)
        for (int d = 0; d < D; d++)
            pass->q[h][d] = (double)split->q[(size_t)(head + h) * (size_t)D + (size_t)d];
    for (int32_t first = 0; first < split->count; first += RA_CPU_BLOCK) {
        struct ra_cpu_rows rows = block_of(split, first, KEYS);
        split->kernels->dots(&rows, pass->q[0], n_heads, split->model->attn_scale,
                             &pass->logit[0][first], RA_CPU_SPLIT);
    }
    for (int32_t i = 0; split->keys->live && i < split->count; i++)
        for (int h = 0; is_free(split->keys, split->first + i) && h < n_heads; h++)
            pass->logit[h][i] = -INFINITY;
    for (int h = 0; split->logits && h < n_heads; h++)
        memcpy(split->logits + (size_t)(head + h) * split->stride + (size_t)split->first,
               pass->logit[h], (size_t)split->count * sizeof(double));
}

static void attend(const struct ra_cpu_split *split, int head, int n_heads, struct pass *pass)
{
    double *partial = split->partial + (size_t)head * split->partial_stride;
    int32_t padded = (split->count + RA_CPU_PAD - 1) / RA_CPU_PAD * RA_CPU_PAD;
    prefetch(split, 0, VALUES);
    for (int h = 0; h < n_heads; h++) {
        double *part = partial + (size_t)h * split->partial_stride;
        for (int32_t i = split->count; i < padded; i++)
            pass->logit[h][i] = -INFINITY;
        part[0] = split->kernels->weigh(pass->logit[h], padded, pass->weight[h], &part[1]);
        memset(part + 2, 0, (size_t)split->model->Dv * sizeof *part);
    }
    for (int32_t first = 0; first < split->count; first += RA_CPU_BLOCK) {
        struct ra_cpu_rows rows = block_of(split, first, VALUES);
        prefetch(split, first + RA_CPU_BLOCK, VALUES);
        split->kernels->add(&rows, &pass->weight[0][first], RA_CPU_SPLIT, n_heads, partial + 2,
                            split->partial_stride);
    }
}

static int heads_from(const struct ra_cpu_split *split, int head)
{
    int left = split->n_heads - head;
    return left < RA_CPU_MAX_HEADS ? left : RA_CPU_MAX_HEADS;
}

void ra_cpu_score_split(const struct ra_cpu_split *split)
{
    struct pass pass;
    for (int head = 0; head < split->n_heads; head += RA_CPU_MAX_HEADS)
        score(split, head, heads_from(split, head), &pass);
}

void ra_cpu_attend_split(const struct ra_cpu_split *split)
{
    struct pass pass;
    for (int head = 0; head < split->n_heads; head += RA_CPU_MAX_HEADS) {
        int n_heads = heads_from(split, head);
        score(split, head, n_heads, &pass);
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
