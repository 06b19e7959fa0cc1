/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CUPTI's host API behind counters.h: names, plans, values. Its header is C++, so this is; the
 * program is linked as C, so nothing of the C++ library is used. A host object takes one plan: what
 * is added to it stays, and a name it refuses spoils it.
 */
#include <cupti_profiler_host.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/counters.h"
#include "profiler/cupti/chips.h"
#include "profiler/cupti/library.h"
#include "sim/base/text.h"

struct host_calls {
#define RA_HOST_CALL(name) decltype(&::name) name;
#include "profiler/cupti/host_calls.def"
#undef RA_HOST_CALL
};

struct host {
    const struct ra_cupti *cupti;
    struct host_calls calls;
    CUpti_Profiler_Host_Object *object;
    char chip[32];
};

/* A call's parameters, zero but for their size, by which CUPTI tells versions apart. */
#define PARAMETERS(call, name)                                                                     \
    CUpti_Profiler_Host_##call##_Params name = {};                                                 \
    name.structSize = CUpti_Profiler_Host_##call##_Params_STRUCT_SIZE

static enum ra_status find_calls(struct host *host, struct ra_error *err)
{
    RA_TRY(ra_cupti_load(&host->cupti, err));
    const struct {
        const char *name;
        void *at;
    } calls[] = {
#define RA_HOST_CALL(name) {#name, &host->calls.name},
#include "profiler/cupti/host_calls.def"
#undef RA_HOST_CALL
    };
    for (const auto &call : calls) {
        void *found = ra_cupti_symbol(host->cupti, call.name);
        if (!found)
            return ra_fail(err, RA_ENODEV, "cuda: %s has no %s: expected CUPTI of CUDA 13",
                           host->cupti->path, call.name);
        memcpy(call.at, &found, sizeof found);
    }
    return RA_OK;
}

static enum ra_status refused(const struct host *host, const char *what, CUptiResult result,
                              struct ra_error *err)
{
    char text[RA_CUPTI_RESULT_MAX];
    if (result == CUPTI_ERROR_NOT_INITIALIZED)
        return ra_fail(err, RA_ENODEV, "cuda: libnvperf_host.so not found beside libcupti: %s",
                       host->cupti->path);
    return ra_fail(err, RA_EDEVICE, "cuda: %s: CUPTI refused with %s", what,
                   ra_cupti_result(host->cupti, result, text));
}

static enum ra_status list_chips(const struct host *host, const char *const **chips, size_t *n,
                                 struct ra_error *err)
{
    CUptiResult result = ra_cupti_chips(host->cupti, chips, n);
    return result == CUPTI_SUCCESS ? RA_OK : refused(host, "list of chips", result, err);
}

/* All the nearest, or all there are: "H100" and "h100" are as near to GH100 as it gets. */
static void hint_chips(const struct host *host, struct ra_writer *text)
{
    char upper[sizeof host->chip];
    size_t length = 0, n = 0;
    for (const char *at = host->chip; *at; at++)
        upper[length++] = *at >= 'a' && *at <= 'z' ? (char)(*at - 'a' + 'A') : *at;
    struct ra_span word = {upper, length};
    const char *const *chips = nullptr;
    if (list_chips(host, &chips, &n, nullptr) != RA_OK)
        return;
    const char *nearest = ra_text_nearest(word, chips, n, sizeof *chips);
    int distance = nearest ? ra_text_distance(word, ra_span_of(nearest)) : 0;
    ra_write(text, nearest ? "; nearest:" : "; known:");
    for (size_t i = 0; i < n; i++) {
        struct ra_span chip = ra_span_of(chips[i]);
        if (!nearest || (ra_text_is_near(word, chip) && ra_text_distance(word, chip) == distance))
            ra_write(text, " %s", chips[i]);
    }
}

