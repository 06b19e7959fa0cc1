/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command lines: what each kind of option accepts and refuses, in which order things are decided,
 * and that help follows from the table. The parser is compiled in: it is no part of the library.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/cli/options.c"
#include "sim/cli/options_help.c"
#include "sim/cli/wrap.c"
#include "tests/support/ra_test.h"

struct values {
    bool flag;
    int count, choice;
    int64_t whole;
    double real;
    const char *text, *first;
    struct ra_option_range range;
    struct ra_option_texts texts;
    struct ra_operands rest;
};

#define AT(member) .offset = offsetof(struct values, member)
static const struct ra_option table[] = {
    {.name = "flag", .letter = 'f', .kind = RA_OPTION_FLAG, AT(flag), .help = "a flag"},
    {.name = "count", .letter = 'c', .kind = RA_OPTION_COUNT, AT(count), .help = "a count"},
    {.name = "whole",
     .letter = 'w',
     .kind = RA_OPTION_INT,
     AT(whole),
     .argument = "N",
     .fallback = "7",
     .min = -5,
     .max = 9,
     .help = "a whole number"},
    {.name = "real",
     .kind = RA_OPTION_REAL,
     AT(real),
     .argument = "X",
     .min = -1,
     .max = 2.5,
     .help = "a number with a help text that is too long for one line of eighty columns"},
    {.name = "text",
     .letter = 't',
     .kind = RA_OPTION_TEXT,
     AT(text),
     .argument = "T",
     .help = "a text"},
    {.name = "choice",
     .kind = RA_OPTION_CHOICE,
     AT(choice),
     .argument = "C",
     .fallback = "two",
     .choices = "one|two|three",
     .help = "a choice"},
    {.name = "range",
     .kind = RA_OPTION_RANGE,
     AT(range),
     .argument = "A..B",
     .min = 0,
     .max = 99,
     .help = "a range"},
    {.name = "policy",
     .letter = 'p',
     .kind = RA_OPTION_TEXTS,
     AT(texts),
     .argument = "P",
     .help = "may repeat"},
    {.name = "granularity",
     .kind = RA_OPTION_TEXT,
     AT(text),
     .argument = "G",
     .help = "gone",
     .absent = "the cuda backend"},
    {.name = NULL},
};
static const struct ra_operand operands[] = {
    {"FIRST", 1, 1, AT(first), .help = "the first"},
    {"REST", 0, RA_OPERAND_MANY, AT(rest), .help = "the others"},
    {.name = NULL}};
static const struct ra_command command = {.name = "try",
                                          .summary = "a command for tests",
                                          .operands = operands,
                                          .options = table,
                                          .common = RA_COMMON_FORMAT_JSON | RA_COMMON_TALK |
                                                    RA_COMMON_SEED,
                                          .values_size = sizeof(struct values)};

static struct values values;
static struct ra_cli cli;
static enum ra_options_want want;
static struct ra_error err;

/* Parse a line given as words apart by one blank; the words live until the next call. */
static enum ra_status parse_as(const struct ra_command *row, const char *line)
{
    static char text[2048], *argv[512];
    int argc = 0;
    snprintf(text, sizeof text, "%s", line);
    argv[argc++] = "try";
    for (char *rest = text, *word; (word = strsep(&rest, " "));)
        if (*word)
            argv[argc++] = word;
    return ra_options_parse(row, argc, argv, &values, &cli, &want, &err);
}

static enum ra_status parse_line(const char *line)
{
    return parse_as(&command, line);
}

static void every_kind_in_every_spelling(void **state)
{
    (void)state;
    ra_assert_ok(parse_line("a --flag -cc --count --whole=-5 --real -0.5 -tx --choice=three"
                            " --range 3..8 -p one --policy=two b -p three"));
    assert_true(values.flag);
    assert_int_equal(values.count, 3);
    assert_int_equal(values.whole, -5);
    assert_true(values.real == -0.5);
    assert_string_equal(values.text, "x");
    assert_int_equal(values.choice, 2);
    assert_true(values.range.is_set && values.range.first == 3 && values.range.last == 8);
    assert_int_equal(values.texts.n, 3);
    assert_string_equal(values.texts.text[1], "two");
    assert_string_equal(values.texts.text[2], "three");
    assert_string_equal(values.first, "a");
    assert_int_equal(values.rest.n, 1);
    assert_string_equal(values.rest.text[0], "b");
}

static void defaults_come_from_the_table(void **state)
{
    (void)state;
    ra_assert_ok(parse_line("a"));
    assert_int_equal(values.whole, 7);
    assert_int_equal(values.choice, 1);
    assert_null(values.text);
    assert_false(values.flag || values.range.is_set);
    assert_int_equal(cli.format, RA_FORMAT_TEXT);
    ra_assert_ok(parse_line("a --range 5 --format json -qvv --seed 9007199254740992"));
    assert_true(values.range.first == 5 && values.range.last == 5);
    assert_int_equal(cli.format, RA_FORMAT_JSON);
    assert_true(cli.is_quiet);
    assert_int_equal(cli.verbosity, 2);
    assert_true(cli.seed == UINT64_C(9007199254740992));
}

