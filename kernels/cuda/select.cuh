/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The choice of a recycled cache from logits, for any number of rows (KV heads of any layer and
 * sequence) at once: scores as integers in their order, the exact K best of them, the order in
 * which those will be evicted. Ties go to the lower position, in every schedule of threads.
 *
 * Two launches choose. aggregate_scores turns logits into keys and counts the keys of each row by
 * bin of score, which tells the bin in which the K-th is. select_topk reads the keys once and lists
 * those of that bin and above, little more than K; the CTA of a row that ends last picks among
 * them.
 */
#ifndef RA_KERNELS_CUDA_SELECT_CUH
#define RA_KERNELS_CUDA_SELECT_CUH

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/rows.cuh"
#include "sim/step.h"

enum {
    RA_AGGREGATE_THREADS = 512,
    RA_AGGREGATE_READ = 4 * RA_AGGREGATE_THREADS, /* positions that a CTA reads */
    RA_AGGREGATE_HEADS = 32,                      /* query heads of a row, at most */
    RA_AGGREGATE_POOL = 1023,                     /* positions pooled, at most */
    RA_SELECT_THREADS = 512,
    RA_SELECT_WARPS = RA_SELECT_THREADS / 32,
    RA_SELECT_BINS = 2048,
    RA_SELECT_SLICE = 128 * RA_SELECT_WARPS, /* a CTA's keys are a multiple of it, and */
    RA_SELECT_MOST = RA_SELECT_SLICE << 10,  /* at most this */
    RA_SELECT_PARTS = 32,                    /* CTAs of a row, at most */
    RA_SELECT_STAGED = 8 * 1024,             /* listed keys that shared memory holds */
    RA_ORDER_EACH = 8,                       /* entries of a thread */
    RA_ORDER_LEAST = 32 * RA_ORDER_EACH,
    RA_ORDER_MOST = 1024 * RA_ORDER_EACH
};

/* What is launched for `rows` rows of at most `n` positions. */
struct ra_select_plan {
    int32_t rows, n;
    int32_t parts, slice; /* CTAs of a row, and the positions of each, in select_topk */
};

/* Logits, keys and raw_keys are aligned to 16 bytes, the first two strides multiples of 4. Of the
 * keys' last 4 of a row, those beyond n are written, with 0. */
struct ra_select_args {
    const float *logits; /* [rows][G][logit_stride] */
    const float *lse;    /* [rows][G] */
    const int32_t *n;    /* [rows] positions; the last is current */
    uint32_t *keys;      /* [rows][key_stride] of pooled scores */
    uint32_t *raw_keys;  /* the same unpooled; NULL: unwanted */
    int32_t *chosen;     /* [rows][chosen_stride] positions, ascending */
    int32_t *n_chosen;   /* [rows] */
    uint32_t *scratch;   /* ra_select_scratch bytes of this plan alone; see there */
    int64_t logit_stride, key_stride, chosen_stride;
    int32_t G, pool; /* pool: odd, at most RA_AGGREGATE_POOL */
    int32_t K;
    enum ra_agg agg;
    enum ra_current current;
    uint32_t *lists = nullptr; /* not NULL: scratch has the zeros alone, the rest is here */
    struct ra_rows rows = {};  /* those served; others are left as they are */
};

/* Where scratch is divided, in words: zeros up to `counts`. */
struct ra_select_parts {
    size_t tickets, counts, list, end;

    __host__ __device__ explicit ra_select_parts(const ra_select_plan &p)
    {
        size_t rows = (size_t)p.rows, stretches = (size_t)p.parts * RA_SELECT_WARPS;
        tickets = rows * RA_SELECT_BINS;
        counts = (tickets + rows + 3) / 4 * 4;
        list = counts + rows * stretches;
        end = list + rows * (size_t)p.parts * (size_t)p.slice;
    }
};

struct ra_select_plan ra_plan_select(int n_sms, int rows, int n);

/* Bytes of scratch, aligned to 16. The first ra_select_zeros of them are zero before the first
 * launch, and again after each. */
size_t ra_select_scratch(const struct ra_select_plan &plan);
size_t ra_select_zeros(const struct ra_select_plan &plan);

/* Bytes of the rest. Launches of different plans, one after another, may share zeros as large as
 * the largest need, and a rest likewise. */
size_t ra_select_lists(const struct ra_select_plan &plan);

/* Both launches. cudaErrorInvalidValue where `args` break the rules above. */
cudaError_t ra_launch_select(const ra_select_plan &plan, const ra_select_args &args,
                             cudaStream_t stream);

struct ra_order_args {
    const int32_t *chosen, *n_chosen; /* of ra_launch_select; chosen NULL: the first n_chosen */
    const uint32_t *keys;             /* [rows][key_stride] by which entries are evicted */
    int32_t *order;                   /* [rows][chosen_stride] first to be evicted first */
    int64_t key_stride, chosen_stride;
    bool protects;            /* the last chosen is current and goes last */
    struct ra_rows rows = {}; /* those served; others are left as they are */
};

/* Ascending by key, of equal keys the higher position first. `most`: not below any n_chosen, not
 * above RA_ORDER_MOST, otherwise cudaErrorInvalidValue. */
cudaError_t ra_launch_order(int rows, int most, const ra_order_args &args, cudaStream_t stream);

#endif
