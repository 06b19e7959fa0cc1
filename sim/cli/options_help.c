/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of -h, written from a command's tables: synopsis, operands, options with defaults,
 * notes. Lines break before column 80.
 */
#include "sim/cli/options.h"

#include <string.h>

enum { COLUMNS = 80, INDENT = 8, HELP_AT = 26 };

struct cursor {
    FILE *out;
    int column, indent; /* indent: where a broken line goes on */
};

/* Print a piece that is not broken inside; a blank before it unless the line is new. */
static void put_piece(struct cursor *cursor, const char *piece, int n)
{
    if (cursor->column > cursor->indent) {
        if (cursor->column + 1 + n >= COLUMNS) {
            fprintf(cursor->out, "\n%*s", cursor->indent, "");
            cursor->column = cursor->indent;
        } else {
            fputc(' ', cursor->out);
            cursor->column++;
        }
    }
    fprintf(cursor->out, "%.*s", n, piece);
    cursor->column += n;
}

static void put_words(struct cursor *cursor, const char *text)
{
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (n > 0)
            put_piece(cursor, text, n);
        text += n;
        text += strspn(text, " ");
    }
}

static bool is_shown(const struct ra_option *option)
{
    return !option->absent;
}

static void put_synopsis(const struct ra_command *command, FILE *out)
{
    char piece[160];
    struct cursor cursor = {out, 0, INDENT};
    cursor.column = fprintf(out, "usage: rattn-sim %s", command->name);
    for (const struct ra_operand *row = command->operands; row && row->name; row++) {
        int n = snprintf(piece, sizeof piece, "%s%s%s%s", row->min ? "" : "[", row->name,
                         row->max == RA_OPERAND_MANY ? "..." : "", row->min ? "" : "]");
        put_piece(&cursor, piece, n);
    }
    for (const struct ra_option *row = command->options; row && row->name; row++) {
        char name[64];
        if (!is_shown(row))
            continue;
        if (row->letter)
            snprintf(name, sizeof name, "-%c", row->letter);
        else
            snprintf(name, sizeof name, "--%s", row->name);
        int n = snprintf(piece, sizeof piece, "%s%s%s%s%s%s", row->is_required ? "" : "[", name,
                         row->argument ? " " : "", row->argument ? row->argument : "",
                         row->is_required ? "" : "]", row->kind == RA_OPTION_TEXTS ? "..." : "");
        put_piece(&cursor, piece, n);
    }
    const struct ra_option *common = ra_options_common();
    for (size_t i = 0; common[i].name; i++) {
        if (!(ra_options_common_needs(i) & command->common) || common[i].letter)
            continue;
        int n = snprintf(piece, sizeof piece, "[--%s %s]", common[i].name,
                         common[i].choices ? common[i].choices : common[i].argument);
        put_piece(&cursor, piece, n);
    }
    fputc('\n', out);
}

/* "  HEAD" and the help from column HELP_AT on, below it when the head is long. */
static void put_row(FILE *out, const char *head, const char *help, const char *tail)
{
    struct cursor cursor = {out, 0, HELP_AT};
    int n = fprintf(out, "  %s", head);
    if (n + 2 > HELP_AT) {
        fputc('\n', out);
        n = 0;
    }
    fprintf(out, "%*s", HELP_AT - n, "");
    cursor.column = HELP_AT;
    put_words(&cursor, help);
    if (tail[0])
        put_words(&cursor, tail);
    fputc('\n', out);
}

static void put_option(FILE *out, const struct ra_option *row)
{
    char head[96], tail[128] = "", letter[8] = "    ";
    if (row->letter)
        snprintf(letter, sizeof letter, "-%c, ", row->letter);
    snprintf(head, sizeof head, "%s--%s%s%s", letter, row->name, row->argument ? " " : "",
             row->argument ? row->argument : "");
    if (row->is_required)
        snprintf(tail, sizeof tail, "(required)");
    else if (row->fallback)
        snprintf(tail, sizeof tail, "(default: %s)", row->fallback);
    put_row(out, head, row->help, tail);
}

void ra_options_help(const struct ra_command *command, FILE *out)
{
    put_synopsis(command, out);
    fprintf(out, "\n%s\n\n", command->summary);
    for (const struct ra_operand *row = command->operands; row && row->name; row++)
        put_row(out, row->name, row->help, "");
    for (const struct ra_option *row = command->options; row && row->name; row++)
        if (is_shown(row))
            put_option(out, row);
    const struct ra_option *common = ra_options_common();
    for (size_t i = 0; common[i].name; i++) {
        unsigned needs = ra_options_common_needs(i);
        if (needs == 0 || (needs & command->common))
            put_option(out, &common[i]);
    }
    if (command->notes) {
        struct cursor cursor = {out, 0, 0};
        fputc('\n', out);
        put_words(&cursor, command->notes);
        fputc('\n', out);
    }
}
