/* SPDX-License-Identifier: Apache-2.0 */
/* The table of metrics, made of metrics.def. */
#include "profiler/metrics.h"

#include <stddef.h>
#include <string.h>

const struct ra_metric ra_metrics[] = {
#define RA_METRIC(name, tag, label, unit, better, help)                                            \
    {#name, tag, label, unit, RA_BETTER_##better, help},
#include "profiler/metrics.def"
#undef RA_METRIC
    {NULL, NULL, NULL, NULL, RA_BETTER_NONE, NULL},
};

const struct ra_metric *ra_metric_find(const char *name)
{
    for (const struct ra_metric *metric = ra_metrics; metric->name; metric++)
        if (strcmp(metric->name, name) == 0)
            return metric;
    return NULL;
}

const char *ra_better_name(enum ra_better better)
{
    static const char *const names[] = {"-", "lower", "higher"};
    return names[better];
}
