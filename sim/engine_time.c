/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Phase 2 around its steps: decode rows made resident, repeats run and stored as passes, and the
 * repeat with the median total chosen for every time figure.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/range.h"
#include "sim/base/cache.h"
#include "sim/base/stats.h"
#include "sim/engine_beat.h"

void ra_decode_rows_close(struct ra_decode_rows *rows)
{
    free(rows->k);
    free(rows->v);
    free(rows->q);
    free(rows->prompt);
}

/* Turn head-major rows as recorded into one contiguous row per step, all heads together. */
static void scatter(const char *from, size_t n, size_t row, char *to, size_t step)
{
    for (size_t i = 0; i < n; i++)
        memcpy(to + i * step, from + i * row, row);
}

static enum ra_status read_lane_rows(struct ra_decode_rows *rows,
                                     const struct ra_replay_config *config,
                                     const struct ra_shape *shape, int lane, char *buffer,
                                     struct ra_error *err)
{
    const struct ra_model *m = shape->model;
    size_t e = ra_dtype_bytes(m->dtype), n = (size_t)shape->run_steps, l = (size_t)lane;
    size_t D = (size_t)m->D * e, Dv = (size_t)m->Dv * e;
    size_t Hkv = (size_t)m->Hkv, Hq = (size_t)m->Hq;
    int index = shape->lanes[lane].index;
    for (int h = 0; h < m->Hkv; h++) {
        struct ra_trace_slice slice = {config->seq, index,    RA_TRACE_K,
                                       h,           shape->P, shape->run_steps};
        RA_TRY(ra_shape_read(shape, config->trace, slice, buffer, err));
        scatter(buffer, n, D, rows->k + l * n * Hkv * D + (size_t)h * D, Hkv * D);
        slice.part = RA_TRACE_V;
        RA_TRY(ra_shape_read(shape, config->trace, slice, buffer, err));
        scatter(buffer, n, Dv, rows->v + l * n * Hkv * Dv + (size_t)h * Dv, Hkv * Dv);
    }
    for (int h = 0; h < m->Hq; h++) {
        RA_TRY(ra_trace_read(config->trace,
                             &(struct ra_trace_slice){config->seq, index, RA_TRACE_Q, h,
                                                      shape->seq->W - 1, shape->run_steps + 1},
                             buffer, err));
        scatter(buffer, n + 1, D, rows->q + l * (n + 1) * Hq * D + (size_t)h * D, Hq * D);
    }
    return RA_OK;
}

enum ra_status ra_decode_rows_open(struct ra_decode_rows *rows,
                                   const struct ra_replay_config *config,
                                   const struct ra_shape *shape, struct ra_error *err)
{
    const struct ra_model *m = shape->model;
    size_t e = ra_dtype_bytes(m->dtype), n = (size_t)shape->run_steps;
    size_t lanes = (size_t)shape->n_lanes, widest = (size_t)(m->D > m->Dv ? m->D : m->Dv);
    *rows = (struct ra_decode_rows){0};
    rows->k = malloc(lanes * n * (size_t)(m->Hkv * m->D) * e);
    rows->v = malloc(lanes * n * (size_t)(m->Hkv * m->Dv) * e);
    rows->q = malloc(lanes * (n + 1) * (size_t)(m->Hq * m->D) * e);
    rows->prompt = malloc((size_t)m->Hkv * (size_t)shape->P * ra_model_row_bytes(m));
    char *buffer = malloc((n + 1) * widest * e);
    enum ra_status st = RA_OK;
    if (!rows->k || !rows->v || !rows->q || !rows->prompt || !buffer)
        st = ra_fail(err, RA_ENOMEM, "engine: no memory for %zu decode rows of %zu layers", n,
                     lanes);
    for (int l = 0; st == RA_OK && l < shape->n_lanes; l++)
        st = read_lane_rows(rows, config, shape, l, buffer, err);
    free(buffer);
    return st;
}

static int32_t largest_k(const struct ra_policy_spec *spec, const struct ra_shape *shape)
{
    /* C_r may hold every position when K exceeds the candidates. */
    int32_t k = ra_policy_spec_k_max(spec, shape->P), rows = shape->P + shape->run_steps;
    return k < 0 ? 0 : k < rows - 1 ? k + 1 : rows;
}

