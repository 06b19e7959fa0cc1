/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of device activity, devices, clocks and counts of passes, read back with plain SQLite; and
 * indexes that wait for the end of a pass, also when the writer is killed before.
 */
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "profiler/store_internal.h"
#include "profiler/store_kernel.h"
#include "profiler/store_pass.h"
#include "tests/support/ra_test.h"
#include "tests/support/store_fixture.h"

static const char n_indexes[] =
    "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND name IN"
    " ('kernel_scope','kernel_corr','kernel_time','api_corr')";

static int64_t begin_pass(struct ra_store *store, int64_t run_id, int ordinal)
{
    struct ra_error err;
    int64_t pass_id = 0;
    ra_assert_ok(ra_store_pass_begin(store, run_id, ordinal, "timing", &pass_id, &err));
    return pass_id;
}

static struct ra_kernel_row kernel_row(int64_t pass_id, uint64_t i)
{
    return (struct ra_kernel_row){.pass_id = pass_id,
                                  .correlation_id = i,
                                  .start_ns = 1000 + i * 10,
                                  .end_ns = 1007 + i * 10,
                                  .context_id = 1,
                                  .stream_id = 7,
                                  .name = i % 2 ? "odd" : "even",
                                  .grid = {2, 3, 4},
                                  .block = {128, 5, 6},
                                  .cluster = {-1, -1, -1},
                                  .registers = -1,
                                  .smem_static_bytes = -1,
                                  .smem_dynamic_bytes = -1,
                                  .smem_executed_bytes = -1,
                                  .local_total_bytes = -1};
}

/* Every column has a value of its own, so that none can stand for another. */
static void every_column_arrives(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    struct ra_store *store = store_append(fixture->path);
    int64_t run_id = store_begin_run(store), pass_id = begin_pass(store, run_id, 0), scope_id = 0;
    struct ra_scope_row scope = {.run_id = run_id, .kind = "op", .step = 1, .name = "attend"};
    ra_assert_ok(ra_store_scope(store, &scope, &scope_id, &err));
    struct ra_kernel_row kernel = {
        pass_id,   scope_id,          UINT64_MAX,       1001, 1002, 3,  4,  "attend_f16",
        {5, 6, 7}, {8, 9, 10},        {11, 12, 13},     14,   15,   16, 17, 18,
        19,        UINT64_C(1) << 63, "_Z10attend_f16v"};
    ra_assert_ok(ra_store_kernel(store, &kernel, &err));
    struct ra_memop_row memop = {pass_id,           scope_id, 21,   "memcpy", 2,
                                 UINT64_C(1) << 40, 1003,     1004, 22};
    ra_assert_ok(ra_store_memop(store, &memop, &err));
    struct ra_api_call_row call = {pass_id, 23,   "runtime", 24, "cudaLaunchKernel",
                                   25,      1005, 1006,      26};
    ra_assert_ok(ra_store_api_call(store, &call, &err));
    struct ra_overhead_row overhead = {pass_id, 27, 1007, 1008};
    ra_assert_ok(ra_store_overhead(store, &overhead, &err));
    store_done(store);
    assert_int_equal(
        store_ask(fixture->path,
                  "SELECT (pass_id, scope_id, correlation_id, start_ns, end_ns, context_id,"
                  " stream_id, (SELECT value FROM string_ids WHERE id = name_id), grid_x, grid_y,"
                  " grid_z, block_x, block_y, block_z, cluster_x, cluster_y, cluster_z, registers,"
                  " smem_static_bytes, smem_dynamic_bytes, smem_executed_bytes, local_total_bytes,"
                  " graph_id, graph_node_id, (SELECT value FROM string_ids WHERE id = mangled_id)) "
                  "= (1, 1, -1, 1001, 1002, 3, 4, 'attend_f16', 5, 6, 7,"
                  " 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, -9223372036854775808, "
                  "'_Z10attend_f16v')"
                  " FROM kernel"),
        1);
    assert_int_equal(
        store_ask(fixture->path,
                  "SELECT (pass_id, scope_id, correlation_id, op, copy_kind, bytes, start_ns,"
                  " end_ns, stream_id) = (1, 1, 21, 'memcpy', 2, 1 << 40, 1003, 1004, 22)"
                  " FROM memop"),
        1);
    assert_int_equal(
        store_ask(fixture->path,
                  "SELECT (pass_id, correlation_id, domain, cbid, (SELECT value FROM string_ids"
                  " WHERE id = name_id), thread_id, start_ns, end_ns, result) = (1, 23, 'runtime',"
                  " 24, 'cudaLaunchKernel', 25, 1005, 1006, 26) FROM api_call"),
        1);
    assert_int_equal(store_ask(fixture->path, "SELECT (pass_id, kind, start_ns, end_ns) ="
                                              " (1, 27, 1007, 1008) FROM overhead"),
                     1);
}

