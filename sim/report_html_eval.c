/* SPDX-License-Identifier: Apache-2.0 */
/* Closed loop, on the page: what a model that decodes under schedules loses, task by task. */
#include <string.h>

#include "sim/report.h"
#include "sim/report_eval.h"
#include "sim/report_html_part.h"
#include "sim/report_lines.h"

static void put_note(void *context, const char *note)
{
    fputs("<li>", context);
    ra_html_text(context, note);
    fputs("</li>\n", context);
}

static void put_policy(FILE *out, const json_t *row)
{
    const char *policy = ra_result_text(row, "policy");
    char name[RA_REPORT_SHORT];
    ra_report_short_policy(policy, name, sizeof name);
    fputs("<td title=\"", out);
    ra_html_text(out, policy);
    fputs("\">", out);
    ra_html_code(out, name);
    fputs("</td>", out);
}

/* Of texts nothing is asked. */
static bool is_shown(const struct ra_eval_table *table, int column)
{
    return table->asks || !ra_eval_columns[column].of_answers;
}

static void put_cells(FILE *out, const struct ra_eval_table *table, const json_t *row)
{
    struct ra_eval_cell cells[RA_EVAL_COLUMNS];
    ra_eval_cells(table, row, cells);
    for (int i = 0; i < RA_EVAL_COLUMNS; i++) {
        if (!is_shown(table, i))
            continue;
        fprintf(out, "<td class=\"n\">%s", cells[i].value);
        if (strcmp(cells[i].value, "n/a") == 0 && table->baseline >= 0)
            fprintf(out, " (baseline %.1f %%)", 100 * table->baseline);
        else if (strcmp(cells[i].value, "n/a") == 0)
            fputs(" (no baseline)", out);
        if (cells[i].interval[0])
            fprintf(out, " [%s]", cells[i].interval);
        fputs("</td>", out);
    }
}

static void put_rows(FILE *out, const struct ra_eval_table *table, const json_t *ids)
{
    fputs("<div class=\"wide\"><table>\n<thead><tr><th class=\"n\">run</th><th>policy</th>", out);
    for (int i = 0; i < RA_EVAL_COLUMNS; i++)
        if (is_shown(table, i))
            fprintf(out, "<th class=\"n\">%s%s%s</th>", ra_eval_columns[i].above,
                    *ra_eval_columns[i].above ? " " : "", ra_eval_columns[i].below);
    fputs("</tr></thead>\n<tbody>\n", out);
    for (size_t i = table->first; i < json_array_size(table->results); i++) {
        const json_t *row = json_array_get(table->results, i);
        if (!ra_eval_table_has(table, row))
            continue;
        fprintf(out, "<tr><td class=\"n\">%" JSON_INTEGER_FORMAT "</td>",
                json_integer_value(json_array_get(ids, i)));
        put_policy(out, row);
        put_cells(out, table, row);
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

static void put_since(FILE *out, const struct ra_eval_table *table)
{
    bool has_heading = false;
    for (size_t i = table->first; i < json_array_size(table->results); i++) {
        const json_t *row = json_array_get(table->results, i);
        struct ra_html_list words = {out, 0};
        if (!ra_eval_table_has(table, row) || !ra_eval_has_since(row))
            continue;
        if (!has_heading)
            fputs("<p>" RA_EVAL_SINCE ":</p>\n<div class=\"wide\"><table>\n<tbody>\n", out);
        has_heading = true;
        fputs("<tr>", out);
        put_policy(out, row);
        fputs("<td class=\"long\">", out);
        ra_eval_since(row, ra_html_listed, &words);
        fputs("</td></tr>\n", out);
    }
    if (has_heading)
        fputs("</tbody></table></div>\n", out);
}

static void put_table(FILE *out, const struct ra_eval_table *table, const json_t *ids)
{
    struct ra_html_list heading = {out, 0};
    fputs("<h3>", out);
    ra_html_text(out, ra_result_text(table->head, "task"));
    fputs("</h3>\n<p>", out);
    ra_eval_head(table, ra_html_listed, &heading);
    fputs("</p>\n", out);
    put_rows(out, table, ids);
    fputs("<ul class=\"soft\">\n", out);
    ra_eval_notes(table, put_note, out);
    fputs("</ul>\n", out);
    put_since(out, table);
}

enum ra_status ra_html_eval(struct ra_html *html, struct ra_error *err)
{
    const struct ra_html_source *source = html->source;
    FILE *out = html->out;
    struct ra_eval_table table;
    (void)err;
    if (source->n_evals == 0) {
        fputs(
            "<p class=\"none\">No model decoded under these schedules: <code>eval</code> lets one, "
            "and shows what a recording cannot.</p>\n",
            out);
        return RA_OK;
    }
    for (size_t i = 0; i < source->n_evals; i++)
        for (size_t j = 0; j < json_array_size(source->evals[i].results); j++)
            if (ra_eval_table_open(&table, source->evals[i].results, j))
                put_table(out, &table, source->evals[i].ids);
    fputs("<p>", out);
    ra_html_text(out, source->eval_figures_of);
    fputs("</p>\n<div class=\"figures\">\n", out);
    for (size_t i = 0; i < source->n_figures; i++)
        if (strcmp(source->figures[i].kind, "eval") == 0)
            ra_html_figure(out, &source->figures[i]);
    fputs("</div>\n", out);
    return RA_OK;
}
