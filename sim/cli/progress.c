/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The progress line. The rate is the mean since the start: steadier than the last interval, and
 * the work shown here is even.
 */
#include "sim/cli/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_NS = 1000000000, INTERVAL_NS = 100000000 };

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void ra_progress_init(struct ra_progress *progress, const char *unit, bool is_quiet)
{
    *progress = (struct ra_progress){.unit = unit};
    progress->is_on = !is_quiet && isatty(STDERR_FILENO);
}

static void wipe(struct ra_progress *progress)
{
    if (progress->shown_ns)
        fputs("\r\033[K", stderr);
    progress->shown_ns = 0;
}

void ra_progress_show(void *context, const char *what, uint64_t done, uint64_t total)
{
    struct ra_progress *progress = context;
    if (!progress->is_on || total == 0)
        return;
    uint64_t now = now_ns();
    if (!progress->what || strcmp(progress->what, what) != 0) {
        wipe(progress);
        progress->what = what;
        progress->start_ns = now;
    }
    uint64_t passed = now - progress->start_ns;
    if (passed < PATIENCE_NS || now - progress->shown_ns < INTERVAL_NS)
        return;
    progress->shown_ns = now;
    double rate = (double)done / ((double)passed * 1e-9);
    fprintf(stderr, "\r\033[K%s %3.0f %%  %" PRIu64 "/%" PRIu64 " %s, %.0f/s", what,
            100.0 * (double)done / (double)total, done, total, progress->unit, rate);
    if (rate > 0)
        fprintf(stderr, ", %.0f s left", (double)(total - done) / rate);
    fflush(stderr);
}

void ra_progress_fini(struct ra_progress *progress)
{
    wipe(progress);
    fflush(stderr);
    progress->is_on = false;
}
