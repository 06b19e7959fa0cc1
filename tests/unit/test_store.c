/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows into the store and out again. What was written is checked with plain SQLite, what is read
 * back against what was written.
 */
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "profiler/clock.h"
#include "profiler/store.h"
#include "profiler/store_eval.h"
#include "tests/support/ra_test.h"
#include "tests/support/store_fixture.h"

/* A wrong column order or a forgotten column would show here. */
static void a_run_keeps_what_reruns_it(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    int64_t run_id = store_begin_run(store);
    ra_assert_ok(ra_store_run_end(store, run_id, RA_RUN_COMPLETE, "f1", "h1", "{\"x\":1}", &err));
    store_done(store);
    assert_int_equal(
        store_ask(fixture->path,
                  "SELECT count(*) FROM run r JOIN policy p ON p.id = policy_id WHERE state ="
                  " 'complete' AND invocation_uuid LIKE '00000000-%' AND command = 'replay' AND"
                  " argv_json LIKE '[\"replay\"%' AND kind = 'replay' AND tool_version = '0.0' AND"
                  " config_json = '{}' AND canonical = 'recycled:k=256,stride=16' AND name ="
                  " 'recycled' AND params_json LIKE '{\"k\"%' AND trace_path = 'a.safetensors' AND"
                  " trace_sha256 IS NULL AND model_id IS NULL AND seq = 0 AND backend = 'cpu' AND"
                  " device IS NULL AND scores = 'fused' AND cache = 'compact' AND dtype IS NULL AND"
                  " method = 'cpu-wall' AND launch_mode IS NULL AND schedule_of_trace IS NULL AND"
                  " fingerprint = 'f1' AND output_hash = 'h1' AND result_json = '{\"x\":1}' AND"
                  " ended_unix_ns >= started_unix_ns AND pid > 0"),
        1);
    /* 2^64 - 1 is the same bits, signed. */
    assert_int_equal(store_ask(fixture->path, "SELECT seed FROM run"), -1);
    assert_int_equal(store_ask(fixture->path,
                               "SELECT uuid LIKE '________-____-4___-____-____________' AND"
                               " substr(uuid, 20, 1) IN('8','9','a','b') FROM run"),
                     1);
}

static void two_runs_share_a_policy_and_not_a_uuid(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    store_begin_run(store);
    store_begin_run(store);
    store_done(store);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM policy"), 1);
    assert_int_equal(store_ask(fixture->path, "SELECT count(DISTINCT uuid) FROM run"), 2);
}

/* A missing measurement is NULL: a 0 or a NaN in a column would poison every mean. */
static void nan_is_null_and_comes_back_as_nan(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    struct ra_layer_step_row row = store_step(store_begin_run(store), -1, 9);
    row.mass_recovered_min = NAN;
    row.topk_recall = 0.0;
    ra_assert_ok(ra_store_layer_step(store, &row, &err));
    store_done(store);
    assert_int_equal(
        store_ask(fixture->path,
                  "SELECT count(*) FROM layer_step WHERE step = -1 AND layer = 9 AND"
                  " mass_recovered_mean = 0.9 AND mass_recovered_min IS NULL AND topk_recall = 0.0"
                  " AND refresh_overlap IS NULL AND query_cosine IS NULL"),
        1);
}

struct read_back {
    int n;
    struct ra_layer_step_row rows[8];
};

static enum ra_status keep(void *context, const struct ra_layer_step_row *row, struct ra_error *err)
{
    (void)err;
    struct read_back *back = context;
    assert_true(back->n < 8);
    back->rows[back->n++] = *row;
    return RA_OK;
}

