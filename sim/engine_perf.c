/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passes that observe a backend whose calls are timed from outside: the steps once more for a
 * timing pass, and once more with the kernel's counters read before and after each call. Steps and
 * layers have the sums of their calls, so what the engine itself does between them is in none.
 * Events are opened before the backend, whose threads inherit them.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/clock.h"
#include "profiler/perf.h"
#include "profiler/store_pass.h"
#include "sim/engine_profile.h"
#include "sim/engine_scopes.h"

/* Bytes that a miss reads. */
enum { LINE_BYTES = 64 };

/* What is stored of the events. */
static const struct metric {
    struct ra_metric_row row;
    enum ra_perf_event event;
    int times;
} metrics[] = {
    {{"cpu_llc_loads", "cpu", "LLC-loads", "load", "loads", true}, RA_PERF_LLC_LOADS, 1},
    {{"cpu_llc_load_misses", "cpu", "LLC-load-misses", "load", "loads", true},
     RA_PERF_LLC_LOAD_MISSES,
     1},
    {{"cpu_llc_miss_bytes", "cpu", "LLC-load-misses * 64", "byte", "bytes", true},
     RA_PERF_LLC_LOAD_MISSES,
     LINE_BYTES},
    {{"cpu_instructions", "cpu", "instructions:u", "instruction", "instructions", true},
     RA_PERF_INSTRUCTIONS,
     1},
    {{"cpu_cycles", "cpu", "cycles:u", "cycle", "cycles", true}, RA_PERF_CYCLES, 1},
    {{"cpu_page_faults", "cpu", "page-faults:u", "fault", "faults", true}, RA_PERF_PAGE_FAULTS, 1},
    {{"cpu_context_switches", "cpu", "context-switches", "switch", "switches", true},
     RA_PERF_CONTEXT_SWITCHES,
     1},
};
enum { METRICS = sizeof metrics / sizeof *metrics };

/* Of every event one value. */
struct counts {
    double of[RA_PERF_EVENTS];
};

struct counting {
    const struct ra_replay_config *config;
    struct ra_perf perf;
    struct ra_scopes scopes;
    size_t n_brackets, n_read;
    struct counts *brackets;                       /* [n_brackets] as the bare passes have them */
    struct ra_perf_reading begin[RA_PERF_EVENTS];  /* of the call at hand */
    struct ra_perf_reading before[RA_PERF_EVENTS]; /* of all */
    struct ra_perf_reading after[RA_PERF_EVENTS];
};

/* --- brackets ----------------------------------------------------------------------------------
 */

static enum ra_status call_begins(void *context, struct ra_error *err)
{
    struct counting *c = context;
    return ra_perf_read(&c->perf, c->begin, err);
}

/* The recorder leaves calls of uncounted steps out, and numbers the others as they come. */
static enum ra_status call_ends(void *context, const struct ra_beat *b, struct ra_error *err)
{
    struct counting *c = context;
    struct ra_perf_reading end[RA_PERF_EVENTS];
    RA_TRY(ra_perf_read(&c->perf, end, err));
    if (b->step.t >= 0 && !ra_shape_counts(b->shape, b->step.t))
        return RA_OK;
    RA_BUG_ON(b->recorder->n_ops >= c->n_brackets);
    for (int i = 0; i < RA_PERF_EVENTS; i++)
        c->brackets[b->recorder->n_ops].of[i] = ra_perf_between(&c->begin[i], &end[i]);
    c->n_read++;
    return RA_OK;
}

/* --- values ------------------------------------------------------------------------------------
 */

static int lane_of(const struct ra_shape *shape, int layer_id)
{
    int lane = 0;
    while (shape->lanes[lane].id != layer_id)
        lane++;
    return lane;
}

static enum ra_status scope_of(struct counting *c, const struct ra_stored_pass *stored,
                               const struct ra_recorder *recorder, size_t i, int64_t *id,
                               struct ra_error *err)
{
    const struct ra_op_time *op = &recorder->ops[i];
    switch (c->config->granularity) {
    case RA_GRANULARITY_STEP:
        return ra_scopes_step(&c->scopes, op->step, id, err);
    case RA_GRANULARITY_LAYER:
        return ra_scopes_layer(&c->scopes, op->step, lane_of(c->scopes.shape, op->layer), id, err);
    default:
        *id = stored->scopes[i];
        return RA_OK;
    }
}

/* Sums of a scope's calls; a call in which an event had no counter leaves the sum unknown. */
struct sums {
    struct ra_idmap at; /* scope to index + 1 */
    int64_t *scopes;
    struct counts *counts;
    size_t n;
};

