/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cli/perf_words.h"

#include <string.h>

#include "profiler/perf.h"

void ra_perf_tell_refusals(FILE *out)
{
    struct ra_perf perf;
    ra_perf_open(&perf);
    ra_perf_close(&perf);
    for (int i = 0; i < RA_PERF_EVENTS; i++)
        if (perf.refusals[i].reason[0])
            fprintf(out, "%s is not counted: %s; %s\n", ra_perf_metric((enum ra_perf_event)i),
                    perf.refusals[i].reason, perf.refusals[i].fix);
}

static void append(char *text, size_t size, const char *separator, const char *more)
{
    size_t n = strlen(text);
    snprintf(text + n, size - n, "%s%s", n ? separator : "", more);
}

/* Is the first event refused for this reason, so that it is told here with all that share it? */
static bool is_first(const struct ra_perf *perf, int event)
{
    if (!perf->refusals[event].reason[0])
        return false;
    for (int i = 0; i < event; i++)
        if (strcmp(perf->refusals[i].reason, perf->refusals[event].reason) == 0)
            return false;
    return true;
}

/* The metrics of events with this reason, "" for those that are counted. */
static void list(const struct ra_perf *perf, const char *reason, char *text, size_t size)
{
    text[0] = '\0';
    for (int i = 0; i < RA_PERF_EVENTS; i++)
        if (strcmp(perf->refusals[i].reason, reason) == 0)
            append(text, size, ", ", ra_perf_metric((enum ra_perf_event)i));
}

bool ra_perf_describe(char *found, size_t found_size, char *fix, size_t fix_size)
{
    struct ra_perf perf;
    int n_open = ra_perf_open(&perf);
    ra_perf_close(&perf);
    list(&perf, "", found, found_size);
    fix[0] = '\0';
    if (n_open == 0)
        snprintf(found, found_size, "none");
    if (n_open < RA_PERF_EVENTS)
        append(fix, fix_size, "", "only needed for replay --profile counters on the cpu backend");
    for (int i = 0; i < RA_PERF_EVENTS; i++) {
        char names[256], more[512];
        if (!is_first(&perf, i))
            continue;
        list(&perf, perf.refusals[i].reason, names, sizeof names);
        snprintf(more, sizeof more, "not %s: %s", names, perf.refusals[i].reason);
        append(found, found_size, "; ", more);
        append(fix, fix_size, ": ", perf.refusals[i].fix);
    }
    return n_open == RA_PERF_EVENTS;
}
