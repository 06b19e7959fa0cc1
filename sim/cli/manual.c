/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manual page. Commands, options, policies and exit codes come from their tables; what no table
 * has (environment, files, examples) stands here and is held to the program by tests.
 */
#include "sim/cli/manual.h"

#include <string.h>

#include "sim/cli/list.h"
#include "sim/policy.h"

static const struct ra_manual_row environment[] = {
    {"RATTN_SIMD",
     "instructions of the cpu backend: avx512, avx2, neon or portable, instead of the "
     "best that the processor has; one it lacks is an error"},
    {"TMPDIR", "folder of the temporary file in which a replay keeps its sets, /tmp when not set; "
               "the file has no name and goes with the program"},
    {"PATH", "where plot looks for gnuplot"},
    {"CUDA_HOME",
     "the CUDA toolkit in which CUPTI is looked for where the loader does not find it, "
     "/usr/local/cuda when not set"},
    {NULL, NULL},
};

static const struct ra_manual_row files[] = {
    {"TRACE.safetensors", "a recording; FORMAT.md beside this program's README specifies it"},
    {"trace.index.json", "in a folder: the list of the shards of one recording"},
    {"DB, DB-wal, DB-shm", "a store: one SQLite file, and its journal while it is open"},
    {"DB.lock", "there while runs are written; holds the pid of the writer"},
    {"DIR/NAME.svg, DIR/NAME.tsv, DIR/NAME.gp",
     "a figure, the numbers it shows, and the gnuplot script that draws it again from them"},
    {NULL, NULL},
};

static const struct ra_manual_row examples[] = {
    {"rattn-sim explain", "What a schedule does, on nine words."},
    {"rattn-sim info TRACE --verify", "What was recorded, and whether it is sound."},
    {"rattn-sim replay TRACE -p full -p recycled:k=256,stride=16 \\\n"
     "  -p streaming:k=256 --db runs.db",
     "Three schedules of one recording: a table, and everything behind it in a store."},
    {"rattn-sim compare runs.db --run 1 --run 2", "Where two runs differ first; exit status 4."},
    {"rattn-sim plot runs.db -o figures", "Five figures of those runs."},
    {"rattn-sim export runs.db --run 2 --as csv",
     "When each operation of a run began, and how long it took."},
    {"rattn-sim replay synth:case=needle,P=512,N=32 -p oracle:k=64 \\\n"
     "  --format json",
     "Without a recording: a generated one."},
    {NULL, NULL},
};

/* A hyphen is one, and so is a backslash or a quote. */
static void put_char(FILE *out, char c)
{
    if (c == '\\')
        fputs("\\e", out);
    else if (c == '-')
        fputs("\\-", out);
    else if (c == '\'')
        fputs("\\(aq", out);
    else
        fputc(c, out);
}

/* Text that roff fills: lines of input stay short, and none is taken for a request. */
static void put(FILE *out, const char *text)
{
    enum { LONG = 50 };
    const char *line = text;
    for (; *text; text++) {
        if (text == line && (*text == '.' || *text == '\''))
            fputs("\\&", out);
        bool ends = *text == ' ' && text - line > LONG;
        put_char(out, ends ? '\n' : *text);
        line = ends ? text + 1 : line;
    }
}

/* A paragraph of its own: the first letter large, a full stop at the end. */
static void put_sentence(FILE *out, const char *text)
{
    char first[2] = {text[0], '\0'};
    if (first[0] >= 'a' && first[0] <= 'z')
        first[0] = (char)(first[0] - 'a' + 'A');
    put(out, first);
    if (text[0])
        put(out, text + 1);
    size_t n = strlen(text);
    fputs(n && text[n - 1] == '.' ? "\n" : ".\n", out);
}

static void put_rows(FILE *out, const char *heading, const struct ra_manual_row *rows)
{
    fprintf(out, ".SH %s\n", heading);
    for (; rows->name; rows++) {
        fputs(".TP\n.B ", out);
        put(out, rows->name);
        fputc('\n', out);
        put_sentence(out, rows->text);
    }
}

static void put_operand(FILE *out, const struct ra_operand *row)
{
    fputs(".TP\n.I ", out);
    put(out, row->name);
    fputc('\n', out);
    put(out, row->help);
    if (row->choices) {
        char text[128];
        ra_choices_text(row->choices, text, sizeof text);
        fputs(" (", out);
        put(out, text);
        fputc(')', out);
    }
    fputs(".\n", out);
}

static void put_option(FILE *out, const struct ra_option *row)
{
    char remark[256];
    ra_option_remark(row, remark, sizeof remark);
    fputs(".TP\n", out);
    if (row->letter)
        fprintf(out, "\\fB\\-%c\\fR, ", row->letter);
    fputs("\\fB\\-\\-", out);
    put(out, row->name);
    fputs("\\fR", out);
    if (row->argument) {
        fputs(" \\fI", out);
        put(out, row->argument);
        fputs("\\fR", out);
    }
    fputc('\n', out);
    put(out, row->help);
    if (*remark) {
        fputc('\n', out);
        put(out, remark);
    }
    fputs(".\n", out);
}

static void put_command(FILE *out, const struct ra_command *command)
{
    fprintf(out, ".SS %s\n", command->name);
    put_sentence(out, command->summary);
    for (const struct ra_operand *row = command->operands; row && row->name; row++)
        put_operand(out, row);
    for (const struct ra_option *row = command->options; row && row->name; row++)
        if (!row->absent)
            put_option(out, row);
    const struct ra_option *common = ra_options_common();
    for (size_t i = 0; common[i].name; i++)
        if (ra_options_common_needs(i) & command->common)
            put_option(out, &common[i]);
    if (command->notes) {
        fputs(".PP\n", out);
        put_sentence(out, command->notes);
    }
}

