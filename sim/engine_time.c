/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Phase 2 around its steps: repeats run and stored as passes, and the repeat with the median total
 * chosen for every time figure.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/range.h"
#include "sim/base/cache.h"
#include "sim/base/stats.h"
#include "sim/engine_beat.h"

static int32_t largest_k(const struct ra_policy_spec *spec, const struct ra_shape *shape)
{
    /* C_r may hold every position when K exceeds the candidates. */
    int32_t k = ra_policy_spec_k_max(spec, shape->P), rows = shape->P + shape->run_steps;
    return k < 0 ? 0 : k < rows - 1 ? k + 1 : rows;
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

static void range_of_played_step(void *context, int32_t t, bool begins)
{
    (void)context;
    if (begins)
        ra_range_push(RA_RANGE_PLAYED, t, RA_RANGE_ALL_LAYERS, RA_OP_COUNT);
    else
        ra_range_pop();
}

static const struct ra_backend_watch ranges = {.step = range_of_played_step};

struct ra_backend_config ra_engine_backend_config(const struct ra_members *members, int policy,
                                                  int32_t *windows)
{
    const struct ra_replay_config *config = &members->list[0].config;
    const struct ra_shape *shape = &members->list[0].shape;
    const struct ra_policy_spec *spec = config->specs[policy];
    enum ra_caches caches = ra_policy_spec_caches(spec);
    int n_layers = shape->n_lanes * ra_engine_tiles(config);
    int32_t rows, retained;
    find_largest(members, spec, &rows, &retained);
    for (int l = 0; l < n_layers; l++)
        windows[l] = shape->lanes[l % shape->n_lanes].window;
    return (struct ra_backend_config){.model = shape->model,
                                      .n_layers = n_layers,
                                      .window = windows,
                                      .max_rows = rows,
                                      .n_steps = shape->run_steps + 1,
                                      .max_retained = caches == RA_CACHES_FULL ? 0 : retained,
                                      .cache = caches == RA_CACHES_REDUCED ? RA_CACHE_COMPACT
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
                                      .n_threads = config->n_threads,
                                      .watch = ra_range_enabled() ? &ranges : NULL};
}

/* Steps whose full-attention lanes were all full, or all recycled; mean of their times. */
static double class_mean(const struct ra_shape *shape, const struct ra_recorder *recorder,
                         const int *full_lanes, int want)
{
    double sum = 0;
    int n = 0;
    for (int32_t s = 0; s < shape->n_steps; s++)
        if (full_lanes[s] == want) {
            sum += (double)recorder->step_ns[s];
            n++;
        }
    return n ? sum / n : NAN;
}

static double total_ns(const struct ra_recorder *recorder)
{
    double total = 0;
    for (int32_t s = 0; s < recorder->n_steps; s++)
        total += (double)recorder->step_ns[s];
    return total;
}

/* What repeats leave: their figures, of which one repeat's are kept. */
struct passes {
    struct ra_recorder recorder; /* of the repeat at hand */
    struct ra_stored_pass stored;
    struct ra_replay_result *figures; /* [repeats], times only */
    char (*hashes)[RA_SHA256_HEX];    /* [members] of what each repeat must give */
    int32_t *windows;                 /* lent to the backend */
    size_t backend_bytes;
};

static void close_passes(struct passes *passes)
{
    ra_recorder_close(&passes->recorder);
    ra_stored_pass_close(&passes->stored);
    free(passes->figures);
    free(passes->hashes);
    free(passes->windows);
}

static enum ra_status fill_times(const struct ra_beat *b, struct ra_replay_result *result,
                                 struct ra_error *err)
{
    const struct ra_shape *shape = b->shape;
    const struct ra_recorder *recorder = b->recorder;
    size_t n = (size_t)shape->n_steps;
    bool whole = recorder->n_ops > 0 && recorder->ops[0].op == RA_OP_WHOLE_STEP;
    double *steps = malloc((n + 1) * sizeof *steps);
    if (!steps)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the times of %zu steps", n);
    RA_BUG_ON(!recorder->step_ns);
    for (size_t s = 0; s < n; s++)
        steps[s] = (double)recorder->step_ns[s];
    result->attention_ns = total_ns(recorder);
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

/* Steps that are called, each call timed or not: `number` of `of` such runs. */
static enum ra_status call_steps(struct ra_beat *b, int number, int of, struct ra_error *err)
{
    uint64_t per_run = (uint64_t)b->shape->run_steps + 1;
    uint64_t total = per_run * (uint64_t)(of * b->config->n_policies);
    uint64_t before = per_run * (uint64_t)(of * b->track->number + number);
    ra_recorder_clear(b->recorder);
    b->first_repeat = number == 0;
    memset(b->full_lanes, 0, (size_t)b->shape->n_steps * sizeof *b->full_lanes);
    return ra_beat_repeat(b, before, total, err);
}

/* A repeat that ran: into the store, its figures kept. */
static enum ra_status keep_pass(struct ra_beat *b, struct passes *passes, int number,
                                struct ra_error *err)
{
    RA_TRY(ra_stored_pass_fill(&passes->stored, b->recorder, err));
    return fill_times(b, &passes->figures[number], err);
}

static enum ra_status run_pass(struct ra_beat *b, struct passes *passes, int number,
                               struct ra_error *err)
{
    RA_TRY(ra_stored_pass_begin(&passes->stored, number, "bare", err));
    enum ra_status st = call_steps(b, number, b->config->repeats, err);
    if (st == RA_OK)
        st = keep_pass(b, passes, number, err);
    return ra_stored_pass_end(&passes->stored, st, err);
}

static enum ra_status play_steps(struct ra_beat *b, struct ra_step_time *times, bool is_first,
                                 struct ra_error *err)
{
    const float *out = NULL;
    if (b->config->stop && b->config->stop())
        return ra_fail(err, RA_EINTERRUPTED, "interrupted before a timed repeat");
    RA_TRY(b->ops->play(b->dev, times, &out, err));
    ra_recorder_clear(b->recorder);
    for (int32_t t = -1; t < b->shape->run_steps; t++) {
        const struct ra_step_time *time = &times[t + 1];
        RA_TRY(ra_recorder_step(b->recorder, t, time->begin_ns, time->end_ns, time->event_ns, err));
    }
    return ra_beat_check_played(b, out, is_first, err);
}

static enum ra_status play_pass(struct ra_beat *b, struct passes *passes, int number,
                                struct ra_step_time *times, struct ra_error *err)
{
    RA_TRY(ra_stored_pass_begin(&passes->stored, number, "bare", err));
    enum ra_status st = play_steps(b, times, number == 0, err);
    if (st == RA_OK)
        st = keep_pass(b, passes, number, err);
    return ra_stored_pass_end(&passes->stored, st, err);
}

static int median_pass(const struct passes *passes, int repeats)
{
    /* The lower median: the pass that exactly (repeats - 1) / 2 others precede. */
    for (int i = 0; i < repeats; i++) {
        int before = 0;
        double own = passes->figures[i].attention_ns;
        for (int j = 0; j < repeats; j++) {
            double other = passes->figures[j].attention_ns;
            before += other < own || (other == own && j < i);
        }
        if (before == (repeats - 1) / 2)
            return i;
    }
    return 0;
}

static void copy_times(const struct ra_replay_result *from, struct ra_replay_result *to)
{
    to->attention_ns = from->attention_ns;
    to->step_mean_ns = from->step_mean_ns;
    to->step_p50_ns = from->step_p50_ns;
    to->step_p99_ns = from->step_p99_ns;
    to->full_step_mean_ns = from->full_step_mean_ns;
    to->recycled_step_mean_ns = from->recycled_step_mean_ns;
    to->prefill_ns = from->prefill_ns;
    memcpy(to->ops_ns, from->ops_ns, sizeof to->ops_ns);
}

/* What each repeat gives of a member is the same; `is_first` says what. */
static enum ra_status same_outputs(const struct ra_beat *b, struct passes *passes, int repeat,
                                   bool is_first, struct ra_error *err)
{
    for (int i = 0; i < b->members->n; i++) {
        char hash[RA_SHA256_HEX], *first = passes->hashes[i];
        ra_sha256_hex(&b->output[i], hash);
        if (is_first)
            memcpy(first, hash, sizeof hash);
        if (strcmp(hash, first) == 0)
            continue;
        enum ra_status st =
            ra_fail(err, RA_EDIVERGED, "repeat %d: output hash %.16s, the first was %.16s", repeat,
                    hash, first);
        return ra_member_fail(b->members, i, st, err);
    }
    return RA_OK;
}

/* Every repeat calls the steps; the first is checked, and timed like the others. */
static enum ra_status run_called(struct ra_beat *b, struct passes *passes, struct ra_error *err)
{
    for (int r = 0; r < b->config->repeats; r++) {
        RA_TRY(run_pass(b, passes, r, err));
        RA_TRY(same_outputs(b, passes, r, r == 0, err));
    }
    return RA_OK;
}

/* Repeats play the recording: what the checked run gave, bit for bit. Members that the checked run
 * took one by one are played together: what the first repeat gave, which was checked. */
static enum ra_status play_repeats(struct ra_beat *b, struct passes *passes,
                                   struct ra_step_time *times, struct ra_error *err)
{
    bool apart = b->members->n > 1;
    for (int r = 0; r < b->config->repeats; r++) {
        RA_TRY(play_pass(b, passes, r, times, err));
        RA_TRY(same_outputs(b, passes, r, apart && r == 0, err));
    }
    return RA_OK;
}

/* The steps are called once, checked, and once more to be recorded. */
static enum ra_status run_played(struct ra_beat *b, struct passes *passes, struct ra_error *err)
{
    struct ra_step_time *times = calloc((size_t)b->shape->run_steps + 1, sizeof *times);
    if (!times)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the times of %d steps",
                       b->shape->run_steps);
    enum ra_status st = call_steps(b, 0, 2, err);
    if (st == RA_OK)
        st = same_outputs(b, passes, 0, true, err);
    if (st == RA_OK)
        st = b->ops->record_begin(b->dev, err);
    b->is_recording = st == RA_OK;
    if (st == RA_OK)
        st = call_steps(b, 1, 2, err);
    b->is_recording = false;
    if (st == RA_OK)
        st = play_repeats(b, passes, times, err);
    if (st == RA_OK)
        st = ra_beat_count(b, &passes->stored, b->config->repeats, err);
    free(times);
    return st;
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
static void fill_result(const struct ra_beat *b, const struct passes *passes, int number,
                        struct ra_replay_result *result)
{
    const struct ra_replay_config *config = b->config;
    const struct ra_track *track = &b->members->list[number].tracks[b->policy];
    bool is_exact = config->quality && (b->ops->caps & RA_CAP_EXACT);
    size_t cache = b->ops->cache_bytes ? b->ops->cache_bytes() : ra_cache_bytes();
    result->kernel_err_max = is_exact ? worst_err(b, number) : NAN;
    result->kernel_err_bound = ra_kernel_err_bound(track->max_abs_logit);
    result->is_timed = b->ops->method != NULL;
    result->repeats = config->repeats;
    result->backend_bytes = passes->backend_bytes;
    result->is_cache_resident = kv_bytes(b) <= (double)cache && !config->between;
    memcpy(result->output_hash, passes->hashes[number], sizeof result->output_hash);
    copy_times(&passes->figures[median_pass(passes, config->repeats)], result);
}

static enum ra_status run_passes(struct ra_beat *b, struct passes *passes, struct ra_error *err)
{
    const struct ra_shape *shape = b->shape;
    int n_lanes = shape->n_lanes * ra_engine_tiles(b->config) * b->members->n;
    RA_TRY(ra_recorder_open(&passes->recorder, shape->first_step, shape->n_steps,
                            (size_t)n_lanes * ((size_t)shape->n_steps + 1) * 4, err));
    RA_TRY(ra_stored_pass_open(&passes->stored, b->members, b->policy, err));
    b->recorder = &passes->recorder;
    return b->ops->play ? run_played(b, passes, err) : run_called(b, passes, err);
}

static enum ra_status open_backend(struct ra_beat *b, struct passes *passes, struct ra_error *err)
{
    size_t n_layers = (size_t)b->shape->n_lanes * (size_t)ra_engine_tiles(b->config);
    int32_t *windows = calloc(n_layers, sizeof *windows);
    passes->figures = calloc((size_t)b->config->repeats, sizeof *passes->figures);
    passes->hashes = calloc((size_t)b->members->n, sizeof *passes->hashes);
    passes->windows = windows;
    if (!windows || !passes->figures || !passes->hashes)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for %d repeats", b->config->repeats);
    struct ra_backend_config backend = ra_engine_backend_config(b->members, b->policy, windows);
    passes->backend_bytes = b->ops->memory(&backend);
    return b->ops->open(&b->dev, &backend, err);
}

enum ra_status ra_engine_time(const struct ra_members *members, int policy,
                              struct ra_replay_result *results, struct ra_error *err)
{
    const struct ra_replay_config *config = &members->list[0].config;
    struct ra_beat b = {.members = members, .policy = policy, .ops = config->backend};
    struct passes passes = {0};
    enum ra_status st = ra_beat_open(&b, err);
    if (st == RA_OK)
        st = open_backend(&b, &passes, err);
    if (st == RA_OK)
        st = run_passes(&b, &passes, err);
    for (int i = 0; st == RA_OK && i < ra_replay_sequences(config); i++)
        fill_result(&b, &passes, i, &results[i * config->n_policies + policy]);
    b.ops->close(b.dev);
    ra_beat_close(&b);
    for (int i = 0; i < members->n; i++)
        ra_track_end(&members->list[i].tracks[policy]);
    close_passes(&passes);
    return st;
}