/* Written layer by layer, as phase 1 does; read as a model decodes. */
static void layer_steps_come_back_in_order(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    int64_t other = store_begin_run(store), run_id = store_begin_run(store);
    struct ra_layer_step_row foreign = store_step(other, 0, 0);
    ra_assert_ok(ra_store_layer_step(store, &foreign, &err));
    for (int layer = 29; layer >= 9; layer -= 20)
        for (int32_t step = -1; step < 2; step++) {
            struct ra_layer_step_row row = store_step(run_id, step, layer);
            row.selection_bytes = INT64_MAX;
            row.is_full = step == 1;
            ra_assert_ok(ra_store_layer_step(store, &row, &err));
        }
    struct read_back back = {0};
    ra_assert_ok(ra_store_layer_steps(store, run_id, keep, &back, &err));
    assert_int_equal(back.n, 6);
    for (int i = 0; i < 6; i++) {
        struct ra_layer_step_row want = store_step(run_id, i / 2 - 1, i % 2 ? 29 : 9);
        assert_int_equal(back.rows[i].run_id, run_id);
        assert_int_equal(back.rows[i].step, want.step);
        assert_int_equal(back.rows[i].layer, want.layer);
        assert_int_equal(back.rows[i].is_full, want.step == 1);
        assert_int_equal(back.rows[i].keys_read, want.keys_read);
        assert_int_equal(back.rows[i].kv_read_bytes, want.kv_read_bytes);
        assert_int_equal(back.rows[i].kv_write_bytes, want.kv_write_bytes);
        assert_int_equal(back.rows[i].selection_bytes, INT64_MAX);
        assert_true(back.rows[i].mass_recovered_mean == want.mass_recovered_mean);
        assert_true(back.rows[i].mass_recovered_min == want.mass_recovered_min);
        assert_true(back.rows[i].output_rel_err_mean == want.output_rel_err_mean);
        assert_true(back.rows[i].output_rel_err_max == want.output_rel_err_max);
        assert_true(back.rows[i].topk_recall == want.topk_recall);
        assert_true(isnan(back.rows[i].refresh_overlap) && isnan(back.rows[i].query_cosine));
    }
    store_done(store);
}

static void a_pass_has_scopes_that_all_passes_share(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    int64_t run_id = store_begin_run(store), pass[2], scope[2][3];
    for (int i = 0; i < 2; i++) {
        ra_assert_ok(ra_store_pass_begin(store, run_id, i, i ? "timing" : "bare", &pass[i], &err));
        struct ra_scope_row row = {run_id, 0, "trace", RA_SCOPE_NONE, RA_SCOPE_NONE, "trace"};
        ra_assert_ok(ra_store_scope(store, &row, &scope[i][0], &err));
        row = (struct ra_scope_row){run_id, scope[i][0], "op", -1, 9, "attend"};
        ra_assert_ok(ra_store_scope(store, &row, &scope[i][1], &err));
        row.name = "append";
        ra_assert_ok(ra_store_scope(store, &row, &scope[i][2], &err));
        struct ra_scope_exec_row exec = {.pass_id = pass[i],
                                         .scope_id = scope[i][1],
                                         .start_ns = 100,
                                         .end_ns = 250,
                                         .output_hash = i ? "h" : NULL};
        ra_assert_ok(ra_store_scope_exec(store, &exec, &err));
        ra_assert_ok(ra_store_pass_end(store, pass[i], RA_RUN_COMPLETE, &err));
    }
    assert_memory_equal(scope[0], scope[1], sizeof scope[0]);
    store_done(store);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM scope"), 3);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM scope WHERE step IS NULL AND"
                                              " layer IS NULL AND parent_id IS NULL"),
                     1);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM pass WHERE state = 'complete'"
                                              " AND t1_monotonic_ns >= t0_monotonic_ns"),
                     2);
    /* The view that nsys scripts read shows the timing pass only. */
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM NVTX_EVENTS WHERE text ="
                                              " 'attend' AND \"end\" - start = 150"),
                     1);
}

static void scopes_of_the_same_values_may_be_several(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    int64_t run_id = store_begin_run(store), pass_id, first, scope;
    struct ra_scope_row row = {run_id, 0, "op", 3, 9, "attend"};
    ra_assert_ok(ra_store_pass_begin(store, run_id, 0, "bare", &pass_id, &err));
    ra_assert_ok(ra_store_scope(store, &row, &first, &err));
    for (int i = 0; i < 3; i++) {
        ra_assert_ok(ra_store_scope_new(store, &row, &scope, &err));
        assert_true(scope > first);
        struct ra_scope_exec_row exec = {.pass_id = pass_id, .scope_id = scope, .end_ns = 5};
        ra_assert_ok(ra_store_scope_exec(store, &exec, &err));
    }
    store_done(store);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM scope s JOIN string_ids n ON"
                                              " n.id = name_id WHERE kind = 'op' AND step = 3 AND"
                                              " layer = 9 AND value = 'attend'"),
                     4);
}

