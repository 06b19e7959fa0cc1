/* SPDX-License-Identifier: Apache-2.0 */
/* A thread an entry: neighbours read logits next to each other, of one query head after another. */
#include "kernels/cuda/accumulate.cuh"

/* Weights are f32, as in attention; sums of many steps are f64. */
__device__ __forceinline__ double ra_received(const ra_accumulate_args &a, const float *logits,
                                              const float *lse)
{
    double sum = 0, most = 0;
    int heads = a.agg == RA_AGG_FIRST ? 1 : a.G;
    for (int g = 0; g < heads; g++) {
        double weight = ra_exp(ra_ld(logits + g * a.logit_stride) - lse[g]);
        sum += weight;
        most = weight > most ? weight : most;
    }
    return a.agg == RA_AGG_MAX ? most : a.agg == RA_AGG_MEAN ? sum / a.G : sum;
}

__global__ void __launch_bounds__(RA_ACCUMULATE_THREADS) accumulate_scores(ra_accumulate_args a)
{
    RA_SHARED(float, lse, RA_ACCUMULATE_HEADS);
    ra_after_earlier();
    int64_t row = ra_row_of(a.rows, blockIdx.y);
    if (!ra_is_served(a.rows, row))
        return;
    int32_t i = (int32_t)(blockIdx.x * RA_ACCUMULATE_THREADS + threadIdx.x);
    int32_t n = ra_ld_warp(a.cache.n + row);
    bool self_in = ra_ld_warp(a.self_in + row) != 0;
    if ((int)threadIdx.x < a.G)
        lse[threadIdx.x] = ra_ld(a.lse + row * a.G + threadIdx.x);
    __syncthreads();
    if (i > n || (i == n && self_in))
        return;
    double received = ra_received(a, a.logits + row * a.G * a.logit_stride + i, lse);
    if (i < n) {
        double *score = a.cache.score + row * a.cache.cap + i;
        ra_st(score, a.keeps ? ra_ld(score) + received : received);
        return;
    }
    ra_st(a.cache.self_score + row, received);
    ra_st(a.cache.self_pos + row, ra_ld(a.position + row));
}

cudaError_t ra_launch_accumulate(int rows, const ra_accumulate_args &args, cudaStream_t stream)
{
    if (args.G > RA_ACCUMULATE_HEADS)
        return cudaErrorInvalidValue;
    dim3 grid((unsigned)(args.cache.cap / RA_ACCUMULATE_THREADS + 1), (unsigned)rows);
    return ra_launch(accumulate_scores, grid, RA_ACCUMULATE_THREADS, 0, stream, args);
}
