/* SPDX-License-Identifier: Apache-2.0 */
/* What the driver and CUPTI say of the device that is profiled. */
#ifndef RA_PROFILER_GPU_H
#define RA_PROFILER_GPU_H

#include "profiler/store_pass.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_gpu {
    struct ra_device_row row; /* run_id and chip are the caller's to set */
    char name[160], uuid[48]; /* that the row points to */
};

/* Device 0. What it does not say is -1 in the row. RA_ENODEV. */
RA_MUST_CHECK enum ra_status ra_gpu_describe(struct ra_gpu *gpu, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
