/* SPDX-License-Identifier: Apache-2.0 */
/* Readings of the system clocks, in ns. */
#include "profiler/clock.h"

#include <time.h>

static int64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

uint64_t ra_clock_ns(void)
{
    return (uint64_t)read_clock(CLOCK_MONOTONIC);
}

int64_t ra_clock_unix_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}
