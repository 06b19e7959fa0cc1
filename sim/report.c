/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results as a table for people, and as JSON. Reads nothing but the result objects, so a table
 * printed from a store is the one the replay printed.
 */
#include "sim/report.h"

#include <math.h>
#include <string.h>

#include "profiler/metrics.h"
#include "sim/base/text.h"
#include "sim/policy.h"

enum { POLICY_COLUMNS = 24, LINE = 79, SHORT_MAX = 512 };

/* --- values ------------------------------------------------------------------------------------
 */

/* Text of a member, "" when there is none. */
static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* A number, NaN when there is none. `inner` may be NULL. */
static double number_of(const json_t *object, const char *key, const char *inner)
{
    const json_t *value = json_object_get(object, key);
    if (inner)
        value = json_object_get(value, inner);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Results may come from a foreign file: control bytes must not reach a terminal. */
static void put_safe(FILE *out, const char *text)
{
    for (; *text; text++)
        fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, out);
}

static void put_number(FILE *out, int width, const char *format, double value)
{
    char text[32];
    if (isnan(value))
        fprintf(out, "%*s", width, "-");
    else {
        snprintf(text, sizeof text, format, value);
        fprintf(out, "%*s", width, text);
    }
}

/* --- policies ----------------------------------------------------------------------------------
 */

static const struct ra_param *params_of(struct ra_span name)
{
    for (size_t i = 0; ra_policies[i]; i++)
        if (ra_span_is(name, ra_policies[i]->name))
            return ra_policies[i]->params;
    return NULL;
}

static bool is_default(const struct ra_param *params, struct ra_span word)
{
    struct ra_span key, value = word;
    if (!ra_span_cut(&value, '=', &key))
        return false;
    for (; params && params->name; params++)
        if (ra_span_is(key, params->name))
            return params->fallback && ra_span_is(value, params->fallback);
    return false;
}

void ra_report_short_policy(const char *canonical, char *out, size_t size)
{
    struct ra_writer writer = {out, size, 0};
    struct ra_span rest = ra_span_of(canonical), name, word;
    bool more = ra_span_cut(&rest, ':', &name);
    const struct ra_param *params = more ? params_of(name) : NULL;
    if (!params) {
        snprintf(out, size, "%s", canonical);
        return;
    }
    ra_write(&writer, "%.*s", (int)name.n, name.at);
    char separator = ':';
    while (more) {
        more = ra_span_cut(&rest, ',', &word);
        if (is_default(params, word))
            continue;
        ra_write(&writer, "%c%.*s", separator, (int)word.n, word.at);
        separator = ',';
    }
}

/* Print as much of a spelling as fits the column, up to a comma; returns what is left, or NULL.
 * *n_put is the number of characters printed. */
static const char *put_policy(FILE *out, const char *text, int width, int *n_put)
{
    size_t n = strlen(text), fits = 0;
    if (n > (size_t)width)
        for (size_t i = 0; i < (size_t)width; i++)
            if (text[i] == ',')
                fits = i + 1;
    if (n <= (size_t)width)
        fits = n;
    else if (fits == 0)
        fits = (size_t)width;
    char piece[SHORT_MAX];
    snprintf(piece, sizeof piece, "%.*s", (int)fits, text);
    put_safe(out, piece);
    *n_put = (int)fits;
    return fits < n ? text + fits : NULL;
}

/* --- one table ---------------------------------------------------------------------------------
 */

/* How many there were of what is one by default; results of earlier versions do not say. */
static double many_of(const json_t *row, const char *key)
{
    double n = number_of(row, key, NULL);
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
    double number = number_of(row, "batch_member", NULL);
    return number >= 0 ? number : -1;
}

/* How these differ; those of earlier versions did not. */
static bool is_spread(const json_t *row)
{
    return strcmp(text_of(row, "phase"), "spread") == 0;
}

static double ragged_of(const json_t *row)
{
    double share = number_of(row, "ragged", NULL);
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
    const char *between = text_of(row, "between");
    return *between ? between : "none";
}

