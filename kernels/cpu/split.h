/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner loops of attention: one KV head's keys, one split of them, all query heads that read
 * that KV head. Splits have a fixed number of keys, and their results are merged in index order,
 * so who computes a split, and when, changes no bit. Arithmetic is simd.h's. Knows no cache and no
 * thread.
 */
#ifndef RA_KERNELS_CPU_SPLIT_H
#define RA_KERNELS_CPU_SPLIT_H

#include "kernels/cpu/simd.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RA_CPU_SPLIT = 512 }; /* keys of a split */

/* The keys that query heads of one group attend to. Borrowed. */
struct ra_cpu_keys {
    const char *k, *v;    /* rows [..][D] and [..][Dv] of the stored dtype, aligned to an element */
    const int32_t *index; /* [n] row of each key; NULL: rows first_row..first_row+n-1 */
    const int32_t *live;  /* [n] negative: the key is a free slot, skip it; NULL: all are keys */
    int32_t first_row;
    int32_t n;
    const char *self_k, *self_v; /* one key more, after the n; NULL: none */
};

/* Keys, the extra one included. */
int32_t ra_cpu_keys_count(const struct ra_cpu_keys *keys);

/* One split: keys first..first+count-1, count <= RA_CPU_SPLIT. */
struct ra_cpu_split {
    const struct ra_cpu_kernels *kernels;
    const struct ra_model *model;
    const struct ra_cpu_keys *keys;
    int32_t first, count;
    const float *q; /* [n_heads][D] */
    int n_heads;
    double *logits; /* [n_heads][stride], column 0 is key 0 of `keys`; -inf for a free slot */
    size_t stride;
    double *partial; /* [n_heads][partial_stride]: largest logit, sum of weights, out [Dv] */
    size_t partial_stride;
};

/*
 * Logits of the split's keys into `logits`: attn_scale * sum_d q_d k_d, summed in double. A
 * product of two 16-bit floats is exact, so logits equal a plain f64 reference to about 1e-15.
 */
void ra_cpu_score_split(const struct ra_cpu_split *split);

/*
 * Softmax-weighted sum of the split's values, relative to its own largest logit, into `partial`.
 * Logits are written too where `logits` is not NULL. Weights are f32; values are summed in f32
 * over 32 keys and in double above that.
 */
void ra_cpu_attend_split(const struct ra_cpu_split *split);

/* Merge n partials of one query head, in order, `stride` doubles apart; out [Dv]. */
void ra_cpu_merge(const double *partial, size_t stride, int32_t n, int Dv, float *out);

#ifdef __cplusplus
}
#endif

#endif
