/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a query to the files of a figure. Text of the store is foreign: it reaches the script only
 * inside quotes that it cannot leave, and never holds a control byte.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "sim/cli/plot.h"

enum { TITLE_COLUMNS = 60, CAPTION_COLUMNS = 98, TEXT_MAX = 2048, SERIES_MAX = 256 };

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

/* A cell of the table: neither tab nor line end. */
static void put_cell(FILE *out, const char *text)
{
    for (; text && *text; text++)
        fputc((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text, out);
}

/* A single-quoted gnuplot string, in which nothing but the quote itself is special. */
static void put_quoted(FILE *out, const char *text, size_t n)
{
    fputc('\'', out);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        fputs(c == '\'' ? "'" : "", out);
        fputc(c < ' ' || c == 0x7f ? '?' : c, out);
    }
    fputc('\'', out);
}

/* Where a line of at most `columns` bytes ends: behind a blank, else behind a comma, else there. */
static size_t line_length(const char *text, size_t columns)
{
    size_t n = strlen(text), at = 0;
    if (n <= columns)
        return n;
    for (size_t i = 1; i <= columns; i++)
        if (text[i] == ' ')
            at = i;
    for (size_t i = 1; at == 0 && i < columns; i++)
        if (text[columns - i] == ',')
            at = columns - i + 1;
    for (at = at ? at : columns; at > 1 && ((unsigned char)text[at] & 0xc0) == 0x80; at--)
        ; /* not inside a character */
    return at;
}

/* NAME = 'line'."\n".'line', and n_NAME = the number of lines. */
static void put_wrapped(FILE *out, const char *name, const char *text, size_t columns)
{
    int n_lines = 0;
    fprintf(out, "%s = ", name);
    do {
        size_t n = line_length(text, columns);
        fputs(n_lines++ ? ".\"\\n\"." : "", out);
        put_quoted(out, text, n);
        text += n;
        text += strspn(text, " ");
    } while (*text);
    fprintf(out, "\nn_%s = %d\n", name, n_lines);
}

/* A series keeps its line in every figure: the place of its run among those chosen, from 1. */
static size_t line_of(const json_t *runs, const char *series)
{
    size_t i = 0;
    while (i < json_array_size(runs) &&
           strcmp(json_string_value(json_object_get(json_array_get(runs, i), "series")), series) !=
               0)
        i++;
    return i + 1;
}

/* The variables of the next series: its name and its line. */
static void put_series(struct figure *figure, const char *series)
{
    snprintf(figure->last, sizeof figure->last, "%s", series);
    fprintf(figure->gp, "series_%d = ", ++figure->n_series);
    put_quoted(figure->gp, series, strlen(series));
    fprintf(figure->gp, "\nline_%d = %zu\n", figure->n_series, line_of(figure->runs, series));
}

static enum ra_status on_row(void *context, const struct ra_store_cells *row, struct ra_error *err)
{
    struct figure *figure = context;
    bool has_series = row->n > 0 && strcmp(row->names[0], "series") == 0;
    if (has_series && (figure->n_rows == 0 || strcmp(figure->last, row->text[0]) != 0)) {
        if (figure->n_series == SERIES_MAX)
            return ra_fail(err, RA_ERANGE, "%s: more than %d series", figure->path, SERIES_MAX);
        put_series(figure, row->text[0]);
    }
    for (int i = 0; figure->n_rows == 0 && i < row->n; i++)
        fprintf(figure->tsv, "%s%s", row->names[i], i + 1 < row->n ? "\t" : "\n");
    for (int i = 0; i < row->n; i++) {
        put_cell(figure->tsv, row->text[i]);
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
            put_wrapped(figure->gp, name, text, TITLE_COLUMNS);
        } else if (strcmp(name, "method") == 0) {
            snprintf(figure->caption + used, sizeof figure->caption - used, "; %s", text);
        } else {
            fprintf(figure->gp, "%s = ", name);
            put_quoted(figure->gp, text, strlen(text));
            fputc('\n', figure->gp);
        }
    }
    return RA_OK;
}

static enum ra_status query(struct ra_store *store, const struct ra_plot *plot, const char *runs,
                            struct figure *figure, struct ra_error *err)
{
    const char *house = ra_plot_house_sql, *sql = plot->sql;
    RA_TRY(ra_store_select(store, &house, runs, on_house, figure, err));
    RA_TRY(ra_store_select(store, &sql, runs, on_row, figure, err));
    return ra_store_select(store, &sql, runs, on_facts, figure, err);
}

static void put_script(struct figure *figure, const struct ra_plot *plot,
                       enum ra_plot_format format)
{
    put_wrapped(figure->gp, "caption", figure->caption, CAPTION_COLUMNS);
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

static enum ra_status remove_files(struct figure *figure, const struct ra_plot_target *target,
                                   const char *name)
{
    static const char *const both[] = {"tsv", "gp"};
    for (int i = 0; i < 2; i++) {
        snprintf(figure->path, sizeof figure->path, "%s/%s.%s", target->folder, name, both[i]);
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
