/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command table and what is common to all commands: finding the row, parsing, mapping a status
 * to an exit code, and making sure that what was printed arrived.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/json_memory.h"
#include "sim/base/text.h"
#include "sim/cli/commands.h"
#include "sim/cli/manual.h"
#include "sim/cli/wrap.h"

static const struct ra_command *const commands[] = {
    &ra_cmd_explain,   &ra_cmd_record, &ra_cmd_info,    &ra_cmd_replay, &ra_cmd_eval,
    &ra_cmd_speculate, &ra_cmd_import, &ra_cmd_compare, &ra_cmd_report, &ra_cmd_plot,
    &ra_cmd_export,    &ra_cmd_list,   &ra_cmd_metrics, &ra_cmd_doctor, NULL,
};

static const struct ra_absent absent[] = {
    {"sweep", "offline sweeps"},
    {"recommend", "recommendations"},
    {"cost", "the cost model"},
    {"calibrate", "the cost model"},
};
enum { N_ABSENT = sizeof absent / sizeof *absent };

static const struct ra_manual_row exits[] = {
    {"0", "done"},
    {"1", "failed"},
    {"2", "the command line is wrong"},
    {"3", "a device or an optional part is missing"},
    {"4", "results differ"},
    {"5", "GPU counters are not permitted"},
    {"130", "interrupted"},
    {NULL, NULL},
};

static const struct ra_manual manual = {
    .commands = commands,
    .summary = "replays recorded decoding runs: quality, traffic, time of attention schedules",
    .exits = exits,
};

static int exit_code(enum ra_status status)
{
    switch (status) {
    case RA_OK:
    case RA_END:
        return 0;
    case RA_EUSAGE:
        return 2;
    case RA_ENODEV:
        return 3;
    case RA_EDIVERGED:
        return 4;
    case RA_EPERM:
        return 5;
    case RA_EINTERRUPTED:
        return 130;
    default:
        return 1;
    }
}

static int complain(const struct ra_error *err, enum ra_status status)
{
    ra_complain(err->msg);
    return exit_code(status);
}

/* Results that did not arrive are a failure, whatever the command thought of them. */
static int close_stdout(int code)
{
    errno = 0;
    bool failed = ferror(stdout) != 0;
    if (fflush(stdout) != 0)
        failed = true;
    if (!failed)
        return code;
    fprintf(stderr, "rattn-sim: standard output: %s\n", errno ? strerror(errno) : "write failed");
    return code ? code : 1;
}

static void print_commands(FILE *out)
{
    fprintf(out, "usage: rattn-sim COMMAND [ARGUMENTS]\n\n%s\n\n", manual.summary);
    for (int i = 0; commands[i]; i++)
        fprintf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    fputs("\n'rattn-sim COMMAND -h' tells more. Begin with 'rattn-sim explain'.\n"
          "'rattn-sim help --man' prints the manual page, 'help --completion' a script\n"
          "for bash; make install puts both where they are found.\n\nExit codes:\n",
          out);
    for (const struct ra_manual_row *row = exits; row->name; row++)
        fprintf(out, "  %3s  %s\n", row->name, row->text);
}

static void print_version(void)
{
    printf("rattn-sim %s\n", RA_VERSION);
}

static int unknown_command(const char *word)
{
    struct ra_error err;
    for (int i = 0; i < N_ABSENT; i++)
        if (strcmp(absent[i].name, word) == 0)
            return complain(&err, ra_fail(&err, RA_ENODEV, "%s: %s: not in this version", word,
                                          absent[i].what));
    const char *names[sizeof commands / sizeof commands[0]];
    size_t n = 0;
    for (; commands[n]; n++)
        names[n] = commands[n]->name;
    struct ra_span span = ra_span_of(word);
    const char *nearest = ra_text_nearest(span, names, n, sizeof *names);
    if (!nearest)
        return complain(&err, ra_fail(&err, RA_EUSAGE,
                                      "unknown command '%.*s'; 'rattn-sim help' lists them",
                                      RA_SPAN(span)));
    return complain(&err, ra_fail(&err, RA_EUSAGE, "unknown command '%.*s'; nearest is '%s'",
                                  RA_SPAN(span), nearest));
}

static int run_command(const struct ra_command *command, struct ra_cli *cli, int argc, char **argv)
{
    struct ra_error err = {RA_OK, ""};
    enum ra_options_want want = RA_WANT_RUN;
    void *values = calloc(1, command->values_size ? command->values_size : 1);
    if (!values)
        return complain(&err, ra_fail(&err, RA_ENOMEM, "no memory for options"));
    enum ra_status status = ra_options_parse(command, argc, argv, values, cli, &want, &err);
    int code = 0;
    if (status != RA_OK) {
        code = complain(&err, status);
        if (status == RA_EUSAGE)
            fprintf(stderr, "rattn-sim: 'rattn-sim %s -h' lists the options\n", command->name);
    } else if (want == RA_WANT_HELP) {
        ra_options_help(command, stdout);
    } else if (want == RA_WANT_VERSION) {
        print_version();
    } else {
        status = command->run(cli, values, &err);
        if (status == RA_OK && ra_json_starved())
            status = ra_fail(&err, RA_ENOMEM, "%s: no memory for its results", command->name);
        code = status == RA_OK ? 0 : complain(&err, status);
    }
    free(values);
    return code;
}

static const struct ra_command *find_command(const char *name)
{
    for (int i = 0; commands[i]; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

static int help(const char *word)
{
    const struct ra_command *command = find_command(word);
    if (strcmp(word, "--man") == 0)
        ra_manual_page(&manual, stdout);
    else if (strcmp(word, "--completion") == 0)
        ra_manual_completion(&manual, stdout);
    else if (command)
        ra_options_help(command, stdout);
    else
        return unknown_command(word);
    return 0;
}

static int dispatch(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "help";
    if (strcmp(word, "help") == 0 && argc > 2)
        return help(argv[2]);
    if (strcmp(word, "help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
        print_commands(stdout);
        return 0;
    }
    if (strcmp(word, "--version") == 0) {
        print_version();
        return 0;
    }
    const struct ra_command *command = find_command(word);
    if (!command)
        return unknown_command(word);
    /* Parsing reorders its words; results carry the line as it was given. */
    char **words = calloc((size_t)argc, sizeof *words);
    if (!words) {
        fprintf(stderr, "rattn-sim: no memory for the command line\n");
        return 1;
    }
    memcpy(words, argv + 1, (size_t)(argc - 1) * sizeof *words);
    struct ra_cli cli = {.argc = argc, .argv = (const char *const *)argv};
    int code = run_command(command, &cli, argc - 1, words);
    free(words);
    return code;
}

/* With a standard stream closed, the next file opened would take its number and receive what is
 * printed: a database, say. Streams that only fail take the places instead. */
static void guard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        while (fcntl(fd, F_GETFD) == -1 && errno == EBADF)
            if (open("/dev/null", fd == 1 ? O_RDONLY : O_RDWR) < 0)
                return;
}

int main(int argc, char **argv)
{
    guard_streams();
    ra_json_watch();
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is a failed write, not a signal */
    signal(SIGPIPE, SIG_IGN); /* so is a reader that went away */
    return close_stdout(dispatch(argc, argv));
}
