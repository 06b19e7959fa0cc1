/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counter passes: for each set of metrics that fits one execution the steps are played once, from
 * the same state and with nothing replayed, in ranges of steps, layers or operations. Ranges finer
 * than steps need steps that are launched one by one.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/counters.h"
#include "profiler/metrics.h"
#include "profiler/ranges.h"
#include "profiler/store_pass.h"
#include "sim/engine_profile.h"
#include "sim/engine_scopes.h"

/* Metrics of one execution. */
struct set {
    char name[64];
    struct ra_counter_choice *choices;
    size_t n;
};

struct counting {
    const struct ra_replay_config *config;
    struct ra_ranges *ranges; /* NULL: ranges are only counted */
    struct ra_scopes scopes;
    size_t n_ranges;
    bool is_open;
    int64_t at_hand; /* scope of the open range */
    struct ra_error error;
    enum ra_status status;
};

/* --- ranges ------------------------------------------------------------------------------------
 */

static enum ra_status close_range(struct counting *c, struct ra_error *err)
{
    bool was_open = c->is_open;
    c->is_open = false;
    return was_open && c->ranges ? ra_ranges_pop(c->ranges, err) : RA_OK;
}

/* What goes on in the same scope stays in its range. */
static enum ra_status open_range(struct counting *c, int64_t scope_id, struct ra_error *err)
{
    if (c->is_open && c->at_hand == scope_id)
        return RA_OK;
    RA_TRY(close_range(c, err));
    if (c->ranges)
        RA_TRY(ra_ranges_push(c->ranges, scope_id, err));
    c->is_open = true;
    c->at_hand = scope_id;
    c->n_ranges++;
    return RA_OK;
}

static void keep_failure(struct counting *c, enum ra_status st, const struct ra_error *why)
{
    if (st == RA_OK || c->status != RA_OK)
        return;
    c->status = st;
    c->error = *why;
}

static void see_step(void *context, int32_t t, bool begins)
{
    struct counting *c = context;
    struct ra_error why;
    int64_t id = 0;
    enum ra_status st = RA_OK;
    if (!begins)
        st = close_range(c, &why);
    else if (c->status == RA_OK && c->config->granularity == RA_GRANULARITY_STEP) {
        st = ra_scopes_step(&c->scopes, t, &id, &why);
        if (st == RA_OK)
            st = open_range(c, id, &why);
    }
    keep_failure(c, st, &why);
}

static void see_work(void *context, int32_t t, int layer, const char *op, bool begins)
{
    struct counting *c = context;
    struct ra_error why;
    int64_t id = 0;
    if (!begins || c->status != RA_OK || c->config->granularity == RA_GRANULARITY_STEP)
        return;
    enum ra_status st = c->config->granularity == RA_GRANULARITY_LAYER
                            ? ra_scopes_layer(&c->scopes, t, layer, &id, &why)
                            : ra_scopes_op(&c->scopes, t, layer, op, &id, &why);
    if (st == RA_OK)
        st = open_range(c, id, &why);
    keep_failure(c, st, &why);
}

static enum ra_status check_failure(const struct counting *c, struct ra_error *err)
{
    if (c->status != RA_OK && err)
        *err = c->error;
    return c->status;
}

/* --- values ------------------------------------------------------------------------------------
 */

/* Sums of a scope's ranges; what cannot be summed is kept of a scope that has one range alone. */
struct sums {
    struct ra_idmap at; /* scope to index + 1 */
    int64_t *scopes;
    int *ranges; /* of each scope */
    double *values;
    size_t n;
};

static enum ra_status find_metrics(const struct counting *c, const struct set *set, int64_t *ids,
                                   bool *additive, struct ra_error *err)
{
    for (size_t m = 0; m < set->n; m++) {
        const struct ra_counter_choice *choice = &set->choices[m];
        const struct ra_counter *row = ra_counter_find(c->config->chip, choice->name);
        const struct ra_metric *metric = ra_metric_find(choice->name);
        struct ra_counter_info info;
        RA_TRY(ra_counter_describe(c->config->chip, choice->cupti_name, &info, err));
        additive[m] = row ? row->is_additive : info.is_additive;
        RA_TRY(ra_store_metric(
            c->config->store,
            &(struct ra_metric_row){choice->name, c->config->chip, choice->cupti_name, info.block,
                                    metric ? metric->unit : info.unit, additive[m]},
            &ids[m], err));
    }
    return RA_OK;
}

static enum ra_status add_range(const struct counting *c, struct sums *sums, size_t i,
                                const struct set *set, double *values, struct ra_error *err)
{
    int64_t scope_id = 0;
    RA_TRY(ra_ranges_values(c->ranges, i, &scope_id, values, err));
    int64_t at = ra_idmap_get(&sums->at, (uint64_t)scope_id);
    if (at == 0) {
        at = (int64_t)++sums->n;
        RA_TRY(ra_idmap_put(&sums->at, (uint64_t)scope_id, at, err));
        sums->scopes[at - 1] = scope_id;
    }
    for (size_t m = 0; m < set->n; m++)
        sums->values[(size_t)(at - 1) * set->n + m] += values[m];
    sums->ranges[at - 1]++;
    return RA_OK;
}

