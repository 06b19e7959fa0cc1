/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arithmetic of a split, one table per instruction set: portable C, AVX2, AVX-512, NEON.
 * split.c walks the keys and hands blocks of rows to one of them. Every table widens 16-bit rows in
 * registers and sums logits in double, so that tables differ by rounding alone.
 */
#ifndef RA_KERNELS_CPU_SIMD_H
#define RA_KERNELS_CPU_SIMD_H

#include <stdbool.h>

#include "sim/model.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    RA_CPU_MAX_DIM = 256, /* largest D and Dv */
    RA_CPU_MAX_HEADS = 8, /* query heads of one call */
    RA_CPU_BLOCK = 32,    /* most rows of one call: values are summed in f32 over them */
    RA_CPU_PAD = 16       /* weights are computed for a multiple of so many keys */
};

/* n rows of `dim` elements, n a multiple of 4 up to RA_CPU_BLOCK; each aligned to an element. */
struct ra_cpu_rows {
    enum ra_dtype dtype;
    int dim, n;
    const char *row[RA_CPU_BLOCK];
    const char *ahead[RA_CPU_BLOCK]; /* [n] rows to bring into the cache meanwhile */
};

struct ra_cpu_kernels {
    const char *name;
    const char *needs; /* what the processor must have, as a noun */

    /* Can this processor run it? NULL: it is not in this build. */
    bool (*runs_here)(void);

    /* logit[h][i] = scale * sum_d q[h][d] * row_i[d], in double; q [n_heads][RA_CPU_MAX_DIM]. */
    void (*dots)(const struct ra_cpu_rows *rows, const double *q, int n_heads, double scale,
                 double *logit, size_t stride);

    /* The same, products and sums in f32; q is zero from dim to the next multiple of RA_CPU_PAD. */
    void (*dots_f32)(const struct ra_cpu_rows *rows, const float *q, int n_heads, double scale,
                     double *logit, size_t stride);

    /* weight[i] = exp(logit[i] - largest), 0 where that is below 1e-29 or so; n <= 512 a multiple
     * of RA_CPU_PAD. Returns the largest; *sum is the sum of the weights as rounded. */
    double (*weigh)(const double *logit, int32_t n, float *weight, double *sum);

    /* out[h][d] += sum_i weight[h][i] * row_i[d], the sum in f32. */
    void (*add)(const struct ra_cpu_rows *rows, const float *weight, size_t weight_stride,
                int n_heads, double *out, size_t stride);
};

/* All that exist, fastest first, portable last; NULL-terminated. */
extern const struct ra_cpu_kernels *const ra_cpu_kernels[];
extern const struct ra_cpu_kernels ra_cpu_portable, ra_cpu_avx2, ra_cpu_avx512, ra_cpu_neon;

/*
 * The fastest that runs here, or the one that the environment variable RATTN_SIMD names. RA_EUSAGE
 * for a name that is none, RA_ENODEV for one that this build or this processor lacks.
 */
RA_MUST_CHECK enum ra_status ra_cpu_kernels_find(const struct ra_cpu_kernels **kernels,
                                                 struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
