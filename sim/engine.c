/* SPDX-License-Identifier: Apache-2.0 */
/* Tells what a replay will take, sets its parts up, runs both phases and collects the results. */
#include "sim/engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/engine_transform.h"

static uint64_t available_memory(void)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib ? (uint64_t)kib * 1024 : UINT64_MAX;
}

/* Bytes of one schedule's share of the temporary file, and of its export. */
static void add_files(const struct ra_member *member, int p, struct ra_replay_needs *needs)
{
    const struct ra_replay_config *config = &member->config;
    const struct ra_shape *shape = &member->shape;
    const struct ra_model *m = shape->model;
    uint64_t layer_steps = (uint64_t)shape->n_full * (uint64_t)shape->n_steps;
    uint64_t out = layer_steps * (uint64_t)(m->Hq * m->Dv) * 4;
    int32_t k = ra_policy_spec_most(config->specs[p], shape->P, shape->run_steps);
    uint64_t rows = (uint64_t)(shape->P + shape->run_steps);
    uint64_t set = k < 0 ? 0 : (uint64_t)k + 1 < rows ? (uint64_t)k + 1 : rows;
    uint64_t all_steps = (uint64_t)shape->n_full * ((uint64_t)shape->run_steps + 1);
    uint64_t sets = all_steps * (uint64_t)m->Hkv * set * 4;
    bool exports = config->export_paths && config->export_paths[p];
    if (ra_policy_spec_transform(config->specs[p]))
        needs->spool_bytes += (uint64_t)shape->n_full * (uint64_t)m->Hkv * rows * (uint64_t)m->D *
                              ra_dtype_bytes(m->dtype);
    if (config->quality) /* the reference is in f64; orders and sets, and sets again to export */
        needs->spool_bytes += 2 * out + sets + (exports ? out + sets : 0);
    if (exports)
        needs->export_bytes += out + sets + layer_steps * (uint64_t)m->Hq * 12;
}

/* What phase 1 takes for one member at a time, and what is kept of each. */
static uint64_t reference_bytes(const struct ra_shape *shape)
{
    uint64_t rows = (uint64_t)(shape->P + shape->run_steps), Hq = (uint64_t)shape->model->Hq;
    return rows * (uint64_t)shape->model->Hkv * ra_model_row_bytes(shape->model) +
           (uint64_t)ra_engine_tile(shape) * Hq * rows * 8;
}

static uint64_t book_bytes(const struct ra_shape *shape, int n_policies)
{
    uint64_t layer_steps = (uint64_t)shape->n_full * (uint64_t)shape->n_steps;
    return (uint64_t)n_policies * layer_steps * (uint64_t)shape->model->Hq * 24;
}