static enum ra_status store_sums(const struct counting *c, const struct sums *sums,
                                 const struct set *set, int64_t pass_id, struct ra_error *err)
{
    int64_t ids[64];
    bool additive[64];
    RA_BUG_ON(set->n > 64);
    RA_TRY(find_metrics(c, set, ids, additive, err));
    for (size_t i = 0; i < sums->n; i++)
        for (size_t m = 0; m < set->n; m++) {
            double value = sums->values[i * set->n + m];
            if (isnan(value) || (sums->ranges[i] > 1 && !additive[m]))
                continue;
            RA_TRY(ra_store_value(c->config->store,
                                  &(struct ra_value_row){.pass_id = pass_id,
                                                         .scope_id = sums->scopes[i],
                                                         .metric_id = ids[m],
                                                         .value = value},
                                  err));
        }
    return RA_OK;
}

static enum ra_status store_ranges(const struct counting *c, size_t n, const struct set *set,
                                   int64_t pass_id, struct ra_error *err)
{
    double values[64];
    struct sums sums = {.scopes = calloc(n + 1, sizeof *sums.scopes),
                        .ranges = calloc(n + 1, sizeof *sums.ranges),
                        .values = calloc((n + 1) * set->n, sizeof *sums.values)};
    enum ra_status st = RA_OK;
    if (!sums.scopes || !sums.ranges || !sums.values)
        st = ra_fail(err, RA_ENOMEM, "engine: no memory for the counters of %zu ranges", n);
    for (size_t i = 0; st == RA_OK && i < n; i++)
        st = add_range(c, &sums, i, set, values, err);
    if (st == RA_OK)
        st = store_sums(c, &sums, set, pass_id, err);
    ra_idmap_clear(&sums.at);
    free(sums.scopes);
    free(sums.ranges);
    free(sums.values);
    return st;
}

/* --- passes ------------------------------------------------------------------------------------
 */

static enum ra_status tell_losses(const struct counting *c, const struct ra_stored_pass *stored,
                                  size_t n, size_t n_dropped, struct ra_error *err)
{
    const struct ra_pass_counts counts = {-1, -1, -1, -1, (int64_t)n_dropped};
    char text[160];
    RA_TRY(ra_store_pass_counts(c->config->store, stored->ids[0], &counts, err));
    if (n == c->n_ranges && n_dropped == 0)
        return RA_OK;
    snprintf(text, sizeof text, "counter pass: %zu of %zu ranges came, %zu were dropped", n,
             c->n_ranges, n_dropped);
    return ra_store_diagnostic(c->config->store, stored->runs[0], "warning", "profile", text, err);
}

/* The steps once, counted; *whole: every range came. */
static enum ra_status count_steps(struct ra_player *player, struct counting *c,
                                  const struct set *set, const struct ra_observed *o, bool *whole,
                                  struct ra_error *err)
{
    struct ra_stored_pass *stored = o->stored;
    int64_t launches;
    size_t n = 0, n_dropped = 0;
    c->n_ranges = 0;
    RA_TRY(ra_ranges_start(c->ranges, err));
    RA_TRY(ra_player_play(player, false, err));
    RA_TRY(check_failure(c, err));
    RA_TRY(ra_ranges_stop(c->ranges, &n, &n_dropped, err));
    RA_TRY(ra_player_same(player, 1, false, err));
    RA_TRY(ra_player_same_launches(player, o->launched, &launches, err));
    const struct ra_step_facts facts = ra_player_facts(player);
    RA_TRY(ra_stored_pass_fill(stored, player->beat.recorder, &facts, err));
    RA_TRY(store_ranges(c, n, set, stored->ids[0], err));
    *whole = n == c->n_ranges && n_dropped == 0;
    return tell_losses(c, stored, n, n_dropped, err);
}

static enum ra_status store_modes(const struct counting *c, int64_t pass_id, struct ra_error *err)
{
    const char *range, *replay;
    ra_ranges_modes(c->ranges, &range, &replay);
    return ra_store_pass_ranges(c->config->store, pass_id, range, replay, err);
}

static enum ra_status set_pass(struct ra_player *player, struct counting *c, const struct set *set,
                               const struct ra_observed *o, int ordinal, struct ra_error *err)
{
    const char *names[64];
    bool whole = false;
    size_t room = c->n_ranges;
    RA_BUG_ON(set->n > 64);
    for (size_t m = 0; m < set->n; m++)
        names[m] = set->choices[m].cupti_name;
    RA_TRY(ra_stored_pass_begin(o->stored, ordinal, "counter", err));
    enum ra_status st = ra_store_pass_metrics(c->config->store, o->stored->ids[0], set->name, err);
    if (st == RA_OK)
        st = ra_store_pass_device(c->config->store, o->stored->ids[0], o->device_id, err);
    if (st == RA_OK)
        st = ra_ranges_open(&c->ranges, c->config->chip, names, set->n, room, err);
    if (st == RA_OK)
        st = store_modes(c, o->stored->ids[0], err);
    if (st == RA_OK)
        st = count_steps(player, c, set, o, &whole, err);
    ra_ranges_close(c->ranges);
    c->ranges = NULL;
    c->n_ranges = room;
    return ra_stored_pass_end(o->stored, st, whole, err);
}