static enum ra_status add_call(struct counting *c, const struct ra_stored_pass *stored,
                               const struct ra_recorder *recorder, size_t i, struct sums *sums,
                               struct ra_error *err)
{
    int64_t scope_id = 0;
    RA_TRY(scope_of(c, stored, recorder, i, &scope_id, err));
    int64_t at = ra_idmap_get(&sums->at, (uint64_t)scope_id);
    if (at == 0) {
        at = (int64_t)++sums->n;
        RA_TRY(ra_idmap_put(&sums->at, (uint64_t)scope_id, at, err));
        sums->scopes[at - 1] = scope_id;
    }
    for (int e = 0; e < RA_PERF_EVENTS; e++)
        sums->counts[at - 1].of[e] += c->brackets[i].of[e];
    return RA_OK;
}

static enum ra_status store_sums(const struct counting *c, const struct sums *sums, int64_t pass_id,
                                 struct ra_error *err)
{
    struct ra_store *store = c->config->store;
    for (int m = 0; m < METRICS; m++) {
        struct ra_value_row row = {.pass_id = pass_id};
        if (c->perf.fds[metrics[m].event] < 0)
            continue;
        RA_TRY(ra_store_metric(store, &metrics[m].row, &row.metric_id, err));
        for (size_t i = 0; i < sums->n; i++) {
            row.scope_id = sums->scopes[i];
            row.value = sums->counts[i].of[metrics[m].event] * metrics[m].times;
            if (!isnan(row.value))
                RA_TRY(ra_store_value(store, &row, err));
        }
    }
    return RA_OK;
}

static enum ra_status store_brackets(struct counting *c, const struct ra_stored_pass *stored,
                                     const struct ra_recorder *recorder, struct ra_error *err)
{
    size_t n = recorder->n_ops;
    struct sums sums = {.scopes = calloc(n + 1, sizeof *sums.scopes),
                        .counts = calloc(n + 1, sizeof *sums.counts)};
    enum ra_status st = RA_OK;
    if (!sums.scopes || !sums.counts)
        st = ra_fail(err, RA_ENOMEM, "engine: no memory for the counters of %zu calls", n);
    for (size_t i = 0; st == RA_OK && i < n; i++)
        st = add_call(c, stored, recorder, i, &sums, err);
    if (st == RA_OK)
        st = store_sums(c, &sums, stored->ids[0], err);
    ra_idmap_clear(&sums.at);
    free(sums.scopes);
    free(sums.counts);
    return st;
}

/* --- notes -------------------------------------------------------------------------------------
 */

static enum ra_status tell(const struct counting *c, int64_t run_id, const char *text,
                           struct ra_error *err)
{
    return ra_store_diagnostic(c->config->store, run_id, "info", "profile", text, err);
}

static enum ra_status tell_refusals(const struct counting *c, int64_t run_id, struct ra_error *err)
{
    for (int i = 0; i < RA_PERF_EVENTS; i++) {
        const struct ra_perf_refusal *refusal = &c->perf.refusals[i];
        char text[512];
        if (!refusal->reason[0])
            continue;
        snprintf(text, sizeof text, "%s is not counted: %s; %s",
                 ra_perf_metric((enum ra_perf_event)i), refusal->reason, refusal->fix);
        RA_TRY(tell(c, run_id, text, err));
    }
    return RA_OK;
}

/* What of the whole pass the calls had, and which event had to share the processor's counters. */
static enum ra_status tell_totals(const struct counting *c, int64_t run_id, struct ra_error *err)
{
    for (int i = 0; i < RA_PERF_EVENTS; i++) {
        const char *name = ra_perf_metric((enum ra_perf_event)i);
        uint64_t enabled = c->after[i].enabled_ns - c->before[i].enabled_ns;
        uint64_t running = c->after[i].running_ns - c->before[i].running_ns;
        double in_calls = 0;
        char text[256];
        if (c->perf.fds[i] < 0)
            continue;
        for (size_t b = 0; b < c->n_brackets; b++)
            in_calls += c->brackets[b].of[i];
        snprintf(text, sizeof text, "counter pass: %s: %.0f in operations, %.0f in the whole pass",
                 name, in_calls, ra_perf_between(&c->before[i], &c->after[i]));
        if (!isnan(in_calls))
            RA_TRY(tell(c, run_id, text, err));
        if (running >= enabled)
            continue;
        snprintf(text, sizeof text,
                 "counter pass: %s had a counter in %.1f %% of the time, and is scaled to all of "
                 "it; where it had none it has no value",
                 name, 100 * (double)running / (double)enabled);
        RA_TRY(tell(c, run_id, text, err));
    }
    return RA_OK;
}

/* --- passes ------------------------------------------------------------------------------------
 */

static int is_timed(const struct ra_replay_config *config)
{
    return config->profile & RA_PROFILE_TIMING ? 1 : 0;
}

int ra_engine_profile_runs(const struct ra_replay_config *config)
{
    return is_timed(config) + (config->profile & RA_PROFILE_COUNTERS ? 2 : 0);
}

/* Run `number` of those behind the bare passes, in which they were checked. */
static enum ra_status call_again(struct ra_player *player, int number, struct ra_error *err)
{
    const struct ra_replay_config *config = player->beat.config;
    int repeats = config->repeats;
    return ra_player_call(player, repeats + number, repeats + ra_engine_profile_runs(config), err);
}

