/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate to CUPTI: nine checks in the order in which they must hold, since calls behind a check
 * that failed may crash. They run in a child process, so that a crash is a finding too.
 */
#ifndef RA_PROFILER_GATE_H
#define RA_PROFILER_GATE_H

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum ra_gate_check {
    RA_GATE_DRIVER,     /* libcuda.so.1 loads */
    RA_GATE_INIT,       /* cuInit */
    RA_GATE_DEVICE,     /* there is a device */
    RA_GATE_CUPTI,      /* libcupti.so.13 loads, of a version that is known */
    RA_GATE_HOST,       /* libnvperf_host.so is there */
    RA_GATE_PROFILER,   /* cuptiProfilerInitialize: what follows crashes without it */
    RA_GATE_SUPPORTED,  /* device and configuration can count */
    RA_GATE_CHIP,       /* CUPTI has metrics of the chip */
    RA_GATE_PERMISSION, /* this user may count */
    RA_GATE_CHECKS
};

/* Timing needs what comes before these; counters need everything. */
enum { RA_GATE_FOR_TIMING = RA_GATE_HOST, RA_GATE_FOR_COUNTERS = RA_GATE_CHECKS };

struct ra_gate_finding {
    enum ra_status status; /* RA_OK; RA_ENODEV: missing; RA_EPERM: not permitted */
    char found[600];       /* what is there, or what is wrong; a sentence without its full stop */
    char fix[640];         /* "" where there is nothing to mend */
};

struct ra_gate {
    int n_tried; /* checks behind it were not */
    struct ra_gate_finding checks[RA_GATE_CHECKS];
    char chip[32]; /* "GH100", once RA_GATE_CHIP holds */
    char uuid[48]; /* "GPU-0f0e...", once RA_GATE_DEVICE holds */
};

/* "NVIDIA driver", for a table's column. */
const char *ra_gate_name(enum ra_gate_check check);

/*
 * Make the checks before this process has anything to do with CUDA: a child inherits no device. A
 * check that crashes is a finding. RA_EIO: there was no process, or it was not heard.
 */
RA_MUST_CHECK enum ra_status ra_gate_run(struct ra_gate *gate, struct ra_error *err);

/* RA_OK where all checks before `n` hold; else the first that does not, with its fix. */
RA_MUST_CHECK enum ra_status ra_gate_require(const struct ra_gate *gate, int n,
                                             struct ra_error *err);

/* The tool that this process runs under, "nsys" or "ncu"; NULL: none that is known. CUPTI is then
 * its, and ranges go to it. */
const char *ra_gate_other_tool(void);

#ifdef __cplusplus
}
#endif

#endif
