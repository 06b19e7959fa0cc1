/* SPDX-License-Identifier: Apache-2.0 */
/* The host API, of the few metrics that the emulation can tell. Nothing hits a cache there. */
#include "tests/fake_cupti/image.h"
#include "tests/fake_cupti/internal.h"

#include <stdlib.h>
#include <string.h>
#include <vector>

struct CUpti_Profiler_Host_Object {
    std::vector<std::string> metrics;
    std::string config() const
    {
        std::string text;
        for (const std::string &name : metrics)
            text += name + "\n";
        return text;
    }
};

namespace
{
uint64_t none(const struct fake_range &)
{
    return 0;
}
uint64_t read_bytes(const struct fake_range &r)
{
    return r.load_bytes * (uint64_t)fake_number("read", 100) / 100;
}
uint64_t written_bytes(const struct fake_range &r)
{
    return r.store_bytes;
}
uint64_t sectors(const struct fake_range &r)
{
    return r.sectors;
}
uint64_t duration(const struct fake_range &r)
{
    return r.duration_ns;
}

const struct metric {
    const char *name, *unit;
    uint64_t (*value)(const struct fake_range &);
} known[] = {
    {"gpu__time_duration.sum", "nanosecond", duration},
    {"dram__bytes_read.sum", "byte", read_bytes},
    {"dram__bytes_write.sum", "byte", written_bytes},
    {"lts__t_sectors_srcunit_tex.sum", "l2_sector", sectors},
    {"lts__t_sectors_srcunit_tex_lookup_hit.sum", "l2_sector", none},
    {"lts__t_sectors_srcunit_tex_lookup_miss.sum", "l2_sector", sectors},
    {"lts__t_sectors_srcunit_tex_op_read_lookup_hit.sum", "l2_sector", none},
    {"lts__t_sectors_srcunit_tex_op_read_lookup_miss.sum", "l2_sector", sectors},
    {"lts__t_sectors_lookup_hit.sum", "l2_sector", none},
    {"lts__t_sectors_lookup_miss.sum", "l2_sector", sectors},
    {"lts__t_tag_requests_hit.sum", "L2_tag", none},
    {"lts__t_tag_requests_miss.sum", "L2_tag", sectors},
};
} // namespace

static const struct metric *find(const char *name)
{
    for (const struct metric &each : known)
        if (strcmp(each.name, name) == 0 && fake_setting("hide") != name)
            return &each;
    return NULL;
}

/* As on the chips: what counts hits and what counts misses do not fit one pass. */
uint64_t fake_config_passes(const uint8_t *config, size_t bytes)
{
    std::string text((const char *)config, bytes);
    bool both = text.find("sectors_lookup_hit") != std::string::npos &&
                text.find("sectors_lookup_miss") != std::string::npos;
    return (uint64_t)fake_number("passes", both ? 2 : 1);
}

extern "C" {
CUptiResult CUPTIAPI
cuptiProfilerHostGetSupportedChips(CUpti_Profiler_Host_GetSupportedChips_Params *params)
{
    static const char *const chips[] = {"GA100", "GH100"};
    FAKE_ENTER();
    params->numChips = 2;
    params->ppChipNames = chips;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiProfilerHostInitialize(CUpti_Profiler_Host_Initialize_Params *params)
{
    FAKE_ENTER();
    if (strcmp(params->pChipName, "GH100") != 0)
        return CUPTI_ERROR_INVALID_CHIP_NAME;
    params->pHostObject = new CUpti_Profiler_Host_Object();
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiProfilerHostDeinitialize(CUpti_Profiler_Host_Deinitialize_Params *params)
{
    FAKE_ENTER();
    delete params->pHostObject;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI
cuptiProfilerHostGetBaseMetrics(CUpti_Profiler_Host_GetBaseMetrics_Params *params)
{
    FAKE_ENTER();
    params->numMetrics = 0;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI
cuptiProfilerHostGetSubMetrics(CUpti_Profiler_Host_GetSubMetrics_Params *params)
{
    FAKE_ENTER();
    params->numOfSubmetrics = 0;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI
cuptiProfilerHostGetMetricProperties(CUpti_Profiler_Host_GetMetricProperties_Params *params)
{
    FAKE_ENTER();
    const struct metric *metric = find(params->pMetricName);
    if (!metric)
        return CUPTI_ERROR_INVALID_METRIC_NAME;
    params->pDescription = "as the emulation counts it";
    params->pHwUnit = "emulated";
    params->pDimUnit = metric->unit;
    params->metricType = CUPTI_METRIC_TYPE_COUNTER;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI
cuptiProfilerHostConfigAddMetrics(CUpti_Profiler_Host_ConfigAddMetrics_Params *params)
{
    FAKE_ENTER();
    for (size_t i = 0; i < params->numMetrics; i++) {
        if (!find(params->ppMetricNames[i]))
            return CUPTI_ERROR_INVALID_PARAMETER;
        params->pHostObject->metrics.push_back(params->ppMetricNames[i]);
    }
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI
cuptiProfilerHostGetConfigImageSize(CUpti_Profiler_Host_GetConfigImageSize_Params *params)
{
    FAKE_ENTER();
    params->configImageSize = params->pHostObject->config().size();
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI
cuptiProfilerHostGetConfigImage(CUpti_Profiler_Host_GetConfigImage_Params *params)
{
    FAKE_ENTER();
    std::string text = params->pHostObject->config();
    if (params->configImageSize < text.size())
        return CUPTI_ERROR_INVALID_PARAMETER;
    memcpy(params->pConfigImage, text.data(), text.size());
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI
cuptiProfilerHostGetNumOfPasses(CUpti_Profiler_Host_GetNumOfPasses_Params *params)
{
    FAKE_ENTER();
    params->numOfPasses = fake_config_passes(params->pConfigImage, params->configImageSize);
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiProfilerHostGetMaxNumHardwareMetricsPerPass(
    CUpti_Profiler_Host_GetMaxNumHardwareMetricsPerPass_Params *params)
{
    FAKE_ENTER();
    params->maxMetricsPerPass = 64;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiProfilerHostGetRangeName(CUpti_Profiler_Host_GetRangeName_Params *params)
{
    FAKE_ENTER();
    params->pRangeName = strdup(fake_range_at(params->pCounterDataImage, params->rangeIndex)->name);
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI
cuptiProfilerHostEvaluateToGpuValues(CUpti_Profiler_Host_EvaluateToGpuValues_Params *params)
{
    FAKE_ENTER();
    if (params->rangeIndex >= fake_image_of(params->pCounterDataImage)->n_ranges)
        return CUPTI_ERROR_INVALID_PARAMETER;
    for (size_t i = 0; i < params->numMetrics; i++) {
        const struct metric *metric = find(params->ppMetricNames[i]);
        if (!metric)
            return CUPTI_ERROR_INVALID_METRIC_NAME;
        params->pMetricValues[i] =
            (double)metric->value(*fake_range_at(params->pCounterDataImage, params->rangeIndex));
    }
    return CUPTI_SUCCESS;
}
}
