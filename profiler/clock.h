/* SPDX-License-Identifier: Apache-2.0 */
/* The clocks of the tool: nanoseconds for durations, wall time for the start of a run. */
#ifndef RA_PROFILER_CLOCK_H
#define RA_PROFILER_CLOCK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* CLOCK_MONOTONIC, ns. */
uint64_t ra_clock_ns(void);

/* CLOCK_REALTIME, ns since 1970. */
int64_t ra_clock_unix_ns(void);

#ifdef __cplusplus
}
#endif

#endif
