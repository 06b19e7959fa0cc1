/* SPDX-License-Identifier: Apache-2.0 */
/* Two results are the same or not, and what differs first is named: runs of a store, and result
 * objects against a file. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/verify.h"
#include "tests/support/ra_test.h"
#include "tests/support/store_fixture.h"

enum { N_STEPS = 3, N_LAYERS = 2 };

static struct ra_error err;
static struct ra_comparison got;

/* One run; `change` may alter each row before it is stored, or drop it by setting run_id to 0. */
static int64_t add_run(struct ra_store *store, const char *policy, const char *fingerprint,
                       void (*change)(struct ra_layer_step_row *row))
{
    struct ra_run_row run = store_run_row();
    int64_t id = 0;
    char uuid[37];
    run.policy = policy;
    ra_assert_ok(ra_store_run_begin(store, &run, &id, uuid, &err));
    for (int step = -1; step < N_STEPS; step++)
        for (int layer = 0; layer < N_LAYERS; layer++) {
            struct ra_layer_step_row row = store_step(id, step, 9 * layer);
            if (change)
                change(&row);
            if (row.run_id)
                ra_assert_ok(ra_store_layer_step(store, &row, &err));
        }
    ra_assert_ok(ra_store_run_end(store, id, RA_RUN_COMPLETE, fingerprint, NULL, "{}", &err));
    return id;
}

static bool is_place(const struct ra_layer_step_row *row, int step, int layer)
{
    return row->step == step && row->layer == layer;
}

static void change_count(struct ra_layer_step_row *row)
{
    row->refresh_entries += is_place(row, 1, 9);
    row->topk_recall += row->step == 2; /* later: must not be what is named */
}

static void change_prefill(struct ra_layer_step_row *row)
{
    row->kv_write_bytes += is_place(row, -1, 0);
}

static void change_full(struct ra_layer_step_row *row)
{
    row->is_full ^= is_place(row, 2, 0);
}

static void change_little(struct ra_layer_step_row *row)
{
    row->mass_recovered_mean += 5e-13;
}

static void change_more(struct ra_layer_step_row *row)
{
    row->mass_recovered_mean += is_place(row, 0, 9) ? 5e-12 : 0;
}

static void change_to_null(struct ra_layer_step_row *row)
{
    if (is_place(row, 0, 0))
        row->output_rel_err_max = NAN;
}

static void drop_middle(struct ra_layer_step_row *row)
{
    if (is_place(row, 1, 0))
        row->run_id = 0;
}

static void drop_last(struct ra_layer_step_row *row)
{
    if (is_place(row, 2, 9))
        row->run_id = 0;
}

static void compare(struct ra_store *store, int64_t a, int64_t b)
{
    char text_a[24], text_b[24];
    snprintf(text_a, sizeof text_a, "%lld", (long long)a);
    snprintf(text_b, sizeof text_b, "%lld", (long long)b);
    ra_assert_ok(ra_verify_runs(store, text_a, text_b, &got, &err));
    assert_int_equal(got.id_a, a);
    assert_int_equal(got.id_b, b);
}

static void the_first_difference_of_two_runs_is_named(void **state)
{
    static const struct {
        void (*change)(struct ra_layer_step_row *row);
        int step, layer, rows;
        const char *column, *a, *b;
    } cases[] = {
        {change_count, 1, 9, 5, "refresh_entries", "0", "1"},
        {change_prefill, -1, 0, 0, "kv_write_bytes", "192", "193"},
        {change_full, 2, 0, 6, "is_full", "0", "1"},
        {change_more, 0, 9, 3, "mass_recovered_mean", "0.9", "0.9"},
        {change_to_null, 0, 0, 2, "output_rel_err_max", "0.2", ""},
        {drop_middle, 1, 0, 4, "row", "present", "missing"},
        {drop_last, 2, 9, 7, "row", "present", "missing"},
    };
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    int64_t base = add_run(store, "full", "aa", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        compare(store, base, add_run(store, "full", "aa", cases[i].change));
        assert_false(got.is_equal);
        assert_string_equal(got.column, cases[i].column);
        assert_int_equal(got.step, cases[i].step);
        assert_int_equal(got.layer, cases[i].layer);
        assert_int_equal(got.rows, cases[i].rows);
        assert_int_equal(strncmp(got.value_a, cases[i].a, strlen(cases[i].a)), 0);
        assert_int_equal(strncmp(got.value_b, cases[i].b, strlen(cases[i].b)), 0);
        assert_int_equal(got.value_b[0] == '\0', cases[i].b[0] == '\0'); /* not measured */
    }
    store_done(store);
}

