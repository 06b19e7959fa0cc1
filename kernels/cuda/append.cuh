/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One position more in C_f of every row (KV heads of any sequence), at the end that the device
 * itself keeps: a step recorded once in a graph appends wherever the cache has come to.
 */
#ifndef RA_KERNELS_CUDA_APPEND_CUH
#define RA_KERNELS_CUDA_APPEND_CUH

#include "kernels/cuda/pages.cuh"

enum { RA_APPEND_THREADS = 128 };

struct ra_append_args {
    const void *self_k, *self_v; /* [rows][D] the new position */
    void *full_k, *full_v;       /* [rows][row_stride][D], or pages, as in decode_split */
    const int32_t *pages;        /* [rows / Hkv][page_stride]; NULL: not paged */
    int32_t *n;                  /* [rows] positions; one more afterwards */
    int64_t row_stride, page_stride;
    int32_t n_rows, Hkv, row_bytes;
};

/* Grid (n_rows at one a warp). n < row_stride before. */
__global__ void append_rows(ra_append_args a);

cudaError_t ra_launch_append(const ra_append_args &args, cudaStream_t stream);

#endif