static enum ra_status no_chip(const struct host *host, CUptiResult result, struct ra_error *err)
{
    char text[RA_CUPTI_RESULT_MAX], hint[320] = "";
    struct ra_writer writer = {hint, sizeof hint, 0};
    const char *said = ra_cupti_result(host->cupti, result, text);
    if (result == CUPTI_ERROR_NOT_SUPPORTED)
        return ra_fail(err, RA_ENODEV, "chip '%s': CUPTI knows it and has no counters for it, %s",
                       host->chip, said);
    if (result != CUPTI_ERROR_INVALID_CHIP_NAME)
        return refused(host, host->chip, result, err);
    hint_chips(host, &writer);
    return ra_fail(err, RA_EUSAGE, "chip '%s': unknown to CUPTI, %s%s", host->chip, said, hint);
}

/* The caller closes it, also where opening failed. */
static enum ra_status open_host(struct host *host, const char *chip, const uint8_t *availability,
                                struct ra_error *err)
{
    memset(host, 0, sizeof *host);
    snprintf(host->chip, sizeof host->chip, "%s", chip);
    RA_TRY(find_calls(host, err));
    PARAMETERS(Initialize, asked);
    asked.profilerType = CUPTI_PROFILER_TYPE_RANGE_PROFILER;
    asked.pChipName = chip;
    asked.pCounterAvailabilityImage = availability;
    CUptiResult result = host->calls.cuptiProfilerHostInitialize(&asked);
    if (result != CUPTI_SUCCESS)
        return no_chip(host, result, err);
    host->object = asked.pHostObject;
    return RA_OK;
}

static void close_host(struct host *host)
{
    PARAMETERS(Deinitialize, asked);
    asked.pHostObject = host->object;
    if (host->object)
        (void)host->calls.cuptiProfilerHostDeinitialize(&asked);
    host->object = nullptr;
}

/* The nearest of all metrics without their forms (".sum"); nothing when none is near. */
static void hint_metric(const struct host *host, const char *cupti_name, struct ra_writer *text)
{
    struct ra_span base = {cupti_name, strcspn(cupti_name, ".")};
    const char *nearest = nullptr;
    for (int type = 0; type < CUPTI_METRIC_TYPE__COUNT; type++) {
        PARAMETERS(GetBaseMetrics, asked);
        asked.pHostObject = host->object;
        asked.metricType = (CUpti_MetricType)type;
        if (host->calls.cuptiProfilerHostGetBaseMetrics(&asked) != CUPTI_SUCCESS)
            continue;
        const char *near = ra_text_nearest(base, asked.ppMetricNames, asked.numMetrics,
                                           sizeof *asked.ppMetricNames);
        if (near && (!nearest || ra_text_distance(base, ra_span_of(near)) <
                                     ra_text_distance(base, ra_span_of(nearest))))
            nearest = near;
    }
    if (nearest && ra_span_is(base, nearest))
        ra_write(text, "; %s has other forms", nearest);
    else if (nearest)
        ra_write(text, "; nearest is '%s%s'", nearest, cupti_name + base.n);
}

static enum ra_status describe(const struct host *host, const char *cupti_name,
                               struct ra_counter_info *info, struct ra_error *err)
{
    static const char *const forms[] = {"sum", "pct", "avg.pct_of_peak_sustained_elapsed"};
    char text[RA_CUPTI_RESULT_MAX], hint[224] = "";
    struct ra_writer writer = {hint, sizeof hint, 0};
    PARAMETERS(GetMetricProperties, asked);
    asked.pHostObject = host->object;
    asked.pMetricName = cupti_name;
    CUptiResult result = host->calls.cuptiProfilerHostGetMetricProperties(&asked);
    if (result == CUPTI_ERROR_INVALID_METRIC_NAME) {
        hint_metric(host, cupti_name, &writer);
        return ra_fail(err, RA_EUSAGE, "metric '%s': chip %s has none, %s%s", cupti_name,
                       host->chip, ra_cupti_result(host->cupti, result, text), hint);
    }
    if (result != CUPTI_SUCCESS)
        return refused(host, cupti_name, result, err);
    const char *form = strchr(cupti_name, '.');
    if (!form)
        return ra_fail(err, RA_EUSAGE, "metric '%s': expected one of its forms, '%s.%s' say",
                       cupti_name, cupti_name, forms[asked.metricType % 3]);
    snprintf(info->block, sizeof info->block, "%s", asked.pHwUnit ? asked.pHwUnit : "");
    snprintf(info->unit, sizeof info->unit, "%s", asked.pDimUnit ? asked.pDimUnit : "");
    snprintf(info->text, sizeof info->text, "%s", asked.pDescription ? asked.pDescription : "");
    info->is_counter = asked.metricType == CUPTI_METRIC_TYPE_COUNTER;
    /* Sums and means over the parts of a chip; rates and shares of a peak go on after the form. */
    info->is_additive = info->is_counter && (!strcmp(form, ".sum") || !strcmp(form, ".avg"));
    return RA_OK;
}

