/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A random life of a recycled cache, held to a plain list: refreshes, insertions with changing
 * budgets, pinned entries, scores given and accumulated, cuts by them; after each, attention and
 * counts must be those of the list.
 */
#ifndef RA_TESTS_SUPPORT_CACHE_LIFE_H
#define RA_TESTS_SUPPORT_CACHE_LIFE_H

#include "kernels/backend.h"

struct cache_life {
    const struct ra_backend_ops *ops; /* NULL: cpu */
    enum ra_dtype dtype;
    int G;
    enum ra_cache_mode cache;
    int n_threads, page;
    bool one_a_step;    /* of a backend that evicts no more at once */
    double score_error; /* relative, of accumulated scores */
    uint64_t seed;
};

/* Fails the running test where the backend differs. */
void cache_life(const struct cache_life *life);

#endif
