/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice of a recycled cache from logits, for any number of rows (KV heads of any layer and
 * sequence) at once: scores as integers in their order, the exact K best of them, the order in
 * which those will be evicted. Ties go to the lower position, in every schedule of threads.
 */
#ifndef RA_KERNELS_CUDA_SELECT_CUH
#define RA_KERNELS_CUDA_SELECT_CUH

#include "kernels/cuda/cuda.cuh"
#include "sim/step.h"

enum {
    RA_AGGREGATE_THREADS = 256,
    RA_AGGREGATE_TILE = 2048, /* positions of a CTA */
    RA_AGGREGATE_HEADS = 32,  /* query heads of a row, at most */
    RA_SELECT_THREADS = 512,
    RA_SELECT_WARPS = RA_SELECT_THREADS / 32,
    RA_SELECT_BITS = 11, /* of a digit */
    RA_SELECT_BINS = 1 << RA_SELECT_BITS,
    RA_SELECT_STAGED = 48 * 1024, /* keys that shared memory holds */
    RA_ORDER_THREADS = 512
};

struct ra_aggregate_args {
    const float *logits; /* [rows][G][logit_stride] */
    const float *lse;    /* [rows][G] */
    const int32_t *n;    /* [rows] positions */
    uint32_t *keys;      /* [rows][key_stride] of pooled scores */
    uint32_t *raw_keys;  /* the same unpooled; NULL: unwanted */
    int64_t logit_stride, key_stride;
    int32_t G, pool; /* pool: odd */
    enum ra_agg agg;
};

/* Grid (tiles, rows); dynamic shared memory: RA_AGGREGATE_TILE + pool - 1 floats. */
__global__ void aggregate_scores(ra_aggregate_args a);

struct ra_select_args {
    const uint32_t *keys; /* [rows][key_stride] */
    const int32_t *n;     /* [rows] positions; the last is current */
    int32_t *chosen;      /* [rows][chosen_stride] positions, ascending */
    int32_t *n_chosen;    /* [rows] */
    int64_t key_stride, chosen_stride;
    int32_t K;
    enum ra_current current;
};

/*
 * Grid (rows). kStaged: n <= RA_SELECT_STAGED and n words of dynamic shared memory; otherwise keys
 * are read again from the L2. Selection of many rows at once fills the card with one CTA each.
 */
template <bool kStaged> __global__ void select_topk(ra_select_args a);

struct ra_order_args {
    const int32_t *chosen, *n_chosen; /* of select_topk */
    const uint32_t *keys;             /* [rows][key_stride] by which entries are evicted */
    int32_t *order;                   /* [rows][chosen_stride] first to be evicted first */
    int64_t key_stride, chosen_stride;
    int32_t n_sorted; /* power of two, not below any n_chosen; words of 8 bytes in shared memory */
    bool protects;    /* the last chosen is current and goes last */
};

/* Grid (rows): ascending by key, of equal keys the higher position first. */
__global__ void order_evictions(ra_order_args a);

#endif
