/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers laid out several times in phase 2: no figure of the recording changes, memory is several
 * times as much, what goes wrong in one tile alone stops the replay and is named.
 */
#include "tests/support/ra_test.h"
#include "tests/support/replay_once.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/engine.h"
#include "tests/support/copies.h"

enum { LANES = 4, TILES = 3, N = 8 };

static const char trace_name[] = "synth:case=drift,P=40,N=8,layers=4,window=16";

static const char *const schedules[] = {
    "full",
    "recycled:k=8,stride=3",
    "recycled:k=8,stride=3,attend=after",
    "recycled:k=8,stride=2,sim=0.9",
    "recycled:k=8,stride=2,sim=0.9,scope=model-prev",
    "recycled:k=8,stride=3,share=0",
    "streaming:k=8",
    "oracle:k=8",
};

static struct ra_replay_config plain(const struct ra_backend_ops *backend)
{
    return (struct ra_replay_config){.n_policies = 1,
                                     .backend = backend,
                                     .n_threads = 1,
                                     .repeats = 2,
                                     .last_step = -1,
                                     .quality = true};
}

static void no_figure_of_the_recording_changes(void **state)
{
    (void)state;
    struct ra_error err;
    for (size_t i = 0; i < sizeof schedules / sizeof *schedules; i++)
        for (int plays = 0; plays < 2; plays++) {
            struct ra_replay_config config = plain(copies_backend(plays));
            struct ra_replay_result once, tiled[2];
            ra_assert_ok(replay_once(config, trace_name, schedules[i], &once, &err));
            for (int n = 0; n < 2; n++) {
                config.tile_layers = TILES + n;
                ra_assert_ok(replay_once(config, trace_name, schedules[i], &tiled[n], &err));
                assert_string_equal(tiled[n].fingerprint, once.fingerprint);
                assert_string_equal(tiled[n].output_hash, once.output_hash);
                assert_memory_equal(&tiled[n].all, &once.all, sizeof once.all);
                assert_memory_equal(&tiled[n].total, &once.total, sizeof once.total);
                assert_int_equal(tiled[n].selections, once.selections);
                assert_int_equal(tiled[n].full_layer_steps, once.full_layer_steps);
                assert_int_equal(isnan(tiled[n].full_step_mean_ns), isnan(once.full_step_mean_ns));
                assert_int_equal(isnan(tiled[n].recycled_step_mean_ns),
                                 isnan(once.recycled_step_mean_ns));
            }
            size_t tile = tiled[1].backend_bytes - tiled[0].backend_bytes;
            size_t rows = (size_t)LANES * (40 + N) * 2 * 8 * sizeof(float);
            assert_true(tile >= rows);
            assert_in_range(tiled[0].backend_bytes - once.backend_bytes, (TILES - 1) * tile - 4096,
                            (TILES - 1) * tile + 4096);
        }
}

static void steps_go_through_tile_after_tile(void **state)
{
    (void)state;
    struct ra_replay_config config = plain(copies_backend(false));
    struct ra_replay_result result;
    struct ra_error err;
    config.tile_layers = TILES;
    ra_assert_ok(replay_once(config, trace_name, "full", &result, &err));
    assert_true(copies_seen.n >= 2 * LANES * TILES);
    for (int i = 0; i < 2 * LANES * TILES; i++)
        assert_int_equal(copies_seen.layer[i], i % (LANES * TILES));
}

static void without_phase_1_too(void **state)
{
    (void)state;
    struct ra_replay_config config = plain(copies_backend(false));
    struct ra_replay_result once, tiled;
    struct ra_error err;
    config.quality = false;
    ra_assert_ok(replay_once(config, trace_name, schedules[1], &once, &err));
    config.tile_layers = TILES;
    ra_assert_ok(replay_once(config, trace_name, schedules[1], &tiled, &err));
    assert_string_equal(tiled.fingerprint, once.fingerprint);
    assert_string_equal(tiled.output_hash, once.output_hash);
    assert_memory_equal(&tiled.total, &once.total, sizeof once.total);
    copies_fault = (struct copies_fault){COPIES_BIT, LANES + 2, 0, 0};
    replay_diverges(config, trace_name, schedules[1], "tile 1: layer 2, step ");
}