/* Rows of one table have these in common: times of two methods never share a column. */
static bool same_table(const json_t *a, const json_t *b)
{
    static const char *const keys[] = {"trace", "backend", "device", "launch_mode"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(text_of(a, keys[i]), text_of(b, keys[i])) != 0)
            return false;
    const json_t *time_a = json_object_get(a, "attention_ns"),
                 *time_b = json_object_get(b, "attention_ns");
    double steps_a = number_of(a, "steps", NULL), steps_b = number_of(b, "steps", NULL);
    return strcmp(text_of(time_a, "method"), text_of(time_b, "method")) == 0 &&
           number_of(a, "sequence", NULL) == number_of(b, "sequence", NULL) &&
           copies_of(a) == copies_of(b) && member_of(a) == member_of(b) &&
           is_spread(a) == is_spread(b) && ragged_of(a) == ragged_of(b) &&
           tiles_of(a) == tiles_of(b) && strcmp(between_of(a), between_of(b)) == 0 &&
           (steps_a == steps_b || (isnan(steps_a) && isnan(steps_b)));
}

/* KV read and written and selection, bytes over all steps: what a step costs the memory. */
static double bytes_of(const json_t *row)
{
    return number_of(row, "kv_read_bytes", NULL) + number_of(row, "kv_write_bytes", NULL) +
           number_of(row, "selection_bytes", NULL);
}

/* Unit for the table's times, from its longest: a column has one unit. */
static const char *time_unit(double longest_ns, double *scale)
{
    bool is_ms = longest_ns >= 1e6;
    *scale = is_ms ? 1e-6 : 1e-3;
    return is_ms ? "ms" : "us";
}

struct table {
    FILE *out;
    const json_t *results;
    size_t first; /* index of the row that opens the table */
    double full_bytes, longest_ns, scale;
};

static void scan(struct table *table)
{
    const json_t *head = json_array_get(table->results, table->first);
    table->full_bytes = NAN;
    table->longest_ns = 0;
    for (size_t i = table->first; i < json_array_size(table->results); i++) {
        const json_t *row = json_array_get(table->results, i);
        if (!same_table(head, row))
            continue;
        if (strcmp(text_of(row, "policy"), "full") == 0)
            table->full_bytes = bytes_of(row);
        double ns = number_of(row, "attention_ns", "per_step_mean");
        if (ns > table->longest_ns)
            table->longest_ns = ns;
    }
}

static void put_row(const struct table *table, const json_t *row)
{
    FILE *out = table->out;
    char policy[SHORT_MAX];
    ra_report_short_policy(text_of(row, "policy"), policy, sizeof policy);
    int n;
    const char *rest = put_policy(out, policy, POLICY_COLUMNS, &n);
    fprintf(out, "%*s", POLICY_COLUMNS - n, "");
    const json_t *sparse = json_object_get(row, "on_recycled");
    put_number(out, 7, "%.4f", number_of(row, "mass_recovered", "mean"));
    put_number(out, 7, "%.4f", number_of(row, "mass_recovered", "p05"));
    put_number(out, 7, "%.4f", number_of(sparse, "mass_recovered", "mean"));
    put_number(out, 7, "%.4f", number_of(row, "output_rel_err", "p95"));
    put_number(out, 7, "%.1f", 100 * bytes_of(row) / table->full_bytes);
    double time = table->scale * number_of(row, "attention_ns", "per_step_mean");
    put_number(out, 7, time < 10 ? "%.3f" : "%.1f", time);
    put_number(out, 6, "%.2f", number_of(row, "speedup_attention", NULL));
    put_number(out, 7, "%.4g", number_of(row, "effective_stride", NULL));
    fputc('\n', out);
    while (rest) {
        fputs("  ", out);
        rest = put_policy(out, rest, POLICY_COLUMNS - 2, &n);
        fputc('\n', out);
    }
}

/* Words with commas between, broken before column LINE. */
struct line {
    FILE *out;
    int column;
};

static void put_part(struct line *line, const char *text)
{
    int n = (int)strlen(text);
    if (line->column > 0 && line->column + n + 2 > LINE) {
        fputs(",\n  ", line->out);
        line->column = 2;
    } else if (line->column > 0) {
        fputs(", ", line->out);
        line->column += 2;
    }
    put_safe(line->out, text);
    line->column += n;
}

