/* SPDX-License-Identifier: Apache-2.0 */
/* Cells, quotes and lines: everything foreign passes through clean() first. */
#include "sim/cli/plot_words.h"

#include <stdlib.h>
#include <string.h>

#include "sim/base/json_memory.h"
#include "sim/base/text.h"

/* A copy in which every byte that must not pass is '?'; caller frees. NULL without memory,
 * which is noted: see ra_json_lack. */
static char *clean(const char *text)
{
    char *copy = strdup(text);
    if (!copy)
        ra_json_lack();
    for (char *at = copy; at && *at;) {
        size_t n = ra_text_character(at);
        if (n == 0)
            *at = '?';
        at += n ? n : 1;
    }
    return copy;
}

void ra_plot_put_cell(FILE *out, const char *text)
{
    char *copy = clean(text ? text : "");
    for (const char *at = copy; at && *at; at++)
        fputc(*at == '"' || *at == '\\' ? '?' : *at, out);
    free(copy);
}

/* A single-quoted gnuplot string, in which nothing but the quote itself is special. */
static void put_quoted(FILE *out, const char *text, size_t n)
{
    fputc('\'', out);
    for (size_t i = 0; i < n; i++) {
        fputs(text[i] == '\'' ? "'" : "", out);
        fputc(text[i], out);
    }
    fputs("'\n", out);
}

void ra_plot_put_text(FILE *out, const char *name, const char *text)
{
    char *copy = clean(text);
    fprintf(out, "%s = ", name);
    put_quoted(out, copy ? copy : "", copy ? strlen(copy) : 0);
    free(copy);
}

/* Width of the character at `text`, n bytes long, in hundredths of the font's size: rounded up from
 * DejaVu Sans, the widest of the usual sans-serif fonts. */
static size_t width_of(const char *text, size_t n)
{
    if (n > 1)
        return n == 2 ? 70 : 100;
    if (strchr("filjrtI .,:;|!'()[]/\\-", *text))
        return 41;
    if (strchr("mwMW@%", *text))
        return 100;
    if (strchr("=+<>~^#&_", *text))
        return 84;
    return *text >= 'A' && *text <= 'Z' ? 75 : 64;
}

/* Bytes of the first line: up to a blank, else behind a comma, else as many as fit. */
static size_t line_length(const char *text, size_t width)
{
    size_t n = 0, blank = 0, comma = 0;
    for (size_t used = 0; text[n];) {
        size_t bytes = ra_text_character(text + n);
        bytes = bytes ? bytes : 1;
        used += width_of(text + n, bytes);
        if (used > width && n > 0)
            return blank ? blank : comma ? comma : n;
        n += bytes;
        if (text[n] == ' ')
            blank = n;
        if (text[n - 1] == ',')
            comma = n;
    }
    return n;
}

void ra_plot_put_lines(FILE *out, const char *name, const char *text, size_t width)
{
    int n_lines = 0;
    char *copy = clean(text);
    const char *rest = copy ? copy : "";
    do {
        size_t n = line_length(rest, width);
        fprintf(out, "%s_%d = ", name, ++n_lines);
        put_quoted(out, rest, n);
        rest += n;
        rest += strspn(rest, " ");
    } while (*rest);
    fprintf(out, "n_%s = %d\n", name, n_lines);
    free(copy);
}
