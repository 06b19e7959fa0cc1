/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is kept of each page of keys, so that pages can be told apart without reading their keys:
 * the least and largest of each dimension, as stored, or sums, f32. And the pages in the order in
 * which a query wants them. For any number of rows (KV heads of any sequence) at once.
 */
#ifndef RA_KERNELS_CUDA_DIGEST_CUH
#define RA_KERNELS_CUDA_DIGEST_CUH

#include "kernels/cuda/pages.cuh"
#include "kernels/cuda/rows.cuh"
#include "sim/model.h"
#include "sim/step.h"

enum {
    RA_DIGEST_THREADS = 128,
    RA_DIGEST_PART = 8,   /* dimensions of a lane */
    RA_DIGEST_ROUNDS = 4, /* pages that a group of lanes scores, one after another */
    RA_RANK_THREADS = 512,
    RA_RANK_HEADS = 32 /* query heads of a row, at most */
};

struct ra_digest_args {
    const void *k;        /* C_f, as in decode_split */
    const int32_t *pages; /* of C_f, [rows / Hkv][page_stride]; NULL: it is not paged */
    const int32_t *n;     /* [rows] keys */
    void *digest;         /* [rows][n_pages] of 2 * D as stored: least, largest; or D f32: sums */
    int64_t row_stride, page_stride;
    int32_t n_pages, page,
        most;      /* at most; keys of each; only the first `most` keys are in pages */
    int32_t fresh; /* of the keys the last so many are new; -1: all */
    int32_t n_rows, Hkv, D;
};

/* Takes in what is new. */
cudaError_t ra_launch_digest(enum ra_dtype dtype, enum ra_page_digest digest,
                             const ra_digest_args &args, cudaStream_t stream);

struct ra_rank_args {
    const float *q;     /* [rows][G][D] */
    const void *digest; /* as above */
    const int32_t *n;   /* [rows] keys */
    float *scores;      /* [rows][G][n_pages] scratch */
    uint32_t *keys;     /* [rows][n_pages] scratch: order of pages by score */
    int32_t *order;     /* [rows][n_pages] filled: all pages, the one wanted most last */
    int32_t *n_ranked;  /* [rows] filled: pages there are */
    int32_t n_pages, page, most, D, G;
    enum ra_agg agg;
    bool takes_newest, takes_first; /* as in ra_page_rule */
    float scale;                    /* of sums */
    struct ra_rows rows = {};       /* those served; others are left as they are */
};

/* Scores pages, makes them one number for the group, sorts them: three launches over `rows` rows of
 * at most `longest` pages, which is at most RA_ORDER_MOST. */
cudaError_t ra_launch_rank(enum ra_dtype dtype, enum ra_page_digest digest, int rows, int longest,
                           const ra_rank_args &args, cudaStream_t stream);

#endif
