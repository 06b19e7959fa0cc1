/* SPDX-License-Identifier: Apache-2.0 */
/* Writing that fails half way: what is told, what is kept, and that nothing half is complete. */
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "profiler/store_internal.h"
#include "tests/support/ra_test.h"
#include "tests/support/store_fixture.h"

enum { kept_rows = 500, more_rows = 200000 };

static void exec(struct ra_store *store, const char *sql)
{
    assert_int_equal(sqlite3_exec(store->db, sql, NULL, NULL, NULL), SQLITE_OK);
}

/* A run with a pass and some committed rows. */
static struct ra_store *begun(const char *path, int64_t *run_id, int64_t *pass_id)
{
    struct ra_store *store = store_append(path);
    struct ra_error err;
    *run_id = store_begin_run(store);
    ra_assert_ok(ra_store_pass_begin(store, *run_id, 0, "bare", pass_id, &err));
    for (int32_t step = 0; step < kept_rows; step++) {
        struct ra_layer_step_row row = store_step(*run_id, step, 0);
        ra_assert_ok(ra_store_layer_step(store, &row, &err));
    }
    ra_assert_ok(ra_store_flush(store, &err));
    return store;
}

static enum ra_status write_more(struct ra_store *store, int64_t run_id, struct ra_error *err)
{
    for (int32_t step = kept_rows; step < more_rows; step++) {
        struct ra_layer_step_row row = store_step(run_id, step, 0);
        RA_TRY(ra_store_layer_step(store, &row, err));
    }
    return RA_OK;
}

/* After the failure: no more rows, nothing complete, but the run may be called failed. */
static void check_after_failure(struct ra_store *store, int64_t run_id, int64_t pass_id)
{
    struct ra_error err;
    struct ra_layer_step_row row = store_step(run_id, more_rows, 0);
    ra_assert_fails(ra_store_layer_step(store, &row, &err), RA_ESTORE, "earlier batch was lost");
    ra_assert_fails(ra_store_pass_end(store, pass_id, RA_RUN_COMPLETE, &err), RA_ESTORE,
                    "earlier batch was lost");
    ra_assert_fails(ra_store_run_end(store, run_id, RA_RUN_COMPLETE, "f", "h", NULL, &err),
                    RA_ESTORE, "earlier batch was lost");
    ra_assert_ok(ra_store_run_end(store, run_id, RA_RUN_FAILED, NULL, NULL, NULL, &err));
}

/* What is there is a whole number of batches: the first, and such as were committed on the way. */
static void check_kept(const char *path, const char *state)
{
    char sql[120];
    snprintf(sql, sizeof sql, "SELECT state = '%s' FROM run", state);
    assert_int_equal(store_ask(path, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"),
                     1);
    assert_int_equal(store_ask(path, sql), 1);
    assert_int_equal(store_ask(path, "SELECT state = 'aborted' FROM pass"), 1);
    int64_t n = store_ask(path, "SELECT count(*) FROM layer_step");
    assert_true(n >= kept_rows && n < more_rows - kept_rows);
    assert_int_equal(store_ask(path, "SELECT max(step) + 1 FROM layer_step"), n);
}

static void a_full_disk_keeps_what_was_committed(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    int64_t run_id, pass_id;
    struct ra_store *store = begun(fixture->path, &run_id, &pass_id);
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA max_page_count = %lld",
             (long long)store_ask(fixture->path, "PRAGMA page_count") + 5);
    exec(store, sql);
    ra_assert_fails(write_more(store, run_id, &err), RA_ESTORE, "the disk is full");
    assert_non_null(strstr(err.msg, fixture->path));
    check_after_failure(store, run_id, pass_id);
    store_done(store);
    check_kept(fixture->path, "failed");
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM layer_step"), kept_rows);
}

