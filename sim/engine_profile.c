/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The timing pass. CUPTI is attached before graphs are made, so the backend is opened anew; the
 * steps are played once unseen, and once for the store. Callbacks cannot fail: what goes wrong in
 * one is kept and told after the play.
 */
#include "sim/engine_profile.h"

#include <stdio.h>
#include <string.h>

#include "profiler/activity.h"
#include "profiler/gpu.h"
#include "sim/engine_scopes.h"

struct watcher {
    struct ra_activity *activity;
    struct ra_scopes scopes;
    int n_pushed[2]; /* by enum ra_activity_scope */
    enum ra_status status;
    struct ra_error error;
};

static void keep_failure(struct watcher *w, enum ra_status st, const struct ra_error *why)
{
    if (st == RA_OK || w->status != RA_OK)
        return;
    w->status = st;
    w->error = *why;
}

static enum ra_status check_failure(const struct watcher *w, struct ra_error *err)
{
    if (w->status != RA_OK && err)
        *err = w->error;
    return w->status;
}

/* What was not pushed is not popped. */
static enum ra_status push(struct watcher *w, enum ra_activity_scope kind, int64_t id,
                           struct ra_error *err)
{
    RA_TRY(ra_activity_push(w->activity, kind, id, err));
    w->n_pushed[kind]++;
    return RA_OK;
}

static enum ra_status pop(struct watcher *w, enum ra_activity_scope kind, struct ra_error *err)
{
    if (w->n_pushed[kind] == 0)
        return RA_OK;
    w->n_pushed[kind]--;
    return ra_activity_pop(w->activity, kind, err);
}

static void see_step(void *context, int32_t t, bool begins)
{
    struct watcher *w = context;
    struct ra_error why;
    int64_t id = 0;
    enum ra_status st = RA_OK;
    if (!begins)
        st = pop(w, RA_ACTIVITY_STEP, &why);
    else if ((st = ra_scopes_step(&w->scopes, t, &id, &why)) == RA_OK)
        st = push(w, RA_ACTIVITY_STEP, id, &why);
    keep_failure(w, st, &why);
}

static void see_work(void *context, int32_t t, int layer, const char *op, bool begins)
{
    struct watcher *w = context;
    struct ra_error why;
    int64_t id = 0;
    enum ra_status st = RA_OK;
    if (!begins)
        st = pop(w, RA_ACTIVITY_OP, &why);
    else if ((st = ra_scopes_op(&w->scopes, t, layer, op, &id, &why)) == RA_OK)
        st = push(w, RA_ACTIVITY_OP, id, &why);
    keep_failure(w, st, &why);
}

static void see_node(void *context, int32_t t, int layer, const char *op, void *node)
{
    struct watcher *w = context;
    struct ra_error why;
    int64_t id = 0;
    if (!node)
        return; /* its kernels are of their step, as the graph's launch says */
    enum ra_status st = ra_scopes_op(&w->scopes, t, layer, op, &id, &why);
    if (st == RA_OK)
        st = ra_activity_node(w->activity, node, id, &why);
    keep_failure(w, st, &why);
}

/* Every kernel came, with its time, and nothing that might have held one was lost. */
static bool is_whole(int64_t expected, const struct ra_activity_counts *counts)
{
    return counts->kernels == expected && counts->dropped <= 0 && counts->zero_time == 0 &&
           counts->unreadable == 0 && counts->refused == 0;
}

static enum ra_status tell_losses(const struct ra_replay_config *config, int64_t run_id,
                                  int64_t pass_id, int64_t expected,
                                  const struct ra_activity_counts *counts, struct ra_error *err)
{
    const struct ra_pass_counts stored = {.launches_expected = expected,
                                          .kernels_recorded = counts->kernels,
                                          .records_dropped = counts->dropped,
                                          .kernels_zero_time = counts->zero_time,
                                          .ranges_dropped = -1};
    char text[320];
    RA_TRY(ra_store_pass_counts(config->store, pass_id, &stored, err));
    if (is_whole(expected, counts))
        return RA_OK;
    snprintf(text, sizeof text,
             "timing pass: %lld of %lld kernels recorded, %lld records dropped, %lld kernels "
             "without a time, %lld buffers not read to their end, %lld buffers refused",
             (long long)counts->kernels, (long long)expected, (long long)counts->dropped,
             (long long)counts->zero_time, (long long)counts->unreadable,
             (long long)counts->refused);
    return ra_store_diagnostic(config->store, run_id, "warning", "profile", text, err);
}

