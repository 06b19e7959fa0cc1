/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several sequences in one batch: that each is measured, checked and kept as it is alone, under the
 * times of all, that what goes wrong in one is told of it, and that those are refused which one
 * backend cannot hold.
 */
#include "tests/support/ra_test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sim/engine_member.h"
#include "tests/support/copies.h"
#include "tests/support/tiny_trace.h"

enum { SEQUENCES = 3, STEPS = 8 };

/* The first is neither the longest nor the shortest. */
static const char *const names[SEQUENCES] = {
    "synth:case=drift,P=40,N=8,layers=3,window=16",
    "synth:case=drift,P=56,N=11,layers=3,window=16,seed=7",
    "synth:case=drift,P=24,N=9,layers=3,window=16,seed=9",
};

static const char *const schedules[] = {
    "full",
    "recycled:k=1/5,stride=3,pool=1",
    "recycled:k=8,stride=2,sim=0.9,attend=after",
    "streaming:k=8",
    "oracle:k=8",
};

struct batch {
    struct ra_trace *traces[SEQUENCES];
    struct ra_companion with[SEQUENCES - 1];
    struct ra_policy_spec *spec;
    struct ra_replay_config config;
};

static void open_batch(struct batch *b, const char *const *traces, const char *schedule)
{
    struct ra_error err;
    for (int i = 0; i < SEQUENCES; i++)
        ra_assert_ok(ra_trace_open(&b->traces[i], traces[i], &err));
    for (int i = 1; i < SEQUENCES; i++)
        b->with[i - 1] = (struct ra_companion){.trace = b->traces[i]};
    ra_assert_ok(ra_policy_parse(&b->spec, schedule, &err));
    b->config = (struct ra_replay_config){.trace = b->traces[0],
                                          .with = b->with,
                                          .specs = &b->spec,
                                          .n_policies = 1,
                                          .backend = copies_backend(true),
                                          .batch = SEQUENCES,
                                          .n_threads = 1,
                                          .repeats = 2,
                                          .last_step = STEPS - 1,
                                          .quality = true};
}

static void close_batch(struct batch *b)
{
    ra_policy_spec_close(b->spec);
    for (int i = 0; i < SEQUENCES; i++)
        ra_trace_close(b->traces[i]);
}

/* The sequence by itself, as one that is alike in all but its company. */
static struct ra_replay_config alone(const struct batch *b, int number)
{
    struct ra_replay_config config = b->config;
    config.trace = b->traces[number];
    config.with = NULL;
    config.batch = 1;
    return config;
}

static void each_is_what_it_is_alone(void **state)
{
    (void)state;
    struct ra_error err;
    for (size_t s = 0; s < sizeof schedules / sizeof *schedules; s++)
        for (int tiles = 1; tiles <= 2; tiles++) {
            struct batch b;
            struct ra_replay_result many[SEQUENCES], one;
            open_batch(&b, names, schedules[s]);
            b.config.tile_layers = tiles;
            ra_assert_ok(ra_replay(&b.config, many, &err));
            for (int i = 0; i < SEQUENCES; i++) {
                struct ra_replay_config config = alone(&b, i);
                ra_assert_ok(ra_replay(&config, &one, &err));
                assert_string_equal(many[i].fingerprint, one.fingerprint);
                assert_string_equal(many[i].output_hash, one.output_hash);
                assert_memory_equal(&many[i].all, &one.all, sizeof one.all);
                assert_memory_equal(&many[i].total, &one.total, sizeof one.total);
                assert_int_equal(many[i].k_resolved, one.k_resolved);
                assert_int_equal(many[i].selections, one.selections);
                assert_true(many[i].kernel_err_max == one.kernel_err_max);
                assert_true(many[i].kernel_err_bound == one.kernel_err_bound);
                assert_true(many[i].attention_ns == many[0].attention_ns);
                assert_true(many[i].backend_bytes == many[0].backend_bytes);
                for (int j = 0; j < i; j++)
                    assert_string_not_equal(many[i].fingerprint, many[j].fingerprint);
            }
            close_batch(&b);
        }
}

