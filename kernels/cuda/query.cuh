/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Has the query turned away from the one that filled the recycled cache? Mean over heads and cosine
 * in f64, for any number of rows (layers of any sequence) at once.
 */
#ifndef RA_KERNELS_CUDA_QUERY_CUH
#define RA_KERNELS_CUDA_QUERY_CUH

#include "kernels/cuda/cuda.cuh"

enum { RA_QUERY_THREADS = 128 };

enum ra_query_update {
    RA_QUERY_COMPARE, /* leave the reference */
    RA_QUERY_FIRED,   /* where the layer fires, the query becomes the reference */
    RA_QUERY_SET      /* it becomes the reference in any case */
};

struct ra_query_args {
    const float *q;         /* [n_rows][Hq][D] */
    double *reference;      /* [n_rows][D] mean query */
    int32_t *has_reference; /* [n_rows] */
    double *cosine;         /* [n_rows] filled; NaN without a reference or where a norm is zero */
    int32_t *fires;         /* [n_rows] filled: not (cosine > sim) */
    double sim;
    int32_t n_rows, Hq, D;
    enum ra_query_update update;
};

/* Grid (n_rows at one a warp). */
__global__ void query_cosine(ra_query_args a);

#endif