/* What every command has, once. */
static void put_common(FILE *out)
{
    const struct ra_option *common = ra_options_common();
    fputs(".SH OPTIONS\nEvery command has these; the others stand with their commands.\n", out);
    for (size_t i = 0; common[i].name; i++)
        if (ra_options_common_needs(i) == 0)
            put_option(out, &common[i]);
}

static void put_synopsis(FILE *out, const struct ra_command *const *commands)
{
    fputs(".SH SYNOPSIS\n", out);
    for (; *commands; commands++) {
        fprintf(out, ".B rattn\\-sim %s\n", (*commands)->name);
        for (const struct ra_operand *row = (*commands)->operands; row && row->name; row++)
            fprintf(out, "%s\\fI%s\\fR%s%s\n", row->min ? "" : "[", row->name,
                    row->max == RA_OPERAND_MANY ? "..." : "", row->min ? "" : "]");
        for (const struct ra_option *row = (*commands)->options; row && row->name; row++)
            if (row->is_required && row->letter)
                fprintf(out, "\\fB\\-%c\\fR \\fI%s\\fR\n", row->letter, row->argument);
            else if (row->is_required)
                fprintf(out, "\\fB\\-\\-%s\\fR \\fI%s\\fR\n", row->name, row->argument);
        fputs("[\\fIOPTIONS\\fR]\n.br\n", out);
    }
    fputs(".B rattn\\-sim help\n[\\fICOMMAND\\fR | \\fB\\-\\-man\\fR | \\fB\\-\\-completion\\fR]\n",
          out);
}

static void put_param(FILE *out, const struct ra_param *param)
{
    char range[96];
    ra_list_range(param->choices, param->min, param->max, range, sizeof range);
    fputs(".TP\n.B ", out);
    put(out, param->name);
    fputc('\n', out);
    put(out, param->help);
    fputs("\n(", out);
    put(out, range);
    if (param->fallback) {
        fputs("; default: ", out);
        put(out, param->fallback);
        fputs(").\n", out);
    } else {
        fputs("; required).\n", out);
    }
}

static void put_transforms(FILE *out)
{
    fputs(".SH TRANSFORMATIONS\n\\fIPOLICY\\fR+\\fINAME\\fR[:\\fIkey\\fR=\\fIvalue\\fR[,...]] "
          "changes keys and values before the policy sees them; several apply in order. Bytes are "
          "those of the last one's codes, tables included; times are of dequantised rows.\n",
          out);
    for (int i = 0; ra_transforms[i]; i++) {
        fputs(".SS +", out);
        put(out, ra_transforms[i]->name);
        fputc('\n', out);
        put_sentence(out, ra_transforms[i]->summary);
        fputs(".br\nSource:\n", out);
        put_sentence(out, ra_transforms[i]->source);
        for (const struct ra_param *row = ra_transforms[i]->params; row && row->name; row++)
            put_param(out, row);
    }
}

static void put_policies(FILE *out)
{
    fputs(".SH POLICIES\nA schedule is spelled \\fINAME\\fR[:\\fIkey\\fR=\\fIvalue\\fR[,...]];\n"
          "\\fIkey\\fR@0\\-3=\\fIvalue\\fR gives layers 0 to 3 a value of their own.\n",
          out);
    for (int i = 0; ra_policies[i]; i++) {
        fputs(".SS ", out);
        put(out, ra_policies[i]->name);
        fputc('\n', out);
        put_sentence(out, ra_policies[i]->summary);
        fputs(".br\nSource:\n", out);
        put_sentence(out, ra_policies[i]->source);
        for (const struct ra_param *row = ra_policies[i]->params; row && row->name; row++)
            put_param(out, row);
    }
    put_transforms(out);
}

static void put_examples(FILE *out)
{
    fputs(".SH EXAMPLES\n", out);
    for (const struct ra_manual_row *row = examples; row->name; row++) {
        if (row > examples)
            fputs(".PP\n", out);
        put_sentence(out, row->text);
        fputs(".PP\n.nf\n.RS\n", out);
        for (const char *c = row->name; *c; c++)
            put_char(out, *c);
        fputs("\n.RE\n.fi\n", out);
    }
}

void ra_manual_page(const struct ra_manual *manual, FILE *out)
{
    fputs(".\\\" Written by 'rattn-sim help --man' from the tables of the program.\n"
          ".TH RATTN\\-SIM 1 \"\" \"rattn\\-sim " RA_VERSION "\" \"User Commands\"\n"
          ".nh\n.ad l\n"
          ".SH NAME\nrattn\\-sim \\- ",
          out);
    put(out, manual->summary);
    fputc('\n', out);
    put_synopsis(out, manual->commands);
    fputs(".SH DESCRIPTION\n"
          "Replays a recorded LLM decoding run under attention schedules and tells,\n"
          "for each, what it keeps, what it loses and what it costs. Results go to\n"
          "standard output, progress and notes to standard error.\n",
          out);
    fputs(".SH COMMANDS\n", out);
    for (int i = 0; manual->commands[i]; i++)
        put_command(out, manual->commands[i]);
    fputs(".SS help\nThe list of commands; with \\fICOMMAND\\fR, what \\fICOMMAND\\fR \\-h says;\n"
          "with \\fB\\-\\-man\\fR, this page; with \\fB\\-\\-completion\\fR, a script for bash.\n",
          out);
    put_common(out);
    put_policies(out);
    put_rows(out, "EXIT STATUS", manual->exits);
    put_rows(out, "ENVIRONMENT", environment);
    put_rows(out, "FILES", files);
    put_examples(out);
    fputs(".SH SEE ALSO\n.BR gnuplot (1),\n.BR sqlite3 (1)\n", out);
}
