/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small things that every kernel spells the same way: 16 bytes of a row as floats, shuffles of a
 * whole warp, a value that all lanes read, weights of a softmax.
 */
#ifndef RA_KERNELS_CUDA_VEC_CUH
#define RA_KERNELS_CUDA_VEC_CUH

#include "kernels/cuda/cuda.cuh"

static constexpr unsigned kWarp = 0xffffffffu;

template <class T> __device__ __forceinline__ T ra_shfl(T x, int lane)
{
    return __shfl_sync(kWarp, x, lane);
}
template <class T> __device__ __forceinline__ T ra_shfl_xor(T x, int offset)
{
    return __shfl_xor_sync(kWarp, x, offset);
}

/* *p in every lane, read by one. */
template <class T> __device__ __forceinline__ T ra_ld_warp(const T *p)
{
    T x = 0;
    if (threadIdx.x % 32 == 0)
        x = ra_ld(p);
    return ra_shfl(x, 0);
}

/* Sum of x over the lanes of the warp up to this one. */
__device__ __forceinline__ uint32_t ra_sum_lanes(uint32_t x)
{
    int lane = (int)threadIdx.x % 32;
    for (int offset = 1; offset < 32; offset *= 2) {
        uint32_t below = __shfl_up_sync(kWarp, x, (unsigned)offset);
        x += lane >= offset ? below : 0;
    }
    return x;
}

/* Sum of x over the threads of the block below this one; totals: a word of shared memory for each
 * warp. Called by all, and again only after a barrier. */
__device__ __forceinline__ uint32_t ra_sum_below(uint32_t x, uint32_t *totals)
{
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    uint32_t up_to = ra_sum_lanes(x);
    if (lane == 31)
        totals[warp] = up_to;
    __syncthreads();
    return up_to - x + __reduce_add_sync(kWarp, lane < warp ? totals[lane] : 0u);
}

/* e^x, x <= 0; an ordinary number for any finite x. */
__device__ __forceinline__ float ra_exp(float x)
{
    return exp2f(x * 1.44269504f);
}

/* The 16 bytes of a lane, as T, to f32. */
__device__ __forceinline__ void ra_unpack(const uint4 &bits, float (&x)[4], float)
{
    x[0] = __uint_as_float(bits.x);
    x[1] = __uint_as_float(bits.y);
    x[2] = __uint_as_float(bits.z);
    x[3] = __uint_as_float(bits.w);
}
__device__ __forceinline__ void ra_unpack(const uint4 &bits, float (&x)[8], __half)
{
    const unsigned word[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        __half2 pair;
        memcpy(&pair, &word[i], sizeof pair);
        float2 two = __half22float2(pair);
        x[2 * i] = two.x;
        x[2 * i + 1] = two.y;
    }
}
/* bf16 is the upper half of an f32. */
__device__ __forceinline__ void ra_unpack(const uint4 &bits, float (&x)[8], __nv_bfloat16)
{
    const unsigned word[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = __uint_as_float(word[i] << 16);
        x[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
    }
}

__device__ __forceinline__ void ra_add_scaled(float4 &sum, float factor, const float4 &x)
{
    sum.x += factor * x.x;
    sum.y += factor * x.y;
    sum.z += factor * x.z;
    sum.w += factor * x.w;
}

#endif
