/* SPDX-License-Identifier: Apache-2.0 */
/* Several processes and one store: waiting, reading along, and being killed at any moment. */
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "profiler/clock.h"
#include "profiler/store_lock.h"
#include "tests/support/ra_test.h"
#include "tests/support/store_fixture.h"

static void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

/* A child that holds the store with a run and a pass begun, until `hold_ms` or its death. */
static pid_t hold(const char *path, int hold_ms, bool closes)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct ra_store *store = store_append(path);
        struct ra_error err;
        int64_t pass_id;
        if (ra_store_pass_begin(store, store_begin_run(store), 0, "bare", &pass_id, &err) ||
            write(ready[1], "r", 1) != 1)
            _exit(1);
        sleep_ms(hold_ms);
        if (closes)
            store_done(store);
        _exit(0);
    }
    char byte;
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return child;
}

static void end(pid_t child)
{
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void expect_state(const char *path, enum ra_store_mode mode, int64_t id, const char *state)
{
    char which[24];
    struct ra_error err;
    struct store_seen seen = {0};
    struct ra_store *store = mode == RA_STORE_READ ? store_read(path) : store_append(path);
    snprintf(which, sizeof which, "%lld", (long long)id);
    ra_assert_ok(ra_store_runs(store, which, store_see, &seen, &err));
    assert_string_equal(seen.state, state);
    store_done(store);
}

static void a_second_writer_waits_and_names_the_first(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = NULL;
    struct ra_error err;
    char pid[32];
    pid_t child = hold(fixture->path, 60000, false);
    snprintf(pid, sizeof pid, "pid %ld", (long)child);
    uint64_t from = ra_clock_ns();
    ra_assert_fails(ra_store_open(&store, fixture->path, RA_STORE_APPEND, &err), RA_ESTORE, pid);
    uint64_t waited = ra_clock_ns() - from;
    assert_non_null(strstr(err.msg, fixture->path));
    assert_true(waited > UINT64_C(4900000000));
    end(child);
}

static void a_second_writer_gets_the_lock_when_it_is_free(void **state)
{
    struct store_fixture *fixture = *state;
    pid_t child = hold(fixture->path, 300, true);
    struct ra_store *store = store_append(fixture->path);
    assert_int_equal(store_begin_run(store), 2);
    store_done(store);
    end(child);
}

/* Also within one process: an fcntl lock of the older kind would let this pass. */
static void one_process_cannot_write_twice(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    struct ra_lock_file lock;
    struct ra_error err;
    ra_assert_fails(ra_store_lock_take(&lock, fixture->path, "runs", 0, &err), RA_ESTORE, "pid");
    assert_false(ra_store_lock_is_free(fixture->path));
    store_done(store);
    assert_true(ra_store_lock_is_free(fixture->path));
    ra_assert_ok(ra_store_lock_take(&lock, fixture->path, "runs", 0, &err));
    ra_lock_file_release(&lock);
}

static void a_living_run_is_running_and_a_dead_one_aborted(void **state)
{
    struct store_fixture *fixture = *state;
    pid_t child = hold(fixture->path, 60000, false);
    expect_state(fixture->path, RA_STORE_READ, 1, "running");
    assert_int_equal(store_ask(fixture->path, "SELECT state = 'running' FROM run"), 1);
    end(child);
    expect_state(fixture->path, RA_STORE_READ, 1, "aborted");
    assert_int_equal(store_ask(fixture->path, "SELECT r.state = 'aborted' AND p.state = 'aborted'"
                                              " FROM run r, pass p"),
                     1);
    assert_false(store_exists(fixture->path, ".lock") || store_exists(fixture->path, "-wal"));
    /* The next writer marks too, and leaves what is complete alone. */
    store_exec(fixture->path, "UPDATE run SET state = 'complete'");
    end(hold(fixture->path, 60000, false));
    expect_state(fixture->path, RA_STORE_APPEND, 2, "aborted");
    expect_state(fixture->path, RA_STORE_READ, 1, "complete");
}

static enum ra_status count_row(void *n, const struct ra_layer_step_row *row, struct ra_error *err)
{
    int *count = n;
    if (row->step != *count)
        return ra_fail(err, RA_EDIVERGED, "row %d is step %d", *count, row->step);
    ++*count;
    return RA_OK;
}

/* Readers are never shut out and never see half a batch. */
static void a_reader_looks_on_while_rows_are_written(void **state)
{
    enum { n_batches = 40, batch = 200 };
    struct store_fixture *fixture = *state;
    struct ra_error err;
    pid_t child = hold(fixture->path, 0, true);
    assert_int_equal(waitpid(child, NULL, 0), child);
    int looked[2]; /* a byte for each look: now and then the writer waits for one */
    assert_int_equal(pipe(looked), 0);
    child = fork();
    if (child == 0) {
        struct ra_store *store = store_append(fixture->path);
        char look;
        for (int32_t step = 0; step < n_batches * batch; step++) {
            struct ra_layer_step_row row = store_step(1, step, 0);
            if (ra_store_layer_step(store, &row, &err) ||
                (step % batch == batch - 1 && ra_store_flush(store, &err)))
                _exit(1);
            if (step % (8 * batch) == batch - 1 && read(looked[0], &look, 1) != 1)
                _exit(2);
        }
        store_done(store);
        _exit(0);
    }
    int last = 0, n_looks = 0, status = -1;
    while (waitpid(child, &status, WNOHANG) == 0) {
        int n = 0;
        struct ra_store *store = store_read(fixture->path);
        ra_assert_ok(ra_store_layer_steps(store, 1, count_row, &n, &err));
        store_done(store);
        assert_true(n >= last);
        last = n;
        n_looks++;
        assert_int_equal(write(looked[1], "", 1), 1);
    }
    close(looked[0]);
    close(looked[1]);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(n_looks >= n_batches / 8);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM layer_step"),
                     n_batches * batch);
}

