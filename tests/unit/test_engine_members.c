/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies of a batch that differ: which rows and which part of a stride each has, that each is what
 * a recording of those rows alone would be, that what is reported is the first's, and that what
 * goes wrong in one copy alone stops the replay and is named.
 */
#include "tests/support/ra_test.h"
#include "tests/support/replay_once.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/engine_member.h"
#include "tests/support/copies.h"
#include "tests/support/tiny_trace.h"
#include "traces/safetensors.h"

enum { LANES = 4, COPIES = 3 };

static const char trace_name[] = "synth:case=drift,P=40,N=8,layers=4,window=16";

static const char *const schedules[] = {
    "full",
    "recycled:k=8,stride=3",
    "recycled:k=1/5,stride=3,attend=after,pool=1",
    "recycled:k=8,stride=2,sim=0.9",
    "recycled:k=8,stride=4,sim=0.9,scope=model-prev",
    "recycled:k=8,stride=3,share=0",
    "streaming:k=8",
    "streaming:k=8,stride=4",
    "oracle:k=8",
};

/* By index: copies spread over a stride, of unequal lengths, or both. */
static struct ra_replay_config batch(const struct ra_backend_ops *backend, int kind)
{
    return (struct ra_replay_config){.n_policies = 1,
                                     .backend = backend,
                                     .batch = COPIES,
                                     .spread = kind != 1,
                                     .ragged = kind > 0 ? 0.25 : 0,
                                     .n_threads = 1,
                                     .repeats = 2,
                                     .last_step = -1,
                                     .quality = true};
}

/* --- which rows, which part of a stride --------------------------------------------------------
 */