enum ra_status ra_counter_chips(const char *const **chips, size_t *n, struct ra_error *err)
{
    struct host host = {};
    *chips = nullptr;
    *n = 0;
    RA_TRY(find_calls(&host, err));
    return list_chips(&host, chips, n, err);
}

enum ra_status ra_counter_probe(const char *chip, struct ra_error *err)
{
    struct host host;
    enum ra_status status = open_host(&host, chip, nullptr, err);
    close_host(&host);
    return status;
}

enum ra_status ra_counter_describe(const char *chip, const char *cupti_name,
                                   struct ra_counter_info *info, struct ra_error *err)
{
    struct host host;
    enum ra_status status = open_host(&host, chip, nullptr, err);
    if (status == RA_OK)
        status = describe(&host, cupti_name, info, err);
    close_host(&host);
    return status;
}

static enum ra_status keep_names(struct ra_counter_plan *plan, const char *const *cupti_names,
                                 size_t n, struct ra_error *err)
{
    plan->cupti_names = (char **)calloc(n ? n : 1, sizeof *plan->cupti_names);
    if (!plan->cupti_names)
        return ra_fail(err, RA_ENOMEM, "no memory for a plan of %zu metrics", n);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++)
            if (strcmp(cupti_names[i], cupti_names[j]) == 0)
                return ra_fail(err, RA_EUSAGE, "metric '%s': given twice", cupti_names[i]);
        plan->cupti_names[i] = strdup(cupti_names[i]);
        if (!plan->cupti_names[i])
            return ra_fail(err, RA_ENOMEM, "no memory for a plan of %zu metrics", n);
        plan->n_metrics++;
    }
    return n ? RA_OK : ra_fail(err, RA_EUSAGE, "no metrics to count");
}

static enum ra_status configure(struct ra_counter_plan *plan, struct ra_error *err)
{
    const struct host *host = (const struct host *)plan->host;
    PARAMETERS(ConfigAddMetrics, added);
    added.pHostObject = host->object;
    added.ppMetricNames = (const char **)plan->cupti_names;
    added.numMetrics = plan->n_metrics;
    CUptiResult result = host->calls.cuptiProfilerHostConfigAddMetrics(&added);
    if (result != CUPTI_SUCCESS)
        return refused(host, plan->n_metrics == 1 ? plan->cupti_names[0] : "these metrics together",
                       result, err);
    PARAMETERS(GetConfigImageSize, sized);
    sized.pHostObject = host->object;
    result = host->calls.cuptiProfilerHostGetConfigImageSize(&sized);
    if (result != CUPTI_SUCCESS)
        return refused(host, "size of the configuration", result, err);
    plan->config = (uint8_t *)calloc(1, sized.configImageSize ? sized.configImageSize : 1);
    if (!plan->config)
        return ra_fail(err, RA_ENOMEM, "no memory for a configuration of %zu bytes",
                       sized.configImageSize);
    plan->config_bytes = sized.configImageSize;
    PARAMETERS(GetConfigImage, asked);
    asked.pHostObject = host->object;
    asked.configImageSize = plan->config_bytes;
    asked.pConfigImage = plan->config;
    result = host->calls.cuptiProfilerHostGetConfigImage(&asked);
    if (result != CUPTI_SUCCESS)
        return refused(host, "configuration", result, err);
    PARAMETERS(GetNumOfPasses, counted);
    counted.configImageSize = plan->config_bytes;
    counted.pConfigImage = plan->config;
    result = host->calls.cuptiProfilerHostGetNumOfPasses(&counted);
    if (result != CUPTI_SUCCESS)
        return refused(host, "number of passes", result, err);
    plan->n_passes = counted.numOfPasses;
    return RA_OK;
}

