/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/between.cuh"

static __global__ void __launch_bounds__(RA_BETWEEN_THREADS)
    read_between(const uint4 *from, uint64_t n, uint32_t *never)
{
    ra_after_earlier();
    uint64_t first = (uint64_t)blockIdx.x * RA_BETWEEN_THREADS * RA_BETWEEN_EACH + threadIdx.x;
    uint32_t sum = 0;
    uint4 x[RA_BETWEEN_EACH]; /* all asked for before the first is used */
#pragma unroll
    for (int j = 0; j < RA_BETWEEN_EACH; j++) {
        uint64_t i = first + (uint64_t)j * RA_BETWEEN_THREADS;
        x[j] = i < n ? ra_ld16_stream(from + i) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int j = 0; j < RA_BETWEEN_EACH; j++)
        sum ^= x[j].x ^ x[j].y ^ x[j].z ^ x[j].w;
    if (sum == 0x9e3779b9u)
        ra_st(never, sum);
}

cudaError_t ra_launch_between(const void *from, uint64_t n, uint32_t *never, cudaStream_t stream)
{
    uint64_t each = RA_BETWEEN_THREADS * RA_BETWEEN_EACH;
    return ra_launch(read_between, (unsigned)((n + each - 1) / each), RA_BETWEEN_THREADS, 0, stream,
                     (const uint4 *)from, n, never);
}
