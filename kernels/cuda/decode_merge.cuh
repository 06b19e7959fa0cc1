/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The splits of a row into one, by the CTA that ends last, in the order of the splits. It waits for
 * the L2 cache as seldom as it can: what it reads is asked for in batches, before it is needed.
 */
#ifndef RA_KERNELS_CUDA_DECODE_MERGE_CUH
#define RA_KERNELS_CUDA_DECODE_MERGE_CUH

#include <float.h>

#include "kernels/cuda/decode_args.cuh"
#include "kernels/cuda/vec.cuh"

template <int D, int G> struct ra_split_merge {
    const ra_decode_args &a;
    int64_t place;       /* of the row among all of the launch */
    int32_t first_query; /* of n_heads <= G */
    int n_heads;
    int32_t live; /* splits that have keys */
    int lane, warp;

    static constexpr int kBatch = 8; /* splits asked for at once */

    /* Is this CTA the last of its row's? Then what the others wrote can be read. Thread 0 fences
     * for all: the barriers order the others' accesses before and after it. */
    __device__ __forceinline__ bool arrives_last(uint32_t *arrived) const
    {
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence();
            arrived[0] = atomicAdd(a.ticket + place, 1u);
            __threadfence();
        }
        __syncthreads();
        if (arrived[0] + 1 != (uint32_t)live)
            return false;
        if (threadIdx.x == 0)
            ra_st(a.ticket + place, 0u);
        return true;
    }

    __device__ __forceinline__ void write_sums(int g, float largest, float total) const
    {
        if (a.lse)
            ra_st(a.lse + first_query + g, largest + logf(total));
    }

    __device__ __forceinline__ const float *sums_of(int32_t split) const
    {
        return a.partial_sums + (place * gridDim.x + split) * 2 * G;
    }

    /* Largest logit and sum of weights of a head over its splits, in every lane of the warp;
     * returns the lane's own split's largest. A lane takes every 32nd split; its first two loads do
     * not wait for each other. */
    __device__ __forceinline__ float sum_head(int g, float *largest, float *total) const
    {
        float top = lane < live ? ra_ld_l2(sums_of(lane) + g) : -FLT_MAX, first = top;
        float sum = lane < live ? ra_ld_l2(sums_of(lane) + G + g) : 0;
        for (int32_t s = lane + 32; s < live; s += 32) {
            float x = ra_ld_l2(sums_of(s) + g), y = ra_ld_l2(sums_of(s) + G + g);
            float larger = x > top ? x : top;
            sum = sum * ra_exp(top - larger) + y * ra_exp(x - larger);
            top = larger;
        }
        float most = top;
        for (int offset = 16; offset > 0; offset /= 2) {
            float x = ra_shfl_xor(most, offset);
            most = x > most ? x : most;
        }
        sum *= ra_exp(top - most);
        for (int offset = 16; offset > 0; offset /= 2)
            sum += ra_shfl_xor(sum, offset);
        *largest = most;
        *total = sum;
        return first;
    }

    /* Log of the sum alone, a warp a head. */
    __device__ __forceinline__ void merge_sums() const
    {
        for (int g = warp; g < n_heads; g += RA_DECODE_WARPS) {
            float largest, total;
            sum_head(g, &largest, &total);
            if (lane == 0)
                write_sums(g, largest, total);
        }
    }

    /* Share of each split in a head's output, to weights [G][live]; a warp takes a head. */
    __device__ __forceinline__ void weigh(float *weights) const
    {
        for (int g = warp; g < n_heads; g += RA_DECODE_WARPS) {
            float largest, total, top = sum_head(g, &largest, &total);
            for (int32_t s = lane; s < live; s += 32)
                weights[g * live + s] =
                    ra_exp((s < 32 ? top : ra_ld_l2(sums_of(s) + g)) - largest) / total;
            if (lane == 0)
                write_sums(g, largest, total);
        }
        __syncthreads();
    }

    /* Part i of the rows of kBatch splits. */
    __device__ __forceinline__ void ask(float4 (&x)[kBatch], int i, int32_t split) const
    {
        const float *rows = a.partial + (place * gridDim.x + split) * G * D;
#pragma unroll
        for (int j = 0; j < kBatch; j++)
            x[j] = split + j < live ? ra_ld_l2((const float4 *)(rows + (int64_t)j * G * D) + i)
                                    : make_float4(0, 0, 0, 0);
    }

    /* The output. The first batch of rows comes while the weights are made. */
    __device__ __forceinline__ void merge(float *weights) const
    {
        float4 ahead[kBatch];
        int part = (int)threadIdx.x, parts = n_heads * D / 4;
        if (part < parts)
            ask(ahead, part, 0);
        weigh(weights);
        while (part < parts) {
            const float *weight = weights + part / (D / 4) * live;
            float4 row = make_float4(0, 0, 0, 0);
            for (int32_t s = 0; s < live; s += kBatch) {
                float4 x[kBatch];
#pragma unroll
                for (int j = 0; j < kBatch; j++)
                    x[j] = ahead[j];
                if (s + kBatch < live)
                    ask(ahead, part, s + kBatch);
#pragma unroll
                for (int j = 0; j < kBatch; j++)
                    if (s + j < live)
                        ra_add_scaled(row, weight[s + j], x[j]);
            }
            ra_st((float4 *)(a.out + (int64_t)first_query * D) + part, row);
            part += RA_DECODE_THREADS;
            if (part < parts)
                ask(ahead, part, 0);
        }
    }
};

#endif