static void a_run_that_fails_takes_its_open_pass_along(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    int64_t run_id = store_begin_run(store), pass_id;
    ra_assert_ok(ra_store_pass_begin(store, run_id, 0, "bare", &pass_id, &err));
    ra_assert_ok(ra_store_run_end(store, run_id, RA_RUN_FAILED, NULL, NULL, NULL, &err));
    store_done(store);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM pass p JOIN run r ON r.id ="
                                              " run_id WHERE p.state = 'aborted' AND r.state ="
                                              " 'failed' AND fingerprint IS NULL"),
                     1);
}

static void retained_and_notes_are_kept(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    int64_t run_id = store_begin_run(store);
    struct ra_retained_row stay = {
        .run_id = run_id, .layer = 19, .head = 2, .pos = 1500, .first_step = -1, .last_step = 15};
    ra_assert_ok(ra_store_retained(store, &stay, &err));
    ra_assert_ok(ra_store_diagnostic(store, run_id, "warning", "replay", "near ties", &err));
    ra_assert_ok(ra_store_diagnostic(store, 0, "info", "store", "hello", &err));
    store_done(store);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM retained WHERE layer = 19 AND"
                                              " head = 2 AND pos = 1500 AND first_step = -1 AND"
                                              " last_step = 15"),
                     1);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM diagnostic WHERE run_id IS NULL"
                                              " AND message = 'hello'"),
                     1);
}

/* A wrong order of columns would show; what is not known is NULL; a key is there once. */
static void scores_of_a_task_are_kept_with_what_they_come_from(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    struct ra_eval_result_row result = {
        store_begin_run(store), "niah", "delta_nll", "nat", 0.25, 0.125, 0.5, 3};
    struct ra_eval_sample_row asked = {.run_id = result.run_id,
                                       .task = "niah",
                                       .sample = 1,
                                       .name = "17",
                                       .seed = -7,
                                       .depth = 0.5,
                                       .prompt_len = 256,
                                       .steps = 4,
                                       .nll = 2.5,
                                       .kl = 0.25,
                                       .correct = 1,
                                       .hits = 0.75,
                                       .margin = -1.5};
    struct ra_eval_sample_row text = {.run_id = result.run_id,
                                      .task = "ppl",
                                      .name = "a",
                                      .seed = RA_EVAL_NO_SEED,
                                      .depth = NAN,
                                      .nll = NAN,
                                      .kl = NAN,
                                      .correct = -1,
                                      .hits = NAN,
                                      .margin = NAN};
    ra_assert_ok(ra_store_eval_result(store, &result, &err));
    ra_assert_fails(ra_store_eval_result(store, &result, &err), RA_ESTORE, "row refused");
    result.metric = "ppl";
    result.low = result.high = NAN;
    ra_assert_ok(ra_store_eval_result(store, &result, &err));
    ra_assert_ok(ra_store_eval_sample(store, &asked, &err));
    ra_assert_fails(ra_store_eval_sample(store, &asked, &err), RA_ESTORE, "row refused");
    ra_assert_ok(ra_store_eval_sample(store, &text, &err));
    store_done(store);
    assert_int_equal(
        store_ask(fixture->path,
                  "SELECT sum(metric = 'delta_nll' AND task = 'niah' AND unit = 'nat' AND value ="
                  " 0.25 AND low = 0.125 AND high = 0.5 AND n_samples = 3) + 10 * sum(metric ="
                  " 'ppl' AND low IS NULL AND high IS NULL) FROM eval_result WHERE run_id = 1"),
        11);
    assert_int_equal(
        store_ask(fixture->path,
                  "SELECT sum(task = 'niah' AND sample = 1 AND name = '17' AND seed = -7 AND depth"
                  " = 0.5 AND prompt_len = 256 AND steps = 4 AND nll = 2.5 AND kl = 0.25 AND "
                  "correct = 1 AND"
                  " hits = 0.75 AND margin = -1.5) + 10 * sum(task = 'ppl' AND seed IS NULL AND"
                  " depth IS NULL AND nll IS NULL AND kl IS NULL AND correct IS NULL AND hits IS "
                  "NULL AND margin"
                  " IS NULL) FROM eval_sample WHERE run_id = 1"),
        11);
}