static void what_is_not_known_is_null(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    struct ra_store *store = store_append(fixture->path);
    int64_t pass_id = begin_pass(store, store_begin_run(store), 0);
    struct ra_kernel_row kernel = kernel_row(pass_id, 1);
    kernel.start_ns = kernel.end_ns = 0;
    ra_assert_ok(ra_store_kernel(store, &kernel, &err));
    struct ra_memop_row memop = {.pass_id = pass_id, .op = "memset", .copy_kind = -1};
    ra_assert_ok(ra_store_memop(store, &memop, &err));
    /* A call or a cost without its time is refused; others go on. */
    struct ra_api_call_row call = {.pass_id = pass_id, .domain = "driver", .start_ns = 1};
    ra_assert_fails(ra_store_api_call(store, &call, &err), RA_ESTORE, "api_call.end_ns");
    struct ra_overhead_row overhead = {.pass_id = pass_id, .end_ns = 1};
    ra_assert_fails(ra_store_overhead(store, &overhead, &err), RA_ESTORE, "overhead.start_ns");
    call.end_ns = 2;
    ra_assert_ok(ra_store_api_call(store, &call, &err));
    store_done(store);
    assert_int_equal(
        store_ask(fixture->path,
                  "SELECT count(*) FROM kernel WHERE scope_id IS NULL AND start_ns IS NULL AND"
                  " end_ns IS NULL AND coalesce(cluster_x, cluster_y, cluster_z, registers,"
                  " smem_static_bytes, smem_dynamic_bytes, smem_executed_bytes,"
                  " local_total_bytes, graph_id, graph_node_id, mangled_id) IS NULL"),
        1);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM memop WHERE coalesce(scope_id,"
                                              " copy_kind, start_ns, end_ns) IS NULL"),
                     1);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM api_call WHERE name_id IS NULL"
                                              " AND start_ns = 1 AND end_ns = 2"),
                     1);
}

/* More names than are remembered, twice over: each stands there once, under its own rows. */
static void names_are_kept_once(void **state)
{
    enum { n_names = 3000 };
    struct store_fixture *fixture = *state;
    struct ra_error err;
    struct ra_store *store = store_append(fixture->path);
    int64_t pass_id = begin_pass(store, store_begin_run(store), 0);
    for (int i = 0; i < 2 * n_names; i++) {
        char name[32];
        struct ra_kernel_row row = kernel_row(pass_id, (uint64_t)(i % n_names));
        row.name = name;
        snprintf(name, sizeof name, "kernel %d", i % n_names);
        ra_assert_ok(ra_store_kernel(store, &row, &err));
    }
    store_done(store);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM string_ids"), n_names);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM kernel k JOIN string_ids n ON"
                                              " n.id = k.name_id WHERE value ="
                                              " 'kernel ' || correlation_id"),
                     2 * n_names);
}

