/* SPDX-License-Identifier: Apache-2.0 */
/* The Range Profiler: user ranges on one level, in one pass, of kernels that ran within. */
#include "tests/fake_cupti/image.h"
#include "tests/fake_cupti/internal.h"

#include <string.h>

struct CUpti_RangeProfiler_Object {
    uint8_t *image; /* the client's */
    size_t bytes, max_ranges, n_ranges;
    uint64_t passes;
    bool is_configured, is_started, is_open, is_stopped;
};

static bool is_initialized;
static CUpti_RangeProfiler_Object *enabled;

int fake_cupti_counts(void)
{
    std::lock_guard<std::recursive_mutex> guard(fake_lock);
    return enabled && enabled->is_started;
}

void fake_range_kernel(const struct fake_kernel *k)
{
    if (!enabled || !enabled->is_open)
        return;
    struct fake_range *range = &fake_ranges(enabled->image)[enabled->n_ranges - 1];
    range->kernels++;
    range->load_bytes += k->load_bytes;
    range->store_bytes += k->store_bytes;
    range->sectors += k->sectors;
    range->duration_ns += k->end_ns - k->start_ns;
}

extern "C" {
CUptiResult CUPTIAPI cuptiProfilerInitialize(CUpti_Profiler_Initialize_Params *)
{
    FAKE_ENTER();
    is_initialized = true;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiProfilerDeInitialize(CUpti_Profiler_DeInitialize_Params *)
{
    FAKE_ENTER();
    if (enabled)
        fake_fault("the profiler was shut down while a range profiler is enabled");
    is_initialized = false;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiProfilerDeviceSupported(CUpti_Profiler_DeviceSupported_Params *params)
{
    FAKE_ENTER();
    if (!is_initialized)
        fake_fault("DeviceSupported before the profiler was initialised");
    bool mining = fake_number("unsupported", 0) != 0;
    params->isSupported =
        mining ? CUPTI_PROFILER_CONFIGURATION_UNSUPPORTED : CUPTI_PROFILER_CONFIGURATION_SUPPORTED;
    params->architecture = params->sli = params->vGpu = params->confidentialCompute = params->wsl =
        CUPTI_PROFILER_CONFIGURATION_SUPPORTED;
    params->cmp = params->isSupported;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiDeviceGetChipName(CUpti_Device_GetChipName_Params *params)
{
    static std::string chip;
    FAKE_ENTER();
    if (!is_initialized)
        fake_fault("the chip's name was asked for before the profiler was initialised");
    chip = fake_setting("chip");
    chip = chip.empty() ? "GH100" : chip;
    params->pChipName = chip.c_str();
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI
cuptiProfilerGetCounterAvailability(CUpti_Profiler_GetCounterAvailability_Params *params)
{
    FAKE_ENTER();
    if (!is_initialized || !params->ctx)
        fake_fault("availability was asked for before the profiler, or without a context");
    if (params->pCounterAvailabilityImage)
        memset(params->pCounterAvailabilityImage, 1, params->counterAvailabilityImageSize);
    params->counterAvailabilityImageSize = 16;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiRangeProfilerEnable(CUpti_RangeProfiler_Enable_Params *params)
{
    FAKE_ENTER();
    if (!is_initialized)
        fake_fault("a range profiler was enabled before the profiler was initialised");
    if (enabled)
        fake_fault("a second range profiler was enabled");
    enabled = new CUpti_RangeProfiler_Object();
    params->pRangeProfilerObject = enabled;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiRangeProfilerDisable(CUpti_RangeProfiler_Disable_Params *params)
{
    if (!params->pRangeProfilerObject)
        return CUPTI_ERROR_INVALID_PARAMETER;
    FAKE_ENTER();
    if (enabled->is_started && !enabled->is_stopped)
        fake_fault("the range profiler was disabled while it ran: stop it first");
    delete enabled;
    enabled = NULL;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI
cuptiRangeProfilerGetCounterDataSize(CUpti_RangeProfiler_GetCounterDataSize_Params *params)
{
    FAKE_ENTER();
    if (params->maxNumRangeTreeNodes < params->maxNumOfRanges)
        return CUPTI_ERROR_INVALID_PARAMETER;
    params->counterDataSize = fake_image_bytes(params->maxNumOfRanges);
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiRangeProfilerCounterDataImageInitialize(
    CUpti_RangeProfiler_CounterDataImage_Initialize_Params *params)
{
    FAKE_ENTER();
    memset(params->pCounterData, 0, params->counterDataSize);
    ((struct fake_image *)(void *)params->pCounterData)->magic = FAKE_IMAGE_MAGIC;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiRangeProfilerSetConfig(CUpti_RangeProfiler_SetConfig_Params *params)
{
    FAKE_ENTER();
    CUpti_RangeProfiler_Object *o = params->pRangeProfilerObject;
    if (params->range != CUPTI_UserRange || params->replayMode != CUPTI_UserReplay ||
        params->numNestingLevels != 1 || params->minNestingLevel != 1 ||
        params->targetNestingLevel != 1 || params->passIndex != 0)
        fake_fault("expected user ranges, user replay, one level, the first pass");
    if (params->counterDataImageSize < fake_image_bytes(params->maxRangesPerPass) ||
        ((struct fake_image *)(void *)params->pCounterDataImage)->magic != FAKE_IMAGE_MAGIC)
        fake_fault("the counter data image is too small or was not initialised");
    o->image = params->pCounterDataImage;
    o->bytes = params->counterDataImageSize;
    o->max_ranges = params->maxRangesPerPass;
    o->passes = fake_config_passes(params->pConfig, params->configSize);
    o->n_ranges = 0;
    o->is_configured = true;
    o->is_stopped = o->is_started = false;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiRangeProfilerStart(CUpti_RangeProfiler_Start_Params *params)
{
    FAKE_ENTER();
    if (!params->pRangeProfilerObject->is_configured)
        fake_fault("the range profiler was started before it was configured");
    params->pRangeProfilerObject->is_started = true;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiRangeProfilerPushRange(CUpti_RangeProfiler_PushRange_Params *params)
{
    FAKE_ENTER();
    CUpti_RangeProfiler_Object *o = params->pRangeProfilerObject;
    if (!o->is_started || o->is_stopped)
        fake_fault("a range was pushed before start or after stop");
    if (o->is_open)
        fake_fault("a range was pushed within a range, of one level");
    if (o->n_ranges == o->max_ranges)
        fake_fault("more ranges than were made room for");
    struct fake_range *range = &fake_ranges(o->image)[o->n_ranges++];
    if (strlen(params->pRangeName) >= sizeof range->name)
        fake_fault("the name of a range is too long");
    strcpy(range->name, params->pRangeName);
    o->is_open = true;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiRangeProfilerPopRange(CUpti_RangeProfiler_PopRange_Params *params)
{
    FAKE_ENTER();
    if (!params->pRangeProfilerObject->is_open)
        fake_fault("a range was popped that was not pushed");
    params->pRangeProfilerObject->is_open = false;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiRangeProfilerStop(CUpti_RangeProfiler_Stop_Params *params)
{
    FAKE_ENTER();
    CUpti_RangeProfiler_Object *o = params->pRangeProfilerObject;
    if (o->is_open)
        fake_fault("stopped within a range: pop it first");
    if (!o->is_started)
        fake_fault("stopped before it was started");
    o->is_stopped = true;
    params->isAllPassSubmitted = o->passes <= 1;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI cuptiRangeProfilerDecodeData(CUpti_RangeProfiler_DecodeData_Params *params)
{
    FAKE_ENTER();
    CUpti_RangeProfiler_Object *o = params->pRangeProfilerObject;
    if (!o->is_stopped)
        fake_fault("counters were decoded before the profiler was stopped");
    params->numOfRangeDropped = (size_t)fake_number("ranges", 0);
    ((struct fake_image *)(void *)o->image)->n_ranges = o->n_ranges;
    return CUPTI_SUCCESS;
}

CUptiResult CUPTIAPI
cuptiRangeProfilerGetCounterDataInfo(CUpti_RangeProfiler_GetCounterDataInfo_Params *params)
{
    FAKE_ENTER();
    params->numTotalRanges = fake_image_of(params->pCounterDataImage)->n_ranges;
    return CUPTI_SUCCESS;
}
}
