/* SPDX-License-Identifier: Apache-2.0 */
/* The chips of which the library has metrics. C, as the host API's header is not. */
#ifndef RA_PROFILER_CUPTI_CHIPS_H
#define RA_PROFILER_CUPTI_CHIPS_H

#include "profiler/cupti/library.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Names [*n], which belong to the library. CUPTI_ERROR_NOT_INITIALIZED without libnvperf_host.so.
 */
CUptiResult ra_cupti_chips(const struct ra_cupti *cupti, const char *const **names, size_t *n);

#ifdef __cplusplus
}
#endif

#endif
