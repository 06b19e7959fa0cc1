/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brackets the engine's backend calls: begin, the call, end. One recorder covers one pass (one
 * repeat of one policy over the counted steps). It keeps every bracket, so that a pass can be
 * stored after its last step, and sums that summaries are made of. Kernels know nothing of it.
 */
#ifndef RA_PROFILER_RECORDER_H
#define RA_PROFILER_RECORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum ra_op {
    RA_OP_APPEND,
    RA_OP_ATTEND,
    RA_OP_SCORES,
    RA_OP_SELECT,
    RA_OP_REFRESH,
    RA_OP_EVICT,
    RA_OP_COSINE,
    RA_OP_COUNT,
    RA_OP_WHOLE_STEP = RA_OP_COUNT /* of all layers, where operations are not told apart */
};

/* "append", "attend", ... */
const char *ra_op_name(enum ra_op op);

struct ra_op_time {
    int32_t step;
    int layer; /* model layer number */
    enum ra_op op;
    uint64_t start_ns, end_ns; /* of the host */
    uint64_t event_ns;         /* of the device, where it is its time that counts; else 0 */
    bool is_late;              /* the host was late with it, so that its time is none */
};

struct ra_recorder {
    struct ra_op_time *ops; /* in the order they ran */
    size_t n_ops, capacity;
    uint64_t op_ns[RA_OP_COUNT]; /* sums over counted steps */
    uint64_t *step_ns;           /* [n_steps] sums of a step's brackets; 0: late */
    bool *step_late;             /* [n_steps] */
    int32_t first_step, n_steps, n_late;
    uint64_t prefill_ns;
};

/* Steps first_step .. first_step + n_steps - 1 are counted, step -1 goes to prefill_ns. */
RA_MUST_CHECK enum ra_status ra_recorder_open(struct ra_recorder *recorder, int32_t first_step,
                                              int32_t n_steps, size_t n_ops_expected,
                                              struct ra_error *err);
void ra_recorder_clear(struct ra_recorder *recorder);
void ra_recorder_close(struct ra_recorder *recorder);

/* Time stamp that opens a bracket. */
uint64_t ra_recorder_begin(void);

/* Close it. Steps before the first counted one are ignored. RA_ENOMEM when the list cannot grow. */
RA_MUST_CHECK enum ra_status ra_recorder_end(struct ra_recorder *recorder, uint64_t begin_ns,
                                             int32_t step, int layer, enum ra_op op,
                                             struct ra_error *err);

/* A whole step whose time is a device's, in place of brackets round its operations; the host's
 * stamps are of its launch. A late one has no time. */
RA_MUST_CHECK enum ra_status ra_recorder_step(struct ra_recorder *recorder, int32_t step,
                                              uint64_t begin_ns, uint64_t end_ns, uint64_t event_ns,
                                              bool is_late, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
