/* SPDX-License-Identifier: Apache-2.0 */
/* libcuda.so.1, the driver, found while running; what the profiler asks of it. */
#ifndef RA_PROFILER_CUPTI_DRIVER_H
#define RA_PROFILER_CUPTI_DRIVER_H

#include <cuda.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

#define RA_DRIVER_CALLS(X)                                                                         \
    X(cuInit)                                                                                      \
    X(cuDriverGetVersion)                                                                          \
    X(cuGetErrorName)                                                                              \
    X(cuDeviceGetCount)                                                                            \
    X(cuDeviceGet)                                                                                 \
    X(cuDeviceGetName)                                                                             \
    X(cuDeviceGetUuid)                                                                             \
    X(cuDeviceGetAttribute)                                                                        \
    X(cuDeviceTotalMem)                                                                            \
    X(cuDevicePrimaryCtxRetain)                                                                    \
    X(cuDevicePrimaryCtxRelease)

struct ra_driver {
    void *library;
#define X(name) __typeof__(&name) name;
    RA_DRIVER_CALLS(X)
#undef X
};

/* Once per process, like ra_cupti_load. RA_ENODEV. */
RA_MUST_CHECK enum ra_status ra_driver_load(const struct ra_driver **driver, struct ra_error *err);

/* "CUDA_ERROR_NO_DEVICE (100)", also where the driver has no name for it. */
enum { RA_DRIVER_RESULT_MAX = 96 };
const char *ra_driver_result(const struct ra_driver *driver, CUresult result,
                             char text[RA_DRIVER_RESULT_MAX]);

/* "GPU-0f0e0d0c-...", as nvidia-smi spells it. */
enum { RA_DRIVER_UUID_MAX = 48 };
void ra_driver_spell_uuid(const CUuuid *uuid, char text[RA_DRIVER_UUID_MAX]);

#ifdef __cplusplus
}
#endif

#endif
