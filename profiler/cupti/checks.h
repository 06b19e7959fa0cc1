/* SPDX-License-Identifier: Apache-2.0 */
/* The gate's checks themselves, for its child process. Private to the gate. */
#ifndef RA_PROFILER_CUPTI_CHECKS_H
#define RA_PROFILER_CUPTI_CHECKS_H

#include <stdbool.h>

#include "profiler/gate.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Make one check, the ones before having held. False: it does not hold. chip is filled by
 * RA_GATE_CHIP, uuid by RA_GATE_DEVICE. */
bool ra_gate_check_one(enum ra_gate_check check, struct ra_gate_finding *finding, char chip[32],
                       char uuid[48]);

#ifdef __cplusplus
}
#endif

#endif
