/* SPDX-License-Identifier: Apache-2.0 */
/* Traffic explained, on the page: the waterfall, and the numbers of each run that has counters. */
#include <string.h>

#include "sim/report.h"
#include "sim/report_html_part.h"
#include "sim/report_table.h"
#include "sim/report_waterfall.h"

static void put_numbers(FILE *out, const struct ra_waterfall *w)
{
    fputs("<div class=\"wide\"><table>\n<thead><tr><th>of a step</th><th class=\"n\">bytes</th><th "
          "class=\"n\">% of measured</th></tr></thead>\n<tbody>\n",
          out);
    for (int i = 0; i < w->n; i++) {
        fputs("<tr><td>", out);
        ra_html_text(out, w->bars[i].words);
        fprintf(out, "</td><td class=\"n\">%.0f</td><td class=\"n\">", w->bars[i].bytes);
        if (w->measured > 0)
            fprintf(out, "%.1f</td></tr>\n", 100 * w->bars[i].bytes / w->measured);
        else
            fputs("–</td></tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
    if (w->is_emulated)
        fputs(
            "<p class=\"soft\">Counted by the emulation, as what kernels ask memory for: there was "
            "no card, and no cache.</p>\n",
            out);
    if (w->missing) {
        fputs("<p class=\"none\">Not explained: ", out);
        ra_html_text(out, w->missing);
        fputs(".</p>\n", out);
    }
}

static void put_run(FILE *out, const json_t *id, const json_t *row)
{
    char name[512];
    ra_report_short_policy(ra_result_text(row, "policy"), name, sizeof name);
    fprintf(out, "<h3>Run %" JSON_INTEGER_FORMAT ": ", json_integer_value(id));
    ra_html_code(out, name);
    fputs("</h3>\n", out);
}

void ra_html_unexplained(const struct ra_html *html)
{
    const struct ra_html_source *source = html->source;
    for (size_t i = 0; i < source->n_invocations; i++)
        for (size_t j = 0; j < json_array_size(source->invocations[i].results); j++) {
            struct ra_waterfall w;
            if (!ra_waterfall_open(&w, json_array_get(source->invocations[i].results, j)) ||
                !ra_waterfall_warns(&w))
                continue;
            fprintf(html->out,
                    "<p class=\"warn\">Run %" JSON_INTEGER_FORMAT
                    ": %.1f&nbsp;%% of the bytes that a step moved are not explained, see <a "
                    "href=\"#traffic\">traffic</a>.</p>\n",
                    json_integer_value(json_array_get(source->invocations[i].ids, j)),
                    100 * w.share);
        }
}

enum ra_status ra_html_traffic(struct ra_html *html, struct ra_error *err)
{
    const struct ra_html_source *source = html->source;
    FILE *out = html->out;
    int n = 0;
    (void)err;
    for (size_t i = 0; i < source->n_figures; i++)
        if (strcmp(source->figures[i].name, RA_HTML_TRAFFIC_FIGURE) == 0) {
            fputs("<div class=\"lone\">\n", out);
            ra_html_figure(out, &source->figures[i]);
            fputs("</div>\n", out);
        }
    for (size_t i = 0; i < source->n_invocations; i++)
        for (size_t j = 0; j < json_array_size(source->invocations[i].results); j++) {
            const json_t *row = json_array_get(source->invocations[i].results, j);
            struct ra_waterfall w;
            if (!ra_waterfall_open(&w, row))
                continue;
            if (n++ == 0)
                fputs("<p>What the bytes are of that DRAM gave and took, per step. Keys and "
                      "values, rows moved and scores are what the replay counted; the other parts "
                      "follow by formula from the kernels (<code>sim/traffic.c</code>). The last "
                      "line is what neither tells. The figure's <code>:runs</code> hold the parts "
                      "too.</p>\n",
                      out);
            put_run(out, json_array_get(source->invocations[i].ids, j), row);
            put_numbers(out, &w);
        }
    if (n == 0)
        fputs("<p class=\"none\">No pass counted what DRAM gave and took, so there is nothing to "
              "explain: <code>replay --profile counters</code> makes such passes.</p>\n",
              out);
    ra_html_sql(out, ra_html_traffic_sql, strlen(ra_html_traffic_sql));
    return RA_OK;
}
