/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks the keys of a split: which row each key is, free slots, the extra key; blocks of rows go to
 * the arithmetic of simd.h. Query heads are taken eight at a time, so that all scratch fits the
 * stack.
 */
#include "kernels/cpu/split.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Scratch of one pass. */
struct pass {
    union {
        double wide[RA_CPU_MAX_HEADS][RA_CPU_MAX_DIM];
        float narrow[RA_CPU_MAX_HEADS][RA_CPU_MAX_DIM];
    } q;
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

/* Where rows first..first+n-1 of the keys are; n is rounded up to fill four. */
static void find_rows(const struct ra_cpu_split *split, int32_t first, int32_t n, enum which which,
                      const char **row)
{
    const struct ra_cpu_keys *keys = split->keys;
    const struct ra_model *model = split->model;
    const char *base = which == KEYS ? keys->k : keys->v;
    const char *extra = which == KEYS ? keys->self_k : keys->self_v;
    size_t bytes = (size_t)(which == KEYS ? model->D : model->Dv) * ra_dtype_bytes(model->dtype);
    bool plain = !keys->index && !keys->live && first + n <= keys->n && n % 4 == 0;
    for (int32_t i = 0; plain && i < n; i++)
        row[i] = base + (size_t)(keys->first_row + first + i) * bytes;
    for (int32_t i = 0; !plain && i < (n + 3) / 4 * 4; i++) {
        if (i >= n || is_free(keys, first + i))
            row[i] = (const char *)no_row;
        else
            row[i] = is_extra(keys, first + i) ? extra : base + row_of(keys, first + i) * bytes;
    }
}

static int32_t block_size(int32_t left)
{
    return left < RA_CPU_BLOCK ? left : RA_CPU_BLOCK;
}

/* The first block of `which`. Its rows are brought in by what comes before it. */
static struct ra_cpu_rows first_block(const struct ra_cpu_split *split, enum which which)
{
    const struct ra_model *model = split->model;
    int32_t n = block_size(split->count);
    struct ra_cpu_rows rows = {.dtype = model->dtype, .n = (n + 3) / 4 * 4};
    rows.dim = which == KEYS ? model->D : model->Dv;
    find_rows(split, split->first, n, which, rows.ahead);
    return rows;
}

/*
 * On to the block at key `at` of the split, which was ahead until now. Ahead of a last block of
 * keys are the first values, and ahead of those the keys of the next split.
 */
static void next_block(const struct ra_cpu_split *split, int32_t at, enum which which,
                       struct ra_cpu_rows *rows)
{
    int32_t n = block_size(split->count - at), left = split->count - at - n;
    int32_t next = split->first + at + n;
    memcpy(rows->row, rows->ahead, sizeof rows->row);
    rows->n = (n + 3) / 4 * 4;
    if (left == 0 && which == KEYS) {
        next = split->first;
        which = VALUES;
        left = split->count;
    } else if (left == 0) {
        which = KEYS;
        left = ra_cpu_keys_count(split->keys) - next;
    }
    left = block_size(left);
    find_rows(split, next, left, which, rows->ahead);
    for (int32_t i = (left + 3) / 4 * 4; i < rows->n; i++)
        rows->ahead[i] = (const char *)no_row;
}

static void load_queries(const struct ra_cpu_split *split, int head, int n_heads, bool is_wide,
                         struct pass *pass)
{
    int D = split->model->D, padded = (D + RA_CPU_PAD - 1) / RA_CPU_PAD * RA_CPU_PAD;
    for (int h = 0; h < n_heads; h++) {
        const float *q = split->q + (size_t)(head + h) * (size_t)D;
        for (int d = 0; is_wide && d < D; d++)
            pass->q.wide[h][d] = (double)q[d];
        for (int d = 0; !is_wide && d < padded; d++)
            pass->q.narrow[h][d] = d < D ? q[d] : 0;
    }
}

static void sum_dots(const struct ra_cpu_split *split, int head, int n_heads, bool is_wide,
                     struct pass *pass)
{
    double scale = split->model->attn_scale;
    load_queries(split, head, n_heads, is_wide, pass);
    struct ra_cpu_rows rows = first_block(split, KEYS);
    for (int32_t first = 0; first < split->count; first += RA_CPU_BLOCK) {
        next_block(split, first, KEYS, &rows);
        double *logit = &pass->logit[0][first];
        if (is_wide)
            split->kernels->dots(&rows, pass->q.wide[0], n_heads, scale, logit, RA_CPU_SPLIT);
        else
            split->kernels->dots_f32(&rows, pass->q.narrow[0], n_heads, scale, logit, RA_CPU_SPLIT);
    }
}

static bool is_finite(const struct pass *pass, int n_heads, int32_t count)
{
    bool finite = true;
    for (int h = 0; h < n_heads; h++)
        for (int32_t i = 0; i < count; i++)
            finite &= fabs(pass->logit[h][i]) <= DBL_MAX;
    return finite;
}

/*
 * Logits of `n_heads` <= RA_CPU_MAX_HEADS heads from `head` on, into the pass. Those that are kept
 * order positions, so they are summed in double; others only weigh values, which f32 does in half
 * the time, unless rows of more range than f16 leave it.
 */
static void score(const struct ra_cpu_split *split, int head, int n_heads, struct pass *pass)
{
    bool is_wide = split->logits != NULL;
    sum_dots(split, head, n_heads, is_wide, pass);
    if (!is_wide && split->model->dtype != RA_F16 && !is_finite(pass, n_heads, split->count))
        sum_dots(split, head, n_heads, true, pass);
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
    for (int h = 0; h < n_heads; h++) {
        double *part = partial + (size_t)h * split->partial_stride;
        for (int32_t i = split->count; i < padded; i++)
            pass->logit[h][i] = -INFINITY;
        part[0] = split->kernels->weigh(pass->logit[h], padded, pass->weight[h], &part[1]);
        memset(part + 2, 0, (size_t)split->model->Dv * sizeof *part);
    }
    struct ra_cpu_rows rows = first_block(split, VALUES);
    for (int32_t first = 0; first < split->count; first += RA_CPU_BLOCK) {
        next_block(split, first, VALUES, &rows);
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