enum { rows_per_pass = 50 };

/* One pass: its rows, then its end, with layer_step rows in between. */
static enum ra_status write_pass(struct ra_store *store, int64_t run_id, int ordinal,
                                 struct ra_error *err)
{
    int64_t pass_id, scope_id;
    RA_TRY(ra_store_pass_begin(store, run_id, ordinal, "bare", &pass_id, err));
    for (int32_t i = 0; i < rows_per_pass; i++) {
        struct ra_layer_step_row row = store_step(run_id, ordinal * rows_per_pass + i, 0);
        RA_TRY(ra_store_layer_step(store, &row, err));
        struct ra_scope_row scope = {.run_id = run_id, .kind = "op", .step = i, .name = "attend"};
        RA_TRY(ra_store_scope(store, &scope, &scope_id, err));
        struct ra_scope_exec_row exec = {.pass_id = pass_id, .scope_id = scope_id, .end_ns = 1};
        RA_TRY(ra_store_scope_exec(store, &exec, err));
    }
    return ra_store_pass_end(store, pass_id, RA_RUN_COMPLETE, err);
}

/* Runs of three passes each, until killed; tells when one has begun and when it is complete. */
static void write_for_ever(const char *path, int told)
{
    struct ra_store *store = store_append(path);
    struct ra_error err;
    for (;;) {
        int64_t run_id = store_begin_run(store);
        if (write(told, "b", 1) != 1)
            _exit(1);
        for (int ordinal = 0; ordinal < 3; ordinal++)
            if (write_pass(store, run_id, ordinal, &err))
                _exit(1);
        if (ra_store_run_end(store, run_id, RA_RUN_COMPLETE, "f", NULL, NULL, &err) ||
            write(told, "e", 1) != 1)
            _exit(1);
    }
}

/* Start such a child, wait for `sign` (0: do not wait) and `us` more, and kill it. */
static void kill_a_writer(const char *path, char sign, int us)
{
    int told[2];
    char byte = 0;
    assert_int_equal(pipe(told), 0);
    pid_t child = fork();
    if (child == 0)
        write_for_ever(path, told[1]);
    close(told[1]);
    while (sign && byte != sign)
        assert_int_equal(read(told[0], &byte, 1), 1);
    nanosleep(&(struct timespec){.tv_nsec = us * 1000L}, NULL);
    end(child);
    close(told[0]);
}

