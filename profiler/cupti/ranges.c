/* SPDX-License-Identifier: Apache-2.0 */
/* The Range Profiler's sequence, each call in its place; close undoes as far as it came. */
#include "profiler/ranges.h"

#ifdef RA_CUPTI
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/cupti/driver.h"
#include "profiler/cupti/library.h"

struct ra_ranges {
    const struct ra_cupti *cupti;
    const struct ra_driver *driver;
    CUcontext context;
    bool is_initialized, is_running;
    CUpti_RangeProfiler_Object *profiler; /* NULL: not enabled */
    struct ra_counter_plan *plan;
    uint8_t *availability, *data;
    size_t data_bytes, max_ranges, n_pushed;
    int64_t *numbers;               /* [max_ranges] */
    CUpti_ProfilerRange range_mode; /* as CUPTI was asked for */
    CUpti_ProfilerReplayMode replay_mode;
};

#define PARAMS(name)                                                                               \
    {                                                                                              \
        .structSize = name##_STRUCT_SIZE                                                           \
    }

static enum ra_status done(const struct ra_ranges *r, CUptiResult result, const char *what,
                           struct ra_error *err)
{
    char text[RA_CUPTI_RESULT_MAX];
    if (result == CUPTI_SUCCESS)
        return RA_OK;
    bool forbidden = result == CUPTI_ERROR_INSUFFICIENT_PRIVILEGES ||
                     result == CUPTI_ERROR_VIRTUALIZED_DEVICE_INSUFFICIENT_PRIVILEGES;
    return ra_fail(err, forbidden ? RA_EPERM : RA_ENODEV, "cuda: %s: %s", what,
                   ra_cupti_result(r->cupti, result, text));
}

static enum ra_status initialize(struct ra_ranges *r, struct ra_error *err)
{
    CUpti_Profiler_Initialize_Params start = PARAMS(CUpti_Profiler_Initialize_Params);
    CUdevice device = 0;
    RA_TRY(ra_cupti_load(&r->cupti, err));
    RA_TRY(ra_driver_load(&r->driver, err));
    if (r->driver->cuInit(0) != CUDA_SUCCESS ||
        r->driver->cuDeviceGet(&device, 0) != CUDA_SUCCESS ||
        r->driver->cuDevicePrimaryCtxRetain(&r->context, device) != CUDA_SUCCESS)
        return ra_fail(err, RA_ENODEV, "cuda: no context on device 0 to count in");
    RA_TRY(done(r, r->cupti->cuptiProfilerInitialize(&start), "cuptiProfilerInitialize", err));
    r->is_initialized = true;
    return RA_OK;
}

static enum ra_status ask_availability(struct ra_ranges *r, struct ra_error *err)
{
    CUpti_Profiler_GetCounterAvailability_Params params =
        PARAMS(CUpti_Profiler_GetCounterAvailability_Params);
    params.ctx = r->context;
    for (int i = 0; i < 2; i++) { /* its size, then itself */
        RA_TRY(done(r, r->cupti->cuptiProfilerGetCounterAvailability(&params),
                    "cuptiProfilerGetCounterAvailability", err));
        if (i == 0)
            r->availability = calloc(1, params.counterAvailabilityImageSize + 1);
        if (!r->availability)
            return ra_fail(err, RA_ENOMEM, "profiler: no memory for the list of counters");
        params.pCounterAvailabilityImage = r->availability;
    }
    return RA_OK;
}

static enum ra_status enable(struct ra_ranges *r, struct ra_error *err)
{
    CUpti_RangeProfiler_Enable_Params params = PARAMS(CUpti_RangeProfiler_Enable_Params);
    params.ctx = r->context;
    RA_TRY(done(r, r->cupti->cuptiRangeProfilerEnable(&params), "cuptiRangeProfilerEnable", err));
    r->profiler = params.pRangeProfilerObject;
    return RA_OK;
}

static enum ra_status make_room(struct ra_ranges *r, struct ra_error *err)
{
    CUpti_RangeProfiler_GetCounterDataSize_Params size =
        PARAMS(CUpti_RangeProfiler_GetCounterDataSize_Params);
    CUpti_RangeProfiler_CounterDataImage_Initialize_Params image =
        PARAMS(CUpti_RangeProfiler_CounterDataImage_Initialize_Params);
    size.pRangeProfilerObject = image.pRangeProfilerObject = r->profiler;
    size.pMetricNames = (const char **)r->plan->cupti_names;
    size.numMetrics = r->plan->n_metrics;
    size.maxNumOfRanges = r->max_ranges;
    size.maxNumRangeTreeNodes = (uint32_t)r->max_ranges;
    RA_TRY(done(r, r->cupti->cuptiRangeProfilerGetCounterDataSize(&size), "size of counter data",
                err));
    r->data_bytes = size.counterDataSize;
    r->data = calloc(1, r->data_bytes + 1);
    r->numbers = calloc(r->max_ranges, sizeof *r->numbers);
    if (!r->data || !r->numbers)
        return ra_fail(err, RA_ENOMEM, "profiler: no memory for %zu ranges", r->max_ranges);
    image.counterDataSize = r->data_bytes;
    image.pCounterData = r->data;
    return done(r, r->cupti->cuptiRangeProfilerCounterDataImageInitialize(&image),
                "start of counter data", err);
}

