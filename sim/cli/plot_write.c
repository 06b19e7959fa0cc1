/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a query to the files of a figure. Text of the store is foreign: it reaches the script only
 * inside quotes that it cannot leave, and never holds a control byte.
 */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "profiler/metrics.h"
#include "sim/base/json_memory.h"
#include "sim/cli/out_file.h"
#include "sim/cli/plot.h"
#include "sim/cli/plot_words.h"

/* The page's width in sizes of the three fonts, times a hundred: see house.gp. */
enum { TITLE_WIDTH = 2840, CAPTION_WIDTH = 3780, SERIES_WIDTH = 3250 };
enum { TEXT_MAX = 2048, SERIES_MAX = 256 };
enum { BOUND_LINES = 256 }; /* lines of bounds in house.gp begin behind it */

static const char *const extensions[] = {"svg", "png", "pdf"};

struct out {
    struct ra_out_file file;
    char path[PATH_MAX];
};

struct figure {
    struct out tsv, gp;
    json_t *runs;
    char caption[TEXT_MAX];
    char last[TEXT_MAX]; /* series of the row before */
    long n_rows;
    int n_series;
    bool has_title;
};

/* A series keeps its line in every figure: the place of its run among those chosen, from 1; n + 1
 * when it is none of them. */
static size_t line_of(const json_t *runs, const char *series)
{
    size_t i = 0;
    while (i < json_array_size(runs) &&
           strcmp(json_string_value(json_object_get(json_array_get(runs, i), "series")), series) !=
               0)
        i++;
    return i + 1;
}

/* The variables of the next series: its name, in the lines of the key, and its line. */
static void put_series(struct figure *figure, const char *series)
{
    char name[32], label[TEXT_MAX];
    size_t line = line_of(figure->runs, series);
    const json_t *run = json_array_get(figure->runs, line - 1);
    bool is_bound = json_is_true(json_object_get(run, "is_bound"));
    snprintf(figure->last, sizeof figure->last, "%s", series);
    snprintf(name, sizeof name, "series_%d", ++figure->n_series);
    snprintf(label, sizeof label, "%s%s", series, is_bound ? " (a bound, no schedule)" : "");
    ra_plot_put_lines(figure->gp.file.stream, name, label, SERIES_WIDTH);
    fprintf(figure->gp.file.stream, "line_%d = %zu\n", figure->n_series,
            line + (is_bound ? BOUND_LINES : 0));
}

/* The heading of the table; for each column that is a metric, what its axis says. */
static void put_columns(struct figure *figure, const struct ra_store_cells *row, bool has_series)
{
    fputs(has_series ? "line\t" : "", figure->tsv.file.stream);
    for (int i = 0; i < row->n; i++) {
        const struct ra_metric *metric = ra_metric_find(row->names[i]);
        fprintf(figure->tsv.file.stream, "%s%s", row->names[i], i + 1 < row->n ? "\t" : "\n");
        if (metric)
            fprintf(figure->gp.file.stream,
                    *metric->unit ? "axis_%s = '%s (%s)'\n" : "axis_%s = '%s'\n", metric->name,
                    metric->label, metric->unit);
    }
}

/* Rows are numbered by series, so that a script need not compare names. */
static enum ra_status on_row(void *context, const struct ra_store_cells *row, struct ra_error *err)
{
    struct figure *figure = context;
    bool has_series = row->n > 0 && strcmp(row->names[0], "series") == 0;
    const char *series = has_series && row->text[0] ? row->text[0] : "";
    if (figure->n_rows == 0)
        put_columns(figure, row, has_series);
    if (has_series && (figure->n_rows == 0 || strcmp(figure->last, series) != 0)) {
        if (figure->n_series == SERIES_MAX)
            return ra_fail(err, RA_ERANGE, "%s: more than %d series: choose some with --run",
                           figure->tsv.path, SERIES_MAX);
        put_series(figure, series);
    }
    if (has_series)
        fprintf(figure->tsv.file.stream, "%d\t", figure->n_series);
    for (int i = 0; i < row->n; i++) {
        ra_plot_put_cell(figure->tsv.file.stream, row->text[i]);
        fputc(i + 1 < row->n ? '\t' : '\n', figure->tsv.file.stream);
    }
    figure->n_rows++;
    return RA_OK;
}

