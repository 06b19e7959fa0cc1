/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Activity records: read from the buffers that CUPTI hands over, in whatever order it did, kept
 * until the pass is over, and joined only then with the scopes that launched them. What is read
 * lies within a buffer; names are copied.
 */
#ifndef RA_PROFILER_CUPTI_RECORDS_H
#define RA_PROFILER_CUPTI_RECORDS_H

#include "profiler/cupti/library.h"
#include "profiler/idmap.h"
#include "profiler/store_kernel.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_records {
    struct ra_kernel_row *kernels; /* scope and pass are filled when they are stored */
    struct ra_memop_row *memops;
    struct ra_api_call_row *calls;
    struct ra_overhead_row *overheads;
    size_t n_kernels, n_memops, n_calls, n_overheads;
    size_t kernels_capacity, memops_capacity, calls_capacity, overheads_capacity;
    struct ra_idmap steps, ops; /* correlation id to external id, of CUSTOM0 and CUSTOM1 */
    struct ra_kernel_name {
        char *mangled, *name; /* as recorded, and to read */
    } * names;                /* [n_names] of kernels */
    size_t n_names, names_capacity;
    uint64_t n_unreadable; /* buffers whose rest could not be read */
};

/*
 * All records of a buffer of `bytes`. One that cannot be read ends the buffer: told by
 * n_unreadable. RA_ENOMEM.
 */
RA_MUST_CHECK enum ra_status ra_records_read(struct ra_records *records,
                                             const struct ra_cupti *cupti, uint8_t *buffer,
                                             size_t bytes, struct ra_error *err);

struct ra_records_stored {
    int64_t kernels, zero_time; /* kernels of the pass; of these without a time */
    int64_t unplaced;           /* kernels of no scope */
};

/*
 * Into the store as rows of the pass. A kernel's scope is that of its node (nodes: node id to
 * scope) if it comes from a graph, else that of its call's operation, else that of its step.
 */
RA_MUST_CHECK enum ra_status ra_records_store(struct ra_records *records,
                                              const struct ra_idmap *nodes, struct ra_store *store,
                                              int64_t pass_id, struct ra_records_stored *stored,
                                              struct ra_error *err);

/* Forget all of them. */
void ra_records_clear(struct ra_records *records);

#ifdef __cplusplus
}
#endif

#endif
