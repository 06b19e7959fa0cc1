/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parsing from the tables. Operands are gathered at the front of argv as they are met, so that a
 * list of them needs no memory of its own.
 */
#include "sim/cli/options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/text.h"

/* What the common rows fill. */
struct common_values {
    bool help, version, quiet;
    int format, verbosity;
    int64_t seed;
};

#define FIELD(member) offsetof(struct common_values, member)
static const struct ra_option common_table[] = {
    {.name = "format",
     .kind = RA_OPTION_CHOICE,
     .offset = FIELD(format),
     .argument = "FORMAT",
     .fallback = "text",
     .choices = "text|json|csv",
     .help = "how results are printed"},
    {.name = "format",
     .kind = RA_OPTION_CHOICE,
     .offset = FIELD(format),
     .argument = "FORMAT",
     .fallback = "text",
     .choices = "text|json",
     .help = "how results are printed"},
    {.name = "seed",
     .kind = RA_OPTION_INT,
     .offset = FIELD(seed),
     .argument = "N",
     .fallback = "0",
     .min = 0,
     .max = 9007199254740992.0,
     .help = "seed of whatever is drawn at random"},
    {.name = "quiet",
     .letter = 'q',
     .kind = RA_OPTION_FLAG,
     .offset = FIELD(quiet),
     .help = "no progress, no notes; results and errors only"},
    {.name = "verbose",
     .letter = 'v',
     .kind = RA_OPTION_COUNT,
     .offset = FIELD(verbosity),
     .help = "say more; may be repeated"},
    {.name = "help",
     .letter = 'h',
     .kind = RA_OPTION_FLAG,
     .offset = FIELD(help),
     .help = "this text"},
    {.name = "version", .kind = RA_OPTION_FLAG, .offset = FIELD(version), .help = "the version"},
    {.name = NULL},
};
static const unsigned common_needs[] = {RA_COMMON_FORMAT_CSV,
                                        RA_COMMON_FORMAT_JSON,
                                        RA_COMMON_SEED,
                                        RA_COMMON_TALK,
                                        RA_COMMON_TALK,
                                        0,
                                        0};
_Static_assert(sizeof common_table / sizeof *common_table ==
                   sizeof common_needs / sizeof *common_needs + 1,
               "one entry of common_needs per row");

const struct ra_option *ra_options_common(void)
{
    return common_table;
}

unsigned ra_options_common_needs(size_t index)
{
    RA_BUG_ON(index >= sizeof common_needs / sizeof *common_needs);
    return common_needs[index];
}

/* Rows of a command's own table: bits of parse.seen. */
enum { MAX_ROWS = 64 };

/* The state of one parse. */
struct parse {
    const struct ra_command *command;
    int argc, next; /* next: index of the word after the one being looked at */
    char **argv;
    unsigned char *values;
    struct common_values common;
    uint64_t seen; /* bit i: row i of the command's table was given */
    struct ra_error *err;
};

static bool is_common_here(const struct ra_command *command, size_t index)
{
    return common_needs[index] == 0 || (command->common & common_needs[index]) != 0;
}

/* The row of a long name of n characters, or of a letter (n = 0), and where its struct is. */
static const struct ra_option *find(struct parse *parse, const char *name, size_t n, char letter,
                                    void **base)
{
    const struct ra_option *option = parse->command->options;
    for (size_t i = 0; option && option[i].name; i++) {
        if (n ? strlen(option[i].name) == n && memcmp(option[i].name, name, n) == 0
              : letter && option[i].letter == letter) {
            RA_BUG_ON(i >= MAX_ROWS);
            parse->seen |= UINT64_C(1) << i;
            *base = parse->values;
            return &option[i];
        }
    }
    for (size_t i = 0; common_table[i].name; i++) {
        if (!is_common_here(parse->command, i))
            continue;
        if (n ? strlen(common_table[i].name) == n && memcmp(common_table[i].name, name, n) == 0
              : letter && common_table[i].letter == letter) {
            *base = &parse->common;
            return &common_table[i];
        }
    }
    return NULL;
}