static void a_pass_has_a_device_clocks_and_counts(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    struct ra_store *store = store_append(fixture->path);
    int64_t run_id = store_begin_run(store), pass_id = begin_pass(store, run_id, 0);
    int64_t device_id = 0, again = 0;
    struct ra_device_row device = {run_id, 2,  "GPU-1", "H100", "GH100", 9,  0, 132,
                                   50,     80, 13,      12,     -1,      17, 18};
    ra_assert_ok(ra_store_device(store, &device, &device_id, &err));
    ra_assert_ok(ra_store_device(store, &device, &again, &err));
    assert_int_equal(device_id, again);
    ra_assert_ok(ra_store_pass_device(store, pass_id, device_id, &err));
    struct ra_clock_triple begin = {101, 102, 103}, end = {201, 202, 203};
    struct ra_pass_counts counts = {301, 302, 303, -1, 305};
    ra_assert_ok(ra_store_pass_clocks(store, pass_id, &begin, NULL, &err));
    ra_assert_ok(ra_store_pass_clocks(store, pass_id, NULL, &end, &err));
    ra_assert_ok(ra_store_pass_counts(store, pass_id, &counts, &err));
    ra_assert_ok(ra_store_pass_ranges(store, pass_id, "AutoRange", "KernelReplay", &err));
    ra_assert_fails(ra_store_pass_counts(store, 99, &counts, &err), RA_ESTORE,
                    "there is no pass 99");
    ra_assert_ok(ra_store_pass_end(store, pass_id, RA_RUN_INCOMPLETE, &err));
    int64_t plain = begin_pass(store, run_id, 1);
    ra_assert_ok(ra_store_pass_end(store, plain, RA_RUN_COMPLETE, &err));
    store_done(store);
    assert_int_equal(
        store_ask(fixture->path,
                  "SELECT state = 'incomplete' AND (t0_realtime_ns, t0_monotonic_ns, t0_cupti_ns,"
                  " t1_realtime_ns, t1_monotonic_ns, t1_cupti_ns) = (101, 102, 103, 201, 202, 203)"
                  " AND (launches_expected, kernels_recorded, records_dropped, ranges_dropped) ="
                  " (301, 302, 303, 305) AND kernels_zero_time IS NULL AND (range_mode,"
                  " replay_mode) = ('AutoRange', 'KernelReplay') FROM pass WHERE id = 1"),
        1);
    assert_int_equal(store_ask(fixture->path, "SELECT t1_monotonic_ns >= t0_monotonic_ns AND"
                                              " t1_cupti_ns IS NULL FROM pass WHERE id = 2"),
                     1);
    assert_int_equal(
        store_ask(fixture->path,
                  "SELECT (d.run_id, d.ordinal, d.uuid, d.name, d.chip, cc_major, cc_minor,"
                  " sm_count, l2_bytes, mem_bytes, driver_version, runtime_version, sm_clock_khz,"
                  " mem_clock_khz) = (1, 2, 'GPU-1', 'H100', 'GH100', 9, 0, 132, 50, 80, 13, 12,"
                  " 17, 18) AND cupti_version IS NULL FROM device d JOIN pass p"
                  " ON p.device_id = d.id"),
        1);
}

static void write_kernels(struct ra_store *store, int64_t pass_id, int n)
{
    struct ra_error err;
    for (int i = 0; i < n; i++) {
        struct ra_kernel_row row = kernel_row(pass_id, (uint64_t)i);
        ra_assert_ok(ra_store_kernel(store, &row, &err));
    }
}

/* Whichever way the writer goes on, the indexes are those of the schema when it is done. */
static void indexes_wait_for_the_end_of_a_pass(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    struct ra_store *store = store_append(fixture->path);
    int64_t run_id = store_begin_run(store);
    for (int ends = 0; ends < 3; ends++) {
        store_exec(fixture->path, "DELETE FROM kernel");
        int64_t pass_id = begin_pass(store, run_id, ends);
        assert_int_equal(store_ask(fixture->path, n_indexes), 4);
        ra_assert_ok(ra_store_expect_rows(store, 1000, &err));
        write_kernels(store, pass_id, 100);
        ra_assert_ok(ra_store_flush(store, &err));
        assert_int_equal(store_ask(fixture->path, n_indexes), 0);
        if (ends == 0)
            ra_assert_ok(ra_store_pass_end(store, pass_id, RA_RUN_COMPLETE, &err));
        else if (ends == 1)
            ra_assert_ok(ra_store_pass_end(store, pass_id, RA_RUN_FAILED, &err));
        else
            store_done(store);
        assert_int_equal(store_ask(fixture->path, n_indexes), 4);
    }
    /* As the schema has them, word for word but for spaces. */
    char fresh[300], attach[340];
    snprintf(fresh, sizeof fresh, "%s/fresh.db", fixture->dir);
    snprintf(attach, sizeof attach, "ATTACH '%s' AS fresh", fresh);
    store_done(store_append(fresh));
    struct sqlite3 *db = store_plain(fixture->path);
    assert_int_equal(sqlite3_exec(db, attach, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(store_ask_in(db, "SELECT count(*) FROM main.sqlite_schema m JOIN"
                                      " fresh.sqlite_schema f USING(type, name, tbl_name) WHERE"
                                      " type = 'index' AND replace(m.sql, ' ', '') ="
                                      " replace(f.sql, ' ', '')"),
                     store_ask_in(db, "SELECT count(*) FROM fresh.sqlite_schema WHERE"
                                      " type = 'index' AND sql IS NOT NULL"));
    sqlite3_close(db);
}

/* Made from all rows there are, indexes stay where most rows are old ones. */
static void few_rows_do_not_cost_the_indexes_of_many(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    struct ra_store *store = store_append(fixture->path);
    int64_t pass_id = begin_pass(store, store_begin_run(store), 0);
    write_kernels(store, pass_id, 100);
    ra_assert_ok(ra_store_expect_rows(store, 399, &err));
    ra_assert_ok(ra_store_flush(store, &err));
    assert_int_equal(store_ask(fixture->path, n_indexes), 4);
    ra_assert_ok(ra_store_expect_rows(store, 400, &err));
    ra_assert_ok(ra_store_flush(store, &err));
    assert_int_equal(store_ask(fixture->path, n_indexes), 0);
    store_done(store);
}

/* Then the pass is not complete; its rows stay, and the next writer makes the indexes. */
static void a_disk_too_full_for_indexes(void **state)
{
    enum { n_rows = 5000 };
    struct store_fixture *fixture = *state;
    struct ra_error err;
    char sql[64];
    struct ra_store *store = store_append(fixture->path);
    int64_t run_id = store_begin_run(store), pass_id = begin_pass(store, run_id, 0);
    ra_assert_ok(ra_store_expect_rows(store, n_rows, &err));
    write_kernels(store, pass_id, n_rows);
    ra_assert_ok(ra_store_flush(store, &err));
    snprintf(sql, sizeof sql, "PRAGMA max_page_count = %lld",
             (long long)store_ask_in(store->db, "PRAGMA page_count"));
    assert_int_equal(sqlite3_exec(store->db, sql, NULL, NULL, NULL), SQLITE_OK);
    ra_assert_fails(ra_store_pass_end(store, pass_id, RA_RUN_COMPLETE, &err), RA_ESTORE,
                    "the disk is full");
    ra_assert_fails(ra_store_pass_end(store, pass_id, RA_RUN_INCOMPLETE, &err), RA_ESTORE,
                    "earlier batch was lost");
    ra_assert_ok(ra_store_run_end(store, run_id, RA_RUN_FAILED, NULL, NULL, NULL, &err));
    store_done(store);
    assert_int_equal(store_ask(fixture->path, n_indexes), 0);
    store_done(store_read(fixture->path));
    store_done(store_append(fixture->path));
    assert_int_equal(store_ask(fixture->path, n_indexes), 4);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM kernel"), n_rows);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM pass WHERE state = 'aborted'"),
                     1);
}