static void check_whole(const char *path)
{
    assert_int_equal(store_ask(path, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"),
                     1);
    assert_int_equal(store_ask(path, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
    assert_int_equal(store_ask(path, "SELECT count(*) FROM run WHERE state = 'running'"), 0);
    assert_int_equal(store_ask(path, "SELECT count(*) FROM pass WHERE state = 'running'"), 0);
    assert_int_equal(store_ask(path, "SELECT count(*) FROM pass p WHERE state = 'complete' AND 50"
                                     " != (SELECT count(*) FROM scope_exec WHERE pass_id = p.id)"),
                     0);
    assert_int_equal(store_ask(path, "SELECT count(*) FROM run r WHERE state = 'complete' AND (3 !="
                                     " (SELECT count(*) FROM pass p WHERE p.run_id = r.id AND"
                                     " p.state = 'complete') OR 150 != (SELECT count(*) FROM"
                                     " layer_step WHERE run_id = r.id))"),
                     0);
    /* Of the killed run a prefix is there: no hole. */
    assert_int_equal(store_ask(path, "SELECT count(*) FROM (SELECT max(step) + 1 - count(*) AS hole"
                                     " FROM layer_step GROUP BY run_id) WHERE hole != 0"),
                     0);
}

static void a_killed_writer_leaves_a_whole_store(void **state)
{
    enum { n_kills = 20 };
    struct store_fixture *fixture = *state;
    unsigned seed = 20;
    int64_t n_runs = 0;
    for (int i = 0; i < n_kills; i++) {
        static const char sign[] = {'e', 'b', 'b', 0};
        kill_a_writer(fixture->path, sign[i % 4], rand_r(&seed) % 30000);
        if (i % 2 == 0)
            store_done(store_append(fixture->path));
        else
            store_done(store_read(fixture->path));
        check_whole(fixture->path);
        int64_t runs = store_ask(fixture->path, "SELECT count(*) FROM run");
        assert_true(runs >= n_runs);
        n_runs = runs;
    }
    int64_t n_aborted =
        store_ask(fixture->path, "SELECT count(*) FROM run WHERE state = 'aborted'");
    print_message("killed %d times: %lld runs, %lld of them aborted\n", n_kills, (long long)n_runs,
                  (long long)n_aborted);
    assert_true(n_aborted > 0 && n_runs > n_aborted);
}

/* The store's file and nothing else, not yet even tables. */
static void a_writer_killed_while_it_makes_the_store_is_forgiven(void **state)
{
    struct store_fixture *fixture = *state;
    for (int us = 0; us < 8000; us += 500) {
        kill_a_writer(fixture->path, 0, us);
        store_done(store_append(fixture->path));
        check_whole(fixture->path);
        remove(fixture->path);
    }
}

/* The switch to a write-ahead log needs the file alone: the writer waits for a reader to end. */
static void a_writer_waits_for_a_reader(void **state)
{
    struct store_fixture *fixture = *state;
    int ready[2];
    char byte;
    store_done(store_append(fixture->path));
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        struct sqlite3 *db = store_plain(fixture->path);
        int rc = sqlite3_exec(db, "BEGIN; SELECT * FROM run", NULL, NULL, NULL);
        if (rc != SQLITE_OK || write(ready[1], "r", 1) != 1)
            _exit(1);
        sleep_ms(300);
        _exit(0);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    struct ra_store *store = store_append(fixture->path);
    assert_int_equal(waitpid(child, NULL, WNOHANG), child);
    assert_true(store_exists(fixture->path, "-wal"));
    store_done(store);
}

/* A child dies in a transaction larger than its cache: the file itself is half written. */
static void die_half_way(const char *path, const char *first)
{
    pid_t child = fork();
    if (child == 0) {
        struct sqlite3 *db = store_plain(path);
        int rc = sqlite3_exec(db, first, NULL, NULL, NULL);
        if (rc == SQLITE_OK)
            rc =
                sqlite3_exec(db,
                             "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE"
                             " i < 20000) INSERT INTO string_ids(value) SELECT 'text ' || i FROM n",
                             NULL, NULL, NULL);
        _exit(rc);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(store_exists(path, "-journal"));
}

/* A journal that must be rolled back needs a writer: the reader becomes one for that long. */
static void a_reader_rolls_back_what_a_dead_writer_left(void **state)
{
    struct store_fixture *fixture = *state;
    struct store_seen seen = {0};
    struct ra_error err;
    store_done(store_append(fixture->path));
    die_half_way(fixture->path, "PRAGMA cache_size = 1; BEGIN");
    struct ra_store *store = store_read(fixture->path);
    ra_assert_ok(ra_store_runs(store, NULL, store_see, &seen, &err));
    store_done(store);
    assert_false(store_exists(fixture->path, "-journal"));
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM string_ids"), 0);
    check_whole(fixture->path);
}

/* ... but it makes no tables. */
static void a_reader_does_not_make_a_store(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = NULL;
    struct ra_error err;
    die_half_way(fixture->path, "VACUUM; PRAGMA cache_size = 1; BEGIN; CREATE TABLE"
                                " string_ids(id INTEGER PRIMARY KEY, value TEXT)");
    ra_assert_fails(ra_store_open(&store, fixture->path, RA_STORE_READ, &err), RA_ESTORE,
                    "is empty");
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM sqlite_schema"), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, store_setup, store_teardown)
        TEST(a_second_writer_waits_and_names_the_first),
        TEST(a_second_writer_gets_the_lock_when_it_is_free),
        TEST(one_process_cannot_write_twice),
        TEST(a_living_run_is_running_and_a_dead_one_aborted),
        TEST(a_reader_looks_on_while_rows_are_written),
        TEST(a_killed_writer_leaves_a_whole_store),
        TEST(a_writer_killed_while_it_makes_the_store_is_forgiven),
        TEST(a_writer_waits_for_a_reader),
        TEST(a_reader_rolls_back_what_a_dead_writer_left),
        TEST(a_reader_does_not_make_a_store),
    };
    return cmocka_run_group_tests_name("store_lock", tests, NULL, NULL);
}
