/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcupti, found while running: no build is linked with it, and none needs it. Its calls crash
 * where no driver is, so nothing but the gate and what has passed the gate may make them.
 */
#ifndef RA_PROFILER_CUPTI_LIBRARY_H
#define RA_PROFILER_CUPTI_LIBRARY_H

#include <cupti.h>
#include <cupti_profiler_target.h>
#include <cupti_range_profiler.h>
#include <cupti_target.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_cupti {
    void *library;
    char path[1024];  /* of the file */
    uint32_t version; /* cuptiGetVersion; the headers' is CUPTI_API_VERSION */
#define RA_CUPTI_CALL(name) __typeof__(&name) name;
#include "profiler/cupti/calls.def"
#undef RA_CUPTI_CALL
};

/*
 * Load it and, before, libnvperf_host.so beside it, which it looks for by its bare name. Once per
 * process; *cupti stays until the end. RA_ENODEV naming the library, or the first call that one of
 * another version lacks.
 */
RA_MUST_CHECK enum ra_status ra_cupti_load(const struct ra_cupti **cupti, struct ra_error *err);

/* A call of the host API, whose header is C++; NULL where the library lacks it. */
void *ra_cupti_symbol(const struct ra_cupti *cupti, const char *name);

/* "CUPTI_ERROR_INVALID_METRIC_NAME (17)"; text is a buffer for it. */
enum { RA_CUPTI_RESULT_MAX = 96 };
const char *ra_cupti_result(const struct ra_cupti *cupti, CUptiResult result,
                            char text[RA_CUPTI_RESULT_MAX]);

#ifdef __cplusplus
}
#endif

#endif
