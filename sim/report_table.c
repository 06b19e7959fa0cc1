/* SPDX-License-Identifier: Apache-2.0 */
/* What a table of results says, apart from how it is laid out. */
#include "sim/report_table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "profiler/metrics.h"
#include "sim/base/text.h"

const char *ra_result_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

double ra_result_number(const json_t *object, const char *key, const char *inner)
{
    const json_t *value = json_object_get(object, key);
    if (inner)
        value = json_object_get(value, inner);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* How many there were of what is one by default; results of earlier versions do not say. */
static double many_of(const json_t *row, const char *key)
{
    double n = ra_result_number(row, key, NULL);
    return n > 1 ? n : 1;
}

/* Copies of the trace that were decoded together, and of its layers that were run in turn. */
static double copies_of(const json_t *row)
{
    return many_of(row, "batch");
}

/* Which of a batch of several sequences; -1: of none. */
static double member_of(const json_t *row)
{
    double number = ra_result_number(row, "batch_member", NULL);
    return number >= 0 ? number : -1;
}

/* How these differ; those of earlier versions did not. */
static bool is_spread(const json_t *row)
{
    return strcmp(ra_result_text(row, "phase"), "spread") == 0;
}

static double ragged_of(const json_t *row)
{
    double share = ra_result_number(row, "ragged", NULL);
    return share > 0 ? share : 0;
}

static double tiles_of(const json_t *row)
{
    return many_of(row, "tile_layers");
}

static size_t layers_of(const json_t *row)
{
    return json_array_size(json_object_get(row, "layers")) +
           json_array_size(json_object_get(row, "window_layers"));
}

/* What was read between layers; results of earlier versions do not say. */
static const char *between_of(const json_t *row)
{
    const char *between = ra_result_text(row, "between");
    return *between ? between : "none";
}

/* Rows of one table have these in common: times of two methods never share a column. */
static bool same_table(const json_t *a, const json_t *b)
{
    static const char *const keys[] = {"trace", "backend", "device", "launch_mode"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(ra_result_text(a, keys[i]), ra_result_text(b, keys[i])) != 0)
            return false;
    const json_t *time_a = json_object_get(a, "attention_ns"),
                 *time_b = json_object_get(b, "attention_ns");
    double steps_a = ra_result_number(a, "steps", NULL),
           steps_b = ra_result_number(b, "steps", NULL);
    return strcmp(ra_result_text(time_a, "method"), ra_result_text(time_b, "method")) == 0 &&
           ra_result_number(a, "sequence", NULL) == ra_result_number(b, "sequence", NULL) &&
           copies_of(a) == copies_of(b) && member_of(a) == member_of(b) &&
           is_spread(a) == is_spread(b) && ragged_of(a) == ragged_of(b) &&
           tiles_of(a) == tiles_of(b) && strcmp(between_of(a), between_of(b)) == 0 &&
           (steps_a == steps_b || (isnan(steps_a) && isnan(steps_b)));
}

double ra_result_bytes(const json_t *row)
{
    return ra_result_number(row, "kv_read_bytes", NULL) +
           ra_result_number(row, "kv_write_bytes", NULL) +
           ra_result_number(row, "selection_bytes", NULL);
}

/* Unit for the table's times, from its longest: a column has one unit. */
static const char *time_unit(double longest_ns, double *scale)
{
    bool is_ms = longest_ns >= 1e6;
    *scale = is_ms ? 1e-6 : 1e-3;
    return is_ms ? "ms" : "us";
}

bool ra_report_table_has(const struct ra_report_table *table, const json_t *result)
{
    return same_table(table->head, result);
}

bool ra_report_table_open(struct ra_report_table *table, const json_t *results, size_t first)
{
    *table = (struct ra_report_table){.results = results,
                                      .head = json_array_get(results, first),
                                      .first = first,
                                      .full_bytes = NAN};
    for (size_t i = 0; i < first; i++)
        if (same_table(json_array_get(results, i), table->head))
            return false;
    double longest_ns = 0;
    for (size_t i = first; i < json_array_size(results); i++) {
        const json_t *row = json_array_get(results, i);
        if (!same_table(table->head, row))
            continue;
        if (strcmp(ra_result_text(row, "policy"), "full") == 0)
            table->full_bytes = ra_result_bytes(row);
        double ns = ra_result_number(row, "attention_ns", "per_step_mean");
        if (ns > longest_ns)
            longest_ns = ns;
    }
    table->is_timed = longest_ns > 0;
    table->time_unit = time_unit(longest_ns, &table->time_scale);
    return true;
}

bool ra_report_transformed(const struct ra_report_table *table)
{
    for (size_t i = table->first; i < json_array_size(table->results); i++) {
        const json_t *row = json_array_get(table->results, i);
        if (same_table(table->head, row) && strchr(ra_result_text(row, "policy"), '+'))
            return true;
    }
    return false;
}

/* --- cells -------------------------------------------------------------------------------------
 */

const struct ra_report_column ra_report_columns[RA_REPORT_COLUMNS] = {
    {"mass", "mean", 7},    {"mass", "p05", 7}, {"mass", "sparse", 7}, {"error", "p95", 7},
    {"bytes", "% full", 7}, {"time", NULL, 7},  {"speed", "up", 6},    {"eff.", "stride", 7},
};

const char *ra_report_column_below(const struct ra_report_table *table, int column)
{
    const char *below = ra_report_columns[column].below;
    return below ? below : table->is_timed ? table->time_unit : "-";
}

void ra_report_cells(const struct ra_report_table *table, const json_t *row,
                     char cells[RA_REPORT_COLUMNS][RA_REPORT_CELL])
{
    const json_t *sparse = json_object_get(row, "on_recycled");
    double time = table->time_scale * ra_result_number(row, "attention_ns", "per_step_mean");
    const struct {
        const char *format;
        double value;
    } columns[RA_REPORT_COLUMNS] = {
        {"%.4f", ra_result_number(row, "mass_recovered", "mean")},
        {"%.4f", ra_result_number(row, "mass_recovered", "p05")},
        {"%.4f", ra_result_number(sparse, "mass_recovered", "mean")},
        {"%.4f", ra_result_number(row, "output_rel_err", "p95")},
        {"%.1f", 100 * ra_result_bytes(row) / table->full_bytes},
        {time < 10 ? "%.3f" : "%.1f", time},
        {"%.2f", ra_result_number(row, "speedup_attention", NULL)},
        {"%.4g", ra_result_number(row, "effective_stride", NULL)},
    };
    for (int i = 0; i < RA_REPORT_COLUMNS; i++)
        if (isnan(columns[i].value))
            snprintf(cells[i], RA_REPORT_CELL, "-");
        else
            snprintf(cells[i], RA_REPORT_CELL, columns[i].format, columns[i].value);
}

/* --- words -------------------------------------------------------------------------------------
 */

static void put_tiles(const json_t *row, ra_report_part_fn put, void *context)
{
    char part[128];
    if (tiles_of(row) > 1) {
        snprintf(part, sizeof part, "laid out %.0f times", tiles_of(row));
        put(context, part);
    }
}

static void put_copies(const json_t *row, ra_report_part_fn put, void *context)
{
    char part[128];
    if (copies_of(row) > 1) {
        snprintf(part, sizeof part,
                 member_of(row) >= 0 ? "in one batch of %.0f sequences, whose time is told"
                                     : "%.0f copies of one trace",
                 copies_of(row));
        put(context, part);
        if (is_spread(row))
            put(context, "full steps spread");
        if (ragged_of(row) > 0) {
            snprintf(part, sizeof part, "lengths down to %.4g %%", 100 * (1 - ragged_of(row)));
            put(context, part);
        }
    }
}

void ra_report_layout(const json_t *row, ra_report_part_fn put, void *context)
{
    put_tiles(row, put, context);
    put_copies(row, put, context);
}

void ra_report_heading(const json_t *row, ra_report_part_fn put, void *context)
{
    char part[1024];
    snprintf(part, sizeof part, "%s: %s", ra_result_text(row, "trace"),
             ra_result_text(row, "model"));
    put(context, part);
    snprintf(part, sizeof part, "layers %zu of %.0f", layers_of(row),
             ra_result_number(row, "n_layers", NULL));
    put(context, part);
    put_tiles(row, put, context);
    snprintf(part, sizeof part, "P = %.0f prompt tokens", ra_result_number(row, "P", NULL));
    put(context, part);
    snprintf(part, sizeof part, "N = %.0f steps", ra_result_number(row, "N", NULL));
    put(context, part);
    if (ra_result_number(row, "steps", NULL) < ra_result_number(row, "N", NULL)) {
        snprintf(part, sizeof part, "%.0f of them counted", ra_result_number(row, "steps", NULL));
        put(context, part);
    }
    if (ra_result_number(row, "sequence", NULL) > 0) {
        snprintf(part, sizeof part, "sequence %.0f", ra_result_number(row, "sequence", NULL));
        put(context, part);
    }
    put_copies(row, put, context);
    snprintf(part, sizeof part, "recorded under %s attention",
             ra_result_text(row, "schedule_of_trace"));
    put(context, part);
    if (*ra_result_text(row, "synthetic"))
        put(context, ra_result_text(row, "synthetic"));
}

void ra_report_times(const struct ra_report_table *table, ra_report_part_fn put, void *context)
{
    const json_t *row = table->head;
    char part[512], layers[64] = "replayed layers";
    if (!table->is_timed)
        return;
    if (tiles_of(row) > 1)
        snprintf(layers, sizeof layers, "%.0f layers laid out",
                 tiles_of(row) * (double)layers_of(row));
    snprintf(part, sizeof part, "time: %s per step, attention of all %s",
             ra_result_text(json_object_get(row, "attention_ns"), "method"), layers);
    put(context, part);
    if (strcmp(between_of(row), "none") != 0)
        put(context, "caches as cold as in a model");
    double repeats = ra_result_number(row, "repeats", NULL);
    if (repeats > 1) {
        snprintf(part, sizeof part, "median of %.0f repeats", repeats);
        put(context, part);
    }
    snprintf(part, sizeof part, "%s backend on %s", ra_result_text(row, "backend"),
             ra_result_text(row, "device"));
    put(context, part);
}

void ra_report_meaning(char *out, size_t size)
{
    snprintf(out, size,
             "mass: %s (1 = all); mass sparse: on steps that do not attend to everything; error: "
             "%s; bytes: KV read and written and selection, per step, against full",
             ra_metric_find("mass_recovered")->help, ra_metric_find("output_rel_err")->help);
}

bool ra_report_rounding(const struct ra_report_table *table, char *out, size_t size)
{
    double worst = NAN, bound = NAN, ties = 0;
    for (size_t i = table->first; i < json_array_size(table->results); i++) {
        const json_t *row = json_array_get(table->results, i);
        if (!same_table(table->head, row))
            continue;
        double err = ra_result_number(row, "kernel_err", "max"),
               near = ra_result_number(row, "near_ties", NULL);
        if (!isnan(err) && !(err <= worst)) {
            worst = err;
            bound = ra_result_number(row, "kernel_err", "bound");
        }
        ties += isnan(near) ? 0 : near;
    }
    if (isnan(worst))
        return false;
    struct ra_writer writer = {out, size, 0};
    ra_write(&writer, "kernel_err at most %.2g", worst);
    if (!isnan(bound))
        ra_write(&writer, " (bound %.2g)", bound);
    ra_write(&writer, ", near ties %.0f", ties);
    return true;
}

bool ra_report_late(const struct ra_report_table *table, char *out, size_t size)
{
    const json_t *most = NULL;
    for (size_t i = table->first; i < json_array_size(table->results); i++) {
        const json_t *row = json_array_get(table->results, i);
        double late = ra_result_number(row, "late_steps", NULL);
        if (same_table(table->head, row) && late > 0 &&
            (!most || late > ra_result_number(most, "late_steps", NULL)))
            most = row;
    }
    if (!most)
        return false;
    snprintf(out, size,
             "late: up to %.0f of %.0f steps without a time: the device waited for the host",
             ra_result_number(most, "late_steps", NULL), ra_result_number(most, "steps", NULL));
    return true;
}