static void letters_and_values_may_be_joined(void **state)
{
    (void)state;
    ra_assert_ok(parse_line("-fcw9 a"));
    assert_true(values.flag);
    assert_int_equal(values.count, 1);
    assert_int_equal(values.whole, 9);
}

static void two_dashes_end_options(void **state)
{
    (void)state;
    ra_assert_ok(parse_line("-f -- --flag -x -"));
    assert_string_equal(values.first, "--flag");
    assert_int_equal(values.rest.n, 2);
    assert_string_equal(values.rest.text[0], "-x");
    ra_assert_ok(parse_line("- -f"));
    assert_string_equal(values.first, "-");
    assert_true(values.flag);
}

/* A number that is nearly one must not be taken for another number. */
static void bad_numbers_are_refused(void **state)
{
    static const char *const bad[] = {"10", "-6",  "1x", "0x1", "1e0",
                                      "+1", "1.0", "--", "nan", "99999999999999999999"};
    static const char *const bad_real[] = {"2.6", "-1.01", "nan", "inf", "0x1p0", "1,5", "1e999"};
    static const char *const bad_range[] = {"8..3", "3..100", "..5", "3..", "a..b", "3...5", "3-5"};
    char line[96];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(line, sizeof line, "a --whole=%s", bad[i]);
        ra_assert_fails(parse_line(line), RA_EUSAGE,
                        "--whole: expected a whole number from -5 to 9, got \"");
        assert_non_null(strstr(err.msg, bad[i]));
    }
    for (size_t i = 0; i < sizeof bad_real / sizeof *bad_real; i++) {
        snprintf(line, sizeof line, "a --real %s", bad_real[i]);
        ra_assert_fails(parse_line(line), RA_EUSAGE, "--real: expected a number from -1 to 2.5");
    }
    for (size_t i = 0; i < sizeof bad_range / sizeof *bad_range; i++) {
        snprintf(line, sizeof line, "a --range %s", bad_range[i]);
        ra_assert_fails(parse_line(line), RA_EUSAGE, "--range: expected a..b with 0 <= a <= b");
    }
    ra_assert_fails(parse_line("a --whole="), RA_EUSAGE, "got \"\"");
}

static void mistakes_name_what_was_expected(void **state)
{
    (void)state;
    ra_assert_fails(parse_line("a --polcy x"), RA_EUSAGE,
                    "try: unknown option '--polcy'; nearest is '--policy'");
    ra_assert_fails(parse_line("a --polcy=x"), RA_EUSAGE, "'--polcy'; nearest is '--policy'");
    ra_assert_fails(parse_line("a --flag=1"), RA_EUSAGE, "--flag: takes no value, got \"1\"");
    ra_assert_fails(parse_line("a --choice four"), RA_EUSAGE, "one|two|three, got \"four\"");
    ra_assert_fails(parse_line("a --choice tw"), RA_EUSAGE, "--choice");
    ra_assert_fails(parse_line("a --format csv"), RA_EUSAGE, "--format: expected text|json");
    ra_assert_fails(parse_line("a --text"), RA_EUSAGE, "--text: expected T after it, got nothing");
    ra_assert_fails(parse_line("a -z"), RA_EUSAGE, "try: unknown option '-z'");
    ra_assert_fails(parse_line("a -fz"), RA_EUSAGE, "'-z'");
    ra_assert_fails(parse_line("-f"), RA_EUSAGE, "try: expected FIRST, got nothing");
    /* The nearest name is never one that would be refused. */
    ra_assert_fails(parse_line("a --granularty"), RA_EUSAGE, "unknown option");
    assert_null(strstr(err.msg, "'--granularity'"));
}

static void an_absent_part_says_so(void **state)
{
    (void)state;
    ra_assert_fails(parse_line("a --granularity x"), RA_ENODEV,
                    "--granularity: belongs to the cuda backend, not in this version");
}

static void operands_and_required_options_are_counted(void **state)
{
    static const struct ra_option required[] = {{.name = "policy",
                                                 .letter = 'p',
                                                 .kind = RA_OPTION_TEXTS,
                                                 .is_required = true,
                                                 AT(texts),
                                                 .argument = "P",
                                                 .help = "needed"},
                                                {.name = NULL}};
    static const struct ra_operand one[] = {{"ONE", 0, 1, AT(first), "one"}, {.name = NULL}};
    static const struct ra_command strict = {.name = "try",
                                             .summary = "s",
                                             .operands = one,
                                             .options = required,
                                             .values_size = sizeof(struct values)};
    (void)state;
    ra_assert_fails(parse_as(&strict, ""), RA_EUSAGE, "try: expected --policy P, got none");
    ra_assert_fails(parse_as(&strict, "-p x a b"), RA_EUSAGE, "\"b\" is one word too many");
    ra_assert_ok(parse_as(&strict, "-p x"));
    assert_null(values.first);
    /* Options that this command does not have. */
    ra_assert_fails(parse_as(&strict, "-p x --seed 1"), RA_EUSAGE, "'--seed'");
    ra_assert_fails(parse_as(&strict, "-p x -q"), RA_EUSAGE, "'-q'");
}

