/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/report_lines.h"

#include <stdbool.h>
#include <string.h>

void ra_report_put_safe(FILE *out, const char *text)
{
    for (; *text; text++)
        fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, out);
}

const char *ra_report_put_policy(FILE *out, const char *text, int width, int *n_put)
{
    size_t n = strlen(text), fits = 0;
    if (n > (size_t)width)
        for (size_t i = 0; i < (size_t)width; i++)
            fits = text[i] == ',' ? i + 1 : text[i] == '+' ? i : fits;
    if (n <= (size_t)width)
        fits = n;
    else if (fits == 0)
        fits = (size_t)width;
    char piece[RA_REPORT_SHORT];
    snprintf(piece, sizeof piece, "%.*s", (int)fits, text);
    ra_report_put_safe(out, piece);
    *n_put = (int)fits;
    return fits < n ? text + fits : NULL;
}

void ra_report_put_part(void *context, const char *text)
{
    struct ra_report_line *line = context;
    int n = (int)strlen(text);
    if (line->column > 0 && line->column + n + 2 > RA_REPORT_LINE) {
        fputs(",\n  ", line->out);
        line->column = 2;
    } else if (line->column > 0) {
        fputs(", ", line->out);
        line->column += 2;
    }
    ra_report_put_safe(line->out, text);
    line->column += n;
}

void ra_report_put_words(FILE *out, const char *text)
{
    for (size_t n, column = 0; *text; text += n + strspn(text + n, " "), column += n + 1) {
        n = strcspn(text, " ");
        bool is_new = column + n > RA_REPORT_LINE;
        fprintf(out, "%s%.*s", is_new ? "\n" : column ? " " : "", (int)n, text);
        column = is_new ? 0 : column;
    }
    fputc('\n', out);
}
