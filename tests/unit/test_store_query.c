/* SPDX-License-Identifier: Apache-2.0 */
/* Which run is meant: ids, beginnings of uuids, and what is said when it is none or several. */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/ra_test.h"
#include "tests/support/store_fixture.h"

/* Seven runs whose uuids are chosen; the eighth has one that is spelled like id 3. */
static struct ra_store *known_runs(struct store_fixture *fixture)
{
    static const char *const head[] = {"aaaa1111", "aaaa2222", "bbbb0000", "12345678",
                                       "cccc0000", "cccc1111", "cccc2222", "cccc3333"};
    struct ra_store *store = store_append(fixture->path);
    for (int i = 0; i < 8; i++)
        store_begin_run(store);
    store_done(store);
    for (int i = 0; i < 8; i++) {
        char sql[160];
        snprintf(sql, sizeof sql,
                 "UPDATE run SET uuid = '%s-0000-4000-8000-000000000000' WHERE id = %d", head[i],
                 i + 1);
        store_exec(fixture->path, sql);
    }
    store_exec(fixture->path, "UPDATE run SET id = 5555 WHERE id = 8");
    return store_read(fixture->path);
}

static void all_runs_come_in_order_of_their_ids(void **state)
{
    struct store_seen seen = {0};
    struct ra_error err;
    struct ra_store *store = known_runs(*state);
    ra_assert_ok(ra_store_runs(store, NULL, store_see, &seen, &err));
    assert_int_equal(seen.n, 8);
    assert_int_equal(seen.id, 5555);
    store_done(store);
}

static void a_run_is_found_by_id_or_prefix(void **state)
{
    static const struct {
        const char *which;
        int64_t id;
    } rows[] = {
        {"3", 3},       {"0003", 3},
        {"5555", 5555}, /* an id */
        {"1234", 4},    /* no such id: the beginning of a uuid */
        {"bbbb", 3},    {"BBBB0000-00", 3},
        {"aaaa2", 2},   {"aaaa1111-0000-4000-8000-000000000000", 1},
    };
    struct ra_error err;
    struct ra_store *store = known_runs(*state);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct store_seen seen = {0};
        ra_assert_ok(ra_store_runs(store, rows[i].which, store_see, &seen, &err));
        assert_int_equal(seen.n, 1);
        assert_int_equal(seen.id, rows[i].id);
    }
    store_done(store);
}

static void an_id_wins_over_a_uuid_spelled_the_same(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    struct store_seen seen = {0};
    store_done(known_runs(fixture));
    store_exec(fixture->path, "UPDATE run SET id = 1234 WHERE id = 7");
    struct ra_store *store = store_read(fixture->path);
    ra_assert_ok(ra_store_runs(store, "1234", store_see, &seen, &err));
    assert_int_equal(seen.n, 1);
    assert_int_equal(seen.id, 1234);
    store_done(store);
}

static void none_and_several_are_usage_errors(void **state)
{
    static const char *const none[] = {
        "9",    "",     "bbb", /* too short */
        "dddd", "zzzz", "-1",  "bb'b0", "bbbb%", "99999999999999999999999", "bbbb0001"};
    struct ra_error err;
    struct store_seen seen = {0};
    struct ra_store *store = known_runs(*state);
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        ra_assert_fails(ra_store_runs(store, none[i], store_see, &seen, &err), RA_EUSAGE,
                        "no run '");
    ra_assert_fails(ra_store_runs(store, "aaaa", store_see, &seen, &err), RA_EUSAGE,
                    "not unique: 1 (aaaa1111-0000-4000-8000-000000000000), 2 (aaaa2222-");
    ra_assert_fails(ra_store_runs(store, "cccc", store_see, &seen, &err), RA_EUSAGE,
                    "5555 (cccc3333");
    assert_int_equal(seen.n, 0);
    store_done(store);
}