static void help_and_version_beat_what_is_missing(void **state)
{
    (void)state;
    ra_assert_ok(parse_line("--help"));
    assert_int_equal(want, RA_WANT_HELP);
    ra_assert_ok(parse_line("-fh --nonsense"));
    assert_int_equal(want, RA_WANT_HELP);
    ra_assert_ok(parse_line("--version"));
    assert_int_equal(want, RA_WANT_VERSION);
    ra_assert_fails(parse_line("--nonsense -h"), RA_EUSAGE, "--nonsense");
}

static void a_list_that_is_too_long_is_refused(void **state)
{
    char line[2048] = "a";
    (void)state;
    for (int i = 0; i < RA_OPTION_TEXTS_MAX; i++)
        strcat(line, " -p1");
    ra_assert_ok(parse_line(line));
    assert_int_equal(values.texts.n, RA_OPTION_TEXTS_MAX);
    strcat(line, " -p1");
    ra_assert_fails(parse_line(line), RA_EUSAGE, "--policy: given more than 256 times");
}

static void an_option_needs_what_it_speaks_of(void **state)
{
    static const struct ra_option rows[] = {
        {.name = "flag", .kind = RA_OPTION_FLAG, AT(flag), .needs = "--text", .help = "a"},
        {.name = "whole",
         .kind = RA_OPTION_INT,
         AT(whole),
         .argument = "N",
         .fallback = "0",
         .max = 9,
         .needs = "FIRST",
         .help = "b"},
        {.name = "text", .kind = RA_OPTION_TEXT, AT(text), .argument = "T", .help = "c"},
        {.name = NULL}};
    static const struct ra_operand one[] = {{"FIRST", 0, 1, AT(first), .help = "the first"},
                                            {.name = NULL}};
    static const struct ra_command row = {
        .name = "try", .operands = one, .options = rows, .values_size = sizeof(struct values)};
    char remark[64];
    (void)state;
    ra_assert_fails(parse_as(&row, "--flag"), RA_EUSAGE, "try: --flag: needs --text, which is not");
    ra_assert_fails(parse_as(&row, "--whole 0"), RA_EUSAGE, "try: --whole: needs FIRST, which is");
    ra_assert_ok(parse_as(&row, ""));
    ra_assert_ok(parse_as(&row, "--flag --text x"));
    ra_assert_ok(parse_as(&row, "--whole 0 x"));
    ra_option_remark(&rows[1], remark, sizeof remark);
    assert_string_equal(remark, "(needs FIRST; default: 0)");
}

static void help_shows_every_row_within_80_columns(void **state)
{
    char *text = NULL;
    size_t size = 0;
    (void)state;
    FILE *out = open_memstream(&text, &size);
    ra_options_help(&command, out);
    fclose(out);
    assert_int_equal(strncmp(text, "usage: rattn-sim try FIRST [REST...]", 36), 0);
    for (size_t i = 0; table[i].name; i++) {
        char name[64];
        snprintf(name, sizeof name, "--%s", table[i].name);
        assert_int_equal(strstr(text, name) != NULL, !table[i].absent);
        assert_int_equal(strstr(text, table[i].help) != NULL || i == 3, !table[i].absent);
    }
    assert_non_null(strstr(text, "(one, two or three; default: two)"));
    assert_non_null(strstr(text, "[-p P]..."));
    assert_non_null(strstr(text, "--seed"));
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
        assert_true(strcspn(line, "\n") <= 80);
    free(text);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_in_every_spelling),
        cmocka_unit_test(defaults_come_from_the_table),
        cmocka_unit_test(letters_and_values_may_be_joined),
        cmocka_unit_test(two_dashes_end_options),
        cmocka_unit_test(bad_numbers_are_refused),
        cmocka_unit_test(mistakes_name_what_was_expected),
        cmocka_unit_test(an_absent_part_says_so),
        cmocka_unit_test(operands_and_required_options_are_counted),
        cmocka_unit_test(help_and_version_beat_what_is_missing),
        cmocka_unit_test(a_list_that_is_too_long_is_refused),
        cmocka_unit_test(an_option_needs_what_it_speaks_of),
        cmocka_unit_test(help_shows_every_row_within_80_columns),
    };
    return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