static void full_steps_are_spread_over_sequences(void **state)
{
    (void)state;
    struct ra_error err;
    struct batch b;
    struct ra_replay_result even[SEQUENCES], spread[SEQUENCES];
    open_batch(&b, names, "recycled:k=8,stride=3");
    ra_assert_ok(ra_replay(&b.config, even, &err));
    b.config.spread = true;
    ra_assert_ok(ra_replay(&b.config, spread, &err));
    assert_string_equal(spread[0].fingerprint, even[0].fingerprint);
    assert_string_not_equal(spread[1].fingerprint, even[1].fingerprint);
    assert_string_not_equal(spread[2].fingerprint, even[2].fingerprint);
    assert_true(!isnan(even[0].full_step_mean_ns) && isnan(spread[0].full_step_mean_ns));
    close_batch(&b);
}

static void what_goes_wrong_is_told_of_its_sequence(void **state)
{
    (void)state;
    static const struct {
        enum copies_wrong what;
        const char *policy, *text;
    } wrongs[] = {
        {COPIES_OUTPUT, "full", "output is off by"},
        {COPIES_SELECT, "recycled:k=8,stride=3,pool=1", "selection of 8"},
        {COPIES_EVICT, "recycled:k=8,stride=3", "evicted"},
        {COPIES_PLAYED_OFF, "recycled:k=8,stride=3", "output is off by"},
    };
    struct ra_error err;
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++)
        for (int number = 0; number < SEQUENCES; number++) {
            struct batch b;
            struct ra_replay_result results[SEQUENCES];
            char place[160];
            open_batch(&b, names, wrongs[i].policy);
            copies_fault = (struct copies_fault){wrongs[i].what, 0, number, -1};
            enum ra_status st = ra_replay(&b.config, results, &err);
            assert_int_equal(st, RA_EDIVERGED);
            snprintf(place, sizeof place, "%s, sequence 0: layer 0, step ", names[number]);
            assert_non_null(strstr(err.msg, place));
            assert_non_null(strstr(err.msg, wrongs[i].text));
            close_batch(&b);
        }
}

static void rounding_is_told_of_each(void **state)
{
    (void)state;
    struct ra_error err;
    struct batch b;
    struct ra_replay_result right[SEQUENCES], off[SEQUENCES];
    open_batch(&b, names, "full");
    ra_assert_ok(ra_replay(&b.config, right, &err));
    copies_fault = (struct copies_fault){COPIES_BIT, 0, 1, -1};
    ra_assert_ok(ra_replay(&b.config, off, &err));
    assert_true(off[1].kernel_err_max != right[1].kernel_err_max ||
                strcmp(off[1].output_hash, right[1].output_hash) != 0);
    for (int i = 0; i < SEQUENCES; i += 2) {
        assert_true(off[i].kernel_err_max == right[i].kernel_err_max);
        assert_string_equal(off[i].output_hash, right[i].output_hash);
    }
    close_batch(&b);
}

static void each_is_exported(void **state)
{
    (void)state;
    struct ra_error err;
    struct batch b;
    struct ra_replay_result many[SEQUENCES], one;
    char paths[SEQUENCES + 1][64];
    const char *lists[SEQUENCES + 1];
    open_batch(&b, names, "recycled:k=8,stride=3");
    for (int i = 0; i <= SEQUENCES; i++) {
        snprintf(paths[i], sizeof paths[i], "/tmp/rattn-test-batch-%d-%d.safetensors",
                 (int)getpid(), i);
        lists[i] = paths[i];
    }
    b.config.export_paths = &lists[0];
    b.with[0].export_paths = &lists[1];
    b.with[1].export_paths = &lists[2];
    ra_assert_ok(ra_replay(&b.config, many, &err));
    for (int i = 0; i < SEQUENCES; i++) {
        static char got[1 << 20], want[1 << 20];
        struct ra_replay_config config = alone(&b, i);
        config.export_paths = &lists[SEQUENCES];
        ra_assert_ok(ra_replay(&config, &one, &err));
        FILE *a = fopen(paths[i], "rb"), *e = fopen(paths[SEQUENCES], "rb");
        assert_true(a && e);
        size_t n = fread(got, 1, sizeof got, a);
        assert_int_equal(fread(want, 1, sizeof want, e), n);
        assert_true(n > 1000 && n < sizeof got);
        assert_memory_equal(got, want, n);
        fclose(a);
        fclose(e);
        unlink(paths[i]);
    }
    unlink(paths[SEQUENCES]);
    close_batch(&b);
}

