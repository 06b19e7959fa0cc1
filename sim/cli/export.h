/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pass of a run in the formats of other tools. What is exported stands in queries; here it only
 * gets its form. Times are ns since the pass began, each clock by its own reading then.
 */
#ifndef RA_SIM_CLI_EXPORT_H
#define RA_SIM_CLI_EXPORT_H

#include <stdio.h>

#include "profiler/store.h"

/* The pass chosen. */
struct ra_export_pass {
    int64_t run_id, id, ordinal;
    char mode[16], state[16], uuid[40];
    char policy[512];           /* canonical; "" without one */
    int64_t n_kernels, n_timed; /* rows of kernel; those whose time was not lost */
    int64_t n_execs;            /* rows of scope_exec */
    bool has_device_clock;      /* else times of the device are taken for the host's */
    char query[192];            /* for :runs: {"run","pass","host","device"}, the ids and the
                                   readings of both clocks, ns */
};

/*
 * Events for Perfetto and Chrome, as JSON: steps, layers and operations of the host, calls, kernels
 * and copies of each stream, an arrow from each call to what it launched, and per step what was
 * counted. ts and dur are microseconds with three decimals, exact to the ns.
 */
RA_MUST_CHECK enum ra_status ra_export_perfetto(FILE *out, struct ra_store *store,
                                                const struct ra_export_pass *pass,
                                                struct ra_error *err);

/* CSV as in RFC 4180 with a heading: kernels where there are any, else executed scopes. */
RA_MUST_CHECK enum ra_status ra_export_csv(FILE *out, struct ra_store *store,
                                           const struct ra_export_pass *pass, struct ra_error *err);

#endif
