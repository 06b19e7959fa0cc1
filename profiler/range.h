/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges that a tool on the same process shows (Nsight, CUPTI): NVTX, domain "rattn-sim", one
 * category and one registered name per kind (an operation has its own name), a 64-bit payload.
 * Without a tool a range costs a call and one branch; without NVTX's headers, a call. They say what
 * the host did when; the store, not they, holds the times.
 *
 *   payload   bits 63..56  kind, which is the category too
 *             bits 55..48  operation + 1, 0 where the range is none (enum ra_op)
 *             bits 47..32  model layer + 1, 0 where it is of all layers
 *             bits 31..0   step + 1, 0 for the prefill
 */
#ifndef RA_PROFILER_RANGE_H
#define RA_PROFILER_RANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "profiler/recorder.h"

#ifdef __cplusplus
extern "C" {
#endif

enum ra_range_kind {
    RA_RANGE_STEP = 1, /* holds its layers, which hold their operations */
    RA_RANGE_LAYER,
    RA_RANGE_OP,
    RA_RANGE_PLAYED /* a recorded step's launch; the device runs it later, and holds no others */
};

enum { RA_RANGE_ALL_LAYERS = -1 };

/* Does a tool listen? The first call looks for one; until then ranges go nowhere. */
bool ra_range_enabled(void);

/* `op` is of account for RA_RANGE_OP only. Ranges nest, within the thread: pop ends the last. */
void ra_range_push(enum ra_range_kind kind, int32_t step, int layer, enum ra_op op);
void ra_range_pop(void);

#ifdef __cplusplus
}
#endif

#endif