static enum ra_status unknown_option(const struct parse *parse, const char *name, size_t n)
{
    const char *names[MAX_ROWS + sizeof common_table / sizeof *common_table];
    size_t count = 0;
    const struct ra_option *option = parse->command->options;
    for (size_t i = 0; option && option[i].name; i++)
        if (!option[i].absent)
            names[count++] = option[i].name;
    for (size_t i = 0; common_table[i].name; i++)
        if (is_common_here(parse->command, i))
            names[count++] = common_table[i].name;
    struct ra_span word = {name, n};
    const char *nearest = ra_text_nearest(word, names, count, sizeof *names);
    return ra_fail(parse->err, RA_EUSAGE, "%s: unknown option '--%.*s'%s%s%s", parse->command->name,
                   RA_SPAN(word), nearest ? "; nearest is '--" : "", nearest ? nearest : "",
                   nearest ? "'" : "");
}

static enum ra_status bad_value(const struct ra_option *option, const char *expected,
                                const char *text, struct ra_error *err)
{
    return ra_fail(err, RA_EUSAGE, "--%s: expected %s, got \"%s\"", option->name, expected, text);
}

/* A whole decimal number that ends at `end`; nothing else may stand there. */
static bool read_int(const char *text, const char *end, int64_t *value)
{
    if (text == end || !strchr("-0123456789", *text))
        return false;
    char *stop;
    errno = 0;
    long long number = strtoll(text, &stop, 10);
    *value = number;
    return stop == end && errno == 0;
}

static bool is_within(const struct ra_option *option, double value)
{
    return value >= option->min && value <= option->max;
}

static enum ra_status set_int(const struct ra_option *option, const char *text, void *field,
                              struct ra_error *err)
{
    char expected[96];
    snprintf(expected, sizeof expected, "a whole number from %.0f to %.0f", option->min,
             option->max);
    int64_t value;
    if (!read_int(text, text + strlen(text), &value) || !is_within(option, (double)value))
        return bad_value(option, expected, text, err);
    memcpy(field, &value, sizeof value);
    return RA_OK;
}

static enum ra_status set_real(const struct ra_option *option, const char *text, void *field,
                               struct ra_error *err)
{
    char expected[96], *stop;
    snprintf(expected, sizeof expected, "a number from %g to %g", option->min, option->max);
    double value = strtod(text, &stop);
    if (stop == text || *stop || strspn(text, "+-.0123456789eE") != strlen(text) ||
        !isfinite(value) || !is_within(option, value))
        return bad_value(option, expected, text, err);
    memcpy(field, &value, sizeof value);
    return RA_OK;
}

static enum ra_status set_range(const struct ra_option *option, const char *text, void *field,
                                struct ra_error *err)
{
    struct ra_option_range range = {.is_set = true};
    const char *end = text + strlen(text), *dots = strstr(text, "..");
    bool ok = read_int(text, dots ? dots : end, &range.first);
    range.last = range.first;
    if (ok && dots)
        ok = read_int(dots + 2, end, &range.last);
    if (!ok || range.first > range.last || !is_within(option, (double)range.first) ||
        !is_within(option, (double)range.last)) {
        char expected[96];
        snprintf(expected, sizeof expected, "a..b with %.0f <= a <= b <= %.0f", option->min,
                 option->max);
        return bad_value(option, expected, text, err);
    }
    memcpy(field, &range, sizeof range);
    return RA_OK;
}

static enum ra_status set_choice(const struct ra_option *option, const char *text, void *field,
                                 struct ra_error *err)
{
    size_t n = strlen(text);
    int index = 0;
    for (const char *at = option->choices; *at; index++) {
        size_t length = strcspn(at, "|");
        if (length == n && memcmp(at, text, n) == 0) {
            memcpy(field, &index, sizeof index);
            return RA_OK;
        }
        at += length + (at[length] == '|');
    }
    return bad_value(option, option->choices, text, err);
}

