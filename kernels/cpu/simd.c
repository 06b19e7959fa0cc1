/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which instruction set runs. Asked once per open, never in a loop.
 */
#include "kernels/cpu/simd.h"

#include <stdlib.h>
#include <string.h>

const struct ra_cpu_kernels *const ra_cpu_kernels[] = {&ra_cpu_avx512, &ra_cpu_avx2, &ra_cpu_neon,
                                                       &ra_cpu_portable, NULL};

static bool can_run(const struct ra_cpu_kernels *kernels)
{
    return kernels->runs_here && kernels->runs_here();
}

enum ra_status ra_cpu_kernels_find(const struct ra_cpu_kernels **kernels, struct ra_error *err)
{
    const char *wanted = getenv("RATTN_SIMD");
    for (size_t i = 0; ra_cpu_kernels[i]; i++) {
        *kernels = ra_cpu_kernels[i];
        if (wanted && *wanted ? strcmp(wanted, (*kernels)->name) == 0 : can_run(*kernels))
            break;
        *kernels = NULL;
    }
    if (!*kernels)
        return ra_fail(err, RA_EUSAGE,
                       "cpu: RATTN_SIMD: expected portable, avx2, avx512 or neon, got '%.40s'",
                       wanted ? wanted : "");
    if (!can_run(*kernels)) {
        const char *got = (*kernels)->runs_here ? "a processor without" : "a build without";
        return ra_fail(err, RA_ENODEV, "cpu: RATTN_SIMD=%s: expected %s, got %s", wanted,
                       (*kernels)->needs, got);
    }
    return RA_OK;
}
