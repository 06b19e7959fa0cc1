/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recycled caches C_r, rows (KV heads of any layer and sequence) side by side: bring them to a new
 * selection moving only entries that are new, and let one entry in and one out. Slots 0..n-1 of a
 * cache are in use, always; their order is of no consequence. Rows are copied from C_f or from the
 * new token, never within C_r.
 */
#ifndef RA_KERNELS_CUDA_REFRESH_CUH
#define RA_KERNELS_CUDA_REFRESH_CUH

#include "kernels/cuda/pages.cuh"
#include "kernels/cuda/rows.cuh"

enum { RA_PLAN_THREADS = 512, RA_MOVE_THREADS = 128, RA_INSERT_THREADS = 128 };

/* What C_r holds; one of each for a row. */
struct ra_recycled {
    int32_t *n;           /* [rows] entries */
    int32_t *slot_pos;    /* [rows][cap] position of each */
    int32_t *queue;       /* [rows][cap] ring of slots, first to be evicted first */
    int32_t *queue_first; /* [rows] */
    int32_t *queue_n;     /* [rows] entries that may be evicted */
    int32_t cap;          /* at most 65,535 */
    /* What each entry received so far, where that is kept: score is NULL otherwise. */
    double *score = nullptr;      /* [rows][cap] by slot */
    double *self_score = nullptr; /* [rows] of a position that is no entry, */
    int32_t *self_pos = nullptr;  /* [rows] this one; -1: of none */
};

/* The same from another row on. */
inline ra_recycled ra_recycled_from(const ra_recycled &all, size_t row)
{
    ra_recycled some = all;
    some.n += row;
    some.slot_pos += row * (size_t)all.cap;
    some.queue += row * (size_t)all.cap;
    some.queue_first += row;
    some.queue_n += row;
    if (!all.score)
        return some;
    some.score += row * (size_t)all.cap;
    some.self_score += row;
    some.self_pos += row;
    return some;
}

struct ra_plan_args {
    struct ra_recycled cache;
    /* Of the launch's own rows, i-th of i-th. */
    const int32_t *chosen;   /* [rows][stride] positions, ascending */
    const int32_t *order;    /* [rows][stride] the same, first to be evicted first, pinned last */
    const int32_t *n_chosen; /* [rows] at most cap */
    int2 *moves;             /* [rows][cap] filled: position, slot */
    int32_t *n_moves;        /* [rows] filled */
    int64_t stride;
    int32_t n_pinned;              /* of each row, where it has as many */
    struct ra_rows rows = {};      /* those served; others are left as they are */
    int32_t *n_new = nullptr;      /* [rows] filled: moves of what was no entry; NULL: unwanted */
    const double *given = nullptr; /* [rows][stride] scores of what is new, where they are kept;
                                    * NULL: self_score of what it is of, else 0 */
};

/* Bytes of dynamic shared memory that plan_refresh needs. */
inline size_t ra_plan_shared(int32_t cap)
{
    size_t words = ((size_t)cap + 31) / 32;
    return 4 * (2 * words + (size_t)cap) + 2 * 2 * (size_t)cap;
}

/* Grid (rows that are served, and others). The cache's lists become those of the new selection;
 * rows are yet to be moved. */
__global__ void plan_refresh(ra_plan_args a);

struct ra_move_args {
    const int2 *moves; /* of plan_refresh */
    const int32_t *n_moves;
    const void *from_k, *from_v; /* C_f, as in decode_split */
    const int32_t *pages;        /* [rows / Hkv][page_stride]; NULL: not paged */
    void *to_k, *to_v;           /* [rows][cap][D] */
    int64_t row_stride, page_stride;
    int32_t cap, Hkv;
    struct ra_rows rows = {}; /* those served; others are left as they are */
};

/* Grid (cap rows at RA_MOVE_THREADS * 16 / kRowBytes a CTA, rows); surplus CTAs exit. */
template <int kRowBytes> __global__ void move_rows(ra_move_args a);

/* move_rows over `rows` rows of 128, 256 or 512 bytes; cudaErrorInvalidValue for others. */
cudaError_t ra_launch_move(int rows, int row_bytes, const ra_move_args &args, cudaStream_t stream);

struct ra_insert_args {
    struct ra_recycled cache;
    const void *self_k, *self_v; /* [rows][D] the new token */
    const int32_t *position;     /* [rows] of it */
    void *to_k, *to_v;           /* C_r [rows][cap][D]; NULL: C_r is a list of positions only */
    void *full_k, *full_v;       /* C_f, to which self is appended; NULL: it is there */
    const int32_t *pages;        /* as in ra_move_args */
    int32_t *evicted;            /* [rows] filled: position, or -1; NULL: unwanted */
    int64_t row_stride, page_stride;
    int32_t n_rows, Hkv, row_bytes;
    int32_t K;                       /* not below n, unless what is over it is pinned */
    const int32_t *each_K = nullptr; /* [rows] of each; NULL: K of all */
    struct ra_rows rows = {};        /* those served; others are left as they are */
};

/* Grid (n_rows at one a warp). Attention of the step must be done: self takes its victim's slot. */
__global__ void insert_evict(ra_insert_args a);

#endif
