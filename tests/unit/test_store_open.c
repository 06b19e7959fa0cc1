/* SPDX-License-Identifier: Apache-2.0 */
/* What opening refuses and says, what it leaves alone, and what a new store is like. */
#include <grp.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/store_migrate.h"
#include "tests/support/ra_test.h"
#include "tests/support/store_fixture.h"

static void write_file(const char *path, const char *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
}

/* Both modes must refuse, with the file's name and `text`. */
static void refused(const char *path, const char *text)
{
    struct ra_store *store = NULL;
    struct ra_error err;
    ra_assert_fails(ra_store_open(&store, path, RA_STORE_READ, &err), RA_ESTORE, text);
    assert_non_null(strstr(err.msg, path));
    ra_assert_fails(ra_store_open(&store, path, RA_STORE_APPEND, &err), RA_ESTORE, text);
    assert_non_null(strstr(err.msg, path));
    assert_null(store);
    assert_false(store_exists(path, ".lock"));
}

static void a_new_store_is_whole_and_ours(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    assert_int_equal(store_ask(fixture->path, "PRAGMA page_size"), 8192);
    assert_true(store_exists(fixture->path, "-wal"));
    assert_true(store_exists(fixture->path, ".lock"));
    store_done(store);
    assert_int_equal(store_ask(fixture->path, "PRAGMA application_id"), 0x52415454);
    assert_int_equal(store_ask(fixture->path, "PRAGMA user_version"), 4);
    assert_int_equal(store_ask(fixture->path, "SELECT integrity_check = 'ok' FROM"
                                              " pragma_integrity_check"),
                     1);
    /* One plain file: no side files, and the rollback journal that opens on any medium. */
    assert_int_equal(store_ask(fixture->path, "SELECT journal_mode = 'delete' FROM"
                                              " pragma_journal_mode"),
                     1);
    assert_false(store_exists(fixture->path, "-wal") || store_exists(fixture->path, "-shm") ||
                 store_exists(fixture->path, ".lock"));
    /* Every table is STRICT: a text in an INTEGER column is refused. */
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM pragma_table_list WHERE type ="
                                              " 'table' AND schema = 'main' AND NOT strict AND"
                                              " name NOT LIKE 'sqlite_%'"),
                     0);
    static const char *const tables[] = {"meta",         "string_ids",
                                         "policy",       "run",
                                         "device",       "pass",
                                         "scope",        "scope_exec",
                                         "layer_step",   "retained",
                                         "kernel",       "memop",
                                         "api_call",     "overhead",
                                         "metric_def",   "pm_sample",
                                         "metric_value", "cache_overlap",
                                         "sweep",        "sweep_point",
                                         "eval_result",  "StringIds",
                                         "device_model", "diagnostic",
                                         "NVTX_EVENTS",  "CUPTI_ACTIVITY_KIND_KERNEL"};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        char sql[80];
        snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", tables[i]);
        assert_int_equal(store_ask(fixture->path, sql), 0);
    }
}

static void a_second_writer_appends(void **state)
{
    struct store_fixture *fixture = *state;
    for (int i = 0; i < 3; i++) {
        struct ra_store *store = store_append(fixture->path);
        assert_int_equal(store_begin_run(store), i + 1);
        store_done(store);
    }
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM run"), 3);
}

static void closing_nothing_is_fine(void **state)
{
    (void)state;
    struct ra_error err;
    ra_assert_ok(ra_store_close(NULL, &err));
}

static void a_missing_store_cannot_be_read(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = NULL;
    struct ra_error err;
    ra_assert_fails(ra_store_open(&store, fixture->path, RA_STORE_READ, &err), RA_ESTORE,
                    "No such file");
    assert_false(store_exists(fixture->path, ""));
}

static void an_empty_file_is_a_new_store(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = NULL;
    struct ra_error err;
    write_file(fixture->path, "", 0);
    ra_assert_fails(ra_store_open(&store, fixture->path, RA_STORE_READ, &err), RA_ESTORE,
                    "is empty");
    store_done(store_append(fixture->path));
    assert_int_equal(store_ask(fixture->path, "PRAGMA user_version"), 4);
}

/* A writer killed between the first page and the tables leaves this. */
static void a_database_without_tables_is_a_new_store(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = NULL;
    struct ra_error err;
    store_exec(fixture->path, "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL");
    ra_assert_fails(ra_store_open(&store, fixture->path, RA_STORE_READ, &err), RA_ESTORE,
                    "is empty");
    store_done(store_append(fixture->path));
    assert_int_equal(store_ask(fixture->path, "PRAGMA user_version"), 4);
}

