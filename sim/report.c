/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results as a table for people, and as JSON. Reads nothing but the result objects, so a table
 * printed from a store is the one the replay printed.
 */
#include "sim/report.h"

#include <math.h>
#include <string.h>

#include "sim/base/json_memory.h"
#include "sim/base/text.h"
#include "sim/policy.h"
#include "sim/report_lines.h"
#include "sim/report_table.h"
#include "sim/report_waterfall.h"

enum { POLICY_COLUMNS = RA_REPORT_POLICY, LINE = RA_REPORT_LINE, SHORT_MAX = RA_REPORT_SHORT };

/* --- values ------------------------------------------------------------------------------------
 */

static void put_number(FILE *out, int width, const char *format, double value)
{
    char text[32];
    snprintf(text, sizeof text, format, value);
    fprintf(out, "%*s", width, isnan(value) ? "-" : text);
}

/* --- policies ----------------------------------------------------------------------------------
 */

static const struct ra_param *params_of(struct ra_span name)
{
    for (size_t i = 0; ra_policies[i]; i++)
        if (ra_span_is(name, ra_policies[i]->name))
            return ra_policies[i]->params;
    for (size_t i = 0; ra_transforms[i]; i++)
        if (ra_span_is(name, ra_transforms[i]->name))
            return ra_transforms[i]->params;
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

static void write_short(struct ra_span rest, struct ra_writer *writer)
{
    struct ra_span whole = rest, name, word;
    bool more = ra_span_cut(&rest, ':', &name);
    const struct ra_param *params = more ? params_of(name) : NULL;
    if (!params) {
        ra_write(writer, "%.*s", (int)whole.n, whole.at);
        return;
    }
    ra_write(writer, "%.*s", (int)name.n, name.at);
    char separator = ':';
    while (more) {
        more = ra_span_cut(&rest, ',', &word);
        if (is_default(params, word))
            continue;
        ra_write(writer, "%c%.*s", separator, (int)word.n, word.at);
        separator = ',';
    }
}

void ra_report_short_policy(const char *canonical, char *out, size_t size)
{
    struct ra_writer writer = {out, size, 0};
    struct ra_span rest = ra_span_of(canonical), part;
    bool more = true;
    while (more) {
        more = ra_span_cut(&rest, '+', &part);
        write_short(part, &writer);
        if (more)
            ra_write(&writer, "+");
    }
}

bool ra_report_is_bound(const char *canonical)
{
    struct ra_policy_spec *spec = NULL;
    enum ra_status status = ra_policy_parse(&spec, canonical, NULL);
    if (status == RA_ENOMEM)
        ra_json_lack();
    bool needs_truth = status == RA_OK && (ra_policy_spec_needs(spec) & RA_NEEDS_TRUTH) != 0;
    ra_policy_spec_close(spec);
    return needs_truth;
}

/* --- one table ---------------------------------------------------------------------------------
 */

static void put_row(FILE *out, const struct ra_report_table *table, const json_t *row)
{
    char policy[SHORT_MAX], cells[RA_REPORT_COLUMNS][RA_REPORT_CELL];
    ra_report_short_policy(ra_result_text(row, "policy"), policy, sizeof policy);
    int n;
    const char *rest = ra_report_put_policy(out, policy, POLICY_COLUMNS, &n);
    fprintf(out, "%*s", POLICY_COLUMNS - n, "");
    ra_report_cells(table, row, cells);
    for (int i = 0; i < RA_REPORT_COLUMNS; i++)
        fprintf(out, "%*s", ra_report_columns[i].width, cells[i]);
    fputc('\n', out);
    while (rest) {
        fputs("  ", out);
        rest = ra_report_put_policy(out, rest, POLICY_COLUMNS - 2, &n);
        fputc('\n', out);
    }
}

static void put_columns(FILE *out, const struct ra_report_table *table)
{
    fprintf(out, "%*s", POLICY_COLUMNS, "");
    for (int i = 0; i < RA_REPORT_COLUMNS; i++)
        fprintf(out, "%*s", ra_report_columns[i].width, ra_report_columns[i].above);
    fprintf(out, "\n%-*s", POLICY_COLUMNS, "policy");
    for (int i = 0; i < RA_REPORT_COLUMNS; i++)
        fprintf(out, "%*s", ra_report_columns[i].width, ra_report_column_below(table, i));
    fputc('\n', out);
}

static void put_notes(FILE *out, const struct ra_report_table *table)
{
    char words[512];
    ra_report_meaning(words, sizeof words);
    fputc('\n', out);
    ra_report_put_words(out, words);
    if (table->is_timed) {
        struct ra_report_line line = {out, 0};
        ra_report_times(table, ra_report_put_part, &line);
        fputc('\n', out);
    }
    if (ra_report_late(table, words, sizeof words))
        fprintf(out, "%s\n", words);
    fputs(RA_REPORT_OPEN_LOOP "\n", out);
    if (ra_report_transformed(table))
        fputs(RA_REPORT_TRANSFORMED "\n", out);
    if (ra_report_rounding(table, words, sizeof words))
        fprintf(out, "%s\n", words);
}

/* The split by token type of the rows that have one. */
static void put_types(FILE *out, const struct ra_report_table *table)
{
    bool has_heading = false;
    for (size_t i = table->first; i < json_array_size(table->results); i++) {
        const json_t *row = json_array_get(table->results, i);
        json_t *types = json_object_get(row, "by_type");
        if (!types || !ra_report_table_has(table, row))
            continue;
        if (!has_heading)
            fputs("\nby token type            type       visible   kept   mass recovered  error\n",
                  out);
        has_heading = true;
        for (void *at = json_object_iter(types); at; at = json_object_iter_next(types, at)) {
            const json_t *type = json_object_iter_value(at);
            char policy[SHORT_MAX], name[12];
            ra_report_short_policy(ra_result_text(row, "policy"), policy, sizeof policy);
            snprintf(name, sizeof name, "%s", json_object_iter_key(at));
            policy[POLICY_COLUMNS] = '\0';
            ra_report_put_safe(out, policy);
            fprintf(out, "%*s ", POLICY_COLUMNS - (int)strlen(policy), "");
            ra_report_put_safe(out, name);
            fprintf(out, "%*s", (int)(sizeof name - 1 - strlen(name)), "");
            put_number(out, 7, "%.4f", ra_result_number(type, "visible_share", NULL));
            put_number(out, 7, "%.4f", ra_result_number(type, "kept_share", NULL));
            put_number(out, 7, "%.4f", ra_result_number(type, "mass", NULL));
            put_number(out, 10, "%.4f", ra_result_number(type, "mass_recovered", NULL));
            put_number(out, 7, "%.4f", ra_result_number(type, "output_rel_err_mean", NULL));
            fputc('\n', out);
        }
    }
    if (has_heading)
        fputs("shares of keys: visible, and kept of the visible; mass: share of the full\n"
              "softmax; recovered: kept part of it; error: mean over queries of the type\n",
              out);
}

/* What the bytes are of that counters saw, of the rows that have them. */
static void put_traffic(FILE *out, const struct ra_report_table *table)
{
    for (size_t i = table->first; i < json_array_size(table->results); i++) {
        const json_t *row = json_array_get(table->results, i);
        struct ra_waterfall waterfall;
        char policy[SHORT_MAX];
        int n;
        if (!ra_report_table_has(table, row) || !ra_waterfall_open(&waterfall, row))
            continue;
        ra_report_short_policy(ra_result_text(row, "policy"), policy, sizeof policy);
        fputs("\ntraffic, bytes per step\n", out);
        for (const char *rest = policy; rest; fputc('\n', out))
            rest = ra_report_put_policy(out, rest, LINE, &n);
        ra_waterfall_text(out, &waterfall);
        if (waterfall.missing) {
            fputs("  not explained: ", out);
            ra_report_put_safe(out, waterfall.missing);
            fputc('\n', out);
        }
    }
}

static void put_table(FILE *out, const struct ra_report_table *table)
{
    struct ra_report_line line = {out, 0};
    ra_report_heading(table->head, ra_report_put_part, &line);
    fputs("\n\n", out);
    if (table->is_timed && json_is_true(json_object_get(table->head, "cache_resident")))
        fputs(RA_REPORT_RESIDENT "\n\n", out);
    put_columns(out, table);
    for (size_t i = table->first; i < json_array_size(table->results); i++)
        if (ra_report_table_has(table, json_array_get(table->results, i)))
            put_row(out, table, json_array_get(table->results, i));
    put_types(out, table);
    put_notes(out, table);
    put_traffic(out, table);
}

static void put_text(FILE *out, const json_t *results)
{
    for (size_t i = 0; i < json_array_size(results); i++) {
        struct ra_report_table table;
        if (!ra_report_table_open(&table, results, i))
            continue;
        if (i > 0)
            fputc('\n', out);
        put_table(out, &table);
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