static void lengths_fall_evenly(void **state)
{
    (void)state;
    static const struct {
        int32_t P;
        int copies;
        double share;
        int32_t drops[5];
    } cases[] = {{1000, 4, 0.3, {0, 100, 200, 300}},
                 {100, 2, 0.29, {0, 29}},
                 {7, 5, 0.5, {0, 0, 1, 2, 3}},
                 {1, 3, 0.5, {0, 0, 0}},
                 {10, 3, 0.1, {0, 0, 1}},
                 {40, 1, 0, {0}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int copy = 0; copy < cases[i].copies; copy++) {
            struct ra_replay_config config = {.batch = cases[i].copies, .ragged = cases[i].share};
            struct ra_shape recorded = {.P = cases[i].P};
            struct ra_shape shape = ra_member_shape(&config, &recorded, copy);
            assert_int_equal(shape.drop, cases[i].drops[copy]);
            assert_int_equal(shape.P, cases[i].P - shape.drop);
            assert_true(shape.P >= 1 && shape.P >= (1 - cases[i].share) * cases[i].P);
            assert_int_equal(shape.of, 0);
        }
}

/* What a shorter copy's keys were given during the prefill is what they were given. */
static void accumulated_mass_is_cut_like_the_prompt(void **state)
{
    (void)state;
    char path[64];
    struct ra_error err;
    struct ra_trace *trace;
    struct tiny_trace tiny = tiny_trace_default();
    float given[4 * 6], acc[4 * 6];
    snprintf(path, sizeof path, "/tmp/rattn-test-members-%d.safetensors", (int)getpid());
    tiny.has_acc = tiny.no_checksum = true;
    tiny_trace_write(path, &tiny);
    for (int i = 0; i < 4 * 6; i++)
        given[i] = (float)i;
    tiny_trace_patch(path, "s0.l0.acc", 0, given, sizeof given);
    ra_assert_ok(ra_trace_open(&trace, path, &err));
    struct ra_replay_config config = {.trace = trace, .batch = 2, .ragged = 0.35};
    struct ra_shape recorded = {.P = 6, .model = &ra_trace_info(trace)->model};
    struct ra_shape shape = ra_member_shape(&config, &recorded, 1);
    assert_int_equal(shape.P, 4);
    ra_assert_ok(ra_shape_read_acc(&shape, &config, &(struct ra_lane){0}, acc, &err));
    for (int h = 0; h < 4; h++)
        for (int j = 0; j < 4; j++)
            assert_true(acc[h * 4 + j] == given[h * 6 + 2 + j]);
    ra_trace_close(trace);
    unlink(path);
}

static void copies_are_members_only_where_they_differ(void **state)
{
    (void)state;
    struct ra_replay_config config = {.batch = 8};
    struct ra_shape recorded = {.P = 10};
    assert_int_equal(ra_engine_members(&config), 1);
    config.ragged = 0.1;
    assert_int_equal(ra_engine_members(&config), 8);
    config.ragged = 0;
    config.spread = true;
    assert_int_equal(ra_engine_members(&config), 8);
    struct ra_shape shape = ra_member_shape(&config, &recorded, 3);
    assert_true(shape.P == 10 && shape.drop == 0 && shape.phase == 3 && shape.of == 8);
    config.batch = 1;
    assert_int_equal(ra_engine_members(&config), 1);
}

/* --- each is a recording of its own -----------------------------------------------------------
 */

enum { P = 24, N = 9, HQ = 4, HKV = 2, D = 8, NEAR_A = 14, NEAR_B = 19 };

/* Two keys that the prefill's queries all but mean, and equally so. */
static void make_near_tie(float *k, float *q)
{
    for (size_t h = 0; h < HQ; h++)
        for (size_t d = 0; d < D; d++) {
            float *head = k + h / (HQ / HKV) * (P + N) * D, *mean = q + h * (1 + N) * D;
            mean[d] = d % 2 ? 2 : -2;
            head[NEAR_A * D + d] = mean[d];
            head[NEAR_B * D + d] = mean[d] * (1 + 0x1p-21f);
        }
}

/* Rows `drop` and on of one and the same recording, f32. */
static void write_rows(const char *path, int drop)
{
    char prompt[16], steps[16];
    snprintf(prompt, sizeof prompt, "%d", P - drop);
    snprintf(steps, sizeof steps, "%d", N);
    const char *const metadata[][2] = {
        {"format", "rattn-trace"}, {"version", "1.0"},       {"n_layers", "1"},
        {"layers", "0"},           {"n_q_heads", "4"},       {"n_kv_heads", "2"},
        {"head_dim", "8"},         {"attn_scale", "1"},      {"n_seq", "1"},
        {"s0.prompt_len", prompt}, {"s0.decode_len", steps}, {"s0.q_tail", "1"}};
    static float k[HKV * (P + N) * D], v[HKV * (P + N) * D], q[HQ * (1 + N) * D];
    uint64_t seed = 5, n_rows = (uint64_t)(P + N - drop);
    uint64_t rows[] = {HKV, n_rows, D}, queries[] = {HQ, 1 + N, D};
    float *const parts[] = {k, v, q};
    const size_t sizes[] = {sizeof k / sizeof *k, sizeof v / sizeof *v, sizeof q / sizeof *q};
    for (int part = 0; part < 3; part++)
        for (size_t i = 0; i < sizes[part]; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            parts[part][i] = (float)((double)(seed >> 33) / 0x1p30 - 1);
        }
    make_near_tie(k, q);
    size_t ik, iv, iq, head = (size_t)n_rows * D * sizeof *k;
    struct ra_st_writer *w;
    struct ra_error err;
    ra_assert_ok(ra_st_writer_open(&w, path, &err));
    for (size_t i = 0; i < sizeof metadata / sizeof *metadata; i++)
        ra_assert_ok(ra_st_writer_metadata(w, metadata[i][0], metadata[i][1], &err));
    ra_assert_ok(ra_st_writer_tensor(w, "s0.l0.k", RA_ST_F32, 3, rows, &ik, &err));
    ra_assert_ok(ra_st_writer_tensor(w, "s0.l0.v", RA_ST_F32, 3, rows, &iv, &err));
    ra_assert_ok(ra_st_writer_tensor(w, "s0.l0.q", RA_ST_F32, 3, queries, &iq, &err));
    ra_assert_ok(ra_st_writer_begin(w, &err));
    for (size_t h = 0; h < HKV; h++) {
        size_t from = (h * (P + N) + (size_t)drop) * D;
        ra_assert_ok(ra_st_writer_put(w, ik, h * head, k + from, head, &err));
        ra_assert_ok(ra_st_writer_put(w, iv, h * head, v + from, head, &err));
    }
    ra_assert_ok(ra_st_writer_put(w, iq, 0, q, sizeof q, &err));
    ra_assert_ok(ra_st_writer_commit(w, &err));
    ra_st_writer_close(w);
}

/* Sets and counts of every copy after phase 1. */
static void fingerprints(struct ra_replay_config config, char (*hex)[RA_SHA256_HEX])
{
    struct ra_error err;
    struct ra_members members;
    struct ra_pool *pool;
    ra_assert_ok(ra_pool_open(&pool, 1, &err));
    ra_assert_ok(ra_members_open(&members, &config, &err));
    ra_assert_ok(ra_members_begin(&members, &err));
    ra_assert_ok(ra_members_measure(&members, pool, &err));
    for (int i = 0; i < members.n; i++)
        ra_track_fingerprint(&members.list[i].tracks[config.n_policies - 1], hex[i]);
    ra_members_close(&members);
    ra_pool_close(pool);
}

static void a_shorter_copy_is_a_recording_of_its_rows(void **state)
{
    (void)state;
    char path[64];
    struct ra_error err;
    snprintf(path, sizeof path, "/tmp/rattn-test-members-%d.safetensors", (int)getpid());
    for (size_t s = 0; s < sizeof schedules / sizeof *schedules; s++) {
        char whole[COPIES][RA_SHA256_HEX], alone[1][RA_SHA256_HEX];
        struct ra_policy_spec *specs[2];
        struct ra_trace *trace;
        bool post = strstr(schedules[s], "sim=") != NULL; /* nothing says how queries turn */
        char spelling[128];
        snprintf(spelling, sizeof spelling, "%s%s", schedules[s], post ? ",query=post" : "");
        ra_assert_ok(ra_policy_parse(&specs[0], "full", &err));
        ra_assert_ok(ra_policy_parse(&specs[1], spelling, &err));
        struct ra_replay_config config = batch(copies_backend(true), 1);
        config.n_policies = 2;
        config.specs = specs;
        for (int copy = -1; copy < COPIES; copy++) {
            write_rows(path, copy < 0 ? 0 : copy * P / 8);
            ra_assert_ok(ra_trace_open(&trace, path, &err));
            config.trace = trace;
            config.batch = copy < 0 ? COPIES : 1;
            fingerprints(config, copy < 0 ? whole : alone);
            ra_trace_close(trace);
            if (copy >= 0)
                assert_string_equal(whole[copy], alone[0]);
        }
        ra_policy_spec_close(specs[0]);
        ra_policy_spec_close(specs[1]);
    }
    unlink(path);
}

/* A dispute is settled by the rows that the copy has. */
static void a_near_tie_of_a_shorter_copy_is_one(void **state)
{
    (void)state;
    char path[64];
    struct ra_error err;
    struct ra_policy_spec *spec;
    struct ra_replay_result result;
    struct ra_replay_config config = batch(copies_backend(true), 1);
    snprintf(path, sizeof path, "/tmp/rattn-test-members-%d.safetensors", (int)getpid());
    write_rows(path, 0);
    struct ra_trace *trace;
    ra_assert_ok(ra_trace_open(&trace, path, &err));
    ra_assert_ok(ra_policy_parse(&spec, "recycled:k=2,stride=100,pool=1", &err));
    config.trace = trace;
    config.specs = &spec;
    copies_fault = (struct copies_fault){COPIES_SELECT, 0, 2, -1};
    ra_assert_ok(ra_replay(&config, &result, &err));
    assert_int_equal(result.near_ties, 0); /* it is not the first copy's */
    copies_fault.copy = 0;
    ra_assert_ok(ra_replay(&config, &result, &err));
    assert_int_equal(result.near_ties, 1);
    ra_policy_spec_close(spec);
    ra_trace_close(trace);
    unlink(path);
}

static void spread_copies_that_share_a_reference_are_full_in_turn(void **state)
{
    (void)state;
    struct ra_error err;
    struct ra_policy_spec *spec;
    struct ra_trace *trace;
    char hex[COPIES][RA_SHA256_HEX], alone[1][RA_SHA256_HEX];
    ra_assert_ok(ra_trace_open(&trace, trace_name, &err));
    ra_assert_ok(ra_policy_parse(&spec, "recycled:k=8,stride=3", &err));
    struct ra_replay_config config = batch(copies_backend(true), 0);
    config.trace = trace;
    config.specs = &spec;
    fingerprints(config, hex);
    config.batch = 1;
    fingerprints(config, alone);
    assert_string_equal(hex[0], alone[0]);
    assert_string_not_equal(hex[1], hex[0]);
    assert_string_not_equal(hex[2], hex[0]);
    assert_string_not_equal(hex[2], hex[1]);
    ra_policy_spec_close(spec);
    ra_trace_close(trace);
}

/* --- both phases -------------------------------------------------------------------------------
 */

static void what_is_reported_is_the_first_copys(void **state)
{
    (void)state;
    struct ra_error err;
    for (size_t s = 0; s < sizeof schedules / sizeof *schedules; s++)
        for (int kind = 0; kind < 3; kind++)
            for (int tiles = 1; tiles <= 2; tiles++) {
                struct ra_replay_config config = batch(copies_backend(true), kind);
                struct ra_replay_result one, many;
                config.tile_layers = tiles;
                ra_assert_ok(replay_once(config, trace_name, schedules[s], &many, &err));
                config.batch = 1;
                ra_assert_ok(replay_once(config, trace_name, schedules[s], &one, &err));
                assert_string_equal(many.fingerprint, one.fingerprint);
                assert_string_equal(many.output_hash, one.output_hash);
                assert_memory_equal(&many.all, &one.all, sizeof one.all);
                assert_memory_equal(&many.total, &one.total, sizeof one.total);
                assert_int_equal(many.selections, one.selections);
                assert_int_equal(many.backend_bytes, COPIES * one.backend_bytes);
                assert_true(many.kernel_err_max >= one.kernel_err_max);
            }
}

static void a_lane_goes_through_all_copies(void **state)
{
    (void)state;
    struct ra_error err;
    struct ra_replay_result result;
    struct ra_replay_config config = batch(copies_backend(true), 2);
    config.tile_layers = 2;
    ra_assert_ok(replay_once(config, trace_name, "full", &result, &err));
    for (int i = 0; i < 2 * LANES * COPIES; i++) {
        assert_int_equal(copies_seen.copy[i], i % COPIES);
        assert_int_equal(copies_seen.layer[i], i / COPIES);
    }
}

/* A step is of a class when every copy is in it. */
static void steps_of_mixed_copies_are_of_no_class(void **state)
{
    (void)state;
    struct ra_error err;
    struct ra_replay_result result;
    struct ra_replay_config config = batch(copies_backend(true), 0);
    ra_assert_ok(replay_once(config, trace_name, "recycled:k=8,stride=6", &result, &err));
    assert_true(isnan(result.full_step_mean_ns) && !isnan(result.recycled_step_mean_ns));
    ra_assert_ok(replay_once(config, trace_name, "recycled:k=8,stride=3", &result,
                             &err)); /* one at each step */
    assert_true(isnan(result.full_step_mean_ns) && isnan(result.recycled_step_mean_ns));
    ra_assert_ok(replay_once(config, trace_name, "recycled:k=8,stride=1", &result, &err));
    assert_true(!isnan(result.full_step_mean_ns) && isnan(result.recycled_step_mean_ns));
    config = batch(copies_backend(true), 1);
    ra_assert_ok(replay_once(config, trace_name, "recycled:k=8,stride=3", &result, &err));
    assert_true(!isnan(result.full_step_mean_ns) && !isnan(result.recycled_step_mean_ns));
}

static void a_copy_that_goes_wrong_is_named(void **state)
{
    (void)state;
    static const struct {
        enum copies_wrong what;
        const char *policy, *text;
    } wrongs[] = {
        {COPIES_OUTPUT, "full", "output is off by"},
        {COPIES_SELECT, "recycled:k=8,stride=3,pool=1", "selection of 8"},
        {COPIES_REFRESH, "recycled:k=8,stride=3", "moved"},
        {COPIES_EVICT, "recycled:k=8,stride=3", "evicted"},
        {COPIES_COSINE, "recycled:k=8,stride=2,sim=0.9", "query cosine"},
        {COPIES_PLAYED_OFF, "recycled:k=8,stride=3", "output is off by"},
    };
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++)
        for (int copy = 0; copy < COPIES; copy++)
            for (int kind = 0; kind < 3; kind++) {
                char place[64];
                struct ra_replay_config config = batch(copies_backend(true), kind);
                copies_fault = (struct copies_fault){wrongs[i].what, 0, copy, -1};
                replay_diverges(config, trace_name, wrongs[i].policy, wrongs[i].text);
                snprintf(place, sizeof place, "copy %d: layer 0, step ", copy);
                replay_diverges(config, trace_name, wrongs[i].policy, place);
            }
}