static void equal_runs_are_equal(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    int64_t a = add_run(store, "full", "aa", NULL), b = add_run(store, "full", "aa", NULL);
    compare(store, a, b);
    assert_true(got.is_equal);
    assert_int_equal(got.rows, (N_STEPS + 1) * N_LAYERS);
    assert_string_equal(got.column, "");
    compare(store, a, add_run(store, "full", "aa", change_little));
    assert_true(got.is_equal);
    store_done(store);
}

/* The sets themselves are only in the fingerprint: equal counts are not enough. */
static void whole_runs_may_differ_where_no_step_does(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    int64_t a = add_run(store, "full", "aa", NULL);
    compare(store, a, add_run(store, "full", "ab", NULL));
    assert_false(got.is_equal);
    assert_string_equal(got.column, "fingerprint");
    assert_string_equal(got.value_b, "ab");
    compare(store, a, add_run(store, "oracle:k=3", "aa", NULL));
    assert_string_equal(got.column, "policy");
    assert_int_equal(got.step, -2);
    store_done(store);
}

static void unfinished_and_unknown_runs_are_refused(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    add_run(store, "full", "aa", NULL);
    store_begin_run(store);
    ra_assert_fails(ra_verify_runs(store, "1", "2", &got, &err), RA_EUSAGE,
                    "run 2: is running; only complete runs");
    ra_assert_fails(ra_verify_runs(store, "7", "1", &got, &err), RA_EUSAGE, "7");
    store_done(store);
}

/* --- result objects ----------------------------------------------------------------------------
 */

static json_t *result(const char *policy)
{
    return json_pack("{s:s, s:i, s:s, s:i, s:[i,i], s:i, s:{s:f, s:f}, s:{s:{s:n}}, s:s, s:i,"
                     " s:{s:i}}",
                     "trace", "x/run.safetensors", "sequence", 0, "policy", policy, "steps", 192,
                     "layers", 0, 9, "keys_read", 1000, "mass_recovered", "mean", 0.9, "p05", 0.5,
                     "on_recycled", "mass_recovered", "mean", "fingerprint", "aabb", "near_ties", 0,
                     "attention_ns", "total", 5);
}

/* Set a member by "a.b" of the only element, check it against an unchanged one. */
static enum ra_status check_changed(const char *outer, const char *inner, json_t *value)
{
    json_t *results = json_pack("[o]", result("full")), *expected = result("full");
    json_t *object = json_array_get(results, 0);
    json_object_set_new(inner ? json_object_get(object, outer) : object, inner ? inner : outer,
                        value);
    enum ra_status status = ra_verify_results(results, expected, "old.json", &err);
    json_decref(results);
    json_decref(expected);
    return status;
}

static void results_are_compared_key_by_key(void **state)
{
    (void)state;
    ra_assert_ok(check_changed("steps", NULL, json_integer(192)));
    ra_assert_fails(check_changed("keys_read", NULL, json_integer(1001)), RA_EDIVERGED,
                    "old.json: full: keys_read: expected 1000, got 1001");
    ra_assert_fails(check_changed("fingerprint", NULL, json_string("aabc")), RA_EDIVERGED,
                    "fingerprint: expected \"aabb\", got \"aabc\"");
    ra_assert_fails(check_changed("layers", NULL, json_pack("[i]", 0)), RA_EDIVERGED,
                    "layers: expected [0,9], got [0]");
    ra_assert_fails(check_changed("mass_recovered", "p05", json_real(0.5 + 4e-12)), RA_EDIVERGED,
                    "mass_recovered.p05");
    ra_assert_ok(check_changed("mass_recovered", "p05", json_real(0.5 + 4e-13)));
    /* A null is a statement: nothing was measured. */
    ra_assert_fails(check_changed("mass_recovered", "mean", json_null()), RA_EDIVERGED,
                    "mass_recovered.mean: expected 0.9");
    ra_assert_fails(check_changed("k_resolved", NULL, json_integer(1)), RA_EDIVERGED,
                    "k_resolved: expected null, got 1");
    /* Times, ties and hashes of bits belong to a machine. */
    ra_assert_ok(check_changed("attention_ns", "total", json_integer(6)));
    ra_assert_ok(check_changed("near_ties", NULL, json_integer(2)));
    ra_assert_ok(check_changed("output_hash", NULL, json_string("f")));
    ra_assert_ok(check_changed("trace", NULL, json_string("y/run.safetensors")));
}