static enum ra_status on_house(void *context, const struct ra_store_cells *row,
                               struct ra_error *err)
{
    struct figure *figure = context;
    (void)err;
    snprintf(figure->caption, sizeof figure->caption, "%s",
             row->n > 0 && row->text[0] ? row->text[0] : "");
    return RA_OK;
}

static enum ra_status on_facts(void *context, const struct ra_store_cells *row,
                               struct ra_error *err)
{
    struct figure *figure = context;
    (void)err;
    for (int i = 0; i < row->n; i++) {
        const char *name = row->names[i], *text = row->text[i] ? row->text[i] : "";
        size_t used = strlen(figure->caption);
        if (strcmp(name, "title") == 0) {
            figure->has_title = *text != '\0';
            ra_plot_put_lines(figure->gp.file.stream, name, text, TITLE_WIDTH);
        } else if (strcmp(name, "method") == 0) {
            snprintf(figure->caption + used, sizeof figure->caption - used, "; %s", text);
        } else {
            ra_plot_put_text(figure->gp.file.stream, name, text);
        }
    }
    return RA_OK;
}

static enum ra_status query(struct ra_store *store, const struct ra_plot *plot, const char *runs,
                            struct figure *figure, struct ra_error *err)
{
    const char *house = ra_plot_house_sql, *sql = plot->sql;
    fputs("panels = 1\n", figure->gp.file.stream);
    RA_TRY(ra_store_select(store, &house, runs, on_house, figure, err));
    RA_TRY(ra_store_select(store, &sql, runs, on_row, figure, err));
    return ra_store_select(store, &sql, runs, on_facts, figure, err);
}

static void put_script(struct figure *figure, const struct ra_plot *plot,
                       enum ra_plot_format format)
{
    ra_plot_put_lines(figure->gp.file.stream, "caption", figure->caption, CAPTION_WIDTH);
    fprintf(figure->gp.file.stream, "n_series = %d\nname = '%s'\nformat = '%s'\n", figure->n_series,
            plot->name, extensions[format]);
    fputs(ra_plot_house_gp, figure->gp.file.stream);
    fputs(plot->gp, figure->gp.file.stream);
}

static enum ra_status open_file(const char *folder, const char *name, const char *extension,
                                struct out *out, struct ra_error *err)
{
    int n = snprintf(out->path, sizeof out->path, "%s/%s.%s", folder, name, extension);
    if (n < 0 || (size_t)n >= sizeof out->path)
        return ra_fail(err, RA_EUSAGE, "%.64s...: path too long", folder);
    return ra_out_open(&out->file, out->path, err);
}

/* A figure that is not drawn leaves none of an earlier call behind, which would pass for it. */
static void remove_files(const struct figure *figure, const struct ra_plot_target *target,
                         const char *name)
{
    char path[PATH_MAX];
    int n =
        snprintf(path, sizeof path, "%s/%s.%s", target->folder, name, extensions[target->format]);
    if (n > 0 && (size_t)n < sizeof path)
        remove(path);
    remove(figure->gp.path);
    remove(figure->tsv.path);
}

enum ra_status ra_plot_write(struct ra_store *store, const struct ra_plot *plot, const char *runs,
                             const struct ra_plot_target *target, bool *has_rows,
                             struct ra_error *err)
{
    struct figure *figure = calloc(1, sizeof *figure);
    if (!figure)
        return ra_fail(err, RA_ENOMEM, "no memory for a figure");
    figure->runs = json_loads(runs, 0, NULL);
    enum ra_status status =
        figure->runs ? RA_OK : ra_fail(err, RA_ENOMEM, "no memory for the runs");
    if (status == RA_OK)
        status = open_file(target->folder, plot->name, "tsv", &figure->tsv, err);
    if (status == RA_OK)
        status = open_file(target->folder, plot->name, "gp", &figure->gp, err);
    if (status == RA_OK)
        status = query(store, plot, runs, figure, err);
    if (status == RA_OK)
        put_script(figure, plot, target->format);
    if (status == RA_OK && ra_json_starved())
        status = ra_fail(err, RA_ENOMEM, "no memory for the words of a figure");
    *has_rows = figure->n_rows > 0 && figure->has_title;
    status = ra_out_close(&figure->gp.file, status, err);
    status = ra_out_close(&figure->tsv.file, status, err);
    if (status == RA_OK && !*has_rows)
        remove_files(figure, target, plot->name);
    json_decref(figure->runs);
    free(figure);
    return status;
}
