/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a query to the files of a figure. Text of the store is foreign: it reaches the script only
 * inside quotes that it cannot leave, and never holds a control byte.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "profiler/metrics.h"
#include "sim/cli/plot.h"
#include "sim/cli/plot_words.h"

/* The page's width in sizes of the three fonts, times a hundred: see house.gp. */
enum { TITLE_WIDTH = 2840, CAPTION_WIDTH = 3780, SERIES_WIDTH = 3250 };
enum { TEXT_MAX = 2048, SERIES_MAX = 256 };
enum { BOUND_LINES = 256 }; /* lines of bounds in house.gp begin behind it */

static const char *const extensions[] = {"svg", "png", "pdf"};

struct figure {
    FILE *tsv, *gp;
    json_t *runs;
    char path[4096];
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
    ra_plot_put_lines(figure->gp, name, label, SERIES_WIDTH);
    fprintf(figure->gp, "line_%d = %zu\n", figure->n_series, line + (is_bound ? BOUND_LINES : 0));
}

/* The heading of the table; for each column that is a metric, what its axis says. */
static void put_columns(struct figure *figure, const struct ra_store_cells *row, bool has_series)
{
    fputs(has_series ? "line\t" : "", figure->tsv);
    for (int i = 0; i < row->n; i++) {
        const struct ra_metric *metric = ra_metric_find(row->names[i]);
        fprintf(figure->tsv, "%s%s", row->names[i], i + 1 < row->n ? "\t" : "\n");
        if (metric)
            fprintf(figure->gp, *metric->unit ? "axis_%s = '%s (%s)'\n" : "axis_%s = '%s'\n",
                    metric->name, metric->label, metric->unit);
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
                           figure->path, SERIES_MAX);
        put_series(figure, series);
    }
    if (has_series)
        fprintf(figure->tsv, "%d\t", figure->n_series);
    for (int i = 0; i < row->n; i++) {
        ra_plot_put_cell(figure->tsv, row->text[i]);
        fputc(i + 1 < row->n ? '\t' : '\n', figure->tsv);
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
            ra_plot_put_lines(figure->gp, name, text, TITLE_WIDTH);
        } else if (strcmp(name, "method") == 0) {
            snprintf(figure->caption + used, sizeof figure->caption - used, "; %s", text);
        } else {
            ra_plot_put_text(figure->gp, name, text);
        }
    }
    return RA_OK;
}

static enum ra_status query(struct ra_store *store, const struct ra_plot *plot, const char *runs,
                            struct figure *figure, struct ra_error *err)
{
    const char *house = ra_plot_house_sql, *sql = plot->sql;
    fputs("panels = 1\n", figure->gp);
    RA_TRY(ra_store_select(store, &house, runs, on_house, figure, err));
    RA_TRY(ra_store_select(store, &sql, runs, on_row, figure, err));
    return ra_store_select(store, &sql, runs, on_facts, figure, err);
}

static void put_script(struct figure *figure, const struct ra_plot *plot,
                       enum ra_plot_format format)
{
    ra_plot_put_lines(figure->gp, "caption", figure->caption, CAPTION_WIDTH);
    fprintf(figure->gp, "n_series = %d\nname = '%s'\nformat = '%s'\n", figure->n_series, plot->name,
            extensions[format]);
    fputs(ra_plot_house_gp, figure->gp);
    fputs(plot->gp, figure->gp);
}

static enum ra_status open_file(struct figure *figure, const struct ra_plot_target *target,
                                const char *name, const char *extension, FILE **file,
                                struct ra_error *err)
{
    int n =
        snprintf(figure->path, sizeof figure->path, "%s/%s.%s", target->folder, name, extension);
    if (n < 0 || (size_t)n >= sizeof figure->path)
        return ra_fail(err, RA_EUSAGE, "%.64s...: path too long", target->folder);
    *file = fopen(figure->path, "w");
    return *file ? RA_OK : ra_fail(err, RA_EIO, "%s: %s", figure->path, strerror(errno));
}

/* The first failure is the one told. */
static enum ra_status close_file(FILE *file, const char *path, enum ra_status status,
                                 struct ra_error *err)
{
    if (!file)
        return status;
    bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed)
        return status != RA_OK
                   ? status
                   : ra_fail(err, RA_EIO, "%s: %s", path, errno ? strerror(errno) : "write failed");
    return status;
}

/* A figure that is not drawn leaves none of an earlier call behind, which would pass for it. */
static enum ra_status remove_files(struct figure *figure, const struct ra_plot_target *target,
                                   const char *name)
{
    const char *const all[] = {"tsv", "gp", extensions[target->format]};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        snprintf(figure->path, sizeof figure->path, "%s/%s.%s", target->folder, name, all[i]);
        remove(figure->path);
    }
    return RA_OK;
}

enum ra_status ra_plot_write(struct ra_store *store, const struct ra_plot *plot, const char *runs,
                             const struct ra_plot_target *target, bool *has_rows,
                             struct ra_error *err)
{
    struct figure *figure = calloc(1, sizeof *figure);
    if (!figure)
        return ra_fail(err, RA_ENOMEM, "no memory for a figure");
    figure->runs = json_loads(runs, 0, NULL);
    enum ra_status status = open_file(figure, target, plot->name, "tsv", &figure->tsv, err);
    if (status == RA_OK)
        status = open_file(figure, target, plot->name, "gp", &figure->gp, err);
    if (status == RA_OK)
        status = query(store, plot, runs, figure, err);
    if (status == RA_OK)
        put_script(figure, plot, target->format);
    status = close_file(figure->gp, figure->path, status, err);
    status = close_file(figure->tsv, figure->path, status, err);
    *has_rows = figure->n_rows > 0 && figure->has_title;
    if (status == RA_OK && !*has_rows)
        status = remove_files(figure, target, plot->name);
    json_decref(figure->runs);
    free(figure);
    return status;
}