static enum ra_status configure(struct ra_ranges *r, struct ra_error *err)
{
    CUpti_RangeProfiler_SetConfig_Params params = PARAMS(CUpti_RangeProfiler_SetConfig_Params);
    params.pRangeProfilerObject = r->profiler;
    params.configSize = r->plan->config_bytes;
    params.pConfig = r->plan->config;
    params.counterDataImageSize = r->data_bytes;
    params.pCounterDataImage = r->data;
    params.range = r->range_mode = CUPTI_UserRange;
    params.replayMode = r->replay_mode = CUPTI_UserReplay;
    params.maxRangesPerPass = r->max_ranges;
    params.numNestingLevels = params.minNestingLevel = params.targetNestingLevel = 1;
    return done(r, r->cupti->cuptiRangeProfilerSetConfig(&params), "cuptiRangeProfilerSetConfig",
                err);
}

static enum ra_status open(struct ra_ranges *r, const char *chip, const char *const *cupti_names,
                           size_t n, struct ra_error *err)
{
    RA_TRY(initialize(r, err));
    RA_TRY(ask_availability(r, err));
    RA_TRY(ra_counter_plan_open(&r->plan, chip, r->availability, cupti_names, n, err));
    if (r->plan->n_passes != 1)
        return ra_fail(err, RA_EUSAGE,
                       "counters: these %zu need %zu executions, expected what fits one; "
                       "`metrics plan` tells which",
                       n, r->plan->n_passes);
    RA_TRY(enable(r, err));
    RA_TRY(make_room(r, err));
    return configure(r, err);
}

enum ra_status ra_ranges_open(struct ra_ranges **ranges, const char *chip,
                              const char *const *cupti_names, size_t n_metrics, size_t max_ranges,
                              struct ra_error *err)
{
    struct ra_ranges *r = calloc(1, sizeof *r);
    *ranges = NULL;
    if (!r)
        return ra_fail(err, RA_ENOMEM, "profiler: no memory for ranges");
    r->max_ranges = max_ranges > 0 ? max_ranges : 1;
    enum ra_status st = open(r, chip, cupti_names, n_metrics, err);
    if (st != RA_OK)
        ra_ranges_close(r);
    else
        *ranges = r;
    return st;
}

void ra_ranges_modes(const struct ra_ranges *r, const char **range, const char **replay)
{
    *range = r->range_mode == CUPTI_UserRange ? "UserRange" : "AutoRange";
    *replay = r->replay_mode == CUPTI_UserReplay     ? "UserReplay"
              : r->replay_mode == CUPTI_KernelReplay ? "KernelReplay"
                                                     : "ApplicationReplay";
}

enum ra_status ra_ranges_start(struct ra_ranges *r, struct ra_error *err)
{
    CUpti_RangeProfiler_Start_Params params = PARAMS(CUpti_RangeProfiler_Start_Params);
    params.pRangeProfilerObject = r->profiler;
    RA_TRY(done(r, r->cupti->cuptiRangeProfilerStart(&params), "cuptiRangeProfilerStart", err));
    r->is_running = true;
    return RA_OK;
}

enum ra_status ra_ranges_push(struct ra_ranges *r, int64_t number, struct ra_error *err)
{
    CUpti_RangeProfiler_PushRange_Params params = PARAMS(CUpti_RangeProfiler_PushRange_Params);
    char name[24];
    if (r->n_pushed == r->max_ranges)
        return ra_fail(err, RA_ERANGE, "profiler: expected at most %zu ranges, got one more",
                       r->max_ranges);
    snprintf(name, sizeof name, "%zu", r->n_pushed);
    r->numbers[r->n_pushed++] = number;
    params.pRangeProfilerObject = r->profiler;
    params.pRangeName = name;
    return done(r, r->cupti->cuptiRangeProfilerPushRange(&params), "cuptiRangeProfilerPushRange",
                err);
}

enum ra_status ra_ranges_pop(struct ra_ranges *r, struct ra_error *err)
{
    CUpti_RangeProfiler_PopRange_Params params = PARAMS(CUpti_RangeProfiler_PopRange_Params);
    params.pRangeProfilerObject = r->profiler;
    return done(r, r->cupti->cuptiRangeProfilerPopRange(&params), "cuptiRangeProfilerPopRange",
                err);
}