/* A refused row is told and left out; the rows round it stay. */
static void a_refused_row_leaves_the_batch_alone(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    int64_t run_id = store_begin_run(store), pass_id;
    struct ra_layer_step_row row = store_step(run_id, 0, 0);
    ra_assert_ok(ra_store_layer_step(store, &row, &err));
    ra_assert_ok(ra_store_layer_step(store, &row, &err)); /* waits, as rows of a batch do */
    ra_assert_fails(ra_store_flush(store, &err), RA_ESTORE, "UNIQUE");
    ra_assert_ok(ra_store_flush(store, &err));
    ra_assert_fails(ra_store_pass_begin(store, run_id, 0, "fast", &pass_id, &err), RA_ESTORE,
                    "CHECK");
    ra_assert_fails(ra_store_diagnostic(store, 0, "fatal", "a", "b", &err), RA_ESTORE,
                    fixture->path);
    ra_assert_fails(ra_store_run_end(store, 77, RA_RUN_COMPLETE, NULL, NULL, NULL, &err), RA_ESTORE,
                    "no run 77");
    ra_assert_fails(ra_store_pass_end(store, 78, RA_RUN_COMPLETE, &err), RA_ESTORE, "no pass 78");
    row.step = 1;
    ra_assert_ok(ra_store_layer_step(store, &row, &err));
    store_done(store);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM layer_step"), 2);
}

/* Many rows go in by one statement: those before and behind a refused one must all be there. */
static void refused_rows_are_left_out_of_many(void **state)
{
    enum { n = 1000, in_file = 500, twice = 703 };
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    int64_t run_id = store_begin_run(store);
    struct ra_layer_step_row row = store_step(run_id, in_file, 0);
    ra_assert_ok(ra_store_layer_step(store, &row, &err));
    ra_assert_ok(ra_store_flush(store, &err));
    for (int32_t i = 0; i <= n; i++) { /* scattered, one step twice */
        row = store_step(run_id, i == n ? twice : i * 7 % n, 0);
        row.keys_read = row.step == in_file ? -1 : 10 + row.step;
        ra_assert_ok(ra_store_layer_step(store, &row, &err));
    }
    ra_assert_fails(ra_store_flush(store, &err), RA_ESTORE, "row refused");
    store_done(store);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM layer_step"), n);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM layer_step WHERE keys_read <>"
                                              " 10 + step AND NOT (step = 500 AND keys_read ="
                                              " 1500)"),
                     0);
}

/* A run that lost a row may be called failed, and the rows of the batch stay; never complete. */
static void a_run_with_a_refused_row_is_not_complete(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    for (int ends_as = RA_RUN_COMPLETE; ends_as <= RA_RUN_FAILED; ends_as++) {
        int64_t run_id = store_begin_run(store), pass_id;
        ra_assert_ok(ra_store_pass_begin(store, run_id, 0, "bare", &pass_id, &err));
        struct ra_layer_step_row row = store_step(run_id, 0, 0);
        ra_assert_ok(ra_store_layer_step(store, &row, &err));
        ra_assert_ok(ra_store_layer_step(store, &row, &err));
        if (ends_as == RA_RUN_COMPLETE)
            ra_assert_fails(ra_store_pass_end(store, pass_id, RA_RUN_COMPLETE, &err), RA_ESTORE,
                            "UNIQUE");
        ra_assert_ok(ra_store_run_end(store, run_id, RA_RUN_FAILED, NULL, NULL, NULL, &err));
    }
    store_done(store);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM layer_step"), 2);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM pass p JOIN run r ON r.id ="
                                              " run_id WHERE p.state = 'aborted' AND r.state ="
                                              " 'failed'"),
                     2);
}

static enum ra_status count_cells(void *context, const struct ra_store_cells *row,
                                  struct ra_error *err)
{
    (void)row;
    (void)err;
    ++*(int *)context;
    return RA_OK;
}