static void read_clocks(struct ra_clock_triple *clocks)
{
    *clocks = (struct ra_clock_triple){.realtime_ns = (uint64_t)ra_clock_unix_ns(),
                                       .monotonic_ns = ra_clock_ns()};
}

/* No kernel is launched, and none is missing. */
static enum ra_status time_calls(struct ra_player *player, struct ra_stored_pass *stored,
                                 struct ra_error *err)
{
    static const struct ra_pass_counts none = {0, 0, -1, -1, -1};
    struct ra_clock_triple begin, end;
    read_clocks(&begin);
    RA_TRY(call_again(player, 0, err));
    read_clocks(&end);
    RA_TRY(ra_player_same(player, 1, false, err));
    for (int i = 0; i < stored->n; i++) {
        RA_TRY(ra_store_pass_clocks(stored->store, stored->ids[i], &begin, &end, err));
        RA_TRY(ra_store_pass_counts(stored->store, stored->ids[i], &none, err));
    }
    return ra_stored_pass_fill(stored, player->beat.recorder, NULL, err);
}

static enum ra_status timing_pass(struct ra_player *player, struct ra_stored_pass *stored,
                                  int ordinal, struct ra_error *err)
{
    RA_TRY(ra_stored_pass_begin(stored, ordinal, "timing", err));
    return ra_stored_pass_end(stored, time_calls(player, stored, err), true, err);
}

static enum ra_status count_calls(struct ra_player *player, struct counting *c,
                                  struct ra_stored_pass *stored, struct ra_error *err)
{
    const struct ra_beat_watch watch = {.context = c, .begins = call_begins, .ends = call_ends};
    const struct ra_pass_counts counts = {-1, -1, -1, -1, 0};
    RA_TRY(ra_perf_read(&c->perf, c->before, err));
    player->beat.watch = &watch;
    enum ra_status st = call_again(player, is_timed(c->config) + 1, err);
    player->beat.watch = NULL;
    RA_TRY(st);
    RA_TRY(ra_perf_read(&c->perf, c->after, err));
    RA_TRY(ra_player_same(player, 1, false, err));
    RA_BUG_ON(c->n_read != c->n_brackets || player->beat.recorder->n_ops != c->n_brackets);
    RA_TRY(ra_store_pass_metrics(stored->store, stored->ids[0], "perf", err));
    RA_TRY(ra_store_pass_counts(stored->store, stored->ids[0], &counts, err));
    RA_TRY(store_brackets(c, stored, player->beat.recorder, err));
    return tell_totals(c, stored->runs[0], err);
}

/* Memory is touched for the first time in a run that nobody counts, as in the bare passes' first.
 */
static enum ra_status counter_pass(const struct ra_player *bare, struct counting *c,
                                   struct ra_stored_pass *stored, int ordinal, struct ra_error *err)
{
    const struct ra_members *members = bare->beat.members;
    struct ra_player player;
    enum ra_status st = ra_player_open(&player, members, bare->beat.policy, NULL, false, err);
    if (st == RA_OK)
        st = call_again(&player, is_timed(c->config), err);
    if (st == RA_OK) {
        memcpy(player.hashes, bare->hashes, (size_t)members->n * sizeof *player.hashes);
        st = ra_player_same(&player, 0, false, err);
    }
    if (st == RA_OK)
        st = ra_stored_pass_begin(stored, ordinal, "counter", err);
    if (st == RA_OK)
        st = ra_stored_pass_end(stored, count_calls(&player, c, stored, err), true, err);
    ra_player_close(&player);
    return st;
}

/* Where every event is refused there is no pass, only the reasons. */
static enum ra_status count(struct ra_player *bare, struct ra_stored_pass *stored, int ordinal,
                            struct ra_error *err)
{
    struct counting c = {.config = bare->beat.config, .n_brackets = stored->n_scopes};
    c.brackets = calloc(c.n_brackets + 1, sizeof *c.brackets);
    if (!c.brackets)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the counters of %zu calls",
                       c.n_brackets);
    ra_player_release(bare);
    ra_scopes_init(&c.scopes, stored->store, stored->runs[0], bare->beat.shape);
    int n_open = ra_perf_open(&c.perf);
    enum ra_status st = tell_refusals(&c, stored->runs[0], err);
    if (st == RA_OK && n_open > 0)
        st = counter_pass(bare, &c, stored, ordinal, err);
    ra_perf_close(&c.perf);
    ra_scopes_fini(&c.scopes);
    free(c.brackets);
    return st;
}

enum ra_status ra_engine_profile_calls(struct ra_player *player, struct ra_stored_pass *stored,
                                       int ordinal, struct ra_error *err)
{
    unsigned profile = player->beat.config->profile;
    if (!stored->store)
        return RA_OK;
    if (profile & RA_PROFILE_TIMING)
        RA_TRY(timing_pass(player, stored, ordinal++, err));
    return profile & RA_PROFILE_COUNTERS ? count(player, stored, ordinal, err) : RA_OK;
}