static enum ra_status add_text(const struct ra_option *option, const char *text, void *field,
                               struct ra_error *err)
{
    struct ra_option_texts *list = field;
    if (list->n == RA_OPTION_TEXTS_MAX)
        return ra_fail(err, RA_EUSAGE, "--%s: given more than %d times", option->name,
                       RA_OPTION_TEXTS_MAX);
    list->text[list->n++] = text;
    return RA_OK;
}

/* Give an option its value; text is NULL for kinds without one. */
static enum ra_status assign(const struct ra_option *option, const char *text, void *base,
                             struct ra_error *err)
{
    unsigned char *field = (unsigned char *)base + option->offset;
    switch (option->kind) {
    case RA_OPTION_FLAG:
        *(bool *)field = true;
        return RA_OK;
    case RA_OPTION_COUNT:
        (*(int *)(void *)field)++;
        return RA_OK;
    case RA_OPTION_INT:
        return set_int(option, text, field, err);
    case RA_OPTION_REAL:
        return set_real(option, text, field, err);
    case RA_OPTION_TEXT:
        memcpy(field, &text, sizeof text);
        return RA_OK;
    case RA_OPTION_CHOICE:
        return set_choice(option, text, field, err);
    case RA_OPTION_RANGE:
        return set_range(option, text, field, err);
    case RA_OPTION_TEXTS:
        return add_text(option, text, field, err);
    }
    return ra_fail(err, RA_EUSAGE, "--%s: no such kind of option", option->name);
}

/* Defaults stand in the tables and are as good as typed: one that does not parse is a bug. */
static void set_defaults(const struct ra_option *table, void *base)
{
    for (size_t i = 0; table && table[i].name; i++)
        if (table[i].fallback)
            RA_BUG_ON(assign(&table[i], table[i].fallback, base, NULL) != RA_OK);
}

static bool takes_value(const struct ra_option *option)
{
    return option->kind != RA_OPTION_FLAG && option->kind != RA_OPTION_COUNT;
}

/* `attached` is what follows "=" or the letter, NULL when nothing does. */
static enum ra_status take(struct parse *parse, const struct ra_option *option, void *base,
                           const char *attached)
{
    if (option->absent)
        return ra_fail(parse->err, RA_ENODEV, "--%s: belongs to %s, not in this version",
                       option->name, option->absent);
    if (!takes_value(option) && attached)
        return ra_fail(parse->err, RA_EUSAGE, "--%s: takes no value, got \"%s\"", option->name,
                       attached);
    if (takes_value(option) && !attached) {
        if (parse->next >= parse->argc)
            return ra_fail(parse->err, RA_EUSAGE, "--%s: expected %s after it, got nothing",
                           option->name, option->argument);
        attached = parse->argv[parse->next++];
    }
    return assign(option, attached, base, parse->err);
}

static enum ra_status take_long(struct parse *parse, const char *word)
{
    size_t n = strcspn(word, "=");
    void *base;
    const struct ra_option *option = n ? find(parse, word, n, 0, &base) : NULL;
    if (!option)
        return unknown_option(parse, word, n);
    return take(parse, option, base, word[n] ? word + n + 1 : NULL);
}

static enum ra_status take_letters(struct parse *parse, const char *word)
{
    for (; *word; word++) {
        void *base;
        const struct ra_option *option = find(parse, NULL, 0, *word, &base);
        if (!option)
            return ra_fail(parse->err, RA_EUSAGE, "%s: unknown option '-%c'", parse->command->name,
                           *word);
        if (takes_value(option))
            return take(parse, option, base, word[1] ? word + 1 : NULL);
        RA_TRY(take(parse, option, base, NULL));
    }
    return RA_OK;
}

