/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores that somebody built to act when they are opened: each is refused by name, by a reader and
 * by a writer, before any of it runs, and nothing is left beside it. What people add to query their
 * own results stays allowed.
 */
#include <stdio.h>
#include <string.h>

#include "tests/support/ra_test.h"
#include "tests/support/store_fixture.h"

static void make_store(const struct store_fixture *fixture)
{
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    int64_t id = store_begin_run(store);
    ra_assert_ok(ra_store_run_end(store, id, RA_RUN_COMPLETE, "f", "h", "{}", &err));
    store_done(store);
}

static void refused(const struct store_fixture *fixture, const char *sql, const char *text)
{
    struct ra_store *store;
    struct ra_error err;
    make_store(fixture);
    store_exec(fixture->path, sql);
    ra_assert_fails(ra_store_open(&store, fixture->path, RA_STORE_READ, &err), RA_ESTORE, text);
    ra_assert_fails(ra_store_open(&store, fixture->path, RA_STORE_APPEND, &err), RA_ESTORE, text);
    assert_null(store);
    assert_non_null(strstr(err.msg, fixture->path));
    assert_false(store_exists(fixture->path, "-wal") || store_exists(fixture->path, "-shm") ||
                 store_exists(fixture->path, ".lock"));
}

/* Reading the view would never end. */
static void a_view_in_place_of_a_table(void **state)
{
    refused(*state,
            "ALTER TABLE run RENAME TO r; CREATE VIEW run AS WITH RECURSIVE c(x) AS"
            " (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT r.* FROM r, c",
            "view run: would run by itself");
}

static void a_virtual_table_in_place_of_a_table(void **state)
{
    refused(*state, "DROP TABLE Retained; CREATE VIRTUAL TABLE Retained USING rtree(id, a, b)",
            "table Retained: would run by itself");
}

/* Marking the abandoned run would start it. */
static void a_trigger(void **state)
{
    refused(*state,
            "UPDATE run SET state = 'running';"
            "CREATE TRIGGER t AFTER UPDATE ON run BEGIN INSERT INTO meta WITH RECURSIVE c(x) AS"
            " (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x, x FROM c; END",
            "trigger t: would run by itself");
}

static void a_column_that_is_computed(void **state)
{
    refused(*state,
            "ALTER TABLE run DROP COLUMN result_json;"
            "ALTER TABLE run ADD COLUMN result_json TEXT AS (printf('%.*c', 900000000, 'x'))",
            "column run.result_json: would run by itself");
}

static void an_index_that_is_computed(void **state)
{
    refused(*state,
            "CREATE INDEX i ON run(length(printf('%.*c', iif(state = 'running', 900000000, 1),"
            " 'x')))",
            "index i: would run by itself");
}

static void an_index_of_some_rows(void **state)
{
    refused(*state, "CREATE INDEX i ON run(state) WHERE length(uuid) > 1",
            "index i: would run by itself");
}

/* The schema is right, a value is what no run writes; a writer in haste makes it so. */
static void a_value_beyond_all_measure_is_an_error(void **state)
{
    const struct store_fixture *fixture = *state;
    struct ra_error err;
    struct store_seen seen = {0};
    make_store(fixture);
    store_exec(fixture->path, "UPDATE run SET result_json = printf('%.*c', 70000000, 'x')");
    struct ra_store *store = store_read(fixture->path);
    ra_assert_fails(ra_store_runs(store, NULL, store_see, &seen, &err), RA_ESTORE, "too big");
    store_done(store);
}

static void views_indexes_and_tables_of_ones_own_are_let_be(void **state)
{
    const struct store_fixture *fixture = *state;
    struct ra_error err;
    struct store_seen seen = {0};
    make_store(fixture);
    store_exec(fixture->path, "CREATE VIEW mine AS SELECT id FROM run; CREATE TABLE notes(a, b);"
                              "CREATE INDEX fast ON run(policy_id, seq);"
                              "CREATE VIRTUAL TABLE boxes USING rtree(id, a, b)");
    store_done(store_append(fixture->path));
    struct ra_store *store = store_read(fixture->path);
    ra_assert_ok(ra_store_runs(store, NULL, store_see, &seen, &err));
    assert_int_equal(seen.n, 1);
    store_done(store);
}

/* Nothing runs by itself, but a condition fails: the file stays the plain one that it was. */
static void a_writer_that_fails_leaves_a_plain_file(void **state)
{
    const struct store_fixture *fixture = *state;
    struct ra_store *store;
    struct ra_error err;
    make_store(fixture);
    store_exec(fixture->path, "UPDATE run SET state = 'running'; PRAGMA writable_schema = ON;"
                              "UPDATE sqlite_schema SET sql = replace(sql, ',''aborted'')', ')')"
                              " WHERE name = 'run'");
    ra_assert_fails(ra_store_open(&store, fixture->path, RA_STORE_APPEND, &err), RA_ESTORE,
                    "CHECK constraint failed");
    assert_int_equal(store_ask(fixture->path, "SELECT journal_mode = 'delete' FROM"
                                              " pragma_journal_mode"),
                     1);
    assert_false(store_exists(fixture->path, "-wal") || store_exists(fixture->path, "-shm") ||
                 store_exists(fixture->path, ".lock"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, store_setup, store_teardown)
        TEST(a_view_in_place_of_a_table),
        TEST(a_virtual_table_in_place_of_a_table),
        TEST(a_trigger),
        TEST(a_column_that_is_computed),
        TEST(an_index_that_is_computed),
        TEST(an_index_of_some_rows),
        TEST(a_value_beyond_all_measure_is_an_error),
        TEST(views_indexes_and_tables_of_ones_own_are_let_be),
        TEST(a_writer_that_fails_leaves_a_plain_file),
    };
    return cmocka_run_group_tests_name("store_shape", tests, NULL, NULL);
}