/* Together copies are rounded otherwise than alone, and always alike. */
static void the_first_repeat_may_round_otherwise_and_no_other(void **state)
{
    (void)state;
    struct ra_error err;
    struct ra_replay_result one, many;
    struct ra_replay_config config = batch(copies_backend(true), 0);
    ra_assert_ok(replay_once(config, trace_name, "full", &one, &err));
    copies_fault = (struct copies_fault){COPIES_PLAYED, -1, 0, 0};
    ra_assert_ok(replay_once(config, trace_name, "full", &many, &err));
    assert_string_not_equal(many.output_hash, one.output_hash);
    copies_fault.copy = 1;
    ra_assert_ok(replay_once(config, trace_name, "full", &many, &err));
    assert_string_equal(many.output_hash, one.output_hash);
    copies_fault.run = 1;
    replay_diverges(config, trace_name, "full", "repeat 1: output hash");
    /* a tile rounds as tile 0 does */
    copies_fault = (struct copies_fault){COPIES_PLAYED, LANES + 1, 2, 0};
    config.tile_layers = 2;
    replay_diverges(config, trace_name, "full", "copy 2: tile 1: layer 1, step 0");
    /* copies that are alike are played as they were called */
    config = batch(copies_backend(true), 0);
    config.batch = 1;
    copies_fault = (struct copies_fault){COPIES_PLAYED, 0, 0, 0};
    replay_diverges(config, trace_name, "full", "repeat 0: output hash");
}

