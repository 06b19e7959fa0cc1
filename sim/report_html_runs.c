/* SPDX-License-Identifier: Apache-2.0 */
/* What was run, its tables of policies as the text report has them, and its figures. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/report.h"
#include "sim/report_html_part.h"
#include "sim/report_table.h"

enum { SHORT_MAX = 512 };

/* --- card --------------------------------------------------------------------------------------
 */

static enum ra_status on_card(void *context, const struct ra_store_cells *row, struct ra_error *err)
{
    FILE *out = context;
    (void)err;
    fputs("<dl>\n", out);
    for (int i = 0; i < row->n; i++) {
        bool is_command = strcmp(row->names[i], "command line") == 0;
        if (!row->text[i] || !*row->text[i])
            continue;
        fputs("<dt>", out);
        ra_html_text(out, row->names[i]);
        fputs(is_command ? "</dt><dd><div class=\"wide\"><code class=\"copy\" title=\"a click "
                           "selects all of it\">"
                         : "</dt><dd>",
              out);
        ra_html_text(out, row->text[i]);
        fputs(is_command ? "</code></div></dd>\n" : "</dd>\n", out);
    }
    fputs("</dl>\n", out);
    return RA_OK;
}

enum ra_status ra_html_card(struct ra_html *html, struct ra_error *err)
{
    const char *sql = ra_html_card_sql;
    RA_TRY(ra_store_select(html->source->store, &sql, html->source->runs, on_card, html->out, err));
    ra_html_sql(html->out, ra_html_card_sql, strlen(ra_html_card_sql));
    return RA_OK;
}

/* --- policies ----------------------------------------------------------------------------------
 */

static void put_number(FILE *out, double value)
{
    if (isnan(value))
        fputs("<td class=\"n\">-</td>", out);
    else
        fprintf(out, "<td class=\"n\">%.4f</td>", value);
}

static void put_policy(FILE *out, const json_t *row)
{
    const char *policy = ra_result_text(row, "policy");
    char name[SHORT_MAX];
    ra_report_short_policy(policy, name, sizeof name);
    fputs("<td title=\"", out);
    ra_html_text(out, policy);
    fputs("\">", out);
    ra_html_code(out, name);
    fputs(ra_report_is_bound(policy) ? " (a bound)</td>" : "</td>", out);
}

static void put_rows(FILE *out, const struct ra_report_table *table, const json_t *ids)
{
    fputs("<div class=\"wide\"><table>\n<thead><tr><th class=\"n\">run</th><th>policy</th>", out);
    for (int i = 0; i < RA_REPORT_COLUMNS; i++)
        fprintf(out, "<th class=\"n\">%s %s</th>", ra_report_columns[i].above,
                ra_report_column_below(table, i));
    fputs("</tr></thead>\n<tbody>\n", out);
    for (size_t i = table->first; i < json_array_size(table->results); i++) {
        const json_t *row = json_array_get(table->results, i);
        char cells[RA_REPORT_COLUMNS][RA_REPORT_CELL];
        if (!ra_report_table_has(table, row))
            continue;
        fprintf(out, "<tr><td class=\"n\">%" JSON_INTEGER_FORMAT "</td>",
                json_integer_value(json_array_get(ids, i)));
        put_policy(out, row);
        ra_report_cells(table, row, cells);
        for (int c = 0; c < RA_REPORT_COLUMNS; c++)
            fprintf(out, "<td class=\"n\">%s</td>", cells[c]);
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

static void put_type(FILE *out, const json_t *row, const char *name, const json_t *type)
{
    fputs("<tr>", out);
    put_policy(out, row);
    fputs("<td>", out);
    ra_html_text(out, name);
    fputs("</td>", out);
    put_number(out, ra_result_number(type, "visible_share", NULL));
    put_number(out, ra_result_number(type, "kept_share", NULL));
    put_number(out, ra_result_number(type, "mass", NULL));
    put_number(out, ra_result_number(type, "mass_recovered", NULL));
    put_number(out, ra_result_number(type, "output_rel_err_mean", NULL));
    fputs("</tr>\n", out);
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
            fputs("<h3>By token type</h3>\n<div class=\"wide\"><table>\n<thead><tr><th>policy</th>"
                  "<th>type</th><th class=\"n\">visible</th><th class=\"n\">kept</th>"
                  "<th class=\"n\">mass</th><th class=\"n\">recovered</th>"
                  "<th class=\"n\">error</th></tr></thead>\n<tbody>\n",
                  out);
        has_heading = true;
        for (void *at = json_object_iter(types); at; at = json_object_iter_next(types, at))
            put_type(out, row, json_object_iter_key(at), json_object_iter_value(at));
    }
    if (has_heading)
        fputs("</tbody></table></div>\n<p class=\"soft\">shares of keys: visible, and kept of the "
              "visible; mass: share of the full softmax; recovered: kept part of it; error: mean "
              "over queries of the type</p>\n",
              out);
}

static void put_table(FILE *out, const struct ra_report_table *table, const json_t *ids)
{
    struct ra_html_list heading = {out, 0}, times = {out, 0};
    char words[512];
    fputs("<p>", out);
    ra_report_heading(table->head, ra_html_listed, &heading);
    fputs("</p>\n", out);
    if (table->is_timed && json_is_true(json_object_get(table->head, "cache_resident")))
        fputs("<p class=\"warn\">" RA_REPORT_RESIDENT "</p>\n", out);
    put_rows(out, table, ids);
    put_types(out, table);
    fputs("<ul class=\"soft\">\n<li>", out);
    ra_report_meaning(words, sizeof words);
    ra_html_text(out, words);
    fputs("</li>\n", out);
    if (table->is_timed) {
        fputs("<li>", out);
        ra_report_times(table, ra_html_listed, &times);
        fputs("</li>\n", out);
    }
    if (ra_report_late(table, words, sizeof words))
        fprintf(out, "<li>%s</li>\n", words);
    fputs("<li>" RA_REPORT_OPEN_LOOP "</li>\n", out);
    if (ra_report_transformed(table))
        fputs("<li>" RA_REPORT_TRANSFORMED "</li>\n", out);
    if (ra_report_rounding(table, words, sizeof words))
        fprintf(out, "<li>%s</li>\n", words);
    fputs("</ul>\n", out);
}

enum ra_status ra_html_policies(struct ra_html *html, struct ra_error *err)
{
    const struct ra_html_source *source = html->source;
    struct ra_report_table table;
    (void)err;
    for (size_t i = 0; i < source->n_invocations; i++)
        for (size_t j = 0; j < json_array_size(source->invocations[i].results); j++)
            if (ra_report_table_open(&table, source->invocations[i].results, j))
                put_table(html->out, &table, source->invocations[i].ids);
    if (source->n_invocations == 0)
        fputs("<p class=\"none\">The runs hold no result of a replay.</p>\n", html->out);
    return RA_OK;
}

/* --- figures -----------------------------------------------------------------------------------
 */

enum ra_status ra_html_figures(struct ra_html *html, struct ra_error *err)
{
    (void)err;
    fputs("<p>", html->out);
    ra_html_text(html->out, html->source->figures_of);
    fputs("</p>\n<div class=\"figures\">\n", html->out);
    for (size_t i = 0; i < html->source->n_figures; i++)
        if (strcmp(html->source->figures[i].name, RA_HTML_TRAFFIC_FIGURE) != 0 &&
            strcmp(html->source->figures[i].kind, "eval") != 0)
            ra_html_figure(html->out, &html->source->figures[i]);
    fputs("</div>\n", html->out);
    return RA_OK;
}
