/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel counts of this process: events of perf_event_open, in user mode, of the thread
 * that opens them and of every thread that it starts afterwards. An event that is refused is a
 * finding with its reason, not a failure, and has no value.
 */
#ifndef RA_PROFILER_PERF_H
#define RA_PROFILER_PERF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum ra_perf_event {
    RA_PERF_LLC_LOADS,
    RA_PERF_LLC_LOAD_MISSES,
    RA_PERF_INSTRUCTIONS,
    RA_PERF_CYCLES,
    RA_PERF_PAGE_FAULTS,
    RA_PERF_CONTEXT_SWITCHES, /* the kernel's own doing, and counted there */
    RA_PERF_EVENTS
};

/* Of metrics.def: "cpu_cycles". */
const char *ra_perf_metric(enum ra_perf_event event);

struct ra_perf_refusal {
    char reason[200]; /* "": it is counted; a sentence without its full stop */
    char fix[200];
};

struct ra_perf {
    int fds[RA_PERF_EVENTS]; /* -1: refused */
    struct ra_perf_refusal refusals[RA_PERF_EVENTS];
};

/* Open each event that this machine, kernel and user allow. Threads that are there already are not
 * counted, beside the caller's own. Returns how many are open. */
int ra_perf_open(struct ra_perf *perf);
void ra_perf_close(struct ra_perf *perf);

/* Why perf_event_open refuses the event with this errno, and what would mend it. */
void ra_perf_explain(enum ra_perf_event event, int code, struct ra_perf_refusal *refusal);

/* Since the opening, over all threads counted, those that have ended included. */
struct ra_perf_reading {
    uint64_t value, enabled_ns, running_ns; /* running: it had a counter of the processor's */
};

/* readings [RA_PERF_EVENTS]; those of refused events are zeroes. A system call for each that is
 * open, and an interrupt of each other processor that runs a thread counted. */
RA_MUST_CHECK enum ra_status ra_perf_read(const struct ra_perf *perf,
                                          struct ra_perf_reading *readings, struct ra_error *err);

/*
 * What was counted between two readings. Where the event had to share the processor's counters
 * with others, it is scaled to the time that it was wanted; NaN where it had none at all.
 */
double ra_perf_between(const struct ra_perf_reading *begin, const struct ra_perf_reading *end);

#ifdef __cplusplus
}
#endif

#endif
