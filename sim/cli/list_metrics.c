/* SPDX-License-Identifier: Apache-2.0 */
/* The listing of metrics, for `list metrics`: what results, stores and figures hold, each once. */
#include "sim/cli/list_metrics.h"

#include <stdio.h>

#include "profiler/metrics.h"

enum ra_status ra_list_metrics(json_t *rows, const char *db, struct ra_error *err)
{
    (void)db;
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
    return json_string_value(json_object_get(row, key));
}

void ra_list_print_metrics(const json_t *rows, int verbosity)
{
    printf("%-18s  %-14s  %-6s  %s\n", "name", "unit", "better", "what it is");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const char *unit = text_of(row, "unit");
        printf("%-18s  %-14s  %-6s  %s\n", text_of(row, "name"), *unit ? unit : "-",
               text_of(row, "better"), text_of(row, "help"));
        if (verbosity > 0)
            printf("%18s  %s: %s\n", "", text_of(row, "tag"), text_of(row, "label"));
    }
}
