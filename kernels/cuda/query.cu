/* SPDX-License-Identifier: Apache-2.0 */
/* A warp a row; a lane holds the dimensions that are its number mod 32. */
#include "kernels/cuda/query.cuh"

#include "kernels/cuda/vec.cuh"

enum { RA_QUERY_DIMS = 8 }; /* of a lane: D up to 256 */

__device__ __forceinline__ double ra_sum_lanes(double x)
{
    for (int offset = 16; offset > 0; offset /= 2)
        x += ra_shfl_xor(x, offset);
    return x;
}

__global__ void __launch_bounds__(RA_QUERY_THREADS) query_cosine(ra_query_args a)
{
    ra_after_earlier();
    int lane = (int)threadIdx.x % 32;
    int64_t row = (int64_t)blockIdx.x * (RA_QUERY_THREADS / 32) + threadIdx.x / 32;
    if (row >= a.n_rows)
        return;
    bool known = ra_ld_warp(a.has_reference + row) != 0;
    double mean[RA_QUERY_DIMS], dot = 0, norm = 0, reference_norm = 0;
#pragma unroll
    for (int i = 0; i < RA_QUERY_DIMS; i++) {
        int d = lane + 32 * i;
        mean[i] = 0;
        if (d >= a.D)
            continue;
        for (int h = 0; h < a.Hq; h++)
            mean[i] += ra_ld(a.q + (row * a.Hq + h) * a.D + d);
        mean[i] /= a.Hq;
        double reference = known ? ra_ld(a.reference + row * a.D + d) : 0;
        dot += mean[i] * reference;
        norm += mean[i] * mean[i];
        reference_norm += reference * reference;
    }
    dot = ra_sum_lanes(dot);
    norm = ra_sum_lanes(norm);
    reference_norm = ra_sum_lanes(reference_norm);
    double cosine = NAN;
    if (norm > 0 && reference_norm > 0) {
        cosine = dot / (sqrt(norm) * sqrt(reference_norm));
        cosine = cosine > 1 ? 1 : cosine < -1 ? -1 : cosine;
    }
    bool fires = !(cosine > a.sim);
    bool sets = a.update == RA_QUERY_SET || (a.update == RA_QUERY_FIRED && fires);
#pragma unroll
    for (int i = 0; i < RA_QUERY_DIMS; i++)
        if (sets && lane + 32 * i < a.D)
            ra_st(a.reference + row * a.D + lane + 32 * i, mean[i]);
    if (lane == 0) {
        ra_st(a.cosine + row, cosine);
        ra_st(a.fires + row, (int32_t)fires);
        if (sets)
            ra_st(a.has_reference + row, 1);
    }
}
