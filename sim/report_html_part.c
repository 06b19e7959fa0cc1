/* SPDX-License-Identifier: Apache-2.0 */
/* Escaping, queries as tables, figures made part of a page. */
#include "sim/report_html_part.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/text.h"

static void put(FILE *out, const char *text, size_t length)
{
    for (size_t at = 0; at < length;) {
        bool is_blank = text[at] == '\n' || text[at] == '\t';
        size_t n = is_blank ? 1 : ra_text_character(text + at);
        switch (text[at]) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default:
            fwrite(n ? text + at : "?", 1, n ? n : 1, out);
        }
        at += n ? n : 1;
    }
}

void ra_html_text(FILE *out, const char *text)
{
    put(out, text, strlen(text));
}

void ra_html_code(FILE *out, const char *text)
{
    fputs("<code>", out);
    ra_html_text(out, text);
    fputs("</code>", out);
}

void ra_html_sql(FILE *out, const char *sql, size_t n)
{
    fputs("<details><summary>SQL</summary>\n<pre>", out);
    put(out, sql, n);
    fputs("</pre></details>\n", out);
}

/* --- figures -----------------------------------------------------------------------------------
 */

void ra_html_svg(FILE *out, const char *name, const char *label, const char *svg)
{
    static const char *const marks[] = {" id='", " id=\"", "href='#", "href=\"#", "url(#"};
    bool in_tag = false;
    const char *at = strstr(svg, "<svg");
    if (!at)
        return;
    fputs("<svg role=\"img\" aria-label=\"", out);
    ra_html_text(out, label);
    fputc('"', out);
    for (at += strlen("<svg"), in_tag = true; *at;) {
        size_t n = 0;
        const char *end =
            strncmp(at, "<title>", strlen("<title>")) == 0 ? strstr(at, "</title>") : 0;
        if (end) { /* gnuplot's names of its parts would show as hints */
            at = end + strlen("</title>");
            continue;
        }
        for (size_t i = 0; in_tag && n == 0 && i < sizeof marks / sizeof *marks; i++)
            if (strncmp(at, marks[i], strlen(marks[i])) == 0)
                n = strlen(marks[i]);
        in_tag = *at == '<' || (in_tag && *at != '>');
        fwrite(at, 1, n ? n : 1, out);
        if (n > 0)
            fprintf(out, "%s-", name);
        at += n ? n : 1;
    }
}

void ra_html_figure(FILE *out, const struct ra_html_figure *figure)
{
    fprintf(out, "<figure id=\"figure-%s\">\n", figure->name);
    if (figure->svg) {
        ra_html_svg(out, figure->name, figure->claim, figure->svg);
    } else {
        fputs("<p class=\"none\">Not drawn: ", out);
        ra_html_text(out, figure->missing ? figure->missing : "");
        fputs("</p>\n", out);
    }
    fprintf(out, "<figcaption><b>%s</b>, the claim it tests: ", figure->name);
    ra_html_text(out, figure->claim);
    fputs(".\n", out);
    ra_html_sql(out, figure->sql, strlen(figure->sql));
    fputs("</figcaption>\n</figure>\n", out);
}

/* --- queries -----------------------------------------------------------------------------------
 */

struct query {
    FILE *out;
    long n_rows;
};

/* What stands behind the name of a column: decimals, -1 for a number as it is, -2 for text. */
static int decimals_of(const char *name, size_t *n)
{
    const char *mark = strrchr(name, '#');
    *n = mark ? (size_t)(mark - name) : strlen(name);
    return !mark ? -2 : mark[1] ? atoi(mark + 1) : -1;
}

static void put_heading(struct query *query, const struct ra_store_cells *row)
{
    fputs("<div class=\"wide\"><table>\n<thead><tr>", query->out);
    for (int i = 0; i < row->n; i++) {
        size_t n;
        fputs(decimals_of(row->names[i], &n) > -2 ? "<th class=\"n\">" : "<th>", query->out);
        put(query->out, row->names[i], n);
        fputs("</th>", query->out);
    }
    fputs("</tr></thead>\n<tbody>\n", query->out);
}

static enum ra_status on_row(void *context, const struct ra_store_cells *row, struct ra_error *err)
{
    struct query *query = context;
    FILE *out = query->out;
    (void)err;
    if (query->n_rows++ == 0)
        put_heading(query, row);
    fputs("<tr>", out);
    for (int i = 0; i < row->n; i++) {
        size_t n;
        int decimals = decimals_of(row->names[i], &n);
        fputs(decimals > -2                           ? "<td class=\"n\">"
              : strcmp(row->names[i], "message") == 0 ? "<td class=\"long\">"
                                                      : "<td>",
              out);
        if (!row->text[i])
            fputs("–", out);
        else if (decimals >= 0)
            fprintf(out, "%.*f", decimals, strtod(row->text[i], NULL));
        else if (strcmp(row->names[i], "policy") == 0)
            ra_html_code(out, row->text[i]);
        else
            ra_html_text(out, row->text[i]);
        fputs("</td>", out);
    }
    fputs("</tr>\n", out);
    return RA_OK;
}

enum ra_status ra_html_query(struct ra_html *html, const char **sql, const char *none,
                             struct ra_error *err)
{
    struct query query = {html->out, 0};
    const char *from = *sql;
    RA_TRY(ra_store_select(html->source->store, sql, html->source->runs, on_row, &query, err));
    if (query.n_rows > 0) {
        fputs("</tbody></table></div>\n", html->out);
    } else {
        fputs("<p class=\"none\">", html->out);
        ra_html_text(html->out, none);
        fputs("</p>\n", html->out);
    }
    from += strspn(from, "\n");
    ra_html_sql(html->out, from, (size_t)(*sql - from));
    return RA_OK;
}

void ra_html_listed(void *context, const char *part)
{
    struct ra_html_list *list = context;
    fputs(list->n++ ? ", " : "", list->out);
    ra_html_text(list->out, part);
}
