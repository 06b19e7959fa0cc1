/* SPDX-License-Identifier: Apache-2.0 */
/* What a backend that records steps tells of its launches, and of the time that they took. */
#ifndef RA_KERNELS_BACKEND_WATCH_H
#define RA_KERNELS_BACKEND_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Who is told what recorded steps launch, so that it can be told from what else the device runs.
 * Each is optional and called on the thread that records or plays. Operations go by the names of
 * ra_op_name, and "between"; layer is the backend's, -1 for several together.
 */
struct ra_backend_watch {
    void *context;
    /* Before and after each step's launches; in pairs, also where one fails. */
    void (*step)(void *context, int32_t t, bool begins);
    /* The same of each operation's, where steps are launched one by one. */
    void (*work)(void *context, int32_t t, int layer, const char *op, bool begins);
    /* While steps are recorded as graphs: a kernel became this node of step t's; NULL where that
     * cannot be known. */
    void (*node)(void *context, int32_t t, int layer, const char *op, void *node);
};

/* One step of a recording that was played. */
struct ra_step_time {
    uint64_t begin_ns, end_ns; /* the host launched it, CLOCK_MONOTONIC */
    uint64_t event_ns;         /* taken by the device */
    /* A step of one launch: the device may have waited in it for the host, which launched it, or
     * the step after, too late. What is launched in pieces goes at the host's pace by its nature.
     */
    bool is_late;
};

/* Kernels that one recorded step launches, and a hash of their order: of each the operation, grid,
 * block and dynamic shared memory. */
struct ra_step_launches {
    uint64_t n, hash;
};

#ifdef __cplusplus
}
#endif

#endif
