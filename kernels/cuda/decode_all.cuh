/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every instance of decode_split of a type and head dimension: RA_DECODE_ALL(T, D). Groups of 5 to
 * 7 query heads run as 8, larger ones in parts.
 */
#ifndef RA_KERNELS_CUDA_DECODE_ALL_CUH
#define RA_KERNELS_CUDA_DECODE_ALL_CUH

#include "kernels/cuda/decode.cuh"

#ifdef __CUDACC__

#define RA_DECODE_ONE(T, D, G, kLogits, kGather)                                                   \
    template __global__ void decode_split<T, D, G, ra_decode_rows<G>(), kLogits, kGather>(         \
        ra_decode_args);
#define RA_DECODE_GROUP(T, D, G)                                                                   \
    RA_DECODE_ONE(T, D, G, false, false)                                                           \
    RA_DECODE_ONE(T, D, G, false, true)                                                            \
    RA_DECODE_ONE(T, D, G, true, false)                                                            \
    RA_DECODE_ONE(T, D, G, true, true)
#define RA_DECODE_ALL(T, D)                                                                        \
    RA_DECODE_GROUP(T, D, 1)                                                                       \
    RA_DECODE_GROUP(T, D, 2)                                                                       \
    RA_DECODE_GROUP(T, D, 3)                                                                       \
    RA_DECODE_GROUP(T, D, 4)                                                                       \
    RA_DECODE_GROUP(T, D, 8)

#else
#define RA_DECODE_ALL(T, D)
#endif

#endif
