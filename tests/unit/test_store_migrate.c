/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores of earlier schemas. The golden store of each released schema opens, and is lifted to the
 * newest; the machinery is proved on schemas that exist only here.
 */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/store_migrate.h"
#include "tests/support/ra_test.h"
#include "tests/support/store_fixture.h"

static void load(const char *path, int version)
{
    char name[64];
    snprintf(name, sizeof name, "tests/golden/store_v%d.sql", version);
    FILE *file = fopen(name, "rb");
    if (!file)
        fail_msg("run from the root of the tree: no %s", name);
    char *sql = calloc(1, 1 << 16);
    size_t n = fread(sql, 1, (1 << 16) - 1, file);
    fclose(file);
    assert_true(n > 0 && n < (1 << 16) - 1);
    store_exec(path, sql);
    free(sql);
}

static void load_golden(const char *path)
{
    load(path, 1);
}

static const char to_2[] = "ALTER TABLE run ADD COLUMN note TEXT; UPDATE run SET note = 'lifted';";
static const char to_3[] = "CREATE TABLE extra(id INTEGER PRIMARY KEY) STRICT;"
                           "INSERT INTO extra SELECT id FROM run;";

static enum ra_status open_as(const char *path, enum ra_store_mode mode, int version,
                              const struct ra_migration *steps, size_t n_steps,
                              struct ra_error *err)
{
    struct ra_store_schema schema = *ra_store_schema_current();
    schema.version = version;
    schema.steps = steps;
    schema.n_steps = n_steps;
    struct ra_store *store = NULL;
    struct store_seen seen = {0};
    RA_TRY(ra_store_open_schema(&store, path, mode, &schema, err));
    enum ra_status status = ra_store_runs(store, NULL, store_see, &seen, err);
    assert_int_equal(seen.n, 2);
    store_done(store);
    return status;
}

static int64_t ask_backup(const char *path, const char *suffix, const char *sql)
{
    char name[300];
    snprintf(name, sizeof name, "%s%s", path, suffix);
    return store_ask(name, sql);
}

/* Columns, types and keys of the tables, views and indexes of one schema that another lacks. */
static int64_t only_in(struct sqlite3 *db, const char *one, const char *other)
{
    char sql[800];
    snprintf(sql, sizeof sql,
             "SELECT count(*) FROM ("
             " SELECT t.type, t.name, c.name, c.type, c.\"notnull\", c.pk FROM %s.sqlite_schema t"
             " LEFT JOIN pragma_table_xinfo(t.name, '%s') c EXCEPT"
             " SELECT t.type, t.name, c.name, c.type, c.\"notnull\", c.pk FROM %s.sqlite_schema t"
             " LEFT JOIN pragma_table_xinfo(t.name, '%s') c)",
             one, one, other, other);
    return store_ask_in(db, sql);
}

static void same_schemas(const char *path, const char *fresh, bool same)
{
    char attach[340];
    snprintf(attach, sizeof attach, "ATTACH '%s' AS fresh", fresh);
    struct sqlite3 *db = store_plain(path);
    assert_int_equal(sqlite3_exec(db, attach, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(store_ask_in(db, "PRAGMA fresh.user_version"),
                     store_ask_in(db, "PRAGMA main.user_version"));
    assert_true((only_in(db, "main", "fresh") == 0) == same);
    assert_true((only_in(db, "fresh", "main") == 0) == same);
    sqlite3_close(db);
}

/* A schema that was changed without a new number would break every store in the field; a step that
 * does not lead to it, those that were made before. */
static void golden_stores_have_the_schema_of_their_number(void **state)
{
    struct store_fixture *fixture = *state;
    char fresh[300];
    int newest = ra_store_schema_current()->version;
    snprintf(fresh, sizeof fresh, "%s/fresh.db", fixture->dir);
    store_done(store_append(fresh));
    for (int version = 1; version <= newest; version++) {
        remove(fixture->path);
        load(fixture->path, version);
        store_done(store_append(fixture->path)); /* lifted */
        same_schemas(fixture->path, fresh, true);
        assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM run"), 2);
        assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM layer_step"), 8);
        assert_true(version == newest || store_exists(fixture->path, ".v1.bak"));
    }
    assert_int_equal(store_ask(fixture->path, "SELECT sum(launch_hash) FROM pass"), -7);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM kernel JOIN string_ids s ON"
                                              " s.id = mangled_id AND value = '_Z12decode_splitv'"),
                     1);
    assert_int_equal(store_ask(fixture->path, "SELECT sum(keys_read) FROM member_step"), 24);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM eval_sample WHERE nll > 0"), 2);
    store_exec(fixture->path, "DROP INDEX kernel_corr; ALTER TABLE meta ADD z TEXT");
    same_schemas(fixture->path, fresh, false);
}

static void the_golden_store_opens(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_error err;
    load_golden(fixture->path);
    struct store_seen seen = {0};
    struct ra_store *store = store_read(fixture->path);
    ra_assert_ok(ra_store_runs(store, NULL, store_see, &seen, &err));
    assert_int_equal(seen.n, 2);
    assert_int_equal(seen.n_layer_steps, 4);
    assert_int_equal(seen.n_passes_complete, 1);
    assert_string_equal(seen.state, "complete");
    store_done(store);
}