/* --- sets --------------------------------------------------------------------------------------
 */

enum { MAX_SETS = 16 };

static enum ra_status choose_set(const char *chip, const char *name, const char *method,
                                 struct set *set, struct ra_error *err)
{
    bool counted = method && strcmp(method, "synthetic") == 0; /* by the emulation, not a card */
    snprintf(set->name, sizeof set->name, "%s%s", counted ? "emu-count:" : "", name);
    return ra_counter_choose(chip, name, &set->choices, &set->n, err);
}

/* A list of the user's, shared out to executions. */
static enum ra_status split_list(const struct ra_replay_config *config, struct set *sets,
                                 int *n_sets, struct ra_error *err)
{
    struct ra_counter_choice *all = NULL;
    const char *names[64];
    size_t n = 0, run_of[64], passes[64], n_runs = 0;
    RA_TRY(ra_counter_choose(config->chip, config->counters, &all, &n, err));
    enum ra_status st =
        n <= 64 ? RA_OK
                : ra_fail(err, RA_EUSAGE, "--counters: expected at most 64 metrics, got %zu", n);
    for (size_t i = 0; st == RA_OK && i < n; i++)
        names[i] = all[i].cupti_name;
    if (st == RA_OK)
        st = ra_counter_split(config->chip, names, n, run_of, passes, &n_runs, err);
    for (size_t r = 0; st == RA_OK && r < n_runs; r++) {
        if (r == MAX_SETS || passes[r] != 1)
            st = ra_fail(err, RA_EUSAGE,
                         "--counters: %s: expected metrics of one execution each, at most %d in "
                         "all; `metrics plan` tells which need more",
                         config->counters, MAX_SETS);
        struct set *set = &sets[r];
        set->choices = st == RA_OK ? calloc(n, sizeof *set->choices) : NULL;
        if (st == RA_OK && !set->choices)
            st = ra_fail(err, RA_ENOMEM, "engine: no memory for %zu metrics", n);
        for (size_t i = 0; st == RA_OK && i < n; i++)
            if (run_of[i] == r)
                set->choices[set->n++] = all[i];
        *n_sets = st == RA_OK ? (int)r + 1 : *n_sets;
        snprintf(set->name, sizeof set->name, "chosen %zu", r);
    }
    free(all);
    return st;
}

static enum ra_status choose_sets(const struct ra_replay_config *config, struct set *sets,
                                  int *n_sets, struct ra_error *err)
{
    if (config->counters)
        return split_list(config, sets, n_sets, err);
    for (int i = 0; ra_counter_sets[i].name; i++) {
        RA_TRY(choose_set(config->chip, ra_counter_sets[i].name, config->backend->method, &sets[i],
                          err));
        *n_sets = i + 1;
    }
    return RA_OK;
}

static enum ra_status run_sets(struct ra_player *player, struct counting *c,
                               const struct ra_observed *o, struct ra_error *err)
{
    struct set sets[MAX_SETS] = {0};
    int n_sets = 0;
    RA_TRY(ra_player_call(player, 1, 2, err)); /* checked before, in the bare passes */
    memcpy(player->hashes, o->hashes, (size_t)o->members->n * sizeof *o->hashes);
    RA_TRY(ra_player_record(player, 1, 2, err));
    RA_TRY(ra_player_play(player, false, err)); /* nothing counts yet but the ranges */
    RA_TRY(check_failure(c, err));
    RA_TRY(ra_player_same(player, 0, false, err));
    enum ra_status st = choose_sets(c->config, sets, &n_sets, err);
    for (int i = 0; st == RA_OK && i < n_sets; i++)
        st = set_pass(player, c, &sets[i], o, o->ordinal + i, err);
    for (int i = 0; i < MAX_SETS; i++)
        free(sets[i].choices);
    return st;
}

enum ra_status ra_engine_count_passes(const struct ra_observed *o, struct ra_error *err)
{
    const struct ra_replay_config *config = &o->members->list[0].config;
    struct counting c = {.config = config};
    const struct ra_backend_watch watch = {.context = &c, .step = see_step, .work = see_work};
    struct ra_player player;
    bool one_by_one = config->granularity != RA_GRANULARITY_STEP;
    ra_scopes_init(&c.scopes, config->store, o->stored->runs[0], &o->members->list[0].shape);
    enum ra_status st = ra_player_open(&player, o->members, o->policy, &watch, one_by_one, err);
    if (st == RA_OK)
        st = run_sets(&player, &c, o, err);
    ra_player_close(&player);
    ra_scopes_fini(&c.scopes);
    return st;
}
