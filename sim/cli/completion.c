/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The completion script: one function that holds the tables as a case statement, and the text of
 * completion.bash, which looks things up in it.
 */
#include <string.h>

#include "kernels/backend.h"
#include "sim/cli/manual.h"
#include "sim/cli/plot.h"
#include "sim/policy.h"

#include "completion_bash.h"

static void put_choices(FILE *out, const char *choices)
{
    for (; *choices; choices++)
        fputc(*choices == '|' ? ' ' : *choices, out);
}

static void put_words(FILE *out, enum ra_words words)
{
    switch (words) {
    case RA_WORDS_FILES:
        fputs("@files", out);
        break;
    case RA_WORDS_NONE:
        fputs("@none", out);
        break;
    case RA_WORDS_FOLDERS:
        fputs("@folders", out);
        break;
    case RA_WORDS_POLICIES:
        fputs("@policies", out);
        break;
    case RA_WORDS_BACKENDS:
        for (int i = 0; ra_backends[i]; i++)
            fprintf(out, "%s%s", i ? " " : "", ra_backends[i]->name);
        break;
    case RA_WORDS_FIGURES:
        for (int i = 0; ra_plots[i].name; i++)
            fprintf(out, "%s%s", i ? " " : "", ra_plots[i].name);
        break;
    }
}

/* The entry of an option's argument; flags have none. */
static void put_argument(FILE *out, const struct ra_command *command, const struct ra_option *row)
{
    if (row->kind == RA_OPTION_FLAG || row->kind == RA_OPTION_COUNT)
        return;
    fprintf(out, "    \"%s --%s\"", command->name, row->name);
    if (row->letter)
        fprintf(out, " | \"%s -%c\"", command->name, row->letter);
    fputs(") found=\"", out);
    if (row->choices)
        put_choices(out, row->choices);
    else if (row->kind == RA_OPTION_TEXT || row->kind == RA_OPTION_TEXTS)
        put_words(out, row->words);
    else
        put_words(out, RA_WORDS_NONE);
    fputs("\" ;;\n", out);
}

static void put_spelling(FILE *out, const struct ra_option *row)
{
    if (row->letter)
        fprintf(out, " -%c", row->letter);
    fprintf(out, " --%s", row->name);
}

static void put_options(FILE *out, const struct ra_command *command)
{
    const struct ra_option *own = command->options, *common = ra_options_common();
    fprintf(out, "    \"%s \") found=\"", command->name);
    for (size_t i = 0; own && own[i].name; i++)
        if (!own[i].absent)
            put_spelling(out, &own[i]);
    for (size_t i = 0; common[i].name; i++)
        if (!ra_options_common_needs(i) || (ra_options_common_needs(i) & command->common))
            put_spelling(out, &common[i]);
    fputs("\" ;;\n", out);
    for (size_t i = 0; own && own[i].name; i++)
        if (!own[i].absent)
            put_argument(out, command, &own[i]);
    for (size_t i = 0; common[i].name; i++)
        if (ra_options_common_needs(i) & command->common)
            put_argument(out, command, &common[i]);
}

static void put_operands(FILE *out, const struct ra_command *command)
{
    const struct ra_operand *row = command->operands;
    for (int i = 1; row && row->name; row++, i++) {
        if (row->max == RA_OPERAND_MANY)
            fprintf(out, "    \"%s \"[%d-9]*) found=\"", command->name, i);
        else
            fprintf(out, "    \"%s %d\") found=\"", command->name, i);
        if (row->choices)
            put_choices(out, row->choices);
        else
            put_words(out, RA_WORDS_FILES);
        fputs("\" ;;\n", out);
    }
}

/* Keys of a policy or a transformation, and the choices of each. */
static void put_params(FILE *out, const char *name, const struct ra_param *params)
{
    if (!params)
        return;
    fprintf(out, "    %s:) found=\"", name);
    for (const struct ra_param *row = params; row->name; row++)
        fprintf(out, "%s%s=", row > params ? " " : "", row->name);
    fputs("\" ;;\n", out);
    for (const struct ra_param *row = params; row->name; row++) {
        if (!row->choices)
            continue;
        fprintf(out, "    %s:%s) found=\"", name, row->name);
        put_choices(out, row->choices);
        fputs("\" ;;\n", out);
    }
}

static void put_policies(FILE *out)
{
    fputs("    @policies) found=\"", out);
    for (int i = 0; ra_policies[i]; i++)
        fprintf(out, "%s%s%s", i ? " " : "", ra_policies[i]->name,
                ra_policies[i]->params ? ":" : "");
    fputs("\" ;;\n    @transforms) found=\"", out);
    for (int i = 0; ra_transforms[i]; i++)
        fprintf(out, "%s%s%s", i ? " " : "", ra_transforms[i]->name,
                ra_transforms[i]->params ? ":" : "");
    fputs("\" ;;\n", out);
    for (int i = 0; ra_policies[i]; i++)
        put_params(out, ra_policies[i]->name, ra_policies[i]->params);
    for (int i = 0; ra_transforms[i]; i++)
        put_params(out, ra_transforms[i]->name, ra_transforms[i]->params);
}

void ra_manual_completion(const struct ra_manual *manual, FILE *out)
{
    fputs("# rattn-sim's completion for bash, written by 'rattn-sim help --completion'.\n"
          "_rattn_sim_table() {\n    case $1 in\n    \"\") found=\"help",
          out);
    for (int i = 0; manual->commands[i]; i++)
        fprintf(out, " %s", manual->commands[i]->name);
    fputs("\" ;;\n    \" \") found=\"-h --help --version\" ;;\n"
          "    \"help \") found=\"--man --completion\" ;;\n    \"help 1\") found=\"",
          out);
    for (int i = 0; manual->commands[i]; i++)
        fprintf(out, "%s%s", i ? " " : "", manual->commands[i]->name);
    fputs("\" ;;\n", out);
    for (int i = 0; manual->commands[i]; i++) {
        put_options(out, manual->commands[i]);
        put_operands(out, manual->commands[i]);
    }
    put_policies(out);
    fputs("    *\\ [1-9]*) found=@none ;;\n    *) found=@flag ;;\n    esac\n}\n\n", out);
    fwrite(completion_bash, 1, sizeof completion_bash, out);
}
