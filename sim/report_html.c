/* SPDX-License-Identifier: Apache-2.0 */
/* The page's frame, and the sections that are queries with a sentence above. */
#include "sim/report_html.h"

#include "sim/report_html_part.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static enum ra_status refresh(struct ra_html *html, struct ra_error *err)
{
    const char *sql = ra_html_refresh_sql;
    fputs(
        "<p>How much of the recycled cache a refresh leaves in place, and what it moves. Over all "
        "refreshes of all layers; the prefill is none.</p>\n",
        html->out);
    return ra_html_query(html, &sql, "No run refreshed a recycled cache.", err);
}

static enum ra_status worst(struct ra_html *html, struct ra_error *err)
{
    const char *sql = ra_html_worst_sql;
    fputs("<p>Five layers of each schedule, by their worst head at their worst step. The store "
          "keeps quality by layer and step, not by head.</p>\n<h3>Least mass recovered</h3>\n",
          html->out);
    RA_TRY(ra_html_query(html, &sql, "No mass was lost, or none was measured.", err));
    fputs("<h3>Largest output error</h3>\n", html->out);
    return ra_html_query(html, &sql, "No output error, or none was measured.", err);
}

static enum ra_status kernels(struct ra_html *html, struct ra_error *err)
{
    const char *sql = ra_html_kernels_sql;
    fputs("<p>Where a step's time goes, by the timing pass: its kernels, and what is between them. "
          "Its times are not those of the table, which no profiler watched.</p>\n",
          html->out);
    RA_TRY(ra_html_query(html, &sql,
                         "No pass recorded kernels: replay --profile timing makes one of the cuda "
                         "backend.",
                         err));
    fputs("<h3>Gaps</h3>\n", html->out);
    return ra_html_query(html, &sql, "No pass recorded kernels.", err);
}

static enum ra_status passes(struct ra_html *html, struct ra_error *err)
{
    const char *sql = ra_html_passes_sql;
    fputs("<p>Times come from passes: those of the table from the complete bare pass with the "
          "median total. Mass, error, keys and bytes come from no pass: they are counted and "
          "measured once per run, against the f64 reference.</p>\n",
          html->out);
    RA_TRY(ra_html_query(html, &sql, "No pass was made: nothing was timed.", err));
    fputs("<h3>Losses</h3>\n", html->out);
    RA_TRY(ra_html_query(html, &sql, "No pass ran under a profiler, so no record could be lost.",
                         err));
    fputs("<h3>Cost of watching</h3>\n", html->out);
    return ra_html_query(html, &sql, "No timing or counter pass was made beside a bare one.", err);
}

static enum ra_status warnings(struct ra_html *html, struct ra_error *err)
{
    const char *sql = ra_html_warnings_sql;
    fputs("<h3>Incomplete</h3>\n", html->out);
    RA_TRY(ra_html_query(html, &sql, "Every run and every pass is complete.", err));
    fputs("<h3>Diagnostics</h3>\n", html->out);
    return ra_html_query(html, &sql, "The runs left none.", err);
}

/* From top to bottom. */
static const struct {
    const char *id, *title;
    ra_html_section_fn put;
} sections[] = {
    {"verdict", "Verdict", ra_html_verdict},
    {"card", "Runs", ra_html_card},
    {"policies", "Policies", ra_html_policies},
    {"figures", "Figures", ra_html_figures},
    {"eval", "Closed loop", ra_html_eval},
    {"refresh", "Overlap and refresh", refresh},
    {"traffic", "Traffic explained", ra_html_traffic},
    {"kernels", "Kernels", kernels},
    {"worst", "Worst layers", worst},
    {"passes", "Passes and losses", passes},
    {"warnings", "Warnings", warnings},
};

static void put_head(const struct ra_html *html)
{
    FILE *out = html->out;
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
          out);
    ra_html_text(out, html->source->name);
    fputs(" - rattn-sim report</title>\n<style>\n", out);
    fputs(ra_html_page_css, out);
    fputs("</style>\n</head>\n<body>\n<header>\n<h1>rattn-sim report of ", out);
    ra_html_text(out, html->source->name);
    fputs("</h1>\n<nav><ul>\n", out);
    for (size_t i = 1; i < LENGTH(sections); i++)
        fprintf(out, "<li><a href=\"#%s\">%s</a></li>\n", sections[i].id, sections[i].title);
    fputs("</ul></nav>\n</header>\n<main>\n", out);
}

static void put_foot(const struct ra_html *html)
{
    FILE *out = html->out;
    fputs("</main>\n<footer>\n<p>Written by rattn-sim " RA_VERSION
          ". Every table and figure below the first names the query that made it; "
          "<code>:runs</code> there is this list.</p>\n<div class=\"wide\"><code class=\"copy\">",
          out);
    ra_html_text(out, html->source->runs);
    fputs("</code></div>\n</footer>\n</body>\n</html>\n", out);
}

enum ra_status ra_report_html(FILE *out, const struct ra_html_source *source, struct ra_error *err)
{
    struct ra_html html = {out, source};
    for (size_t i = 0; i < source->n_invocations; i++)
        for (size_t j = 0; j < json_array_size(source->invocations[i].results); j++)
            if (!json_is_object(json_array_get(source->invocations[i].results, j)))
                return ra_fail(err, RA_EFORMAT, "results: element %zu is not an object", j);
    put_head(&html);
    for (size_t i = 0; i < LENGTH(sections); i++) {
        fprintf(out, "<section id=\"%s\">\n", sections[i].id);
        if (i > 0)
            fprintf(out, "<h2>%s</h2>\n", sections[i].title);
        RA_TRY(sections[i].put(&html, err));
        fputs("</section>\n", out);
    }
    put_foot(&html);
    return RA_OK;
}