enum { batch = 5000, short_pass = 3 * batch, long_pass = 1000000 };

/* When a writer of passes of `rows` is killed: `us` after it had so many batches in the store, or
 * after it came to the end of a pass. */
struct moment {
    int rows, n_batches;
    bool at_end;
    long us;
};

/*
 * Passes until killed, in batches; a 'b' for each that is in the store, an 'x' for each commit that
 * time made in the midst of one, an 'e' before each end of a pass.
 */
static void write_for_ever(const char *path, int told, int rows)
{
    struct ra_store *store = store_append(path);
    struct ra_error err;
    int64_t run_id = store_begin_run(store);
    for (int ordinal = 0;; ordinal++) {
        int64_t pass_id = begin_pass(store, run_id, ordinal);
        if (ra_store_expect_rows(store, INT64_MAX, &err))
            _exit(1);
        for (int i = 0; i < rows; i++) {
            struct ra_kernel_row row = kernel_row(pass_id, (uint64_t)i);
            bool ends = i % batch == batch - 1 && i + 1 < rows;
            if (ra_store_kernel(store, &row, &err) ||
                (!store->in_batch && !ends && write(told, "x", 1) != 1) ||
                (ends && (ra_store_flush(store, &err) || write(told, "b", 1) != 1)))
                _exit(1);
        }
        if (write(told, "e", 1) != 1 || ra_store_pass_end(store, pass_id, RA_RUN_COMPLETE, &err))
            _exit(1);
    }
}

/* *was_late: time made a commit of its own. */
static void kill_a_writer(const char *path, const struct moment *moment, bool *was_late)
{
    int told[2], status = 0, n_batches = 0;
    char byte = 0;
    assert_int_equal(pipe(told), 0);
    pid_t child = fork();
    if (child == 0)
        write_for_ever(path, told[1], moment->rows);
    close(told[1]);
    *was_late = false;
    while (n_batches < moment->n_batches || (moment->at_end && byte != 'e')) {
        assert_int_equal(read(told[0], &byte, 1), 1);
        n_batches += byte == 'b';
        *was_late |= byte == 'x';
    }
    nanosleep(&(struct timespec){.tv_nsec = moment->us * 1000L}, NULL);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    while (read(told[0], &byte, 1) == 1)
        *was_late |= byte == 'x';
    close(told[0]);
}

