/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timing passes: every kernel, copy and launch as CUPTI's Activity API records it, with the scopes
 * that they belong to. One session at a time in a process, begun before the graphs are made
 * executable whose nodes are to be told apart, and only where the gate holds.
 */
#ifndef RA_PROFILER_ACTIVITY_H
#define RA_PROFILER_ACTIVITY_H

#include "profiler/store.h"
#include "profiler/store_pass.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_activity;

enum ra_activity_scope { RA_ACTIVITY_STEP, RA_ACTIVITY_OP };

/* Records are made from here on. RA_ENODEV naming what CUPTI refused. */
RA_MUST_CHECK enum ra_status ra_activity_open(struct ra_activity **activity, struct ra_error *err);

/* A kernel became this node (cudaGraphNode_t) of a graph: of what scope it is. */
RA_MUST_CHECK enum ra_status ra_activity_node(struct ra_activity *activity, void *node,
                                              int64_t scope_id, struct ra_error *err);

/* What this thread launches between the two is of the scope; steps outside, operations within. */
RA_MUST_CHECK enum ra_status ra_activity_push(struct ra_activity *activity,
                                              enum ra_activity_scope kind, int64_t scope_id,
                                              struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_activity_pop(struct ra_activity *activity,
                                             enum ra_activity_scope kind, struct ra_error *err);

/* The host's clocks and CUPTI's, read together. */
void ra_activity_clocks(const struct ra_activity *activity, struct ra_clock_triple *clocks);

/* Forget all that was recorded so far, of work that is over. */
RA_MUST_CHECK enum ra_status ra_activity_discard(struct ra_activity *activity,
                                                 struct ra_error *err);

/* What was recorded, and what was not. */
struct ra_activity_counts {
    int64_t kernels, zero_time, unplaced; /* stored; without a time; of no scope */
    int64_t dropped;                      /* records, as CUPTI counts them */
    int64_t unreadable;                   /* buffers that could not be read to their end */
    int64_t refused;                      /* buffers that were asked for past the memory's limit */
};

/* All records since the last such call, of work that is over, as rows of the pass. */
RA_MUST_CHECK enum ra_status ra_activity_collect(struct ra_activity *activity,
                                                 struct ra_store *store, int64_t pass_id,
                                                 struct ra_activity_counts *counts,
                                                 struct ra_error *err);

void ra_activity_close(struct ra_activity *activity); /* accepts NULL */

#ifdef __cplusplus
}
#endif

#endif