static enum ra_status stop(struct ra_ranges *r, struct ra_error *err)
{
    CUpti_RangeProfiler_Stop_Params params = PARAMS(CUpti_RangeProfiler_Stop_Params);
    params.pRangeProfilerObject = r->profiler;
    r->is_running = false;
    RA_TRY(done(r, r->cupti->cuptiRangeProfilerStop(&params), "cuptiRangeProfilerStop", err));
    if (!params.isAllPassSubmitted)
        return ra_fail(err, RA_EDEVICE,
                       "cuda: the counters were planned for one execution, CUPTI "
                       "wants another");
    return RA_OK;
}

enum ra_status ra_ranges_stop(struct ra_ranges *r, size_t *n, size_t *n_dropped,
                              struct ra_error *err)
{
    CUpti_RangeProfiler_DecodeData_Params decode = PARAMS(CUpti_RangeProfiler_DecodeData_Params);
    CUpti_RangeProfiler_GetCounterDataInfo_Params info =
        PARAMS(CUpti_RangeProfiler_GetCounterDataInfo_Params);
    *n = *n_dropped = 0;
    RA_TRY(stop(r, err));
    decode.pRangeProfilerObject = r->profiler;
    RA_TRY(done(r, r->cupti->cuptiRangeProfilerDecodeData(&decode), "cuptiRangeProfilerDecodeData",
                err));
    info.pCounterDataImage = r->data;
    info.counterDataImageSize = r->data_bytes;
    RA_TRY(done(r, r->cupti->cuptiRangeProfilerGetCounterDataInfo(&info), "counter data", err));
    *n = info.numTotalRanges;
    *n_dropped = decode.numOfRangeDropped;
    return RA_OK;
}

enum ra_status ra_ranges_values(const struct ra_ranges *r, size_t i, int64_t *number,
                                double *values, struct ra_error *err)
{
    const struct ra_counter_data data = {r->data, r->data_bytes};
    char name[64], *end;
    RA_TRY(ra_counter_range_name(data, i, name, sizeof name, err));
    unsigned long at = strtoul(name, &end, 10);
    if (end == name || *end || at >= r->n_pushed)
        return ra_fail(err, RA_EDEVICE, "cuda: counter data name range '%s', expected 0 to %zu",
                       name, r->n_pushed - 1);
    *number = r->numbers[at];
    return ra_counter_plan_evaluate(r->plan, data, i, values, err);
}

void ra_ranges_close(struct ra_ranges *r)
{
    CUpti_RangeProfiler_Disable_Params disable = PARAMS(CUpti_RangeProfiler_Disable_Params);
    CUpti_Profiler_DeInitialize_Params end = PARAMS(CUpti_Profiler_DeInitialize_Params);
    if (!r)
        return;
    if (r->is_running)
        (void)!stop(r, NULL);
    disable.pRangeProfilerObject = r->profiler;
    if (r->profiler)
        (void)r->cupti->cuptiRangeProfilerDisable(&disable);
    ra_counter_plan_close(r->plan);
    if (r->is_initialized)
        (void)r->cupti->cuptiProfilerDeInitialize(&end);
    if (r->context)
        (void)r->driver->cuDevicePrimaryCtxRelease(0);
    free(r->availability);
    free(r->data);
    free(r->numbers);
    free(r);
}
#else
static enum ra_status not_built(struct ra_error *err)
{
    return ra_fail(err, RA_ENODEV, "cuda: built without the headers of CUPTI");
}

enum ra_status ra_ranges_open(struct ra_ranges **ranges, const char *chip,
                              const char *const *cupti_names, size_t n_metrics, size_t max_ranges,
                              struct ra_error *err)
{
    (void)chip;
    (void)cupti_names;
    (void)n_metrics;
    (void)max_ranges;
    *ranges = NULL;
    return not_built(err);
}

void ra_ranges_modes(const struct ra_ranges *r, const char **range, const char **replay)
{
    (void)r;
    *range = *replay = NULL;
}

enum ra_status ra_ranges_start(struct ra_ranges *r, struct ra_error *err)
{
    (void)r;
    return not_built(err);
}

enum ra_status ra_ranges_push(struct ra_ranges *r, int64_t number, struct ra_error *err)
{
    (void)r;
    (void)number;
    return not_built(err);
}

enum ra_status ra_ranges_pop(struct ra_ranges *r, struct ra_error *err)
{
    (void)r;
    return not_built(err);
}

enum ra_status ra_ranges_stop(struct ra_ranges *r, size_t *n, size_t *n_dropped,
                              struct ra_error *err)
{
    (void)r;
    *n = *n_dropped = 0;
    return not_built(err);
}

enum ra_status ra_ranges_values(const struct ra_ranges *r, size_t i, int64_t *number,
                                double *values, struct ra_error *err)
{
    (void)r;
    (void)i;
    (void)number;
    (void)values;
    return not_built(err);
}

void ra_ranges_close(struct ra_ranges *r)
{
    (void)r;
}
#endif
