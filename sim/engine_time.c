/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Phase 2 around its steps: repeats run and stored as passes, and the repeat with the median total
 * chosen for every time figure.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/cache.h"
#include "sim/base/stats.h"
#include "sim/engine_profile.h"

static int32_t largest_k(const struct ra_policy_spec *spec, const struct ra_shape *shape)
{
    /* C_r may hold every position when K exceeds the candidates. */
    int32_t rows = shape->P + shape->run_steps;
    int32_t k = ra_policy_spec_most(spec, shape->P, shape->run_steps);
    return k < 0 || k >= rows - 1 ? rows : k + 1;
}

/* Rows of the longest member, and the most that one retains. */
static void find_largest(const struct ra_members *members, const struct ra_policy_spec *spec,
                         int32_t *rows, int32_t *retained)
{
    *rows = *retained = 0;
    for (int i = 0; i < members->n; i++) {
        const struct ra_shape *shape = &members->list[i].shape;
        int32_t own = shape->P + shape->run_steps, k = largest_k(spec, shape);
        *rows = own > *rows ? own : *rows;
        *retained = k > *retained ? k : *retained;
    }
}

enum ra_status ra_backend_layers_open(struct ra_backend_layers *layers, size_t n,
                                      struct ra_error *err)
{
    layers->windows = calloc(n, sizeof *layers->windows);
    layers->pages = calloc(n, sizeof *layers->pages);
    if (!layers->windows || !layers->pages)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for %zu layers", n);
    return RA_OK;
}

void ra_backend_layers_close(struct ra_backend_layers *layers)
{
    free(layers->windows);
    free(layers->pages);
    *layers = (struct ra_backend_layers){0};
}

static void fill_layer(struct ra_backend_layers *layers, int number, const struct ra_lane *lane,
                       const struct ra_policy_spec *spec, int32_t P)
{
    layers->windows[number] = lane->window;
    layers->pages[number] = (struct ra_page_rule){0};
    if (!lane->window)
        ra_policy_spec_pages(spec, lane->id, P, &layers->pages[number]);
}

struct ra_backend_config ra_engine_backend_config(const struct ra_members *members, int policy,
                                                  struct ra_backend_layers *layers)
{
    const struct ra_replay_config *config = &members->list[0].config;
    const struct ra_shape *shape = &members->list[0].shape;
    const struct ra_policy_spec *spec = config->specs[policy];
    enum ra_caches caches = ra_policy_spec_caches(spec);
    int n_layers = shape->n_lanes * ra_engine_tiles(config);
    int32_t rows, retained;
    bool chooses = ra_policy_spec_ops(spec)->install != NULL;
    find_largest(members, spec, &rows, &retained);
    for (int l = 0; l < n_layers; l++)
        fill_layer(layers, l, &shape->lanes[l % shape->n_lanes], spec, shape->P);
    return (struct ra_backend_config){.model = shape->model,
                                      .n_layers = n_layers,
                                      .window = layers->windows,
                                      .pages = layers->pages,
                                      .max_rows = rows,
                                      .n_steps = shape->run_steps + 1,
                                      .max_retained =
                                          caches == RA_CACHES_FULL && !chooses ? 0 : retained,
                                      .cache = caches == RA_CACHES_REDUCED ? RA_CACHE_COMPACT
                                               : caches == RA_CACHES_FULL  ? RA_CACHE_GATHER
                                                                           : config->cache,
                                      .page = config->page,
                                      .batch = config->batch,
                                      .apart = members->n > 1,
                                      .scores = config->scores,
                                      .decide = config->decide,
                                      .select = config->select,
                                      .early = config->early,
                                      .no_graph = config->no_graph,
                                      .between = config->between,
                                      .n_threads = config->n_threads};
}

/* Steps whose full-attention lanes were all full, or all recycled; mean of their times. Late ones
 * have none, here as below. */
static double class_mean(const struct ra_shape *shape, const struct ra_recorder *recorder,
                         const int *full_lanes, int want)
{
    double sum = 0;
    int n = 0;
    for (int32_t s = 0; s < shape->n_steps; s++)
        if (full_lanes[s] == want && !recorder->step_late[s]) {
            sum += (double)recorder->step_ns[s];
            n++;
        }
    return n ? sum / n : NAN;
}

/* What repeats leave: their figures, of which one repeat's are kept. */
struct passes {
    struct ra_player player;
    struct ra_stored_pass stored;
    struct ra_replay_result *figures; /* [repeats], times only */
};

static void close_passes(struct passes *passes)
{
    ra_player_close(&passes->player);
    ra_stored_pass_close(&passes->stored);
    free(passes->figures);
}