static void check_whole(const char *path, int rows, bool was_late)
{
    char sql[200];
    snprintf(sql, sizeof sql,
             "SELECT count(*) FROM pass p WHERE state = 'complete' AND %d != (SELECT count(*)"
             " FROM kernel WHERE pass_id = p.id)",
             rows);
    assert_int_equal(store_ask(path, sql), 0);
    assert_int_equal(store_ask(path, n_indexes), 4);
    assert_int_equal(store_ask(path, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"),
                     1);
    assert_int_equal(store_ask(path, "SELECT count(*) FROM pass WHERE state NOT IN"
                                     " ('complete', 'aborted')"),
                     0);
    /* Of the killed pass the first rows are there, without a hole, and whole batches of them. */
    assert_int_equal(store_ask(path, "SELECT count(*) FROM (SELECT pass_id FROM kernel GROUP BY"
                                     " pass_id HAVING max(correlation_id) + 1 != count(*))"),
                     0);
    snprintf(sql, sizeof sql,
             "SELECT count(*) FROM (SELECT count(*) AS n FROM kernel GROUP BY pass_id)"
             " WHERE n %% %d != 0",
             (int)batch);
    if (!was_late)
        assert_int_equal(store_ask(path, sql), 0);
}

struct leavings {
    int64_t rows, complete, cut;
};

static void kill_and_check(const char *path, const struct moment *moment, bool to_read,
                           struct leavings *sum)
{
    bool was_late;
    kill_a_writer(path, moment, &was_late);
    /* A reader becomes a writer for as long as that takes. */
    store_done(to_read ? store_read(path) : store_append(path));
    check_whole(path, moment->rows, was_late);
    int64_t rows = store_ask(path, "SELECT count(*) FROM kernel");
    assert_true(rows >= (int64_t)moment->n_batches * batch);
    sum->rows += rows;
    sum->complete += store_ask(path, "SELECT count(*) FROM pass WHERE state = 'complete'");
    sum->cut += store_ask(path, "SELECT count(*) FROM pass p WHERE state = 'aborted' AND EXISTS"
                                " (SELECT 1 FROM kernel WHERE pass_id = p.id)");
    remove(path);
}

/* Killed at random moments on its way to a million rows, of which early ones cost less: each kill
 * has its own share of the way, that of the last being the longest. */
static void a_writer_of_a_million_kernels_killed_leaves_whole_batches(void **state)
{
    enum { n_kills = 20 };
    struct store_fixture *fixture = *state;
    struct leavings sum = {0};
    unsigned seed = 7;
    for (int i = 0; i < n_kills; i++) {
        double way = (i + (double)rand_r(&seed) / ((double)RAND_MAX + 1)) / n_kills;
        struct moment moment = {.rows = long_pass,
                                .n_batches = 1 + (int)(way * way * way * long_pass / batch),
                                .us = rand_r(&seed) % 20000};
        kill_and_check(fixture->path, &moment, i % 4 < 2, &sum);
    }
    print_message("killed %d times: %lld rows, %lld passes cut\n", n_kills, (long long)sum.rows,
                  (long long)sum.cut);
    assert_int_equal(sum.complete, 0);
    assert_true(sum.cut > n_kills / 2);
}

/* Among short passes, so that it is often about to end one. */
static void a_writer_killed_where_a_pass_ends_leaves_whole_batches(void **state)
{
    enum { n_kills = 10 };
    struct store_fixture *fixture = *state;
    struct leavings sum = {0};
    unsigned seed = 7;
    for (int i = 0; i < n_kills; i++) {
        struct moment moment = {
            .rows = short_pass, .at_end = true, .us = rand_r(&seed) % (i % 2 ? 40000 : 20000)};
        kill_and_check(fixture->path, &moment, i % 4 < 2, &sum);
    }
    print_message("killed %d times: %lld rows, %lld passes complete, %lld cut\n", n_kills,
                  (long long)sum.rows, (long long)sum.complete, (long long)sum.cut);
    assert_true(sum.cut > 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, store_setup, store_teardown)
        TEST(every_column_arrives),
        TEST(what_is_not_known_is_null),
        TEST(names_are_kept_once),
        TEST(a_pass_has_a_device_clocks_and_counts),
        TEST(indexes_wait_for_the_end_of_a_pass),
        TEST(few_rows_do_not_cost_the_indexes_of_many),
        TEST(a_disk_too_full_for_indexes),
        TEST(a_writer_of_a_million_kernels_killed_leaves_whole_batches),
        TEST(a_writer_killed_where_a_pass_ends_leaves_whole_batches),
    };
    return cmocka_run_group_tests_name("store_kernel", tests, NULL, NULL);
}