static void counterparts_are_found_by_policy_sequence_and_trace(void **state)
{
    (void)state;
    json_t *expected = json_pack("[o,o]", result("oracle:k=3"), result("full"));
    json_t *results = json_pack("[o,o,o]", result("full"), result("full"), result("oracle:k=3"));
    json_object_set_new(json_array_get(results, 0), "trace", json_string("other.safetensors"));
    json_object_set_new(json_array_get(results, 0), "keys_read", json_integer(1));
    ra_assert_ok(ra_verify_results(results, expected, "old.json", &err));
    json_array_remove(results, 2);
    ra_assert_fails(ra_verify_results(results, expected, "old.json", &err), RA_EDIVERGED,
                    "expected a result of policy oracle:k=3, sequence 0, got none");
    json_object_set_new(json_array_get(expected, 1), "sequence", json_integer(1));
    json_array_remove(expected, 0);
    ra_assert_fails(ra_verify_results(results, expected, "old.json", &err), RA_EDIVERGED,
                    "sequence 1");
    json_decref(results);
    json_decref(expected);
}

static void check_file(const char *path, const char *text, const json_t *results,
                       enum ra_status status, const char *message)
{
    FILE *file = fopen(path, "w");
    fputs(text, file);
    fclose(file);
    ra_assert_fails(ra_verify_against(results, NULL, path, &err), status, message);
    unlink(path);
}

static void files_and_runs_are_found_by_name(void **state)
{
    struct store_fixture *fixture = *state;
    char path[256];
    json_t *results = json_pack("[o]", result("full"));
    snprintf(path, sizeof path, "%s/old.json", fixture->dir);
    ra_assert_ok((json_dump_file(results, path, 0), ra_verify_against(results, NULL, path, &err)));
    check_file(path, "{", results, RA_EFORMAT, "old.json: line 1");
    check_file(path, "[]", results, RA_EFORMAT, "empty list");
    check_file(path, "{\"policy\":\"full\"}", results, RA_EFORMAT, "expected results of a replay");
    check_file(path, "{\"policy\":\"full\",\"fingerprint\":\"a\"}", results, RA_EFORMAT,
               "sequence");
    check_file(path, "[3]", results, RA_EFORMAT, "expected results of a replay");
    ra_assert_fails(ra_verify_against(results, NULL, path, &err), RA_EIO, "old.json");
    ra_assert_fails(ra_verify_against(results, NULL, "17", &err), RA_EUSAGE, "with --db");

    struct ra_store *store = store_append(fixture->path);
    int64_t id = store_begin_run(store);
    ra_assert_fails(ra_verify_against(results, store, "1", &err), RA_EUSAGE, "holds no result");
    char *text = json_dumps(json_array_get(results, 0), 0);
    ra_assert_ok(ra_store_run_end(store, id, RA_RUN_COMPLETE, "aabb", NULL, text, &err));
    ra_assert_ok(ra_verify_against(results, store, "1", &err));
    json_object_set_new(json_array_get(results, 0), "steps", json_integer(3));
    ra_assert_fails(ra_verify_against(results, store, "1", &err), RA_EDIVERGED,
                    "run 1: full: steps");
    free(text);
    store_done(store);
    json_decref(results);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, store_setup, store_teardown)
        TEST(the_first_difference_of_two_runs_is_named),
        TEST(equal_runs_are_equal),
        TEST(whole_runs_may_differ_where_no_step_does),
        TEST(unfinished_and_unknown_runs_are_refused),
        cmocka_unit_test(results_are_compared_key_by_key),
        cmocka_unit_test(counterparts_are_found_by_policy_sequence_and_trace),
        TEST(files_and_runs_are_found_by_name),
    };
    return cmocka_run_group_tests_name("verify", tests, NULL, NULL);
}