enum ra_status ra_counter_plan_open(struct ra_counter_plan **made, const char *chip,
                                    const uint8_t *availability, const char *const *cupti_names,
                                    size_t n, struct ra_error *err)
{
    struct ra_counter_plan *plan = (struct ra_counter_plan *)calloc(1, sizeof *plan);
    struct host *host = (struct host *)calloc(1, sizeof *host);
    struct ra_counter_info info;
    enum ra_status status = RA_OK;
    *made = nullptr;
    if (plan)
        plan->host = host;
    else
        free(host);
    if (!plan || !host)
        status = ra_fail(err, RA_ENOMEM, "no memory for a plan of %zu metrics", n);
    if (status == RA_OK)
        status = open_host(host, chip, availability, err);
    if (status == RA_OK)
        status = keep_names(plan, cupti_names, n, err);
    for (size_t i = 0; i < n && status == RA_OK; i++)
        status = describe(host, cupti_names[i], &info, err);
    if (status == RA_OK)
        status = configure(plan, err);
    if (status != RA_OK) {
        ra_counter_plan_close(plan);
        return status;
    }
    *made = plan;
    return RA_OK;
}

void ra_counter_plan_close(struct ra_counter_plan *plan)
{
    if (!plan)
        return;
    struct host *host = (struct host *)plan->host;
    if (host)
        close_host(host);
    for (size_t i = 0; i < plan->n_metrics; i++)
        free(plan->cupti_names[i]);
    free(plan->cupti_names);
    free(plan->config);
    free(host);
    free(plan);
}

enum ra_status ra_counter_plan_evaluate(const struct ra_counter_plan *plan,
                                        struct ra_counter_data data, size_t range, double *values,
                                        struct ra_error *err)
{
    const struct host *host = (const struct host *)plan->host;
    char what[64];
    PARAMETERS(EvaluateToGpuValues, asked);
    asked.pHostObject = host->object;
    asked.pCounterDataImage = data.image;
    asked.counterDataImageSize = data.bytes;
    asked.rangeIndex = range;
    asked.ppMetricNames = (const char **)plan->cupti_names;
    asked.numMetrics = plan->n_metrics;
    asked.pMetricValues = values;
    CUptiResult result = host->calls.cuptiProfilerHostEvaluateToGpuValues(&asked);
    snprintf(what, sizeof what, "values of range %zu", range);
    return result == CUPTI_SUCCESS ? RA_OK : refused(host, what, result, err);
}

enum ra_status ra_counter_range_name(struct ra_counter_data data, size_t range, char *name,
                                     size_t size, struct ra_error *err)
{
    struct host host = {};
    char what[64];
    RA_TRY(find_calls(&host, err));
    PARAMETERS(GetRangeName, asked);
    asked.pCounterDataImage = data.image;
    asked.counterDataImageSize = data.bytes;
    asked.rangeIndex = range;
    asked.delimiter = "/";
    CUptiResult result = host.calls.cuptiProfilerHostGetRangeName(&asked);
    snprintf(what, sizeof what, "name of range %zu", range);
    if (result != CUPTI_SUCCESS)
        return refused(&host, what, result, err);
    enum ra_status status = RA_OK;
    if (!asked.pRangeName)
        status = ra_fail(err, RA_EDEVICE, "cuda: %s: expected a text, got none", what);
    else if ((size_t)snprintf(name, size, "%s", asked.pRangeName) >= size)
        status = ra_fail(err, RA_ERANGE, "cuda: %s: expected at most %zu characters, got %zu", what,
                         size - 1, strlen(asked.pRangeName));
    free((void *)asked.pRangeName);
    return status;
}
