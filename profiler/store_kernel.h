/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a profiler recorded of a device in one pass: kernels, copies and fills, calls that launched
 * them, and the profiler's own cost. Times are ns of the pass's device clock
 * (ra_store_pass_clocks); a time of 0 means that the device lost it, and is stored as NULL. Numbers
 * that are not known are -1 and stored as NULL. Unsigned 64-bit values are stored as the same bits,
 * signed. Names are kept once, in string_ids. Text is borrowed for the call.
 */
#ifndef RA_PROFILER_STORE_KERNEL_H
#define RA_PROFILER_STORE_KERNEL_H

#include "profiler/store.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_kernel_row {
    int64_t pass_id, scope_id; /* scope 0: launched outside of any */
    uint64_t correlation_id;   /* of the call that launched it */
    uint64_t start_ns, end_ns; /* 0: lost */
    int64_t context_id, stream_id;
    const char *name;                 /* to read; never NULL */
    int32_t grid[3], block[3];        /* x, y, z */
    int32_t cluster[3];               /* -1: no clusters, or not known */
    int32_t registers;                /* of a thread; -1: not known, like all below */
    int64_t smem_static_bytes;        /* of a block, as declared */
    int64_t smem_dynamic_bytes;       /* of a block, as asked for at the launch */
    int64_t smem_executed_bytes;      /* of a block, as the driver set it */
    int64_t local_total_bytes;        /* of the launch */
    uint64_t graph_id, graph_node_id; /* 0: not from a graph */
    const char *mangled;              /* the name as it was recorded; NULL: not known */
};
RA_MUST_CHECK enum ra_status ra_store_kernel(struct ra_store *store,
                                             const struct ra_kernel_row *row, struct ra_error *err);

struct ra_memop_row {
    int64_t pass_id, scope_id; /* scope 0: none */
    uint64_t correlation_id;
    const char *op;    /* "memcpy", "memset" */
    int32_t copy_kind; /* as CUPTI numbers them: 1 to the device, 2 from it, 8 within; -1: a fill */
    uint64_t bytes;
    uint64_t start_ns, end_ns; /* 0: lost */
    int64_t stream_id;
};
RA_MUST_CHECK enum ra_status ra_store_memop(struct ra_store *store, const struct ra_memop_row *row,
                                            struct ra_error *err);

/* RA_ESTORE for a call that lost a time: such a row is refused, and the caller counts it. */
struct ra_api_call_row {
    int64_t pass_id;
    uint64_t correlation_id;
    const char *domain; /* "runtime", "driver" */
    int32_t cbid;       /* number of the function in its domain */
    const char *name;   /* NULL: not known */
    int64_t thread_id;
    uint64_t start_ns, end_ns;
    int64_t result; /* what the call returned; 0: success */
};
RA_MUST_CHECK enum ra_status
ra_store_api_call(struct ra_store *store, const struct ra_api_call_row *row, struct ra_error *err);

/* RA_ESTORE for a row that lost a time. */
struct ra_overhead_row {
    int64_t pass_id;
    int32_t kind; /* as CUPTI numbers them */
    uint64_t start_ns, end_ns;
};
RA_MUST_CHECK enum ra_status
ra_store_overhead(struct ra_store *store, const struct ra_overhead_row *row, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