static void what_is_no_database_is_refused_and_kept(void **state)
{
    struct store_fixture *fixture = *state;
    char bytes[9000];
    memset(bytes, 'x', sizeof bytes);
    static const size_t sizes[] = {1, 17, 100, 4096, 9000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct stat file;
        write_file(fixture->path, bytes, sizes[i]);
        refused(fixture->path, "not an SQLite file");
        assert_int_equal(stat(fixture->path, &file), 0);
        assert_int_equal(file.st_size, sizes[i]);
    }
}

static void a_foreign_database_is_refused_by_name(void **state)
{
    struct store_fixture *fixture = *state;
    store_exec(fixture->path, "PRAGMA application_id = 1196444487; CREATE TABLE t(x);"
                              "INSERT INTO t VALUES(42)");
    refused(fixture->path, "application_id 1196444487 'GPKG', a store has 1380013140 'RATT'");
    store_exec(fixture->path, "PRAGMA application_id = 0");
    refused(fixture->path, "application_id 0, a store has 1380013140");
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM sqlite_schema"), 1);
    assert_int_equal(store_ask(fixture->path, "SELECT journal_mode = 'delete' FROM"
                                              " pragma_journal_mode"),
                     1);
}

static void a_newer_schema_is_refused_with_both_numbers(void **state)
{
    struct store_fixture *fixture = *state;
    store_done(store_append(fixture->path));
    store_exec(fixture->path, "PRAGMA user_version = 7");
    refused(fixture->path, "schema 7 is newer than this program, which knows 4");
    assert_int_equal(store_ask(fixture->path, "PRAGMA user_version"), 7);
}

static void what_is_no_file_is_refused(void **state)
{
    struct store_fixture *fixture = *state;
    refused(fixture->dir, "a folder");
    refused("/dev/full", "a device or pipe");
    assert_int_equal(mkfifo(fixture->path, 0600), 0);
    refused(fixture->path, "a device or pipe");
}

static void a_place_that_cannot_be_written_is_refused(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = NULL;
    struct ra_error err;
    char path[300];
    snprintf(path, sizeof path, "%s/none/runs.db", fixture->dir);
    ra_assert_fails(ra_store_open(&store, path, RA_STORE_APPEND, &err), RA_ESTORE, "No such file");
    ra_assert_fails(ra_store_open(&store, "/proc/runs.db", RA_STORE_APPEND, &err), RA_ESTORE,
                    "/proc/runs.db: cannot be written");
    ra_assert_fails(ra_store_open(&store, "", RA_STORE_APPEND, &err), RA_ESTORE, "cannot be");
}

static void an_old_library_is_refused(void **state)
{
    (void)state;
    struct ra_error err;
    ra_assert_fails(ra_store_check_library(3036001, &err), RA_ESTORE,
                    "need 3.37.0 or newer, this is 3.36.1");
    ra_assert_ok(ra_store_check_library(3037000, &err));
}

/* Names that SQLite takes for something else: a URI, a database in memory. */
static void odd_names_are_file_names(void **state)
{
    struct store_fixture *fixture = *state;
    static const char *const names[] = {"file:a?mode=memory", ":memory:", "a%20b#c?d.db"};
    assert_int_equal(chdir(fixture->dir), 0);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct ra_store *store = store_append(names[i]);
        store_begin_run(store);
        store_done(store);
        assert_true(store_exists(names[i], ""));
        struct store_seen seen = {0};
        struct ra_error err;
        store = store_read(names[i]);
        ra_assert_ok(ra_store_runs(store, NULL, store_see, &seen, &err));
        assert_int_equal(seen.n, 1);
        store_done(store);
    }
    assert_int_equal(chdir("/"), 0);
}

/* Two names of one file are one store with one lock. */
static void a_link_shares_the_lock_of_its_target(void **state)
{
    struct store_fixture *fixture = *state;
    char name[300];
    snprintf(name, sizeof name, "%s/link.db", fixture->dir);
    store_done(store_append(fixture->path));
    assert_int_equal(symlink("runs.db", name), 0);
    struct ra_store *store = store_append(name);
    assert_true(store_exists(fixture->path, ".lock"));
    assert_false(store_exists(name, ".lock"));
    store_done(store);
}

/*
 * In a child without privileges, so that permission bits bind: the folder and its files cannot be
 * written. Exit status: 0 as expected, 77 when privileges cannot be given up.
 */
static int read_only_medium(const char *path, const char *expected_state, const char *refusal)
{
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setgid(65534) != 0 || setuid(65534) != 0))
        return 77;
    if (access(path, R_OK) != 0)
        return 77;
    struct ra_store *store = NULL;
    struct ra_error err = {.msg = ""};
    struct store_seen seen = {0};
    enum ra_status status = ra_store_open(&store, path, RA_STORE_READ, &err);
    if (refusal) {
        if (status != RA_ESTORE || !strstr(err.msg, refusal))
            return 1;
        return ra_store_open(&store, path, RA_STORE_APPEND, &err) == RA_ESTORE ? 0 : 2;
    }
    if (status != RA_OK || ra_store_runs(store, NULL, store_see, &seen, &err) != RA_OK)
        return 3;
    return seen.n == 1 && strcmp(seen.state, expected_state) == 0 ? 0 : 4;
}

