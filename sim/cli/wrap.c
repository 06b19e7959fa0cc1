/* SPDX-License-Identifier: Apache-2.0 */
/* Breaking lines. Characters are counted as bytes. */
#include "sim/cli/wrap.h"

#include <string.h>
#include <unistd.h>

enum { COLUMNS = 80 };

static void put_part(struct ra_wrap *wrap, const char *part, size_t n, bool has_blank)
{
    int width = (int)n;
    has_blank = has_blank && !wrap->is_joined;
    wrap->is_joined = false;
    if (wrap->column > wrap->indent) {
        if (wrap->column + has_blank + width >= COLUMNS) {
            fprintf(wrap->out, "\n%*s", wrap->indent, "");
            wrap->column = wrap->indent;
        } else if (has_blank) {
            fputc(' ', wrap->out);
            wrap->column++;
        }
    }
    for (size_t i = 0; i < n; i++)
        fputc((unsigned char)part[i] < 0x20 || part[i] == 0x7f ? '?' : part[i], wrap->out);
    wrap->column += width;
}

void ra_wrap_piece(struct ra_wrap *wrap, const char *piece, size_t n)
{
    put_part(wrap, piece, n, true);
}

void ra_wrap_words(struct ra_wrap *wrap, const char *text)
{
    while (*text) {
        size_t n = strcspn(text, " ");
        bool is_long = wrap->indent + (int)n >= COLUMNS;
        for (size_t at = 0, part; at < n; at += part) {
            size_t comma = strcspn(text + at, ",") + 1;
            part = is_long && comma < n - at ? comma : n - at;
            put_part(wrap, text + at, part, at == 0);
        }
        text += n;
        text += strspn(text, " ");
    }
}

void ra_put_wrapped(int column, int indent, const char *text)
{
    struct ra_wrap wrap = {stdout, column, indent, true};
    ra_wrap_words(&wrap, text ? text : "-");
    putchar('\n');
}

void ra_complain(const char *text)
{
    static const char program[] = "rattn-sim: ";
    struct ra_wrap wrap = {stderr, sizeof program - 1, sizeof program - 1, true};
    fputs(program, stderr);
    if (isatty(STDERR_FILENO))
        ra_wrap_words(&wrap, text);
    else
        fputs(text, stderr);
    fputc('\n', stderr);
}