/* Layer 0 is the first with full attention of each tile. */
static void a_tile_that_goes_wrong_is_named(void **state)
{
    (void)state;
    static const struct {
        enum copies_wrong what;
        const char *policy, *text;
    } wrongs[] = {
        {COPIES_OUTPUT, "full", "output is off by"},
        {COPIES_BIT, "recycled:k=8,stride=3", "output is not that of tile 0"},
        {COPIES_SELECT, "recycled:k=8,stride=3,pool=1", "selection of 8"},
        {COPIES_REFRESH, "recycled:k=8,stride=3", "moved"},
        {COPIES_EVICT, "recycled:k=8,stride=3", "evicted"},
        {COPIES_COSINE, "recycled:k=8,stride=2,sim=0.9", "query cosine"},
        {COPIES_PLAYED, "recycled:k=8,stride=3", "output is not that of tile 0"},
    };
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++)
        for (int tile = 1; tile < TILES; tile++) {
            char place[64];
            struct ra_replay_config config = plain(copies_backend(true));
            config.tile_layers = TILES;
            copies_fault = (struct copies_fault){wrongs[i].what, tile * LANES, 0, -1};
            replay_diverges(config, trace_name, wrongs[i].policy, wrongs[i].text);
            snprintf(place, sizeof place, "tile %d: layer 0, step ", tile);
            replay_diverges(config, trace_name, wrongs[i].policy, place);
        }
}

static void a_later_repeat_is_held_to_tile_0_too(void **state)
{
    (void)state;
    struct ra_replay_config config = plain(copies_backend(false));
    config.tile_layers = TILES;
    copies_fault = (struct copies_fault){COPIES_BIT, 2 * LANES + 1, 0, 1};
    replay_diverges(config, trace_name, "full", "tile 2: layer 1, step 0");
    config.repeats = 1;
    struct ra_replay_result result;
    struct ra_error err;
    ra_assert_ok(replay_once(config, trace_name, "full", &result, &err));
}

static void a_plan_counts_the_memory_of_all(void **state)
{
    (void)state;
    struct ra_trace *trace;
    struct ra_policy_spec *spec;
    struct ra_error err;
    struct ra_replay_needs needs[3];
    ra_assert_ok(ra_trace_open(&trace, "synth:case=drift,P=4000,N=8,layers=4", &err));
    ra_assert_ok(ra_policy_parse(&spec, "full", &err));
    struct ra_replay_config config = plain(ra_backend_find("cpu"));
    config.trace = trace;
    config.specs = &spec;
    for (int n = 0; n < 3; n++) {
        config.tile_layers = 100 * (n + 1);
        ra_assert_ok(ra_replay_plan(&config, &needs[n], &err));
    }
    assert_true(needs[0].memory_bytes > 100 * (size_t)4 * 4008 * 2 * 8 * 2);
    assert_in_range(needs[2].memory_bytes - needs[1].memory_bytes,
                    needs[1].memory_bytes - needs[0].memory_bytes - (4 << 20),
                    needs[1].memory_bytes - needs[0].memory_bytes + (4 << 20));
    assert_int_equal(needs[2].spool_bytes, needs[0].spool_bytes);
    ra_policy_spec_close(spec);
    ra_trace_close(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_figure_of_the_recording_changes),
        cmocka_unit_test(steps_go_through_tile_after_tile),
        cmocka_unit_test(without_phase_1_too),
        cmocka_unit_test(a_tile_that_goes_wrong_is_named),
        cmocka_unit_test(a_later_repeat_is_held_to_tile_0_too),
        cmocka_unit_test(a_plan_counts_the_memory_of_all),
    };
    return cmocka_run_group_tests_name("engine_tiles", tests, NULL, NULL);
}
