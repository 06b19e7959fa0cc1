/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole replay into a store that holds a run already, with an export over an older one, while
 * memory, disk and signals fail: what was complete stays, what is new is whole or not there.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/fault_sweep.h"
#include "tests/support/ra_test.h"
#include "tests/support/store_fixture.h"
#include "tests/support/tmp_dir.h"

static const char old_export[] = "an export that was complete";

/* One folder for all runs of a case: DB, its bytes after the first run, exports, TMPDIR. */
struct replaying {
    const char *const *words;
    char folder[560], db[600], exported[600], spool[600];
    uint8_t *bytes;
    size_t n;
    bool may_leave_lock; /* what cannot be looked at is not known to be ours */
};

static void prepare(void *context)
{
    struct replaying *r = context;
    const char *const suffixes[] = {"-wal", "-shm", "-journal", ".lock"};
    char path[640];
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        snprintf(path, sizeof path, "%s%s", r->db, suffixes[i]);
        unlink(path);
    }
    tmp_write(r->db, r->bytes, r->n);
    tmp_write(r->exported, old_export, sizeof old_export);
}

/* Lines of JSON that are measured are left out: a name that holds one of these is a time. */
static size_t without_times(char *text)
{
    static const char *const names[] = {"_ns\"",    "\"total\"", "\"per_step", "\"p50\"", "\"p99\"",
                                        "_ratio\"", "speedup",   "\"ns\"",     NULL};
    static const char *const ops[] = {"\"append\"",  "\"attend\"", "\"scores\": 0", "\"select\"",
                                      "\"refresh\"", "\"evict\"",  "\"cosine\"",    NULL};
    char *to = text;
    for (char *line = text, *end; *line; line = end) {
        char *stop = strchr(line, '\n');
        end = stop ? stop + 1 : line + strlen(line);
        char kept = *end;
        bool is_time = false;
        *end = '\0';
        for (int i = 0; names[i] && !is_time; i++)
            is_time = strstr(line, names[i]) != NULL;
        for (int i = 0; ops[i] && !is_time; i++)
            is_time = strstr(line, ops[i]) != NULL;
        is_time = is_time || strstr(line, "\"scores\": 1") || strstr(line, "\"scores\": 2");
        *end = kept;
        if (!is_time) {
            memmove(to, line, (size_t)(end - line));
            to += end - line;
        }
    }
    *to = '\0';
    return (size_t)(to - text);
}

static void run(void *context, struct fault_outcome *outcome)
{
    struct replaying *r = context;
    fault_cli(r->words, outcome);
    outcome->n = without_times(outcome->result);
}

static void check_store(const struct replaying *r, bool succeeded)
{
    static const char first[] = "SELECT state = 'complete' AND result_json IS NOT NULL AND "
                                "(SELECT count(*) FROM layer_step WHERE run_id = 1) = 18 AND "
                                "(SELECT count(*) FROM pass WHERE run_id = 1 AND "
                                "state = 'complete') = 1 FROM run WHERE id = 1";
    static const char half[] =
        "SELECT count(*) FROM run WHERE state = 'complete' AND (result_json IS NULL OR "
        "json_valid(result_json) = 0 OR json_extract(result_json, '$.fingerprint') IS NOT "
        "fingerprint OR json_array_length(argv_json) < 5 OR json_extract(config_json, '$.cwd') "
        "IS NULL OR (SELECT count(*) FROM layer_step WHERE run_id = run.id) <> 18 OR "
        "(SELECT count(*) FROM pass WHERE run_id = run.id AND state = 'complete') <> 1)";
    store_done(store_read(r->db)); /* what had no end gets one */
    assert_int_equal(store_ask(r->db, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"),
                     1);
    assert_int_equal(store_ask(r->db, first), 1);
    assert_int_equal(store_ask(r->db, half), 0);
    assert_int_equal(store_ask(r->db, "SELECT count(*) FROM run WHERE state = 'running'"), 0);
    if (succeeded)
        assert_int_equal(
            store_ask(r->db, "SELECT count(*) FROM run WHERE id > 1 AND state = 'complete'"), 1);
}

/* Nothing half has a name; a log that could not be merged is the store's, and the next writer's. */
static void check_names(const struct replaying *r)
{
    static const char *const names[] = {
        ".",    "..", "runs.db", "runs.db-wal", "runs.db-shm", "runs.db-journal", "out.safetensors",
        "spool"};
    DIR *entries = opendir(r->folder);
    assert_non_null(entries);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        bool is_known = r->may_leave_lock && strcmp(entry->d_name, "runs.db.lock") == 0;
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            is_known = is_known || strcmp(entry->d_name, names[i]) == 0;
        if (!is_known)
            fail_msg("%s: %s was left behind", r->folder, entry->d_name);
    }
    closedir(entries);
}

