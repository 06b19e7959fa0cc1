/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One profiler a GPU: counters are one set for all processes, and two that read them spoil each
 * other's. A lock file by the GPU's UUID, in the folder that all users of a machine share, says who
 * has it; containers that share no /tmp do not see each other.
 */
#ifndef RA_PROFILER_GPU_LOCK_H
#define RA_PROFILER_GPU_LOCK_H

#include "profiler/lock_file.h"
#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Take the lock of the GPU, "GPU-0f0e..."; ra_lock_file_release ends it. RA_ENODEV: another process
 * has it, which is named, with when it took it. RA_EIO: there can be no lock file, and why.
 */
RA_MUST_CHECK enum ra_status ra_gpu_lock_take(struct ra_lock_file *lock, const char *uuid,
                                              struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
