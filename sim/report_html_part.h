/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of the page. A section is a function of the table in report_html.c; it writes what stands
 * below its heading.
 */
#ifndef RA_SIM_REPORT_HTML_PART_H
#define RA_SIM_REPORT_HTML_PART_H

#include "sim/report_html.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_html {
    FILE *out;
    const struct ra_html_source *source;
};

/* Text between tags or inside a quoted attribute: markup escaped; what is no UTF-8 or a control
 * character becomes '?'. */
void ra_html_text(FILE *out, const char *text);

/* A word of code. */
void ra_html_code(FILE *out, const char *text);

/* An SVG document as part of the page: without its prologue, its ids made unique by `name`, read
 * out as `label`. */
void ra_html_svg(FILE *out, const char *name, const char *label, const char *svg);

/* A figure, or why it is not drawn, with its claim and its query. */
void ra_html_figure(FILE *out, const struct ra_html_figure *figure);

/* The figure that stands in the section of traffic, not among the others. */
#define RA_HTML_TRAFFIC_FIGURE "waterfall"

/* The text of a query to open. */
void ra_html_sql(FILE *out, const char *sql, size_t n);

/*
 * A table of the first statement of *sql, which is moved behind it, and its text; `none` in its
 * place when there is no row. Column names are the headings; one that ends in "#" holds numbers,
 * "#3" with three decimals; "message" may be long. NULL is shown as a dash.
 */
RA_MUST_CHECK enum ra_status ra_html_query(struct ra_html *html, const char **sql, const char *none,
                                           struct ra_error *err);

/* Sections. */
typedef enum ra_status (*ra_html_section_fn)(struct ra_html *html, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_html_verdict(struct ra_html *html, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_html_card(struct ra_html *html, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_html_policies(struct ra_html *html, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_html_figures(struct ra_html *html, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_html_eval(struct ra_html *html, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_html_traffic(struct ra_html *html, struct ra_error *err);

/* For the verdict: a warning for each run of which too much traffic is not explained. */
void ra_html_unexplained(const struct ra_html *html);

/* Texts of sim/report/. */
extern const char *const ra_html_page_css, *const ra_html_card_sql,
                                               *const ra_html_kernels_sql,
                                                   *const ra_html_passes_sql,
                                                       *const ra_html_refresh_sql,
                                                           *const ra_html_traffic_sql,
                                                               *const ra_html_verdict_sql,
                                                                   *const ra_html_warnings_sql,
                                                                       *const ra_html_worst_sql;

/* Parts of a sentence as they come, with commas between them; context of the call below. */
struct ra_html_list {
    FILE *out;
    int n; /* so far */
};
void ra_html_listed(void *context, const char *part);

#ifdef __cplusplus
}
#endif

#endif
