/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line on stderr that says how far long work is: share, rate, time left. Only on a terminal,
 * only once the work has taken a second, at most ten times a second; nothing in a pipe.
 */
#ifndef RA_SIM_CLI_PROGRESS_H
#define RA_SIM_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct ra_progress {
    const char *unit;            /* borrowed: what is counted, "layer-steps" */
    const char *what;            /* of the last call; borrowed */
    uint64_t start_ns, shown_ns; /* CLOCK_MONOTONIC; shown_ns 0: nothing on the screen */
    bool is_on;
};

/* is_quiet switches the line off for good, as does a stderr that is no terminal. */
void ra_progress_init(struct ra_progress *progress, const char *unit, bool is_quiet);

/*
 * `done` of `total` units of `what` ("deciding") are done. Another `what` starts the clock anew.
 * Cheap when there is nothing to show. context: struct ra_progress *, so that it serves as the
 * callback of code below sim/cli.
 */
void ra_progress_show(void *context, const char *what, uint64_t done, uint64_t total);

/* Wipe the line, so that what is printed next starts at the margin. */
void ra_progress_fini(struct ra_progress *progress);

#endif