static uint64_t decode_bytes(const struct ra_shape *shape)
{
    const struct ra_model *m = shape->model;
    return (uint64_t)shape->n_lanes * (uint64_t)shape->run_steps *
           ((uint64_t)m->Hkv * ra_model_row_bytes(m) +
            (uint64_t)(m->Hq * m->D) * ra_dtype_bytes(m->dtype));
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The most that a schedule's phase 2 takes on the host. */
static enum ra_status add_backend(const struct ra_members *members, uint64_t *bytes,
                                  struct ra_error *err)
{
    const struct ra_replay_config *config = &members->list[0].config;
    size_t n_layers = (size_t)members->list[0].shape.n_lanes * (size_t)ra_engine_tiles(config);
    struct ra_backend_layers layers = {0};
    bool on_host = !(config->backend->caps & RA_CAP_OWN_MEMORY);
    enum ra_status st = ra_backend_layers_open(&layers, n_layers, err);
    *bytes = 0;
    for (int p = 0; st == RA_OK && p < config->n_policies; p++) {
        struct ra_backend_config backend = ra_engine_backend_config(members, p, &layers);
        if (config->backend->fits)
            st = config->backend->fits(&backend, err);
        if (on_host)
            *bytes = larger(*bytes, config->backend->memory(&backend));
    }
    ra_backend_layers_close(&layers);
    return st;
}

static enum ra_status add_up(const struct ra_members *members, struct ra_replay_needs *needs,
                             struct ra_error *err)
{
    const struct ra_replay_config *config = &members->list[0].config;
    uint64_t reference = 0, books = 0, decode = 0, backend = 0;
    RA_TRY(add_backend(members, &backend, err));
    for (int i = 0; i < members->n; i++) {
        const struct ra_member *member = &members->list[i];
        reference = larger(reference, reference_bytes(&member->shape) +
                                          ra_engine_transform_bytes(config, &member->shape, 1));
        books += book_bytes(&member->shape, config->n_policies);
        if (i == 0 || config->with)
            decode +=
                decode_bytes(&member->shape) + ra_engine_transform_bytes(config, &member->shape, 2);
        for (int p = 0; p < config->n_policies; p++)
            add_files(member, p, needs);
    }
    books += (uint64_t)(members->n - 1) * (uint64_t)config->n_policies * RA_SPOOL_BYTES;
    needs->memory_bytes = larger((config->quality ? reference : 0) + books, decode + backend);
    if (needs->memory_bytes > available_memory())
        return ra_fail(err, RA_ENOMEM,
                       "%s: the replay needs %.1f GiB of memory, %.1f GiB are available; replay "
                       "fewer layers (--layers) or steps (--steps)",
                       members->list[0].shape.info->path, (double)needs->memory_bytes / 0x1p30,
                       (double)available_memory() / 0x1p30);
    return RA_OK;
}

enum ra_status ra_replay_plan(const struct ra_replay_config *config, struct ra_replay_needs *needs,
                              struct ra_error *err)
{
    struct ra_members members;
    *needs = (struct ra_replay_needs){0};
    RA_TRY(ra_members_open(&members, config, err));
    enum ra_status st = add_up(&members, needs, err);
    ra_members_close(&members);
    return st;
}

static enum ra_status time_all(struct ra_members *members, struct ra_replay_result *results,
                               struct ra_error *err)
{
    const struct ra_member *first = &members->list[0];
    enum ra_status st = ra_members_read_rows(members, err);
    for (int p = 0; st == RA_OK && p < first->config.n_policies; p++) {
        st = ra_engine_time(members, p, results, err);
        if (st != RA_OK)
            st = ra_fail_context(err, st, "%s", ra_policy_spec_canonical(first->tracks[p].spec));
    }
    return st;
}

static enum ra_status check_near_ties(const struct ra_track *track, struct ra_error *err)
{
    int64_t allowed = track->selections / 1000 > 3 ? track->selections / 1000 : 3;
    if (track->near_ties > allowed)
        return ra_fail(err, RA_EDIVERGED,
                       "%s: %lld of %lld selections of the %s backend differ from the reference by "
                       "near ties, %lld are allowed",
                       ra_policy_spec_canonical(track->spec), (long long)track->near_ties,
                       (long long)track->selections, track->config->backend->name,
                       (long long)allowed);
    return RA_OK;
}

static enum ra_status conclude(const struct ra_members *members, int number,
                               struct ra_replay_result *results, struct ra_error *err)
{
    const struct ra_member *member = &members->list[number];
    int n_policies = member->config.n_policies;
    bool is_reported = number < ra_replay_sequences(&member->config);
    for (int p = 0; p < n_policies; p++) {
        struct ra_track *track = &member->tracks[p];
        RA_TRY(check_near_ties(track, err));
        if (is_reported && ra_track_exports(track))
            RA_TRY(ra_engine_export(track, member->config.export_paths[p], err));
        if (is_reported)
            RA_TRY(ra_engine_summarise(track, &results[number * n_policies + p], err));
    }
    return RA_OK;
}

static enum ra_status run(struct ra_members *members, struct ra_pool *pool,
                          struct ra_replay_result *results, struct ra_error *err)
{
    RA_TRY(ra_members_begin(members, err));
    if (members->list[0].config.quality)
        RA_TRY(ra_members_measure(members, pool, err));
    RA_TRY(time_all(members, results, err));
    for (int i = 0; i < members->n; i++) {
        enum ra_status st = conclude(members, i, results, err);
        RA_TRY(ra_member_fail(members, i, st, err));
    }
    return RA_OK;
}

enum ra_status ra_replay(const struct ra_replay_config *config, struct ra_replay_result *results,
                         struct ra_error *err)
{
    struct ra_members members;
    struct ra_pool *pool;
    int n_results = ra_replay_sequences(config) * config->n_policies;
    RA_BUG_ON(config->n_policies < 1 || config->repeats < 1);
    RA_BUG_ON(ra_engine_members(config) > 1 && !config->backend->turn);
    for (int i = 0; i < n_results; i++)
        results[i] = (struct ra_replay_result){.kernel_err_max = NAN};
    RA_TRY(ra_members_open(&members, config, err));
    enum ra_status st = ra_pool_open(&pool, config->n_threads, err);
    if (st == RA_OK)
        st = run(&members, pool, results, err);
    ra_members_close(&members);
    ra_pool_close(pool);
    return st;
}

void ra_replay_release(struct ra_replay_result *results, int n)
{
    for (int p = 0; p < n; p++) {
        json_decref(results[p].by_type);
        results[p].by_type = NULL;
    }
}
