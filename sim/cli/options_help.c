/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of -h, written from a command's tables: synopsis, operands, options with defaults,
 * notes. Lines break before column 80.
 */
#include "sim/cli/options.h"

#include <string.h>

#include "sim/base/text.h"
#include "sim/cli/wrap.h"

enum { INDENT = 8, HELP_AT = 26 };

static bool is_shown(const struct ra_option *option)
{
    return !option->absent;
}

static void put_synopsis(const struct ra_command *command, FILE *out)
{
    char piece[160];
    struct ra_wrap wrap = {out, 0, INDENT, false};
    wrap.column = fprintf(out, "usage: rattn-sim %s", command->name);
    for (const struct ra_operand *row = command->operands; row && row->name; row++) {
        int n = snprintf(piece, sizeof piece, "%s%s%s%s", row->min ? "" : "[", row->name,
                         row->max == RA_OPERAND_MANY ? "..." : "", row->min ? "" : "]");
        ra_wrap_piece(&wrap, piece, (size_t)n);
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
        ra_wrap_piece(&wrap, piece, (size_t)n);
    }
    const struct ra_option *common = ra_options_common();
    for (size_t i = 0; common[i].name; i++) {
        if (!(ra_options_common_needs(i) & command->common) || common[i].letter)
            continue;
        int n = snprintf(piece, sizeof piece, "[--%s %s]", common[i].name,
                         common[i].choices ? common[i].choices : common[i].argument);
        ra_wrap_piece(&wrap, piece, (size_t)n);
    }
    fputc('\n', out);
}

/* "  HEAD" and the help from column HELP_AT on, below it when the head is long. */
static void put_row(FILE *out, const char *head, const char *help, const char *tail)
{
    struct ra_wrap wrap = {out, 0, HELP_AT, false};
    int n = fprintf(out, "  %s", head);
    if (n + 2 > HELP_AT) {
        fputc('\n', out);
        n = 0;
    }
    fprintf(out, "%*s", HELP_AT - n, "");
    wrap.column = HELP_AT;
    ra_wrap_words(&wrap, help);
    if (tail[0])
        ra_wrap_words(&wrap, tail);
    fputc('\n', out);
}

void ra_choices_text(const char *choices, char *out, size_t size)
{
    struct ra_writer writer = {out, size, 0};
    ra_write(&writer, "%s", "");
    while (*choices) {
        size_t n = strcspn(choices, "|");
        const char *next = choices + n + (choices[n] == '|');
        const char *join = !*next ? "" : strchr(next, '|') ? ", " : " or ";
        ra_write(&writer, "%.*s%s", (int)n, choices, join);
        choices = next;
    }
}

void ra_option_remark(const struct ra_option *option, char *out, size_t size)
{
    struct ra_writer writer = {out, size, 0};
    const char *open = "(";
    out[0] = '\0';
    if (option->is_required) {
        ra_write(&writer, "%srequired", open);
        open = "; ";
    }
    if (option->choices) {
        char text[128];
        ra_choices_text(option->choices, text, sizeof text);
        ra_write(&writer, "%s%s", open, text);
        open = "; ";
    }
    if (option->needs) {
        ra_write(&writer, "%sneeds %s", open, option->needs);
        open = "; ";
    }
    if (option->fallback && !option->is_required)
        ra_write(&writer, "%sdefault: %s", open, option->fallback);
    if (writer.used > 0)
        ra_write(&writer, ")");
}

static void put_operand(FILE *out, const struct ra_operand *row)
{
    char tail[128] = "", text[120];
    if (row->choices) {
        ra_choices_text(row->choices, text, sizeof text);
        snprintf(tail, sizeof tail, "(%s)", text);
    }
    put_row(out, row->name, row->help, tail);
}

static void put_option(FILE *out, const struct ra_option *row)
{
    char head[96], tail[256], letter[8] = "    ";
    if (row->letter)
        snprintf(letter, sizeof letter, "-%c, ", row->letter);
    snprintf(head, sizeof head, "%s--%s%s%s", letter, row->name, row->argument ? " " : "",
             row->argument ? row->argument : "");
    ra_option_remark(row, tail, sizeof tail);
    put_row(out, head, row->help, tail);
}

void ra_options_help(const struct ra_command *command, FILE *out)
{
    put_synopsis(command, out);
    fprintf(out, "\n%s\n\n", command->summary);
    for (const struct ra_operand *row = command->operands; row && row->name; row++)
        put_operand(out, row);
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
        struct ra_wrap wrap = {out, 0, 0, false};
        fputc('\n', out);
        ra_wrap_words(&wrap, command->notes);
        fputc('\n', out);
    }
}
