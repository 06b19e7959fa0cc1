/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listings of metrics, for `list metrics`: what results, stores and figures hold, each once; or
 * what a GPU's chip counts, as CUPTI says without such a GPU.
 */
#include "sim/cli/list_metrics.h"

#include <stdio.h>
#include <string.h>

#include "profiler/counters.h"
#include "profiler/metrics.h"
#include "sim/cli/output.h"

/* What the chip lacks, or this version has no name for there, is null. */
static enum ra_status describe(json_t *object, const char *chip, const char *name,
                               struct ra_error *err)
{
    const struct ra_counter *counter = ra_counter_find(chip, name);
    struct ra_counter_info info;
    struct ra_counter_plan *plan = NULL;
    if (counter) {
        RA_TRY(ra_counter_describe(chip, counter->cupti_name, &info, err));
        RA_TRY(ra_counter_plan_open(&plan, chip, NULL, &counter->cupti_name, 1, err));
    }
    json_object_set_new(object, "cupti_name", ra_json_text(counter ? counter->cupti_name : NULL));
    json_object_set_new(object, "hw_unit", ra_json_text(counter ? info.unit : NULL));
    json_object_set_new(object, "additive", counter ? json_boolean(info.is_additive) : json_null());
    json_object_set_new(object, "passes",
                        plan ? json_integer((json_int_t)plan->n_passes) : json_null());
    json_object_set_new(object, "description", ra_json_text(counter ? info.text : NULL));
    ra_counter_plan_close(plan);
    return RA_OK;
}

static enum ra_status list_counters(json_t *rows, const char *chip, struct ra_error *err)
{
    RA_TRY(ra_counter_probe(chip, err));
    for (const struct ra_counter *at = ra_counters; at->name; at++) {
        if (at != ra_counters && strcmp(at->name, at[-1].name) == 0)
            continue;
        json_t *row = json_pack("{s:o, s:s, s:s}", "chip", ra_json_text(chip), "name", at->name,
                                "unit", ra_metric_find(at->name)->unit);
        if (!row || json_array_append_new(rows, row) != 0)
            return ra_fail(err, RA_ENOMEM, "no memory for a listing");
        RA_TRY(describe(row, chip, at->name, err));
    }
    return RA_OK;
}

enum ra_status ra_list_metrics(json_t *rows, const char *chip, struct ra_error *err)
{
    if (chip)
        return list_counters(rows, chip, err);
    for (const struct ra_metric *metric = ra_metrics; metric->name; metric++) {
        json_t *row = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "name", metric->name, "tag",
                                metric->tag, "label", metric->label, "unit", metric->unit, "better",
                                ra_better_name(metric->better), "help", metric->help);
        if (!row || json_array_append_new(rows, row) != 0)
            return ra_fail(err, RA_ENOMEM, "no memory for a listing");
    }
    return RA_OK;
}

static const char *text_of(const json_t *row, const char *key)
{
    const char *text = json_string_value(json_object_get(row, key));
    return text && *text ? text : "-";
}

static void print_counters(const json_t *rows, int verbosity)
{
    printf("%-20s %6s  %-8s  %-10s  %s\n", "name", "passes", "unit", "of the GPU", "CUPTI's name");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *passes = json_object_get(row, "passes");
        char count[24] = "-";
        if (json_is_integer(passes))
            snprintf(count, sizeof count, "%" JSON_INTEGER_FORMAT, json_integer_value(passes));
        printf("%-20s %6s  %-8s  %-10s  %s\n", text_of(row, "name"), count, text_of(row, "unit"),
               text_of(row, "hw_unit"), text_of(row, "cupti_name"));
        if (verbosity > 0 && json_is_integer(passes))
            printf("%20s %s\n", "", text_of(row, "description"));
    }
}

void ra_list_print_metrics(const json_t *rows, int verbosity)
{
    if (json_object_get(json_array_get(rows, 0), "chip")) {
        print_counters(rows, verbosity);
        return;
    }
    printf("%-20s  %-14s  %-6s  %s\n", "name", "unit", "better", "what it is");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        printf("%-20s  %-14s  %-6s  %s\n", text_of(row, "name"), text_of(row, "unit"),
               text_of(row, "better"), text_of(row, "help"));
        if (verbosity > 0)
            printf("%20s  %s: %s\n", "", text_of(row, "tag"), text_of(row, "label"));
    }
}
