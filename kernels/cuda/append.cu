/* SPDX-License-Identifier: Apache-2.0 */
/* A warp a row: its lanes copy 16 bytes each, K first. */
#include "kernels/cuda/append.cuh"

#include "kernels/cuda/vec.cuh"

__global__ void __launch_bounds__(RA_APPEND_THREADS) append_rows(ra_append_args a)
{
    ra_after_earlier();
    int lane = (int)threadIdx.x % 32, half = a.row_bytes / 16;
    int64_t row = (int64_t)blockIdx.x * (RA_APPEND_THREADS / 32) + threadIdx.x / 32;
    if (row >= a.n_rows)
        return;
    int32_t n = ra_ld_warp(a.n + row);
    int64_t to = lane == 0 ? ra_full_offset(a, row, n, a.row_bytes) : 0;
    to = ra_shfl(to, 0);
    for (int i = lane; i < 2 * half; i += 32) {
        bool is_v = i >= half;
        int64_t at = (is_v ? i - half : i) * 16;
        uint4 x = ra_ld16((const char *)(is_v ? a.self_v : a.self_k) + row * a.row_bytes + at);
        ra_st16((char *)(is_v ? a.full_v : a.full_k) + to + at, x);
    }
    if (lane == 0)
        ra_st(a.n + row, n + 1);
}

cudaError_t ra_launch_append(const ra_append_args &args, cudaStream_t stream)
{
    unsigned each = RA_APPEND_THREADS / 32;
    return ra_launch(append_rows, ((unsigned)args.n_rows + each - 1) / each, RA_APPEND_THREADS, 0,
                     stream, args);
}
