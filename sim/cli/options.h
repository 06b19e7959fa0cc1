/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command lines as data: a command is a row with a table of options and a table of operands, and
 * from the rows follow parsing, defaults, range errors, nearest-name hints and the text of -h.
 * Tables hold no code, so that other generators (manual page, completion) can walk them too.
 */
#ifndef RA_SIM_CLI_OPTIONS_H
#define RA_SIM_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sim/base/error.h"

/* The type of the field that an option fills is given in brackets. */
enum ra_option_kind {
    RA_OPTION_FLAG,   /* no argument [bool] */
    RA_OPTION_COUNT,  /* no argument, may repeat [int]: how often */
    RA_OPTION_INT,    /* [int64_t], whole decimal number in min..max */
    RA_OPTION_REAL,   /* [double], finite, in min..max */
    RA_OPTION_TEXT,   /* [const char *], borrowed from argv; NULL when not given */
    RA_OPTION_CHOICE, /* [int]: index into `choices` */
    RA_OPTION_RANGE,  /* [struct ra_option_range], "a..b" or "a", each in min..max */
    RA_OPTION_TEXTS   /* may repeat [struct ra_option_texts], in the order given */
};

enum { RA_OPTION_TEXTS_MAX = 256 };
struct ra_option_texts {
    int n;
    const char *text[RA_OPTION_TEXTS_MAX]; /* borrowed from argv */
};

/* Both ends included. Not given: is_set = false. */
struct ra_option_range {
    bool is_set;
    int64_t first, last;
};

/* What can stand for an argument, beside choices and numbers; completion offers it. */
enum ra_words {
    RA_WORDS_FILES, /* names of files: what a row has that says nothing */
    RA_WORDS_NONE,  /* free text */
    RA_WORDS_FOLDERS,
    RA_WORDS_POLICIES,
    RA_WORDS_BACKENDS,
    RA_WORDS_FIGURES
};

/* One option. A table ends with a row whose name is NULL. */
struct ra_option {
    const char *name; /* long spelling without dashes */
    char letter;      /* short spelling, 0: none */
    enum ra_option_kind kind;
    bool is_required;
    size_t offset;        /* of the field in the struct that the table fills */
    const char *argument; /* name of the argument in help, "POLICY"; NULL without one */
    const char *fallback; /* default as it would be spelled; NULL: zero, false, or not given */
    double min, max;      /* inclusive, of INT, REAL and RANGE */
    const char *choices;  /* "text|json|csv" */
    enum ra_words words;  /* of TEXT and TEXTS */
    const char *needs;    /* NULL, or what must be given beside it: an option "--db", an operand
                             "TRACE" */
    const char *help;     /* lower case, no full stop; choices and default are added to it */
    const char *absent;   /* NULL, or the part this option belongs to and this version lacks: the
                             option is known, says so (RA_ENODEV), and is left out of help */
};

/* What stands on the line without dashes, in order. A table ends with a NULL name. */
struct ra_operand {
    const char *name; /* "TRACE" */
    int min, max;     /* how many; max 1 fills [const char *], RA_OPERAND_MANY the rest of the line
                         as [struct ra_operands]; only the last row may be MANY */
    size_t offset;
    const char *help;    /* choices are added to it */
    const char *choices; /* NULL: the name of a file */
};
enum { RA_OPERAND_MANY = 1 << 20 };

struct ra_operands {
    int n;
    char **text; /* borrowed: a part of argv, whose entries are put in order */
};

enum ra_format { RA_FORMAT_TEXT, RA_FORMAT_JSON, RA_FORMAT_CSV };

/* Options that every command shares; it names the ones it has. -h and --version are always there.
 */
enum ra_common {
    RA_COMMON_FORMAT_JSON = 1, /* --format text|json */
    RA_COMMON_FORMAT_CSV = 2,  /* --format text|json|csv */
    RA_COMMON_SEED = 4,        /* --seed */
    RA_COMMON_TALK = 8         /* -q, -v */
};

/* What a command gets beside its own values. */
struct ra_cli {
    enum ra_format format;
    bool is_quiet; /* no progress, no notes */
    int verbosity;
    uint64_t seed;
    int argc; /* the whole invocation, untouched; argv[0] is the program */
    const char *const *argv;
};

/* One subcommand. */
struct ra_command {
    const char *name;
    const char *summary; /* one line for the list of commands */
    enum ra_status (*run)(const struct ra_cli *cli, const void *values, struct ra_error *err);
    const struct ra_operand *operands; /* NULL: none */
    const struct ra_option *options;   /* NULL: none */
    unsigned common;                   /* RA_COMMON_* */
    size_t values_size;                /* of the struct that both tables fill */
    const char *notes;                 /* paragraph at the end of help; NULL: none */
};

/* A part of the tool that this version does not have, by the name of its command. */
struct ra_absent {
    const char *name, *what; /* "sweep", "offline sweeps" */
};

enum ra_options_want { RA_WANT_RUN, RA_WANT_HELP, RA_WANT_VERSION };

/*
 * Parse argv[1..] (argv[0] is the command's own word) into *values, which has command->values_size
 * bytes, and into format, is_quiet, verbosity and seed of *cli. "--name=value", "--name value",
 * "-nvalue", "-n value", letters of flags joined ("-vv"); "--" ends options; a lone "-" is an
 * operand. -h and --version end parsing at once, and *want tells. Entries of argv are reordered.
 * Errors: RA_EUSAGE naming option, expected and got, with the nearest name; RA_ENODEV for an
 * option of an absent part.
 */
RA_MUST_CHECK enum ra_status ra_options_parse(const struct ra_command *command, int argc,
                                              char **argv, void *values, struct ra_cli *cli,
                                              enum ra_options_want *want, struct ra_error *err);

/* Print what -h says: starts with "usage: rattn-sim NAME", at most 80 columns. */
void ra_options_help(const struct ra_command *command, FILE *out);

/* What help and manual add to an option's text, from its row: "(one or two; needs --db; default:
 * one)". Empty when there is nothing to add. */
void ra_option_remark(const struct ra_option *option, char *out, size_t size);

/* "one, two or three" from "one|two|three". */
void ra_choices_text(const char *choices, char *out, size_t size);

/* The rows behind `common` bits, as one table that fills struct ra_cli_common of options.c; ends
 * with a NULL name. For generators. */
const struct ra_option *ra_options_common(void);
/* Bits of enum ra_common that row `index` of that table needs, any of them; 0: always there. */
unsigned ra_options_common_needs(size_t index);

#endif