/* The file size limit of a process; its signal is ignored as the command does. */
static void a_file_size_limit_is_an_error_not_a_signal(void **state)
{
    struct store_fixture *fixture = *state;
    pid_t child = fork();
    if (child == 0) {
        struct ra_error err = {.msg = ""};
        int64_t run_id, pass_id;
        signal(SIGXFSZ, SIG_IGN);
        struct ra_store *store = begun(fixture->path, &run_id, &pass_id);
        struct rlimit limit = {.rlim_cur = 3000000, .rlim_max = 3000000};
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
            _exit(77);
        if (write_more(store, run_id, &err) != RA_ESTORE || !strstr(err.msg, fixture->path))
            _exit(1);
        if (!strstr(err.msg, "a limit of file size"))
            _exit(2);
        (void)ra_store_close(store, &err);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
    store_done(store_read(fixture->path));
    check_kept(fixture->path, "aborted");
}

static void a_store_that_turns_read_only_says_so(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    int64_t run_id, pass_id;
    struct ra_store *store = begun(fixture->path, &run_id, &pass_id);
    struct ra_layer_step_row row = store_step(run_id, kept_rows - 1, 1); /* opens a batch */
    ra_assert_ok(ra_store_layer_step(store, &row, &err));
    exec(store, "PRAGMA query_only = ON");
    ra_assert_fails(write_more(store, run_id, &err), RA_ESTORE, "read-only");
    exec(store, "PRAGMA query_only = OFF");
    check_after_failure(store, run_id, pass_id);
    store_done(store);
    check_kept(fixture->path, "failed");
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM layer_step"), kept_rows);
}

/* A commit that fails, as on a disk that fills up just then. */
static int refuse(void *context)
{
    (void)context;
    return 1;
}

/* A batch that only the end of the pass would commit: the pass must not be complete without it. */
static void a_pass_whose_last_batch_is_lost_is_not_complete(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    int64_t run_id, pass_id;
    struct ra_store *store = begun(fixture->path, &run_id, &pass_id);
    struct ra_layer_step_row row = store_step(run_id, kept_rows, 0);
    ra_assert_ok(ra_store_layer_step(store, &row, &err));
    sqlite3_commit_hook(store->db, refuse, NULL);
    ra_assert_fails(ra_store_pass_end(store, pass_id, RA_RUN_COMPLETE, &err), RA_ESTORE,
                    "cannot be written");
    sqlite3_commit_hook(store->db, NULL, NULL);
    check_after_failure(store, run_id, pass_id);
    store_done(store);
    check_kept(fixture->path, "failed");
}

static void closing_tells_when_the_last_rows_are_lost(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    int64_t run_id, pass_id;
    struct ra_store *store = begun(fixture->path, &run_id, &pass_id);
    struct ra_layer_step_row row = store_step(run_id, kept_rows, 0);
    ra_assert_ok(ra_store_layer_step(store, &row, &err));
    sqlite3_commit_hook(store->db, refuse, NULL);
    ra_assert_fails(ra_store_close(store, &err), RA_ESTORE, fixture->path);
    store_done(store_append(fixture->path));
    check_kept(fixture->path, "aborted");
}

/* Bytes overwritten anywhere give an error or rows, never a crash. */
static void a_damaged_store_is_an_error(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    int64_t run_id, pass_id;
    store_done(begun(fixture->path, &run_id, &pass_id));
    struct stat file;
    assert_int_equal(stat(fixture->path, &file), 0);
    int n_refused = 0;
    for (off_t at = 0; at < file.st_size; at += 8192) {
        char page[8192], junk[512];
        memset(junk, 0xa5, sizeof junk);
        FILE *bytes = fopen(fixture->path, "r+b");
        assert_non_null(bytes);
        assert_int_equal(fseek(bytes, at, SEEK_SET), 0);
        assert_int_equal(fread(page, 1, sizeof page, bytes), sizeof page);
        assert_int_equal(fseek(bytes, at, SEEK_SET), 0);
        assert_int_equal(fwrite(junk, 1, sizeof junk, bytes), sizeof junk);
        fflush(bytes);
        struct ra_store *store = NULL;
        struct store_seen seen = {0};
        enum ra_status status = ra_store_open(&store, fixture->path, RA_STORE_READ, &err);
        if (status == RA_OK)
            status = ra_store_runs(store, NULL, store_see, &seen, &err);
        assert_true(status == RA_OK || (status == RA_ESTORE && strstr(err.msg, fixture->path)));
        n_refused += status != RA_OK;
        (void)ra_store_close(store, &err);
        assert_int_equal(fseek(bytes, at, SEEK_SET), 0);
        assert_int_equal(fwrite(page, 1, sizeof page, bytes), sizeof page);
        fclose(bytes);
    }
    assert_true(n_refused >= 3);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, store_setup, store_teardown)
        TEST(a_full_disk_keeps_what_was_committed),
        TEST(a_file_size_limit_is_an_error_not_a_signal),
        TEST(a_store_that_turns_read_only_says_so),
        TEST(a_pass_whose_last_batch_is_lost_is_not_complete),
        TEST(closing_tells_when_the_last_rows_are_lost),
        TEST(a_damaged_store_is_an_error),
    };
    return cmocka_run_group_tests_name("store_full", tests, NULL, NULL);
}