static void put_heading(const struct table *table, const json_t *row)
{
    struct line line = {table->out, 0};
    char part[1024];
    snprintf(part, sizeof part, "%s: %s", text_of(row, "trace"), text_of(row, "model"));
    put_part(&line, part);
    snprintf(part, sizeof part, "layers %zu of %.0f", layers_of(row),
             number_of(row, "n_layers", NULL));
    put_part(&line, part);
    if (tiles_of(row) > 1) {
        snprintf(part, sizeof part, "laid out %.0f times", tiles_of(row));
        put_part(&line, part);
    }
    snprintf(part, sizeof part, "P = %.0f prompt tokens", number_of(row, "P", NULL));
    put_part(&line, part);
    snprintf(part, sizeof part, "N = %.0f steps", number_of(row, "N", NULL));
    put_part(&line, part);
    if (number_of(row, "steps", NULL) < number_of(row, "N", NULL)) {
        snprintf(part, sizeof part, "%.0f of them counted", number_of(row, "steps", NULL));
        put_part(&line, part);
    }
    if (number_of(row, "sequence", NULL) > 0) {
        snprintf(part, sizeof part, "sequence %.0f", number_of(row, "sequence", NULL));
        put_part(&line, part);
    }
    if (copies_of(row) > 1) {
        snprintf(part, sizeof part,
                 member_of(row) >= 0 ? "in one batch of %.0f sequences, whose time is told"
                                     : "%.0f copies of one trace",
                 copies_of(row));
        put_part(&line, part);
        if (is_spread(row))
            put_part(&line, "full steps spread");
        if (ragged_of(row) > 0) {
            snprintf(part, sizeof part, "lengths down to %.4g %%", 100 * (1 - ragged_of(row)));
            put_part(&line, part);
        }
    }
    snprintf(part, sizeof part, "recorded under %s attention", text_of(row, "schedule_of_trace"));
    put_part(&line, part);
    if (*text_of(row, "synthetic"))
        put_part(&line, text_of(row, "synthetic"));
    fputs("\n\n", table->out);
}

static void put_columns(const struct table *table, bool is_timed, const char *unit)
{
    static const char *const above[] = {"mass",  "mass", "mass",  "error",
                                        "bytes", "time", "speed", "eff."};
    const char *below[] = {"mean", "p05",   "sparse", "p95", "% full", is_timed ? unit : "-",
                           "up",   "stride"};
    static const int widths[] = {7, 7, 7, 7, 7, 7, 6, 7};
    fprintf(table->out, "%*s", POLICY_COLUMNS, "");
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        fprintf(table->out, "%*s", widths[i], above[i]);
    fprintf(table->out, "\n%-*s", POLICY_COLUMNS, "policy");
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        fprintf(table->out, "%*s", widths[i], below[i]);
    fputc('\n', table->out);
}

/* Words, broken at blanks before column LINE. */
static void put_words(FILE *out, const char *text)
{
    for (size_t n, column = 0; *text; text += n + strspn(text + n, " "), column += n + 1) {
        n = strcspn(text, " ");
        if (column + n > LINE)
            column = 0;
        fprintf(out, "%s%.*s", column ? " " : "\n", (int)n, text);
    }
    fputc('\n', out);
}

static void put_notes(const struct table *table, const json_t *row, bool is_timed)
{
    FILE *out = table->out;
    char words[512];
    snprintf(words, sizeof words,
             "mass: %s (1 = all); mass sparse: on steps that do not attend to everything; error: "
             "%s; bytes: KV read and written and selection, per step, against full",
             ra_metric_find("mass_recovered")->help, ra_metric_find("output_rel_err")->help);
    put_words(out, words);
    if (is_timed) {
        struct line line = {out, 0};
        char part[512], layers[64] = "replayed layers";
        if (tiles_of(row) > 1)
            snprintf(layers, sizeof layers, "%.0f layers laid out",
                     tiles_of(row) * (double)layers_of(row));
        snprintf(part, sizeof part, "time: %s per step, attention of all %s",
                 text_of(json_object_get(row, "attention_ns"), "method"), layers);
        put_part(&line, part);
        if (strcmp(between_of(row), "none") != 0)
            put_part(&line, "caches as cold as in a model");
        double repeats = number_of(row, "repeats", NULL);
        if (repeats > 1) {
            snprintf(part, sizeof part, "median of %.0f repeats", repeats);
            put_part(&line, part);
        }
        snprintf(part, sizeof part, "%s backend on %s", text_of(row, "backend"),
                 text_of(row, "device"));
        put_part(&line, part);
        fputc('\n', out);
    }
    fputs("open loop: exact for this recording; later drift is not included (see eval)\n", out);
}

/* The worst rounding of the table's rows, its bound beside it. */
static void put_kernel_err(const struct table *table, const json_t *head)
{
    double worst = NAN, bound = NAN, ties = 0;
    for (size_t i = table->first; i < json_array_size(table->results); i++) {
        const json_t *row = json_array_get(table->results, i);
        if (!same_table(head, row))
            continue;
        double err = number_of(row, "kernel_err", "max"), near = number_of(row, "near_ties", NULL);
        if (!isnan(err) && !(err <= worst)) {
            worst = err;
            bound = number_of(row, "kernel_err", "bound");
        }
        ties += isnan(near) ? 0 : near;
    }
    if (isnan(worst))
        return;
    fprintf(table->out, "kernel_err at most %.2g", worst);
    if (!isnan(bound))
        fprintf(table->out, " (bound %.2g)", bound);
    fprintf(table->out, ", near ties %.0f\n", ties);
}

