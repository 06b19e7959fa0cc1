/* SPDX-License-Identifier: Apache-2.0 */
/* The rules that hold for every operation and every fault, and the program run in this process. */
#include "tests/support/fault_sweep.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/json_memory.h"
#include "sim/cli/interrupt.h"
#include "tests/support/ra_test.h"
#include "tests/support/tmp_dir.h"

enum { MAX_PICKS = 1 << 14, MAX_WORDS = 32 };

int __real_main(int argc, char **argv);

static struct fault armed;
static sqlite3_int64 sqlite_bytes;

void fault_go(void)
{
    ra_json_watch();
    sqlite_bytes = sqlite3_memory_used();
    fault_arm(&armed);
}

void fault_halt(void)
{
    fault_disarm();
}

static bool names_a_place(const struct fault_case *c, const char *said)
{
    bool found = c->places == NULL;
    for (int i = 0; c->places && c->places[i] && !found; i++)
        found = strstr(said, c->places[i]) != NULL;
    return found;
}

/* SQLite has its own words for a disk that is full or broken; what cannot be read is malformed. */
static bool names_the_cause(const char *said, int error)
{
    if (error == ENOMEM)
        return strstr(said, "memory") != NULL;
    return strstr(said, strerror(error)) || strstr(said, "disk is full") ||
           strstr(said, "a write failed") || strstr(said, "disk I/O error") ||
           strstr(said, "is malformed") || strstr(said, "unable to open database") ||
           strstr(said, "read-only") || strstr(said, "nothing can be written");
}

/* NULL, or the rule that was broken. */
static const char *broken_rule(const struct fault_case *c, const struct fault_outcome *clean,
                               const struct fault_outcome *now)
{
    if (fault_leaked() > 0)
        return "memory was leaked";
    if (sqlite3_memory_used() > sqlite_bytes)
        return "memory of SQLite was leaked";
    if (now->code == clean->code)
        return now->n == clean->n &&
                       (now->n == 0 || memcmp(now->result, clean->result, now->n) == 0)
                   ? NULL
                   : "succeeded with another result";
    if (armed.error == FAULT_SIGNAL)
        return now->code == 130 || now->code == RA_EINTERRUPTED ? NULL : "expected an interruption";
    if (armed.error == FAULT_SHORT || armed.error == EINTR)
        return "expected to try again and succeed";
    if (!fault_fired())
        return "failed without a fault";
    if (!names_a_place(c, now->said))
        return "the message names no place";
    if (!names_the_cause(now->said, armed.error))
        return "the message does not name the cause";
    return NULL;
}

static void run(const struct fault_case *c, struct fault_outcome *outcome)
{
    *outcome = (struct fault_outcome){.code = -1};
    ra_interrupt_flag = 0;
    if (c->prepare)
        c->prepare(c->context);
    c->run(c->context, outcome);
    fault_disarm();
    if (c->check)
        c->check(c->context, outcome);
}

static struct fault_tally sweep(const struct fault_case *c, const struct fault *fault)
{
    static long picks[MAX_PICKS];
    struct fault_outcome clean, now;
    armed = (struct fault){.op = fault->op};
    run(c, &clean); /* what is made once and kept is made now */
    free(clean.result);
    run(c, &clean);
    if (clean.code != 0)
        fail_msg("%s: without a fault: %d: %s", c->name, clean.code, clean.said);
    if (fault_leaked() > 0) {
        fault_explain();
        fail_msg("%s: without a fault: memory was leaked", c->name);
    }
    struct fault_tally tally = {.n_calls = fault_calls(fault->op)};
    size_t n = fault_picks(fault->op, picks, MAX_PICKS);
    assert_true(n < MAX_PICKS);
    for (size_t i = 0; i < n; i++) {
        armed = *fault;
        armed.at = picks[i];
        run(c, &now);
        const char *rule = broken_rule(c, &clean, &now);
        if (rule) {
            fault_explain();
            fail_msg("%s: call %ld of kind %d, error %d: %s\ncode %d: %s", c->name, picks[i],
                     fault->op, fault->error, rule, now.code, now.said);
        }
        tally.n_faults += fault_fired();
        tally.n_failed += now.code != clean.code;
        tally.n_tolerated += fault_fired() && now.code == clean.code;
        free(now.result);
    }
    free(clean.result);
    print_message("%-44s %d/%-3d %6ld calls %5ld faults %5ld failed %5ld tolerated\n", c->name,
                  fault->op, fault->error, tally.n_calls, tally.n_faults, tally.n_failed,
                  tally.n_tolerated);
    return tally;
}

struct fault_tally fault_sweep(const struct fault_case *c, enum fault_op op, int error)
{
    return sweep(c, &(struct fault){.op = op, .error = error});
}

struct fault_tally fault_sweep_lasting(const struct fault_case *c, enum fault_op op, int error)
{
    return sweep(c, &(struct fault){.op = op, .error = error, .lasts = true});
}

/* --- the program -------------------------------------------------------------------------------
 */

/* Sends a stream to an unlinked file; returns the descriptor it had. */
static int divert(FILE *stream)
{
    char path[600];
    snprintf(path, sizeof path, "%s/stream-XXXXXX", tmp_dir);
    int file = mkstemp(path);
    assert_true(file >= 0);
    unlink(path);
    fflush(stream);
    int kept = dup(fileno(stream));
    assert_true(kept >= 0);
    assert_true(dup2(file, fileno(stream)) >= 0);
    close(file);
    return kept;
}

/* What arrived, malloc'd and ended by a zero; the stream goes where it went before. */
static char *restore(FILE *stream, int kept, size_t *n)
{
    __fpurge(stream);
    clearerr(stream);
    off_t size = lseek(fileno(stream), 0, SEEK_END);
    char *text = malloc((size_t)size + 1);
    assert_non_null(text);
    *n = 0;
    while (*n < (size_t)size) {
        ssize_t got = pread(fileno(stream), text + *n, (size_t)size - *n, (off_t)*n);
        assert_true(got > 0);
        *n += (size_t)got;
    }
    text[*n] = '\0';
    assert_true(dup2(kept, fileno(stream)) >= 0);
    close(kept);
    return text;
}

void fault_cli(const char *const *words, struct fault_outcome *outcome)
{
    static char name[] = "rattn-sim";
    char *argv[MAX_WORDS + 2] = {name};
    int argc = 1;
    size_t n;
    for (; words[argc - 1]; argc++) {
        assert_true(argc <= MAX_WORDS);
        argv[argc] = strdup(words[argc - 1]);
    }
    char **copies = argv + 1;
    int out = divert(stdout), err = divert(stderr);
    fault_go();
    outcome->code = __real_main(argc, argv);
    fault_halt();
    fflush(stderr);
    char *said = restore(stderr, err, &n);
    outcome->result = restore(stdout, out, &outcome->n);
    snprintf(outcome->said, sizeof outcome->said, "%s", said);
    free(said);
    for (int i = 0; i + 1 < argc; i++)
        free(copies[i]);
}

void fault_cli_with(const char *const *words, const struct fault *fault,
                    struct fault_outcome *outcome)
{
    armed = *fault;
    fault_cli(words, outcome);
    armed = (struct fault){0};
}