static void range_of_played_step(int32_t t, bool begins)
{
    if (begins)
        ra_range_push(RA_RANGE_PLAYED, t, RA_RANGE_ALL_LAYERS, RA_OP_COUNT);
    else
        ra_range_pop();
}

struct ra_backend_config ra_engine_backend_config(const struct ra_replay_config *config,
                                                  const struct ra_shape *shape,
                                                  const struct ra_policy_spec *spec,
                                                  int32_t *windows)
{
    enum ra_caches caches = ra_policy_spec_caches(spec);
    int n_layers = shape->n_lanes * ra_engine_tiles(config);
    for (int l = 0; l < n_layers; l++)
        windows[l] = shape->lanes[l % shape->n_lanes].window;
    return (struct ra_backend_config){
        .model = shape->model,
        .n_layers = n_layers,
        .window = windows,
        .max_rows = shape->P + shape->run_steps,
        .n_steps = shape->run_steps + 1,
        .max_retained = caches == RA_CACHES_FULL ? 0 : largest_k(spec, shape),
        .cache = caches == RA_CACHES_REDUCED ? RA_CACHE_COMPACT : config->cache,
        .page = config->page,
        .batch = config->batch,
        .apart = ra_engine_members(config) > 1,
        .scores = config->scores,
        .decide = config->decide,
        .select = config->select,
        .early = config->early,
        .no_graph = config->no_graph,
        .between = config->between,
        .n_threads = config->n_threads,
        .on_step = ra_range_enabled() ? range_of_played_step : NULL};
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

/* A pass's brackets as scopes (made by the first pass, shared by the rest) and their executions.
 * Each is a scope of its own: a layer may be there several times. */
static enum ra_status make_scopes(struct ra_store *store, int64_t run_id,
                                  const struct ra_recorder *recorder, int64_t *scopes,
                                  struct ra_error *err)
{
    int64_t step_scope = 0;
    int32_t step = RA_SCOPE_NONE;
    for (size_t i = 0; i < recorder->n_ops; i++) {
        const struct ra_op_time *op = &recorder->ops[i];
        struct ra_scope_row row = {.run_id = run_id,
                                   .kind = "step",
                                   .step = op->step,
                                   .layer = RA_SCOPE_NONE,
                                   .name = op->step < 0 ? "prefill" : "step"};
        if (op->step != step)
            RA_TRY(ra_store_scope(store, &row, &step_scope, err));
        step = op->step;
        scopes[i] = step_scope;
        if (op->op == RA_OP_WHOLE_STEP)
            continue;
        row.parent_id = step_scope;
        row.kind = "op";
        row.layer = op->layer;
        row.name = ra_op_name(op->op);
        RA_TRY(ra_store_scope_new(store, &row, &scopes[i], err));
    }
    return RA_OK;
}

static enum ra_status store_pass(const struct ra_replay_config *config, int64_t run_id,
                                 int64_t pass_id, const struct ra_recorder *recorder,
                                 int64_t *scopes, bool first, struct ra_error *err)
{
    if (first)
        RA_TRY(make_scopes(config->store, run_id, recorder, scopes, err));
    for (size_t i = 0; i < recorder->n_ops; i++) {
        struct ra_scope_exec_row row = {.pass_id = pass_id,
                                        .scope_id = scopes[i],
                                        .start_ns = recorder->ops[i].start_ns,
                                        .end_ns = recorder->ops[i].end_ns,
                                        .event_ns = recorder->ops[i].event_ns};
        RA_TRY(ra_store_scope_exec(config->store, &row, err));
    }
    return RA_OK;
}

/* What a repeat leaves: its figures, of which one repeat's are kept. */
struct passes {
    struct ra_recorder recorder;      /* of the repeat at hand */
    struct ra_replay_result *figures; /* [repeats], times only */
    int64_t *scopes;                  /* of the first pass's brackets */
};

static enum ra_status end_pass(const struct ra_replay_config *config, int64_t pass_id,
                               enum ra_status st, struct ra_error *err)
{
    if (!config->store)
        return st;
    enum ra_run_state state = st == RA_OK             ? RA_RUN_COMPLETE
                              : st == RA_EINTERRUPTED ? RA_RUN_ABORTED
                                                      : RA_RUN_FAILED;
    enum ra_status ended =
        ra_store_pass_end(config->store, pass_id, state, st == RA_OK ? err : NULL);
    return st == RA_OK ? ended : st;
}

static enum ra_status keep_pass(struct ra_beat *b, struct passes *passes, int number,
                                int64_t pass_id, struct ra_error *err)
{
    const struct ra_replay_config *config = b->config;
    if (config->store) {
        if (number == 0)
            passes->scopes = calloc(b->recorder->n_ops + 1, sizeof *passes->scopes);
        if (!passes->scopes)
            return ra_fail(err, RA_ENOMEM, "engine: no memory for scopes");
        RA_TRY(store_pass(config, config->run_ids[b->track->number], pass_id, b->recorder,
                          passes->scopes, number == 0, err));
    }
    return fill_times(b, &passes->figures[number], err);
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

static enum ra_status begin_pass(struct ra_beat *b, int number, int64_t *pass_id,
                                 struct ra_error *err)
{
    const struct ra_replay_config *config = b->config;
    *pass_id = 0;
    return config->store ? ra_store_pass_begin(config->store, config->run_ids[b->track->number],
                                               number, "bare", pass_id, err)
                         : RA_OK;
}

static enum ra_status run_pass(struct ra_beat *b, struct passes *passes, int number, char *hash,
                               struct ra_error *err)
{
    int64_t pass_id;
    RA_TRY(begin_pass(b, number, &pass_id, err));
    enum ra_status st = call_steps(b, number, b->config->repeats, err);
    if (st == RA_OK)
        st = keep_pass(b, passes, number, pass_id, err);
    if (st == RA_OK)
        ra_sha256_hex(&b->output, hash);
    return end_pass(b->config, pass_id, st, err);
}

static enum ra_status play_steps(struct ra_beat *b, struct ra_step_time *times, bool is_first,
                                 struct ra_played_hash *hash, struct ra_error *err)
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
    return ra_beat_check_played(b, out, is_first, hash, err);
}

static enum ra_status play_pass(struct ra_beat *b, struct passes *passes, int number,
                                struct ra_step_time *times, struct ra_played_hash *hash,
                                struct ra_error *err)
{
    int64_t pass_id;
    RA_TRY(begin_pass(b, number, &pass_id, err));
    enum ra_status st = play_steps(b, times, number == 0, hash, err);
    if (st == RA_OK)
        st = keep_pass(b, passes, number, pass_id, err);
    return end_pass(b->config, pass_id, st, err);
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

static enum ra_status same_output(const char *first, int repeat, const char *hash,
                                  struct ra_error *err)
{
    if (strcmp(hash, first) == 0)
        return RA_OK;
    return ra_fail(err, RA_EDIVERGED, "repeat %d: output hash %.16s, the first was %.16s", repeat,
                   hash, first);
}

/* Every repeat calls the steps; the first is checked, and timed like the others. */
static enum ra_status run_called(struct ra_beat *b, struct passes *passes,
                                 struct ra_replay_result *result, struct ra_error *err)
{
    for (int r = 0; r < b->config->repeats; r++) {
        char hash[RA_SHA256_HEX];
        RA_TRY(run_pass(b, passes, r, hash, err));
        if (r == 0)
            memcpy(result->output_hash, hash, sizeof hash);
        RA_TRY(same_output(result->output_hash, r, hash, err));
    }
    return RA_OK;
}

/* Repeats play the recording: what the checked run gave, bit for bit. Members that the checked run
 * took one by one are played together: what the first repeat gave, which was checked. */
static enum ra_status play_repeats(struct ra_beat *b, struct passes *passes,
                                   struct ra_step_time *times, struct ra_replay_result *result,
                                   struct ra_error *err)
{
    char expected[RA_SHA256_HEX];
    memcpy(expected, result->output_hash, sizeof expected);
    for (int r = 0; r < b->config->repeats; r++) {
        struct ra_played_hash hash;
        RA_TRY(play_pass(b, passes, r, times, &hash, err));
        if (r == 0 && b->members->n > 1) {
            memcpy(result->output_hash, hash.first, sizeof hash.first);
            memcpy(expected, hash.all, sizeof expected);
        }
        RA_TRY(same_output(expected, r, hash.all, err));
    }
    return RA_OK;
}

/* The steps are called once, checked, and once more to be recorded. */
static enum ra_status run_played(struct ra_beat *b, struct passes *passes,
                                 struct ra_replay_result *result, struct ra_error *err)
{
    struct ra_step_time *times = calloc((size_t)b->shape->run_steps + 1, sizeof *times);
    if (!times)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the times of %d steps",
                       b->shape->run_steps);
    enum ra_status st = call_steps(b, 0, 2, err);
    ra_sha256_hex(&b->output, result->output_hash);
    if (st == RA_OK)
        st = b->ops->record_begin(b->dev, err);
    b->is_recording = st == RA_OK;
    if (st == RA_OK)
        st = call_steps(b, 1, 2, err);
    b->is_recording = false;
    if (st == RA_OK)
        st = play_repeats(b, passes, times, result, err);
    if (st == RA_OK)
        st = ra_beat_count(b, b->config->repeats, err);
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

static enum ra_status run_passes(struct ra_beat *b, struct passes *passes,
                                 struct ra_replay_result *result, struct ra_error *err)
{
    const struct ra_replay_config *config = b->config;
    const struct ra_shape *shape = b->shape;
    int n_lanes = shape->n_lanes * ra_engine_tiles(config) * b->members->n;
    RA_TRY(ra_recorder_open(&passes->recorder, shape->first_step, shape->n_steps,
                            (size_t)n_lanes * ((size_t)shape->n_steps + 1) * 4, err));
    b->recorder = &passes->recorder;
    RA_TRY(b->ops->play ? run_played(b, passes, result, err) : run_called(b, passes, result, err));
    result->kernel_err_max = config->quality && (b->ops->caps & RA_CAP_EXACT) ? b->worst_err : NAN;
    result->kernel_err_bound = ra_kernel_err_bound(b->track->max_abs_logit);
    result->is_timed = b->ops->method != NULL;
    result->repeats = config->repeats;
    size_t cache = b->ops->cache_bytes ? b->ops->cache_bytes() : ra_cache_bytes();
    result->is_cache_resident = kv_bytes(b) <= (double)cache && !config->between;
    copy_times(&passes->figures[median_pass(passes, config->repeats)], result);
    return RA_OK;
}

enum ra_status ra_engine_time(const struct ra_members *members, int policy,
                              const struct ra_decode_rows *rows, struct ra_replay_result *result,
                              struct ra_error *err)
{
    const struct ra_replay_config *config = &members->list[0].config;
    const struct ra_shape *shape = &members->list[0].shape;
    struct ra_beat b = {.members = members, .policy = policy, .rows = rows, .ops = config->backend};
    struct passes passes = {0};
    size_t n_layers = (size_t)shape->n_lanes * (size_t)ra_engine_tiles(config);
    int32_t *windows = calloc(n_layers, sizeof *windows);
    passes.figures = calloc((size_t)config->repeats, sizeof *passes.figures);
    enum ra_status st = ra_beat_open(&b, err);
    if (st == RA_OK && (!windows || !passes.figures))
        st = ra_fail(err, RA_ENOMEM, "engine: no memory for %d repeats", config->repeats);
    if (st == RA_OK) {
        struct ra_backend_config backend =
            ra_engine_backend_config(config, shape, config->specs[policy], windows);
        result->backend_bytes = b.ops->memory(&backend);
        st = b.ops->open(&b.dev, &backend, err);
    }
    if (st == RA_OK)
        st = run_passes(&b, &passes, result, err);
    b.ops->close(b.dev);
    ra_beat_close(&b);
    for (int i = 0; i < members->n; i++)
        ra_track_end(&members->list[i].tracks[policy]);
    ra_recorder_close(&passes.recorder);
    free(passes.figures);
    free(passes.scopes);
    free(windows);
    return st;
}