/* The split by token type of the rows that have one. */
static void put_types(const struct table *table, const json_t *head)
{
    bool has_heading = false;
    for (size_t i = table->first; i < json_array_size(table->results); i++) {
        const json_t *row = json_array_get(table->results, i);
        json_t *types = json_object_get(row, "by_type");
        if (!types || !same_table(head, row))
            continue;
        if (!has_heading)
            fputs("\nby token type            type       visible   kept   mass recovered  error\n",
                  table->out);
        has_heading = true;
        for (void *at = json_object_iter(types); at; at = json_object_iter_next(types, at)) {
            const json_t *type = json_object_iter_value(at);
            char policy[SHORT_MAX], name[12];
            ra_report_short_policy(text_of(row, "policy"), policy, sizeof policy);
            snprintf(name, sizeof name, "%s", json_object_iter_key(at));
            policy[POLICY_COLUMNS] = '\0';
            put_safe(table->out, policy);
            fprintf(table->out, "%*s ", POLICY_COLUMNS - (int)strlen(policy), "");
            put_safe(table->out, name);
            fprintf(table->out, "%*s", (int)(sizeof name - 1 - strlen(name)), "");
            put_number(table->out, 7, "%.4f", number_of(type, "visible_share", NULL));
            put_number(table->out, 7, "%.4f", number_of(type, "kept_share", NULL));
            put_number(table->out, 7, "%.4f", number_of(type, "mass", NULL));
            put_number(table->out, 10, "%.4f", number_of(type, "mass_recovered", NULL));
            put_number(table->out, 7, "%.4f", number_of(type, "output_rel_err_mean", NULL));
            fputc('\n', table->out);
        }
    }
    if (has_heading)
        fputs("shares of keys: visible, and kept of the visible; mass: share of the full\n"
              "softmax; recovered: kept part of it; error: mean over queries of the type\n",
              table->out);
}

static void put_table(FILE *out, const json_t *results, size_t first)
{
    const json_t *head = json_array_get(results, first);
    struct table table = {.out = out, .results = results, .first = first};
    scan(&table);
    bool is_timed = table.longest_ns > 0;
    const char *unit = time_unit(table.longest_ns, &table.scale);
    put_heading(&table, head);
    if (is_timed && json_is_true(json_object_get(head, "cache_resident")))
        fputs("cache-resident: these times are of KV that fits the last-level cache\n\n", out);
    put_columns(&table, is_timed, unit);
    for (size_t i = first; i < json_array_size(results); i++)
        if (same_table(head, json_array_get(results, i)))
            put_row(&table, json_array_get(results, i));
    put_types(&table, head);
    put_notes(&table, head, is_timed);
    put_kernel_err(&table, head);
}

static void put_text(FILE *out, const json_t *results)
{
    for (size_t i = 0; i < json_array_size(results); i++) {
        bool is_new = true;
        for (size_t j = 0; j < i && is_new; j++)
            is_new = !same_table(json_array_get(results, j), json_array_get(results, i));
        if (!is_new)
            continue;
        if (i > 0)
            fputc('\n', out);
        put_table(out, results, i);
    }
}

enum ra_status ra_report_write(FILE *out, const json_t *results, enum ra_report_format format,
                               struct ra_error *err)
{
    if (!json_is_array(results))
        return ra_fail(err, RA_EFORMAT, "results: expected a list of objects");
    size_t n = json_array_size(results);
    for (size_t i = 0; i < n; i++)
        if (!json_is_object(json_array_get(results, i)))
            return ra_fail(err, RA_EFORMAT, "results: element %zu is not an object", i);
    if (format == RA_REPORT_CSV)
        return ra_report_csv(out, results, err);
    if (format == RA_REPORT_TEXT) {
        put_text(out, results);
        return RA_OK;
    }
    const json_t *whole = n == 1 ? json_array_get(results, 0) : results;
    if (json_dumpf(whole, out, JSON_INDENT(2)) != 0 && !ferror(out))
        return ra_fail(err, RA_ENOMEM, "no memory to write JSON");
    fputc('\n', out);
    return RA_OK;
}