static void steps_are_taken_in_order_after_a_backup(void **state)
{
    static const struct ra_migration steps[] = {{2, to_3}, {1, to_2}};
    struct store_fixture *fixture = *state;
    struct ra_error err;
    for (int mode = RA_STORE_READ; mode <= RA_STORE_APPEND; mode++) {
        remove(fixture->path);
        load_golden(fixture->path);
        ra_assert_ok(open_as(fixture->path, (enum ra_store_mode)mode, 3, steps, 2, &err));
        assert_int_equal(store_ask(fixture->path, "PRAGMA user_version"), 3);
        assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM run JOIN extra USING(id)"
                                                  " WHERE note = 'lifted'"),
                         2);
        /* The second backup must not take the place of the first. */
        const char *suffix = mode == RA_STORE_READ ? ".v1.bak" : ".v1.bak.1";
        assert_int_equal(ask_backup(fixture->path, suffix, "PRAGMA user_version"), 1);
        assert_int_equal(ask_backup(fixture->path, suffix, "PRAGMA application_id"),
                         RA_STORE_APPLICATION_ID);
        assert_int_equal(ask_backup(fixture->path, suffix, "SELECT count(*) FROM layer_step"), 8);
        assert_false(store_exists(fixture->path, ".lock"));
    }
    /* Up to date now: no further backup. */
    ra_assert_ok(open_as(fixture->path, RA_STORE_APPEND, 3, steps, 2, &err));
    assert_false(store_exists(fixture->path, ".v3.bak"));
}

/* Half a step must never stay, and a store that did not change needs no backup. */
static void a_failing_step_changes_nothing(void **state)
{
    static const char *const broken[] = {
        "UPDATE run SET command = 'half'; INSERT INTO no_such_table VALUES(1);",
        "UPDATE run SET command = 'half'; INSERT INTO run(id) VALUES(1);",
        "UPDATE run SET command = 'half'; UPDATE pass SET run_id = 99 WHERE id = 1;",
    };
    struct store_fixture *fixture = *state;
    struct ra_error err;
    load_golden(fixture->path);
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        struct ra_migration step = {1, broken[i]};
        for (int mode = RA_STORE_READ; mode <= RA_STORE_APPEND; mode++)
            ra_assert_fails(open_as(fixture->path, (enum ra_store_mode)mode, 2, &step, 1, &err),
                            RA_ESTORE, "migration from schema 1 to 2 undone");
        assert_int_equal(store_ask(fixture->path, "PRAGMA user_version"), 1);
        assert_int_equal(
            store_ask(fixture->path, "SELECT count(*) FROM run WHERE command = 'half'"), 0);
        assert_false(store_exists(fixture->path, ".v1.bak"));
        assert_false(store_exists(fixture->path, ".lock"));
    }
}

/* Rows that would point nowhere are found even where no statement touched their table. */
static void dangling_references_undo_a_step(void **state)
{
    static const struct ra_migration step = {1, to_2};
    struct store_fixture *fixture = *state;
    struct ra_error err;
    load_golden(fixture->path);
    store_exec(fixture->path, "UPDATE pass SET run_id = 99 WHERE id = 1");
    ra_assert_fails(open_as(fixture->path, RA_STORE_APPEND, 2, &step, 1, &err), RA_ESTORE,
                    "1 references would dangle");
    assert_int_equal(store_ask(fixture->path, "PRAGMA user_version"), 1);
}

/* The first step stays, and so does the backup of what was there before it. */
static void a_later_failure_keeps_earlier_steps_and_the_backup(void **state)
{
    static const struct ra_migration steps[] = {{1, to_2}, {2, "CREATE TABLE run(x)"}};
    struct store_fixture *fixture = *state;
    struct ra_error err;
    load_golden(fixture->path);
    ra_assert_fails(open_as(fixture->path, RA_STORE_APPEND, 3, steps, 2, &err), RA_ESTORE,
                    "migration from schema 2 to 3 undone");
    assert_int_equal(store_ask(fixture->path, "PRAGMA user_version"), 2);
    assert_int_equal(ask_backup(fixture->path, ".v1.bak", "PRAGMA user_version"), 1);
}

static void a_missing_step_is_told_before_anything_is_done(void **state)
{
    static const struct ra_migration steps[] = {{1, to_2}};
    struct store_fixture *fixture = *state;
    struct ra_error err;
    load_golden(fixture->path);
    ra_assert_fails(open_as(fixture->path, RA_STORE_APPEND, 3, steps, 1, &err), RA_ESTORE,
                    "no migration from schema 2 to 3");
    assert_int_equal(store_ask(fixture->path, "PRAGMA user_version"), 1);
    assert_false(store_exists(fixture->path, ".v1.bak"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, store_setup, store_teardown)
        TEST(golden_stores_have_the_schema_of_their_number),
        TEST(the_golden_store_opens),
        TEST(steps_are_taken_in_order_after_a_backup),
        TEST(a_failing_step_changes_nothing),
        TEST(dangling_references_undo_a_step),
        TEST(a_later_failure_keeps_earlier_steps_and_the_backup),
        TEST(a_missing_step_is_told_before_anything_is_done),
    };
    return cmocka_run_group_tests_name("store_migrate", tests, NULL, NULL);
}