/* More matches than a message holds are cut, not overrun. */
static void many_matches_are_cut(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    struct store_seen seen = {0};
    store_done(known_runs(fixture));
    store_exec(fixture->path, "UPDATE run SET uuid = 'cccc' || printf('%04d', id) || "
                              "'-0000-4000-8000-000000000000', id = id + 9223372036854770000");
    struct ra_store *store = store_read(fixture->path);
    ra_assert_fails(ra_store_runs(store, "cccc", store_see, &seen, &err), RA_EUSAGE, ", ...");
    store_done(store);
}

static enum ra_status stop_at_second(void *context, const struct ra_run_listing *run,
                                     struct ra_error *err)
{
    int *n = context;
    return ++*n == 2 ? ra_fail(err, RA_EINTERRUPTED, "stopped at %lld", (long long)run->id) : RA_OK;
}

static enum ra_status stop_at_once(void *context, const struct ra_layer_step_row *row,
                                   struct ra_error *err)
{
    ++*(int *)context;
    return ra_fail(err, RA_EIO, "step %d", row->step);
}

static void a_failing_callback_ends_the_list(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    int n = 0, n_rows = 0;
    struct ra_store *store = store_append(fixture->path);
    int64_t run_id = 0;
    for (int i = 0; i < 3; i++)
        run_id = store_begin_run(store);
    for (int32_t step = 0; step < 2; step++) {
        struct ra_layer_step_row row = store_step(run_id, step, 0);
        ra_assert_ok(ra_store_layer_step(store, &row, &err));
    }
    ra_assert_fails(ra_store_runs(store, NULL, stop_at_second, &n, &err), RA_EINTERRUPTED,
                    "stopped at 2");
    assert_int_equal(n, 2);
    ra_assert_fails(ra_store_layer_steps(store, run_id, stop_at_once, &n_rows, &err), RA_EIO,
                    "step 0");
    assert_int_equal(n_rows, 1);
    store_done(store);
}

/* A store that lost a table is told by name, not by a crash. */
static void a_table_that_is_missing_is_an_error(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    struct store_seen seen = {0};
    int n = 0;
    store_done(known_runs(fixture));
    store_exec(fixture->path, "DROP TABLE layer_step");
    struct ra_store *store = store_read(fixture->path);
    ra_assert_fails(ra_store_runs(store, NULL, store_see, &seen, &err), RA_ESTORE, "layer_step");
    ra_assert_fails(ra_store_layer_steps(store, 1, stop_at_once, &n, &err), RA_ESTORE,
                    fixture->path);
    store_done(store);
}

/* NOT NULL binds writers, not a file that was damaged or made by hand. */
static void a_run_without_uuid_state_or_kind_is_an_error(void **state)
{
    static const char *const columns[] = {"uuid", "state", "kind"};
    struct store_fixture *fixture = *state;
    struct ra_error err;
    struct store_seen seen = {0};
    char sql[256];
    store_done(known_runs(fixture));
    store_exec(fixture->path, "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET"
                              " sql = replace(sql, ' TEXT NOT NULL', ' TEXT') WHERE name = 'run'");
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        snprintf(sql, sizeof sql,
                 "UPDATE run SET uuid = 'u', state = 'complete', kind = 'replay' WHERE id = 2;"
                 "UPDATE run SET %s = NULL WHERE id = 2",
                 columns[i]);
        store_exec(fixture->path, sql);
        struct ra_store *store = store_read(fixture->path);
        ra_assert_fails(ra_store_runs(store, NULL, store_see, &seen, &err), RA_ESTORE,
                        "run 2 has no uuid, state or kind");
        store_done(store);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, store_setup, store_teardown)
        TEST(all_runs_come_in_order_of_their_ids),
        TEST(a_run_is_found_by_id_or_prefix),
        TEST(an_id_wins_over_a_uuid_spelled_the_same),
        TEST(none_and_several_are_usage_errors),
        TEST(many_matches_are_cut),
        TEST(a_failing_callback_ends_the_list),
        TEST(a_table_that_is_missing_is_an_error),
        TEST(a_run_without_uuid_state_or_kind_is_an_error),
    };
    return cmocka_run_group_tests_name("store_query", tests, NULL, NULL);
}
