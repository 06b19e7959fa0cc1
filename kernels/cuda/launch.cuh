/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decode_split by what is known only when a trace is read: type, head dimension, heads of a group.
 */
#ifndef RA_KERNELS_CUDA_LAUNCH_CUH
#define RA_KERNELS_CUDA_LAUNCH_CUH

#include "kernels/cuda/decode.cuh"
#include "sim/model.h"

struct ra_decode_plan {
    enum ra_dtype dtype;
    int D;      /* 64, 128 or 256; 64 or 128 in f32 */
    int B;      /* sequences */
    int splits; /* of the keys: at most RA_DECODE_MAX_SPLITS */
    bool logits, gather;
};

/* Query heads of one CTA for groups of `heads`, and CTAs that share a KV head. */
int ra_decode_group(int heads);
int ra_decode_parts(int heads);

/* Is there a kernel for it? */
bool ra_decode_exists(enum ra_dtype dtype, int D);

/* Splits that fill n_sms once or a little more when each of B * Hkv * parts rows has n keys. */
int ra_decode_splits(int n_sms, int rows, int n);

/* cudaErrorInvalidValue where ra_decode_exists says no. */
cudaError_t ra_launch_decode(const ra_decode_plan &plan, const ra_decode_args &args,
                             cudaStream_t stream);

/* Logits and log-sum-exp alone: K is read, V is not. */
cudaError_t ra_launch_score(const ra_decode_plan &plan, const ra_decode_args &args,
                            cudaStream_t stream);

#endif
