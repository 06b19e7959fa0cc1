/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Self enters C_r with its score, and where that makes more than K the entry of least score goes,
 * the newest few excepted (ties: the highest position). No row moves but self's, into the slot of
 * who goes; so does its place in the queue.
 */
#ifndef RA_KERNELS_CUDA_CUT_CUH
#define RA_KERNELS_CUDA_CUT_CUH

#include "kernels/cuda/refresh.cuh"
#include "sim/step.h"

enum { RA_CUT_THREADS = 256, RA_CUT_WARPS = RA_CUT_THREADS / 32 };

struct ra_cut_args {
    struct ra_recycled cache;    /* with scores, self's among them */
    const void *self_k, *self_v; /* [rows][D] */
    const int32_t *position;     /* [rows] of self, which is no entry yet */
    const int32_t *instead;      /* [rows] who goes in the rule's place, an entry or self; -1: its
                                  * own choice does */
    void *to_k, *to_v;           /* C_r [rows][cap][D]; NULL: it is a list of positions only */
    int32_t *evicted;            /* [rows] filled: the rule's own choice, or -1; NULL: unwanted */
    int32_t heads;               /* rows in line that keep the same positions: the choice is by agg
                                  * over their scores; 1: each has its own */
    int32_t K, recent, row_bytes;
    enum ra_agg agg;
    const int32_t *each = nullptr; /* [rows][2] K and recent of each; NULL: those of all */
    struct ra_rows rows = {};      /* those served; others are left as they are */
};

/* Grid (rows / heads). cache.cap positions of dynamic shared memory. */
__global__ void cut_cache(ra_cut_args a);

cudaError_t ra_launch_cut(int rows, const ra_cut_args &args, cudaStream_t stream);

#endif