static void check(void *context, const struct fault_outcome *outcome)
{
    struct replaying *r = context;
    size_t n;
    bool succeeded = outcome->code == 0;
    check_store(r, succeeded);
    uint8_t *bytes = tmp_read(r->exported, &n);
    bool is_old = n == sizeof old_export && memcmp(bytes, old_export, n) == 0;
    free(bytes);
    assert_true(succeeded ? !is_old : true);
    if (!is_old) { /* then it is a whole one */
        static size_t whole;
        whole = whole ? whole : n;
        assert_int_equal(n, whole);
        assert_true(n > 4096);
    }
    assert_int_equal(tmp_dir_count(r->spool), 0);
    check_names(r);
}

static const char *const places[] = {
    "runs.db", "out.safetensors", "temporary file", "synth:", "trace.safetensors", "spool", NULL};

static void open_case(struct replaying *r, const char *name)
{
    snprintf(r->folder, sizeof r->folder, "%s", tmp_path(tmp_dir, name));
    assert_int_equal(mkdir(r->folder, 0777), 0);
    snprintf(r->db, sizeof r->db, "%s/runs.db", r->folder);
    snprintf(r->exported, sizeof r->exported, "%s/out.safetensors", r->folder);
    snprintf(r->spool, sizeof r->spool, "%s/spool", r->folder);
    assert_int_equal(mkdir(r->spool, 0777), 0);
    setenv("TMPDIR", r->spool, 1);
    const char *const first[] = {"replay",   "synth:case=integer,P=32,N=8",
                                 "-p",       "full",
                                 "--repeat", "1",
                                 "-j",       "1",
                                 "-q",       "--db",
                                 r->db,      NULL};
    struct fault_outcome outcome = {.code = -1};
    fault_cli(first, &outcome);
    free(outcome.result);
    assert_int_equal(outcome.code, 0);
    r->bytes = tmp_read(r->db, &r->n);
}

/* The same of a schedule that sees transformed rows, of which phase 2 keeps a spool. */
static void sweep_transformed(struct fault_case c, struct replaying *r)
{
    const char *const words[] = {"replay",    "synth:case=integer,P=32,N=8",
                                 "-p",        "recycled:k=4,stride=4+int4+kvquant",
                                 "--repeat",  "1",
                                 "-j",        "1",
                                 "-q",        "--format",
                                 "json",      "--db",
                                 r->db,       "--export",
                                 r->exported, NULL};
    r->words = words;
    c.name = "replay of transformed rows";
    c.places = NULL;
    fault_sweep(&c, FAULT_MEMORY, ENOMEM);
    c.places = places;
    assert_true(fault_sweep(&c, FAULT_READ, EIO).n_failed > 0);
    assert_true(fault_sweep(&c, FAULT_WRITE, ENOSPC).n_failed > 0);
}

static void test_replay(void **unused)
{
    (void)unused;
    struct replaying r = {0};
    open_case(&r, "replay");
    const char *const words[] = {"replay",   "synth:case=integer,P=32,N=8",
                                 "-p",       "recycled:k=4,stride=4",
                                 "--repeat", "1",
                                 "-j",       "1",
                                 "-q",       "--format",
                                 "json",     "--db",
                                 r.db,       "--export",
                                 r.exported, NULL};
    r.words = words;
    struct fault_case c = {.name = "replay --db --export",
                           .context = &r,
                           .prepare = prepare,
                           .run = run,
                           .check = check,
                           .places = NULL};
    c.places = places;
    static const struct {
        enum fault_op op;
        int error;
    } faults[] = {{FAULT_WRITE, ENOSPC}, {FAULT_WRITE, EIO},    {FAULT_SYNC, EIO},
                  {FAULT_READ, EIO},     {FAULT_OPEN, EMFILE},  {FAULT_STAT, EIO},
                  {FAULT_ROOM, ENOSPC},  {FAULT_RENAME, EXDEV}, {FAULT_TEMP, EMFILE},
                  {FAULT_MAP, ENOMEM}};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        r.may_leave_lock = faults[i].op == FAULT_STAT;
        assert_true(fault_sweep(&c, faults[i].op, faults[i].error).n_failed > 0);
        assert_true(fault_sweep_lasting(&c, faults[i].op, faults[i].error).n_failed > 0);
    }
    static const enum fault_op again[] = {FAULT_WRITE, FAULT_READ};
    for (size_t i = 0; i < 2; i++) {
        fault_sweep(&c, again[i], EINTR);
        fault_sweep(&c, again[i], FAULT_SHORT);
    }
    fault_sweep(&c, FAULT_WRITE, FAULT_SIGNAL);
    c.places = NULL;
    fault_sweep(&c, FAULT_MEMORY, ENOMEM);
    sweep_transformed(c, &r);
    free(r.bytes);
}

FAULT_MAIN
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay),
    };
    fault_init();
    return cmocka_run_group_tests_name("fault_replay", tests, tmp_dir_setup, tmp_dir_teardown);
}
