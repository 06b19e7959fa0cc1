/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of eviction: a bitonic sort of one row by one CTA. A thread holds entries that follow
 * each other, so that short steps of the sort stay in its registers, longer ones in its warp, and
 * only the longest go through shared memory.
 */
#include "kernels/cuda/select.cuh"

#include "kernels/cuda/vec.cuh"

enum { EACH = RA_ORDER_EACH };

__device__ __forceinline__ uint64_t ra_lesser(uint64_t a, uint64_t b, bool lesser)
{
    return (a < b) == lesser ? a : b;
}

/* Compares entries kStep apart, both in one thread, and so on down to 1. */
template <int kStep>
__device__ __forceinline__ void ra_sort_thread(uint64_t (&entry)[EACH], int32_t first, int32_t run)
{
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        if (e & kStep)
            continue;
        bool ascends = ((first + e) & run) == 0;
        uint64_t a = entry[e], b = entry[e + kStep];
        entry[e] = ra_lesser(a, b, ascends);
        entry[e + kStep] = ra_lesser(a, b, !ascends);
    }
    if constexpr (kStep > 1)
        ra_sort_thread<kStep / 2>(entry, first, run);
}

/* The same for entries of two lanes of a warp. */
__device__ __forceinline__ void ra_sort_lanes(uint64_t (&entry)[EACH], int32_t first, int32_t run,
                                              int32_t step)
{
    bool lesser = ((first & run) == 0) == ((first & step) == 0);
#pragma unroll
    for (int e = 0; e < EACH; e++)
        entry[e] = ra_lesser(entry[e], ra_shfl_xor(entry[e], step / EACH), lesser);
}

/* The same for entries of two warps. Shared memory has an entry's column by thread, so that lanes
 * meet no conflict. */
__device__ __forceinline__ void ra_sort_warps(uint64_t (&entry)[EACH], int32_t first, int32_t run,
                                              int32_t step, uint64_t *shared)
{
    int threads = (int)blockDim.x, thread = (int)threadIdx.x;
    bool lesser = ((first & run) == 0) == ((first & step) == 0);
#pragma unroll
    for (int e = 0; e < EACH; e++)
        shared[e * threads + thread] = entry[e];
    __syncthreads();
#pragma unroll
    for (int e = 0; e < EACH; e++)
        entry[e] = ra_lesser(entry[e], shared[e * threads + (thread ^ (step / EACH))], lesser);
    __syncthreads();
}

__device__ __forceinline__ void ra_sort(uint64_t (&entry)[EACH], int32_t first, uint64_t *shared)
{
    int32_t n = (int32_t)blockDim.x * EACH;
    ra_sort_thread<1>(entry, first, 2);
    ra_sort_thread<2>(entry, first, 4);
    ra_sort_thread<4>(entry, first, 8);
    for (int32_t run = 2 * EACH; run <= n; run *= 2) {
        int32_t step = run / 2;
        for (; step >= 32 * EACH; step /= 2)
            ra_sort_warps(entry, first, run, step, shared);
        for (; step >= EACH; step /= 2)
            ra_sort_lanes(entry, first, run, step);
        ra_sort_thread<EACH / 2>(entry, first, run);
    }
}

/* Grid (rows). */
__global__ void __launch_bounds__(RA_ORDER_MOST / EACH) order_evictions(ra_order_args a)
{
    RA_DYN(uint64_t, shared);
    ra_after_earlier();
    int64_t row = ra_row_of(a.rows, blockIdx.x);
    if (!ra_is_served(a.rows, row))
        return;
    int32_t n = ra_ld_warp(a.n_chosen + row), last = -1, first = (int32_t)threadIdx.x * EACH;
    const int32_t *chosen = a.chosen ? a.chosen + row * a.chosen_stride : nullptr;
    int32_t *order = a.order + row * a.chosen_stride;
    if (a.protects)
        last = ra_ld_warp(chosen + --n);
    uint64_t entry[EACH];
    uint32_t position[EACH];
    /* Any order will do at the start: lanes read next to each other. */
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        int32_t i = (int32_t)(e * blockDim.x + threadIdx.x);
        position[e] = i >= n ? ~0u : chosen ? (uint32_t)ra_ld(chosen + i) : (uint32_t)i;
    }
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        bool there = position[e] != ~0u;
        uint64_t key = there ? ra_ld(a.keys + row * a.key_stride + position[e]) : 0;
        entry[e] = there ? key << 32 | ~position[e] : ~(uint64_t)0;
    }
    ra_sort(entry, first, shared);
#pragma unroll
    for (int e = 0; e < EACH; e++)
        if (first + e < n)
            ra_st(order + first + e, (int32_t) ~(uint32_t)entry[e]);
    if (a.protects && threadIdx.x == 0)
        ra_st(order + n, last);
}

cudaError_t ra_launch_order(int rows, int most, const ra_order_args &args, cudaStream_t stream)
{
    if (rows < 1 || most > RA_ORDER_MOST)
        return cudaErrorInvalidValue;
    int sorted = RA_ORDER_LEAST;
    while (sorted < most)
        sorted *= 2;
    size_t shared = sorted > RA_ORDER_LEAST ? (size_t)sorted * sizeof(uint64_t) : 0;
    cudaError_t status = cudaSuccess;
    if (shared > 48 * 1024)
        status = cudaFuncSetAttribute(order_evictions, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      (int)shared);
    if (status != cudaSuccess)
        return status;
    return ra_launch(order_evictions, dim3((unsigned)rows), dim3((unsigned)(sorted / EACH)), shared,
                     stream, args);
}