static void a_copy_too_short_for_its_schedule_is_refused(void **state)
{
    (void)state;
    struct ra_error err;
    struct ra_replay_result result;
    struct ra_replay_config config = batch(copies_backend(true), 1);
    config.ragged = 0.5;
    ra_assert_fails(replay_once(config, trace_name, "streaming:k=35,sinks=25", &result, &err),
                    RA_EUSAGE,
                    "copy 2, of 20 prompt tokens: streaming: sinks: expected at most the prompt's "
                    "20, got 25");
    config.quality = false;
    ra_assert_fails(replay_once(config, trace_name, "full", &result, &err), RA_EUSAGE,
                    "--ragged: needs the quality that --no-quality leaves out");
    config.spread = true;
    ra_assert_fails(replay_once(config, trace_name, "full", &result, &err), RA_EUSAGE,
                    "--phase spread: needs the quality that --no-quality leaves out");
}

static void show(void *context, const char *what, uint64_t done, uint64_t total)
{
    uint64_t *seen = context;
    if (strcmp(what, "measure") != 0)
        return;
    assert_true(done > seen[0] && done <= total && (seen[1] == 0 || seen[1] == total));
    seen[0] = done;
    seen[1] = total;
}

static void a_plan_counts_all_copies_and_progress_is_of_all(void **state)
{
    (void)state;
    struct ra_error err;
    for (int kind = 0; kind < 3; kind++) {
        uint64_t seen[2] = {0};
        struct ra_trace *trace;
        struct ra_policy_spec *spec;
        struct ra_replay_needs one, many;
        struct ra_replay_result result;
        struct ra_replay_config config = batch(copies_backend(true), kind);
        ra_assert_ok(ra_trace_open(&trace, trace_name, &err));
        ra_assert_ok(ra_policy_parse(&spec, "recycled:k=8,stride=3", &err));
        config.trace = trace;
        config.specs = &spec;
        config.progress = show;
        config.progress_context = seen;
        ra_assert_ok(ra_replay_plan(&config, &many, &err));
        ra_assert_ok(ra_replay(&config, &result, &err));
        assert_true(seen[1] > 0 && seen[0] == seen[1]);
        config.batch = 1;
        ra_assert_ok(ra_replay_plan(&config, &one, &err));
        assert_int_equal(many.spool_bytes, COPIES * one.spool_bytes);
        assert_true(many.memory_bytes > 2 * one.memory_bytes);
        ra_policy_spec_close(spec);
        ra_trace_close(trace);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_fall_evenly),
        cmocka_unit_test(accumulated_mass_is_cut_like_the_prompt),
        cmocka_unit_test(copies_are_members_only_where_they_differ),
        cmocka_unit_test(a_shorter_copy_is_a_recording_of_its_rows),
        cmocka_unit_test(a_near_tie_of_a_shorter_copy_is_one),
        cmocka_unit_test(spread_copies_that_share_a_reference_are_full_in_turn),
        cmocka_unit_test(what_is_reported_is_the_first_copys),
        cmocka_unit_test(a_lane_goes_through_all_copies),
        cmocka_unit_test(steps_of_mixed_copies_are_of_no_class),
        cmocka_unit_test(a_copy_that_goes_wrong_is_named),
        cmocka_unit_test(the_first_repeat_may_round_otherwise_and_no_other),
        cmocka_unit_test(a_copy_too_short_for_its_schedule_is_refused),
        cmocka_unit_test(a_plan_counts_all_copies_and_progress_is_of_all),
    };
    return cmocka_run_group_tests_name("engine_members", tests, NULL, NULL);
}