static enum ra_status fill_times(const struct ra_beat *b, struct ra_replay_result *result,
                                 struct ra_error *err)
{
    const struct ra_shape *shape = b->shape;
    const struct ra_recorder *recorder = b->recorder;
    size_t n = 0;
    bool whole = recorder->n_ops > 0 && recorder->ops[0].op == RA_OP_WHOLE_STEP;
    double *steps = malloc(((size_t)shape->n_steps + 1) * sizeof *steps), total = 0;
    if (!steps)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the times of %d steps",
                       shape->n_steps);
    RA_BUG_ON(!recorder->step_ns);
    for (int32_t s = 0; s < shape->n_steps; s++)
        if (!recorder->step_late[s]) {
            steps[n++] = (double)recorder->step_ns[s];
            total += (double)recorder->step_ns[s];
        }
    result->late_steps = recorder->n_late;
    result->attention_ns = n ? total : NAN;
    result->step_mean_ns = ra_mean(steps, n);
    ra_sort(steps, n);
    result->step_p50_ns = ra_percentile(steps, n, 50);
    result->step_p99_ns = ra_percentile(steps, n, 99);
    result->full_step_mean_ns = class_mean(shape, recorder, b->full_lanes,
                                           shape->n_full * b->track->n_tiles * b->members->n);
    result->recycled_step_mean_ns = class_mean(shape, recorder, b->full_lanes, 0);
    result->prefill_ns = (double)recorder->prefill_ns;
    for (int op = 0; op < RA_OP_COUNT; op++)
        result->ops_ns[op] = whole ? NAN : (double)recorder->op_ns[op];
    free(steps);
    return RA_OK;
}

/* A repeat that ran: into the store, its figures kept. */
static enum ra_status keep_pass(struct passes *passes, int number, struct ra_error *err)
{
    const struct ra_beat *b = &passes->player.beat;
    struct ra_step_facts facts = {0};
    bool played = b->ops->play && b->ops->launched;
    if (played)
        facts = ra_player_facts(&passes->player);
    RA_TRY(ra_stored_pass_fill(&passes->stored, b->recorder, played ? &facts : NULL, err));
    return fill_times(b, &passes->figures[number], err);
}

static enum ra_status run_pass(struct passes *passes, int number, struct ra_error *err)
{
    const struct ra_replay_config *config = passes->player.beat.config;
    int of = config->repeats + ra_engine_profile_runs(config);
    RA_TRY(ra_stored_pass_begin(&passes->stored, number, "bare", err));
    enum ra_status st = ra_player_call(&passes->player, number, of, err);
    if (st == RA_OK)
        st = keep_pass(passes, number, err);
    return ra_stored_pass_end(&passes->stored, st, true, err);
}

static enum ra_status play_pass(struct passes *passes, int number, struct ra_error *err)
{
    RA_TRY(ra_stored_pass_begin(&passes->stored, number, "bare", err));
    enum ra_status st = ra_player_play(&passes->player, number == 0, err);
    if (st == RA_OK)
        st = keep_pass(passes, number, err);
    return ra_stored_pass_end(&passes->stored, st, true, err);
}

/* The lower median by the mean of a step, for late steps of one pass may be others than those of
 * another: of the n passes that have a time the one that exactly (n - 1) / 2 of them precede. The
 * first where none has. */
static int median_pass(const struct passes *passes, int repeats)
{
    int n = 0;
    for (int i = 0; i < repeats; i++)
        n += !isnan(passes->figures[i].step_mean_ns);
    for (int i = 0; i < repeats; i++) {
        int before = 0;
        double own = passes->figures[i].step_mean_ns;
        for (int j = 0; j < repeats; j++) {
            double other = passes->figures[j].step_mean_ns;
            before += other < own || (other == own && j < i);
        }
        if (!isnan(own) && before == (n - 1) / 2)
            return i;
    }
    return 0;
}

static void copy_times(const struct ra_replay_result *from, struct ra_replay_result *to)
{
    to->late_steps = from->late_steps;
    to->attention_ns = from->attention_ns;
    to->step_mean_ns = from->step_mean_ns;
    to->step_p50_ns = from->step_p50_ns;
    to->step_p99_ns = from->step_p99_ns;
    to->full_step_mean_ns = from->full_step_mean_ns;
    to->recycled_step_mean_ns = from->recycled_step_mean_ns;
    to->prefill_ns = from->prefill_ns;
    memcpy(to->ops_ns, from->ops_ns, sizeof to->ops_ns);
}

/* Every repeat calls the steps; the first is checked, and timed like the others. */
static enum ra_status run_called(struct passes *passes, struct ra_error *err)
{
    int repeats = passes->player.beat.config->repeats;
    for (int r = 0; r < repeats; r++) {
        RA_TRY(run_pass(passes, r, err));
        RA_TRY(ra_player_same(&passes->player, r, r == 0, err));
    }
    return ra_engine_profile_calls(&passes->player, &passes->stored, repeats, err);
}

/* The steps are called once, checked, and once more to be recorded. Repeats play the recording:
 * what the checked run gave, bit for bit. Members that the checked run took one by one are played
 * together: what the first repeat gave, which was checked. */
