/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fixed set of threads that share the indices of a loop. Which thread runs which index is not
 * defined, so a task must write only to places that belong to its index; reductions are made by
 * the caller afterwards, in index order. That is why any number of threads gives the same bytes.
 */
#ifndef RA_SIM_BASE_POOL_H
#define RA_SIM_BASE_POOL_H

#include <stddef.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_pool;

/* n_threads counts the caller's own; 0 means one per processor that this process may use. */
RA_MUST_CHECK enum ra_status ra_pool_open(struct ra_pool **pool, int n_threads,
                                          struct ra_error *err);

/* Number of threads, the caller's included; worker numbers run below it. 1 for a NULL pool. */
int ra_pool_threads(const struct ra_pool *pool);

typedef void (*ra_pool_task)(void *context, size_t index, int worker);

/*
 * Run task(context, index, worker) for every index below n < 2^32 - 1 and return when all are done.
 * A NULL pool, or n = 1, runs on the calling thread. Not reentrant: a task must not call it.
 */
void ra_pool_run(struct ra_pool *pool, size_t n, ra_pool_task task, void *context);

/* NULL is allowed. */
void ra_pool_close(struct ra_pool *pool);

#ifdef __cplusplus
}
#endif

#endif