/* The steps, watched, into the pass that is open; *whole: nothing of them is missing. */
static enum ra_status watch_steps(struct ra_player *player, struct watcher *w,
                                  const struct ra_observed *o, bool *whole, struct ra_error *err)
{
    const struct ra_replay_config *config = player->beat.config;
    struct ra_stored_pass *stored = o->stored;
    struct ra_clock_triple begin, end;
    struct ra_activity_counts counts;
    int64_t expected;
    ra_activity_clocks(w->activity, &begin);
    RA_TRY(ra_player_play(player, false, err));
    ra_activity_clocks(w->activity, &end);
    RA_TRY(check_failure(w, err));
    RA_TRY(ra_player_same(player, 1, false, err));
    RA_TRY(ra_player_same_launches(player, o->launched, &expected, err));
    RA_TRY(ra_store_pass_clocks(config->store, stored->ids[0], &begin, &end, err));
    const struct ra_step_facts facts = ra_player_facts(player);
    RA_TRY(ra_stored_pass_fill(stored, player->beat.recorder, &facts, err));
    RA_TRY(ra_activity_collect(w->activity, config->store, stored->ids[0], &counts, err));
    *whole = is_whole(expected, &counts);
    return tell_losses(config, stored->runs[0], stored->ids[0], expected, &counts, err);
}

static enum ra_status record_watched(struct ra_player *player, struct watcher *w,
                                     const struct ra_observed *o, struct ra_error *err)
{
    RA_TRY(ra_player_call(player, 1, 2, err)); /* checked before, in the bare passes */
    memcpy(player->hashes, o->hashes, (size_t)o->members->n * sizeof *o->hashes);
    RA_TRY(ra_player_record(player, 1, 2, err));
    RA_TRY(ra_player_play(player, false, err));
    RA_TRY(check_failure(w, err));
    RA_TRY(ra_player_same(player, 0, false, err));
    return ra_activity_discard(w->activity, err);
}

static enum ra_status timing_pass(const struct ra_observed *o, struct watcher *w,
                                  struct ra_error *err)
{
    const struct ra_backend_watch watch = {
        .context = w, .step = see_step, .work = see_work, .node = see_node};
    struct ra_player player;
    bool whole = false;
    enum ra_status st = ra_player_open(&player, o->members, o->policy, &watch, false, err);
    if (st == RA_OK)
        st = record_watched(&player, w, o, err);
    if (st == RA_OK)
        st = ra_stored_pass_begin(o->stored, o->ordinal, "timing", err);
    if (st == RA_OK) {
        st = ra_store_pass_device(o->stored->store, o->stored->ids[0], o->device_id, err);
        if (st == RA_OK)
            st = watch_steps(&player, w, o, &whole, err);
        st = ra_stored_pass_end(o->stored, st, whole, err);
    }
    ra_player_close(&player);
    return st;
}

static enum ra_status time_kernels(const struct ra_observed *o, struct ra_error *err)
{
    struct watcher w = {.status = RA_OK};
    ra_scopes_init(&w.scopes, o->stored->store, o->stored->runs[0], &o->members->list[0].shape);
    enum ra_status st = ra_activity_open(&w.activity, err);
    if (st == RA_OK)
        st = timing_pass(o, &w, err);
    ra_activity_close(w.activity);
    ra_scopes_fini(&w.scopes);
    return st;
}

static enum ra_status store_device(const struct ra_replay_config *config, int64_t run_id,
                                   int64_t *device_id, struct ra_error *err)
{
    struct ra_gpu gpu;
    RA_TRY(ra_gpu_describe(&gpu, err));
    gpu.row.run_id = run_id;
    gpu.row.chip = config->chip && config->chip[0] ? config->chip : NULL;
    return ra_store_device(config->store, &gpu.row, device_id, err);
}

enum ra_status ra_engine_profile(const struct ra_observed *observed, struct ra_error *err)
{
    unsigned profile = observed->members->list[0].config.profile;
    struct ra_observed o = *observed;
    struct ra_stored_pass first = *observed->stored;
    first.n = 1; /* of a batch's runs the first has what was recorded */
    o.stored = &first;
    if (profile)
        RA_TRY(store_device(&observed->members->list[0].config, first.runs[0], &o.device_id, err));
    if (profile & RA_PROFILE_TIMING) {
        RA_TRY(time_kernels(&o, err));
        o.ordinal++;
    }
    return profile & RA_PROFILE_COUNTERS ? ra_engine_count_passes(&o, err) : RA_OK;
}
