/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each entry of C_r, and self, received of the attention of a step: the softmax weights of the
 * group's query heads, from the logits that decode_split left, as one number; added to the entry's
 * score, or in its place. For any number of rows (KV heads of any sequence) at once.
 */
#ifndef RA_KERNELS_CUDA_ACCUMULATE_CUH
#define RA_KERNELS_CUDA_ACCUMULATE_CUH

#include "kernels/cuda/refresh.cuh"
#include "sim/step.h"

enum { RA_ACCUMULATE_THREADS = 256, RA_ACCUMULATE_HEADS = 32 };

struct ra_accumulate_args {
    struct ra_recycled cache; /* with scores, which are changed */
    const float *logits;      /* [rows][G][logit_stride] of entries by slot, then of self */
    const float *lse;         /* [rows][G] */
    const int32_t *position;  /* [rows] of self */
    const int32_t *self_in;   /* [rows] not 0: self is among the entries */
    int64_t logit_stride;
    int32_t G; /* at most RA_ACCUMULATE_HEADS */
    enum ra_agg agg;
    bool keeps;               /* scores are added to; else replaced */
    struct ra_rows rows = {}; /* those served; others are left as they are */
};

/* Grid (cap + 1 at one a thread, rows); surplus CTAs exit. */
__global__ void accumulate_scores(ra_accumulate_args a);

cudaError_t ra_launch_accumulate(int rows, const ra_accumulate_args &args, cudaStream_t stream);

#endif