static enum ra_status place_operands(struct parse *parse, int n)
{
    const struct ra_operand *operand = parse->command->operands;
    int at = 0;
    for (; operand && operand->name; operand++) {
        int left = n - at;
        if (left < operand->min)
            return ra_fail(parse->err, RA_EUSAGE, "%s: expected %s, got nothing",
                           parse->command->name, operand->name);
        unsigned char *field = parse->values + operand->offset;
        if (operand->max == RA_OPERAND_MANY) {
            struct ra_operands list = {.n = left, .text = parse->argv + at};
            memcpy(field, &list, sizeof list);
            at = n;
        } else if (left > 0) {
            const char *text = parse->argv[at++];
            memcpy(field, &text, sizeof text);
        }
    }
    if (at < n)
        return ra_fail(parse->err, RA_EUSAGE, "%s: \"%s\" is one word too many",
                       parse->command->name, parse->argv[at]);
    return RA_OK;
}

static enum ra_status check_required(const struct parse *parse)
{
    const struct ra_option *option = parse->command->options;
    for (size_t i = 0; option && option[i].name; i++)
        if (option[i].is_required && !(parse->seen >> i & 1))
            return ra_fail(parse->err, RA_EUSAGE, "%s: expected --%s %s, got none",
                           parse->command->name, option[i].name, option[i].argument);
    return RA_OK;
}

static bool is_given(const struct parse *parse, const char *what, int n_operands)
{
    const struct ra_option *option = parse->command->options;
    const struct ra_operand *operand = parse->command->operands;
    if (what[0] != '-') {
        for (int i = 0; operand && operand[i].name; i++)
            if (strcmp(operand[i].name, what) == 0)
                return i < n_operands;
        return false;
    }
    for (size_t i = 0; option && option[i].name; i++)
        if (strcmp(option[i].name, what + 2) == 0)
            return parse->seen >> i & 1;
    return false;
}

/* An option without what it speaks of would change nothing, silently. */
static enum ra_status check_needs(const struct parse *parse, int n_operands)
{
    const struct ra_option *option = parse->command->options;
    for (size_t i = 0; option && option[i].name; i++)
        if (option[i].needs && (parse->seen >> i & 1) &&
            !is_given(parse, option[i].needs, n_operands))
            return ra_fail(parse->err, RA_EUSAGE, "%s: --%s: needs %s, which is not given",
                           parse->command->name, option[i].name, option[i].needs);
    return RA_OK;
}

/* Walk the words; *n operands are left at the front of argv. */
static enum ra_status walk(struct parse *parse, int *n)
{
    bool options_end = false;
    *n = 0;
    while (parse->next < parse->argc && !parse->common.help && !parse->common.version) {
        char *word = parse->argv[parse->next++];
        if (options_end || word[0] != '-' || word[1] == 0)
            parse->argv[(*n)++] = word;
        else if (strcmp(word, "--") == 0)
            options_end = true;
        else
            RA_TRY(word[1] == '-' ? take_long(parse, word + 2) : take_letters(parse, word + 1));
    }
    return RA_OK;
}

enum ra_status ra_options_parse(const struct ra_command *command, int argc, char **argv,
                                void *values, struct ra_cli *cli, enum ra_options_want *want,
                                struct ra_error *err)
{
    struct parse parse = {
        .command = command, .argc = argc, .next = 1, .argv = argv, .values = values, .err = err};
    memset(values, 0, command->values_size);
    set_defaults(command->options, values);
    set_defaults(common_table, &parse.common);
    int n;
    enum ra_status status = walk(&parse, &n);
    if (status != RA_OK)
        return status;
    *want = parse.common.help ? RA_WANT_HELP : parse.common.version ? RA_WANT_VERSION : RA_WANT_RUN;
    if (*want != RA_WANT_RUN)
        return RA_OK;
    RA_TRY(check_required(&parse));
    RA_TRY(check_needs(&parse, n));
    cli->format = (enum ra_format)parse.common.format;
    cli->is_quiet = parse.common.quiet;
    cli->verbosity = parse.common.verbosity;
    cli->seed = (uint64_t)parse.common.seed;
    return place_operands(&parse, n);
}
