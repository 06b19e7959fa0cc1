/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An operation with all that it is given, on its way to a launch: made by the operations of
 * backend*.cu, launched at once, or, where copies take turns in a recorded step, held back until
 * those that do the same can be launched together. backend_call.cu.
 */
#ifndef RA_KERNELS_CUDA_BACKEND_CALL_CUH
#define RA_KERNELS_CUDA_BACKEND_CALL_CUH

#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/cuda.cuh"

struct ra_cuda;

enum { RA_CUDA_OPERANDS = 4 };

struct ra_cuda_call {
    const char *name; /* for errors */
    enum ra_status (*launch)(struct ra_cuda *cuda, const ra_cuda_call &call, struct ra_error *err);
    int layer;
    int first, n;    /* copies first..first + n - 1 */
    int64_t variant; /* calls that differ in it are not launched together */
    enum ra_branch branch;
    struct ra_select_rule rule;                /* of a choice */
    struct ra_cut_rule cut;                    /* of a cut */
    struct ra_page_rule pages;                 /* of a choice of pages */
    bool keeps_scores;                         /* those of entries are kept up to date */
    double sim;                                /* of a decision */
    int32_t longest;                           /* rows or entries of a KV head, at most */
    float *out;                                /* [n][Hq][D]; NULL: it has no output */
    std::vector<char> given[RA_CUDA_OPERANDS]; /* [n][..] */
    std::vector<int32_t> expects;              /* [n] of a decision: is it made? */
};

/* The copies at hand: all, or the one whose turn it is. */
ra_cuda_call ra_cuda_call_of(const struct ra_cuda *cuda, const char *name, int layer,
                             enum ra_status (*launch)(struct ra_cuda *, const ra_cuda_call &,
                                                      struct ra_error *));

/* Have they a layer, and a copy, in common? */
bool ra_cuda_concerns(const ra_cuda_call &a, const ra_cuda_call &b);

/* Operand i is `bytes` bytes, the same for every copy at hand. */
void ra_cuda_call_give(ra_cuda_call *call, int i, const void *operand, size_t bytes);

/* Launch it, now or with others like it. */
enum ra_status ra_cuda_issue(struct ra_cuda *cuda, ra_cuda_call &call, struct ra_error *err);

/* Launch what is held back. */
enum ra_status ra_cuda_flush(struct ra_cuda *cuda, struct ra_error *err);

/* Where operand i is on the card: recorded, or copied to `area`. */
enum ra_status ra_cuda_put(struct ra_cuda *cuda, const ra_cuda_call &call, int i, void *area,
                           const void **at, struct ra_error *err);
template <class T>
enum ra_status ra_cuda_put(struct ra_cuda *cuda, const ra_cuda_call &call, int i, T *area,
                           const T **at, struct ra_error *err)
{
    const void *there = NULL;
    RA_TRY(ra_cuda_put(cuda, call, i, static_cast<void *>(area), &there, err));
    *at = static_cast<const T *>(there);
    return RA_OK;
}

#endif
