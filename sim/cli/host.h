/* SPDX-License-Identifier: Apache-2.0 */
/* The machine this runs on, as the system describes it. What it does not say is 0 or "unknown". */
#ifndef RA_SIM_CLI_HOST_H
#define RA_SIM_CLI_HOST_H

#include <stdint.h>

struct ra_host {
    char cpu[128];          /* model name */
    int n_cpus;             /* this process may use */
    uint64_t memory_bytes;  /* physical */
    uint64_t llc_bytes;     /* last-level cache of one processor's share of the system */
    char nvidia_driver[96]; /* version line of the kernel module, "" without one */
};

void ra_host_describe(struct ra_host *host);

#endif
