/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of what is reproduced and how closely, and the comparison of a generated trace with the
 * recorded one. Both are read through the public interface of traces, like any other trace.
 */
#include "traces/synth_fit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct ra_fit_definition ra_fit_definitions[RA_FIT_N] = {
    [RA_FIT_SINK] = {"sink-mass", 0.05, false, true},
    [RA_FIT_TOP_64] = {"top-mass-64", 0.05, false, true},
    [RA_FIT_TOP_16] = {"top-mass-16", 0.05, false, true},
    [RA_FIT_TOP_8] = {"top-mass-8", 0.05, false, true},
    [RA_FIT_TOP_4] = {"top-mass-4", 0.05, false, true},
    [RA_FIT_RUN] = {"run-length", 0.05, true, true},
    [RA_FIT_OVERLAP] = {"refresh-overlap", 0.05, false, true},
    [RA_FIT_COSINE_1] = {"query-cosine-1", 0.05, false, true},
    [RA_FIT_COSINE_4] = {"query-cosine-4", 0.05, false, true},
    [RA_FIT_COSINE_16] = {"query-cosine-16", 0.05, false, true},
    [RA_FIT_COSINE_64] = {"query-cosine-64", 0.05, false, true},
    [RA_FIT_RECENT] = {"recent-mass", 0.1, false, false},
};

double ra_fit_miss(enum ra_fit_stat stat, double target, double obtained)
{
    const struct ra_fit_definition *definition = &ra_fit_definitions[stat];
    double allowed = definition->tolerance * (definition->is_relative ? fabs(target) : 1);
    return fabs(obtained - target) / allowed;
}

static double worst_miss(const struct ra_fit_row *row)
{
    double worst = 0;
    for (int s = 0; s < RA_FIT_N; s++) {
        double miss = ra_fit_miss(s, row->target.value[s], row->obtained.value[s]);
        if (ra_fit_definitions[s].is_promised && miss > worst)
            worst = miss;
    }
    return worst;
}

static int full_layers(const struct ra_trace_info *info, int *index)
{
    int n = 0;
    for (int i = 0; i < info->n_layers; i++)
        if (!info->layers[i].window)
            index[n++] = i;
    return n;
}

struct pair {
    struct ra_trace *drawn, *source;
    int *index; /* full-attention layers of the source */
    int n_index;
};

static enum ra_status open_pair(struct pair *pair, struct ra_fit_report *report,
                                struct ra_error *err)
{
    RA_TRY(ra_trace_open(&pair->drawn, report->name, err));
    const char *source = ra_trace_metadata(pair->drawn, "synth.like");
    if (!source)
        return ra_fail(err, RA_EUSAGE,
                       "%s: expected a recorded trace or synth:like=TRACE, got a "
                       "trace that is fitted to nothing",
                       report->name);
    RA_TRY(ra_trace_open(&pair->source, source, err));
    const struct ra_trace_info *info = ra_trace_info(pair->source);
    pair->index = calloc((size_t)info->n_layers, sizeof *pair->index);
    report->source = strdup(source);
    report->rows = calloc((size_t)ra_trace_info(pair->drawn)->n_layers, sizeof *report->rows);
    if (!pair->index || !report->source || !report->rows)
        return ra_fail(err, RA_ENOMEM, "statistics: no memory for the layers of %s", report->name);
    report->source_model = info->model;
    pair->n_index = full_layers(info, pair->index);
    RA_BUG_ON(pair->n_index == 0); /* or nothing could have been fitted to it */
    return RA_OK;
}

static enum ra_status measure_row(const struct pair *pair, struct ra_fit_report *report, int layer,
                                  struct ra_error *err)
{
    struct ra_fit_row *row = &report->rows[layer];
    int source_layer = pair->index[layer % pair->n_index];
    row->layer_id = ra_trace_info(pair->drawn)->layers[layer].id;
    row->source_layer_id = ra_trace_info(pair->source)->layers[source_layer].id;
    if (layer >= pair->n_index)
        row->target = report->rows[layer % pair->n_index].target;
    else
        RA_TRY(ra_fit_measure(pair->source, 0, source_layer, &row->target, err));
    RA_TRY(ra_fit_measure(pair->drawn, 0, layer, &row->obtained, err));
    row->worst = worst_miss(row);
    report->n_rows = layer + 1;
    return RA_OK;
}

static enum ra_status name_report(struct ra_fit_report *report, const char *name,
                                  struct ra_error *err)
{
    bool is_generated = strncmp(name, "synth:", 6) == 0;
    if (!is_generated && strchr(name, ','))
        return ra_fail(err, RA_EUSAGE, "%s: expected a name without commas, got one with", name);
    if (asprintf(&report->name, "%s%s", is_generated ? "" : "synth:like=", name) < 0) {
        report->name = NULL;
        return ra_fail(err, RA_ENOMEM, "statistics: no memory");
    }
    return RA_OK;
}

enum ra_status ra_fit_report_open(struct ra_fit_report *report, const char *name,
                                  void (*progress)(void *context, int done, int n), void *context,
                                  struct ra_error *err)
{
    struct pair pair = {0};
    memset(report, 0, sizeof *report);
    enum ra_status st = name_report(report, name, err);
    if (st == RA_OK)
        st = open_pair(&pair, report, err);
    int n = st == RA_OK ? ra_trace_info(pair.drawn)->n_layers : 0;
    for (int i = 0; i < n && st == RA_OK; i++) {
        st = measure_row(&pair, report, i, err);
        if (st == RA_OK && progress)
            progress(context, i + 1, n);
    }
    free(pair.index);
    ra_trace_close(pair.source);
    ra_trace_close(pair.drawn);
    if (st != RA_OK)
        ra_fit_report_close(report);
    return st;
}

void ra_fit_report_close(struct ra_fit_report *report)
{
    free(report->name);
    free(report->source);
    free(report->rows);
    memset(report, 0, sizeof *report);
}
