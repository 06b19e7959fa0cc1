/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a trace is what it says: its data has the stated checksum, every value is a number, and
 * attention recomputed in f64 from its own queries, keys and values gives the output and softmax
 * sum that the recorder noted at the check steps. The last one verifies scale, window, the map from
 * query heads to KV heads, and layout. Streams; memory does not grow with the trace.
 */
#ifndef RA_TRACES_CHECK_H
#define RA_TRACES_CHECK_H

#include <stdint.h>

#include "traces/trace.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where a figure was worst. layer_id is the number in the model; all -1 when nothing was compared.
 */
struct ra_trace_check_place {
    int seq, layer_id, head;
    int32_t step; /* decode step; -1 where it does not apply */
    double error;
};

struct ra_trace_check_result {
    bool has_digest, digest_matches; /* no checksum stated: both false */
    uint64_t n_values;               /* q, k, v, acc and the rest that were found to be numbers */
    uint64_t n_rows;                 /* check rows compared: (sequence, layer, head, step) */
    struct ra_trace_check_place o;   /* ||o - o_f64|| / ||o_f64||, 2-norms */
    struct ra_trace_check_place lse; /* |lse - lse_f64| / max(1, |lse_f64|) */
    struct ra_trace_check_place acc; /* |sum over positions / P - 1|: each query gives away 1 */
};

/* Called now and then with the share done, 0..1; false stops with RA_EINTERRUPTED. */
typedef bool (*ra_trace_check_progress)(void *context, double share);

/*
 * Check everything; *result is filled as far as the check came, also on failure. `progress` may be
 * NULL. RA_EDIVERGED when checksum, check rows (beyond info->check_tolerance) or the sums of acc
 * (beyond 1e-3, or the tolerance if larger) do not match, RA_EFORMAT for values that are no
 * numbers, or what reading returns.
 */
RA_MUST_CHECK enum ra_status ra_trace_check(const struct ra_trace *trace,
                                            struct ra_trace_check_result *result,
                                            ra_trace_check_progress progress, void *context,
                                            struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