/* The writer's own queries see rows that wait in memory. */
static void a_writer_sees_its_waiting_rows(void **state)
{
    struct store_fixture *fixture = *state;
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    int64_t run_id = store_begin_run(store);
    struct store_seen seen = {0};
    struct ra_layer_step_row row = store_step(run_id, 0, 0);
    ra_assert_ok(ra_store_layer_step(store, &row, &err));
    ra_assert_ok(ra_store_runs(store, NULL, store_see, &seen, &err));
    assert_int_equal(seen.n_layer_steps, 1);
    row.step = 1;
    ra_assert_ok(ra_store_layer_step(store, &row, &err));
    const char *sql = "SELECT 1 FROM layer_step WHERE step = 1";
    int n = 0;
    ra_assert_ok(ra_store_select(store, &sql, NULL, count_cells, &n, &err));
    assert_int_equal(n, 1);
    store_done(store);
}

/* Not per row (slow), not only at the end (a crash would lose all). */
static void batches_are_of_ten_thousand_rows_or_half_a_second(void **state)
{
    struct store_fixture *fixture = *state;
    static const char count[] = "SELECT count(*) FROM layer_step";
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    int64_t run_id = store_begin_run(store);
    uint64_t from = ra_clock_ns();
    for (int32_t step = 0; step < 10001; step++) {
        struct ra_layer_step_row row = store_step(run_id, step, 0);
        ra_assert_ok(ra_store_layer_step(store, &row, &err));
        if (step == 100 && ra_clock_ns() - from < 400000000)
            assert_int_equal(store_ask(fixture->path, count), 0);
    }
    if (ra_clock_ns() - from < 400000000)
        assert_int_equal(store_ask(fixture->path, count), 10000);
    nanosleep(&(struct timespec){.tv_nsec = 510000000}, NULL);
    struct ra_layer_step_row row = store_step(run_id, 10001, 0);
    ra_assert_ok(ra_store_layer_step(store, &row, &err));
    assert_int_equal(store_ask(fixture->path, count), 10002);
    row.step++;
    ra_assert_ok(ra_store_layer_step(store, &row, &err));
    ra_assert_ok(ra_store_flush(store, &err));
    assert_int_equal(store_ask(fixture->path, count), 10003);
    store_done(store);
}

static void speed_is_shown(void **state)
{
    struct store_fixture *fixture = *state;
    enum { n_steps = 3125, n_layers = 32 };
    struct ra_store *store = store_append(fixture->path);
    struct ra_error err;
    int64_t run_id = store_begin_run(store);
    uint64_t from = ra_clock_ns();
    for (int layer = 0; layer < n_layers; layer++)
        for (int32_t step = 0; step < n_steps; step++) {
            struct ra_layer_step_row row = store_step(run_id, step, layer);
            ra_assert_ok(ra_store_layer_step(store, &row, &err));
        }
    ra_assert_ok(ra_store_flush(store, &err));
    double seconds = (double)(ra_clock_ns() - from) / 1e9;
    store_done(store);
    assert_int_equal(store_ask(fixture->path, "SELECT count(*) FROM layer_step"),
                     n_steps * n_layers);
    print_message("layer_step: %d rows in %.3f s (cpu-wall), %.0f rows/s\n", n_steps * n_layers,
                  seconds, n_steps * n_layers / seconds);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, store_setup, store_teardown)
        TEST(a_run_keeps_what_reruns_it),
        TEST(two_runs_share_a_policy_and_not_a_uuid),
        TEST(nan_is_null_and_comes_back_as_nan),
        TEST(layer_steps_come_back_in_order),
        TEST(a_pass_has_scopes_that_all_passes_share),
        TEST(scopes_of_the_same_values_may_be_several),
        TEST(a_run_that_fails_takes_its_open_pass_along),
        TEST(retained_and_notes_are_kept),
        TEST(scores_of_a_task_are_kept_with_what_they_come_from),
        TEST(a_refused_row_leaves_the_batch_alone),
        TEST(refused_rows_are_left_out_of_many),
        TEST(a_run_with_a_refused_row_is_not_complete),
        TEST(a_writer_sees_its_waiting_rows),
        TEST(batches_are_of_ten_thousand_rows_or_half_a_second),
        TEST(speed_is_shown),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