static void check_read_only(const struct store_fixture *fixture, const char *expected_state,
                            const char *refusal)
{
    static const char *const suffix[] = {"", "-wal", "-shm", ".lock"};
    for (size_t i = 0; i < 4; i++) {
        char name[300];
        snprintf(name, sizeof name, "%s%s", fixture->path, suffix[i]);
        if (chmod(name, 0444) != 0)
            assert_true(i > 0);
    }
    assert_int_equal(chmod(fixture->dir, 0555), 0);
    pid_t child = fork();
    if (child == 0)
        _exit(read_only_medium(fixture->path, expected_state, refusal));
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_finished_store_reads_from_a_read_only_medium(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    struct ra_store *store = store_append(fixture->path);
    ra_assert_ok(
        ra_store_run_end(store, store_begin_run(store), RA_RUN_COMPLETE, NULL, NULL, NULL, &err));
    store_done(store);
    check_read_only(fixture, "complete", NULL);
}

/* Left in WAL mode without side files, as by a copy of the main file alone. */
static void a_store_in_wal_mode_reads_from_a_read_only_medium(void **state)
{
    struct store_fixture *fixture = *state;
    snprintf(fixture->path, sizeof fixture->path, "%s/a%%20b#c?d.db", fixture->dir);
    struct ra_store *store = store_append(fixture->path);
    store_begin_run(store);
    store_done(store);
    store_exec(fixture->path, "PRAGMA journal_mode = WAL");
    assert_false(store_exists(fixture->path, "-shm"));
    check_read_only(fixture, "aborted", NULL);
    assert_int_equal(store_ask(fixture->path, "SELECT state = 'running' FROM run"), 1);
}

/* Its log and its index are there: all rows are read, and the run is shown for what it is. */
static void a_killed_store_reads_from_a_read_only_medium(void **state)
{
    struct store_fixture *fixture = *state;
    pid_t child = fork();
    if (child == 0) {
        store_begin_run(store_append(fixture->path));
        _exit(0);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_true(store_exists(fixture->path, "-wal"));
    check_read_only(fixture, "aborted", NULL);
    assert_int_equal(store_ask(fixture->path, "SELECT state = 'running' FROM run"), 1);
}

/* Rows in a log that cannot be merged are not passed over in silence. */
static void an_unmerged_log_on_a_read_only_medium_is_told(void **state)
{
    struct store_fixture *fixture = *state;
    char name[300];
    struct ra_store *store = store_append(fixture->path);
    store_begin_run(store);
    store_done(store);
    store_exec(fixture->path, "PRAGMA journal_mode = WAL");
    snprintf(name, sizeof name, "%s-wal", fixture->path);
    write_file(name, "some frames", 11);
    check_read_only(fixture, NULL, "cannot be merged");
}

/* A file that its last writer left in WAL mode: read or refused, nothing stays beside it. */
static void a_reader_leaves_no_side_files(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    store_done(store);
    store_exec(fixture->path, "PRAGMA journal_mode = WAL");
    store_done(store_read(fixture->path));
    assert_false(store_exists(fixture->path, "-wal") || store_exists(fixture->path, "-shm"));
    store_exec(fixture->path, "PRAGMA user_version = 7");
    ra_assert_fails(ra_store_open(&store, fixture->path, RA_STORE_READ, &err), RA_ESTORE,
                    "schema 7 is newer");
    assert_false(store_exists(fixture->path, "-wal") || store_exists(fixture->path, "-shm"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, store_setup, store_teardown)
        TEST(a_new_store_is_whole_and_ours),
        TEST(a_second_writer_appends),
        TEST(closing_nothing_is_fine),
        TEST(a_missing_store_cannot_be_read),
        TEST(an_empty_file_is_a_new_store),
        TEST(a_database_without_tables_is_a_new_store),
        TEST(what_is_no_database_is_refused_and_kept),
        TEST(a_foreign_database_is_refused_by_name),
        TEST(a_newer_schema_is_refused_with_both_numbers),
        TEST(what_is_no_file_is_refused),
        TEST(a_place_that_cannot_be_written_is_refused),
        TEST(an_old_library_is_refused),
        TEST(odd_names_are_file_names),
        TEST(a_link_shares_the_lock_of_its_target),
        TEST(a_finished_store_reads_from_a_read_only_medium),
        TEST(a_store_in_wal_mode_reads_from_a_read_only_medium),
        TEST(a_killed_store_reads_from_a_read_only_medium),
        TEST(an_unmerged_log_on_a_read_only_medium_is_told),
        TEST(a_reader_leaves_no_side_files),
    };
    return cmocka_run_group_tests_name("store_open", tests, NULL, NULL);
}