static void a_plan_is_of_all(void **state)
{
    (void)state;
    struct ra_error err;
    struct batch b;
    struct ra_replay_needs many, one;
    uint64_t spool = 0;
    open_batch(&b, names, "recycled:k=8,stride=3");
    ra_assert_ok(ra_replay_plan(&b.config, &many, &err));
    for (int i = 0; i < SEQUENCES; i++) {
        struct ra_replay_config config = alone(&b, i);
        ra_assert_ok(ra_replay_plan(&config, &one, &err));
        spool += one.spool_bytes;
        assert_true(many.memory_bytes > one.memory_bytes);
    }
    assert_int_equal(many.spool_bytes, spool);
    close_batch(&b);
}

static void what_one_backend_cannot_hold_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *other, *text;
    } cases[] = {
        {"synth:case=drift,P=40,N=8,layers=3,window=16,D=64", "D = 64, Dv = 64"},
        {"synth:case=drift,P=40,N=8,layers=3,window=12",
         "expected the same layers and windows recorded"},
        {"synth:case=drift,P=40,N=8,layers=2,window=16", "expected its 3 layers"},
        {"synth:case=drift,P=40,N=7,layers=3,window=16", "expected a range within 0..6"},
    };
    struct ra_error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *traces[SEQUENCES] = {names[0], names[1], cases[i].other};
        struct batch b;
        struct ra_replay_needs needs;
        open_batch(&b, traces, "full");
        ra_assert_fails(ra_replay_plan(&b.config, &needs, &err), RA_EUSAGE, cases[i].text);
        close_batch(&b);
    }
    struct batch b;
    struct ra_replay_needs needs;
    open_batch(&b, names, "full");
    b.config.last_step = -1; /* each has its own last */
    ra_assert_fails(ra_replay_plan(&b.config, &needs, &err), RA_EUSAGE,
                    "expected 8 steps, got 11; choose those that both have (--steps)");
    b.config.last_step = STEPS - 1;
    b.config.quality = false;
    ra_assert_fails(ra_replay_plan(&b.config, &needs, &err), RA_EUSAGE,
                    "--batch of several sequences: needs the quality that --no-quality leaves out");
    close_batch(&b);
}

/* Two recordings of one shape, whose logits are not the same function of query and key. */
static void what_is_scaled_or_rotated_otherwise_is_refused(void **state)
{
    (void)state;
    static const char *const extras[][5] = {{"attn_scale", "0.25", NULL},
                                            {"rope.type", "default", "rope.theta", "500", NULL}};
    struct ra_error err;
    char paths[2][64];
    for (size_t i = 0; i < 2; i++)
        snprintf(paths[i], sizeof paths[i], "/tmp/rattn-test-batch-%d-%zu.safetensors",
                 (int)getpid(), i);
    for (size_t i = 0; i < sizeof extras / sizeof *extras; i++) {
        const char *traces[SEQUENCES] = {paths[0], paths[0], paths[1]};
        struct tiny_trace tiny = tiny_trace_default();
        struct ra_replay_needs needs;
        struct batch b;
        tiny_trace_write(paths[0], &tiny);
        tiny.extra = extras[i];
        tiny_trace_write(paths[1], &tiny);
        open_batch(&b, traces, "full");
        b.config.last_step = -1;
        ra_assert_fails(ra_replay_plan(&b.config, &needs, &err), RA_EUSAGE,
                        "expected its attn_scale 0.3 and its rotary embedding");
        b.with[1].trace = b.traces[1];
        ra_assert_ok(ra_replay_plan(&b.config, &needs, &err));
        close_batch(&b);
    }
    unlink(paths[0]);
    unlink(paths[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_what_it_is_alone),
        cmocka_unit_test(full_steps_are_spread_over_sequences),
        cmocka_unit_test(what_goes_wrong_is_told_of_its_sequence),
        cmocka_unit_test(rounding_is_told_of_each),
        cmocka_unit_test(each_is_exported),
        cmocka_unit_test(a_plan_is_of_all),
        cmocka_unit_test(what_one_backend_cannot_hold_is_refused),
        cmocka_unit_test(what_is_scaled_or_rotated_otherwise_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