static enum ra_status run_played(struct passes *passes, struct ra_error *err)
{
    struct ra_beat *b = &passes->player.beat;
    bool apart = b->members->n > 1;
    RA_TRY(ra_player_call(&passes->player, 0, 2, err));
    RA_TRY(ra_player_same(&passes->player, 0, true, err));
    RA_TRY(ra_player_record(&passes->player, 1, 2, err));
    for (int r = 0; r < b->config->repeats; r++) {
        RA_TRY(play_pass(passes, r, err));
        RA_TRY(ra_player_same(&passes->player, r, apart && r == 0, err));
    }
    RA_TRY(ra_beat_count(b, &passes->stored, b->config->repeats, err));
    return ra_engine_profile(
        &(struct ra_observed){.members = b->members,
                              .policy = b->policy,
                              .stored = &passes->stored,
                              .hashes = passes->player.hashes,
                              .launched = b->ops->launched ? b->ops->launched(b->dev) : NULL,
                              .ordinal = b->config->repeats + 1},
        err);
}

/* K and V of all layers and copies when the last step is over. */
static double kv_bytes(const struct ra_beat *b)
{
    double rows = 0, n_layers = b->shape->n_lanes * ra_engine_tiles(b->config);
    for (int i = 0; i < b->members->n; i++)
        rows += b->members->list[i].shape.P + b->shape->run_steps;
    if (b->members->n == 1 && b->config->batch > 1)
        rows *= b->config->batch;
    return rows * n_layers * b->shape->model->Hkv * (double)ra_model_row_bytes(b->shape->model);
}

/* Of copies that differ the largest error is told, of sequences each one's own. */
static double worst_err(const struct ra_beat *b, int number)
{
    double worst = 0;
    for (int i = 0; i < b->members->n; i++)
        if (i == number || !b->config->with)
            worst = fmax(worst, b->members->list[i].tracks[b->policy].worst_err);
    return worst;
}

/* What there is to say of one sequence, beside the times of all together. */
static void fill_result(const struct passes *passes, int number, struct ra_replay_result *result)
{
    const struct ra_beat *b = &passes->player.beat;
    const struct ra_replay_config *config = b->config;
    const struct ra_track *track = &b->members->list[number].tracks[b->policy];
    bool is_exact = config->quality && (b->ops->caps & RA_CAP_EXACT);
    size_t cache = b->ops->cache_bytes ? b->ops->cache_bytes() : ra_cache_bytes();
    result->kernel_err_max = is_exact ? worst_err(b, number) : NAN;
    result->kernel_err_bound = ra_kernel_err_bound(track->max_abs_logit);
    result->is_timed = b->ops->method != NULL;
    result->repeats = config->repeats;
    result->backend_bytes = passes->player.backend_bytes;
    result->is_cache_resident = kv_bytes(b) <= (double)cache && !config->between;
    memcpy(result->output_hash, passes->player.hashes[number], sizeof result->output_hash);
    copy_times(&passes->figures[median_pass(passes, config->repeats)], result);
}

/* What is left out of the times that are told, in the store of every run that has them. */
static enum ra_status tell_late(const struct passes *passes, struct ra_error *err)
{
    const struct ra_replay_config *config = passes->player.beat.config;
    const struct ra_stored_pass *stored = &passes->stored;
    int pass = median_pass(passes, config->repeats);
    const struct ra_replay_result *figures = &passes->figures[pass];
    char text[200];
    if (figures->late_steps == 0)
        return RA_OK;
    snprintf(
        text, sizeof text,
        "bare pass %d, whose times are told: %d of %d steps have none, since the device waited "
        "in them for the host",
        pass, figures->late_steps, passes->player.beat.shape->n_steps);
    for (int i = 0; i < stored->n; i++)
        RA_TRY(ra_store_diagnostic(stored->store, stored->runs[i], "warning", "replay", text, err));
    return RA_OK;
}

static enum ra_status run_passes(struct passes *passes, const struct ra_members *members,
                                 int policy, struct ra_error *err)
{
    const struct ra_replay_config *config = &members->list[0].config;
    passes->figures = calloc((size_t)config->repeats, sizeof *passes->figures);
    if (!passes->figures)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for %d repeats", config->repeats);
    RA_TRY(ra_stored_pass_open(&passes->stored, members, policy, err));
    RA_TRY(config->backend->play ? run_played(passes, err) : run_called(passes, err));
    return tell_late(passes, err);
}

enum ra_status ra_engine_time(const struct ra_members *members, int policy,
                              struct ra_replay_result *results, struct ra_error *err)
{
    const struct ra_replay_config *config = &members->list[0].config;
    struct passes passes = {0};
    enum ra_status st = ra_player_open(&passes.player, members, policy, NULL, false, err);
    if (st == RA_OK)
        st = run_passes(&passes, members, policy, err);
    for (int i = 0; st == RA_OK && i < ra_replay_sequences(config); i++)
        fill_result(&passes, i, &results[i * config->n_policies + policy]);
    close_passes(&passes);
    for (int i = 0; i < members->n; i++)
        ra_track_end(&members->list[i].tracks[policy]);
    return st;
}
