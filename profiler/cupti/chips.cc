/* SPDX-License-Identifier: Apache-2.0 */
#include "profiler/cupti/chips.h"

#include <cupti_profiler_host.h>

extern "C" CUptiResult ra_cupti_chips(const struct ra_cupti *cupti, const char *const **names,
                                      size_t *n)
{
    CUpti_Profiler_Host_GetSupportedChips_Params asked = {};
    auto call = reinterpret_cast<decltype(&cuptiProfilerHostGetSupportedChips)>(
        ra_cupti_symbol(cupti, "cuptiProfilerHostGetSupportedChips"));
    *names = NULL;
    *n = 0;
    if (!call)
        return CUPTI_ERROR_NOT_INITIALIZED;
    asked.structSize = CUpti_Profiler_Host_GetSupportedChips_Params_STRUCT_SIZE;
    CUptiResult result = call(&asked);
    if (result == CUPTI_SUCCESS) {
        *names = asked.ppChipNames;
        *n = asked.numChips;
    }
    return result;
}
