/* SPDX-License-Identifier: Apache-2.0 */
/* Tells what a replay will take, sets its parts up, runs both phases and collects the results. */
#include "sim/engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/engine_member.h"

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
static void add_files(const struct ra_replay_config *config, const struct ra_shape *shape, int p,
                      struct ra_replay_needs *needs)
{
    const struct ra_model *m = shape->model;
    uint64_t layer_steps = (uint64_t)shape->n_full * (uint64_t)shape->n_steps;
    uint64_t out = layer_steps * (uint64_t)(m->Hq * m->Dv) * 4;
    int32_t k = ra_policy_spec_k_max(config->specs[p], shape->P);
    uint64_t rows = (uint64_t)(shape->P + shape->run_steps);
    uint64_t set = k < 0 ? 0 : (uint64_t)k + 1 < rows ? (uint64_t)k + 1 : rows;
    uint64_t all_steps = (uint64_t)shape->n_full * ((uint64_t)shape->run_steps + 1);
    uint64_t sets = all_steps * (uint64_t)m->Hkv * set * 4;
    bool exports = config->export_paths && config->export_paths[p];
    uint64_t members = (uint64_t)ra_engine_members(config); /* the longest of which is exported */
    if (config->quality) /* the reference is in f64; orders and sets, and sets again to export */
        needs->spool_bytes += members * (2 * out + sets) + (exports ? out + sets : 0);
    if (exports)
        needs->export_bytes += out + sets + layer_steps * (uint64_t)m->Hq * 12;
}

static enum ra_status add_up(const struct ra_replay_config *config, const struct ra_shape *shape,
                             struct ra_replay_needs *needs, struct ra_error *err)
{
    const struct ra_model *m = shape->model;
    uint64_t rows = (uint64_t)(shape->P + shape->run_steps), row = ra_model_row_bytes(m);
    size_t n_layers = (size_t)shape->n_lanes * (size_t)ra_engine_tiles(config);
    int32_t *windows = calloc(n_layers, sizeof *windows);
    if (!windows)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for %zu layers", n_layers);
    if (config->quality)
        needs->memory_bytes = rows * (uint64_t)m->Hkv * row +
                              (uint64_t)ra_engine_tile(shape) * (uint64_t)m->Hq * rows * 8;
    uint64_t decode =
        (uint64_t)shape->n_lanes * (uint64_t)shape->run_steps *
        ((uint64_t)m->Hkv * row + (uint64_t)(m->Hq * m->D) * ra_dtype_bytes(m->dtype));
    /* Figures of every head: mass, error, recall. */
    uint64_t n_tracks = (uint64_t)config->n_policies * (uint64_t)ra_engine_members(config);
    needs->memory_bytes +=
        n_tracks * (uint64_t)shape->n_full * (uint64_t)shape->n_steps * (uint64_t)m->Hq * 24;
    needs->memory_bytes += (n_tracks - (uint64_t)config->n_policies) * RA_SPOOL_BYTES;
    for (int p = 0; p < config->n_policies; p++) {
        struct ra_backend_config backend =
            ra_engine_backend_config(config, shape, config->specs[p], windows);
        enum ra_status st = config->backend->fits ? config->backend->fits(&backend, err) : RA_OK;
        if (st != RA_OK) {
            free(windows);
            return st;
        }
        bool on_host = !(config->backend->caps & RA_CAP_OWN_MEMORY);
        uint64_t bytes = decode + (on_host ? (uint64_t)config->backend->memory(&backend) : 0);
        needs->memory_bytes = bytes > needs->memory_bytes ? bytes : needs->memory_bytes;
        add_files(config, shape, p, needs);
    }
    free(windows);
    if (needs->memory_bytes > available_memory())
        return ra_fail(err, RA_ENOMEM,
                       "%s: the replay needs %.1f GiB of memory, %.1f GiB are available; replay "
                       "fewer layers (--layers) or steps (--steps)",
                       shape->info->path, (double)needs->memory_bytes / 0x1p30,
                       (double)available_memory() / 0x1p30);
    return RA_OK;
}

enum ra_status ra_replay_plan(const struct ra_replay_config *config, struct ra_replay_needs *needs,
                              struct ra_error *err)
{
    struct ra_shape shape;
    *needs = (struct ra_replay_needs){0};
    RA_TRY(ra_shape_open(&shape, config, err));
    enum ra_status st = add_up(config, &shape, needs, err);
    ra_shape_close(&shape);
    return st;
}

static enum ra_status time_all(const struct ra_members *members, struct ra_replay_result *results,
                               struct ra_error *err)
{
    const struct ra_member *first = &members->list[0];
    struct ra_decode_rows rows = {0};
    enum ra_status st = ra_decode_rows_open(&rows, &first->config, &first->shape, err);
    for (int p = 0; st == RA_OK && p < first->config.n_policies; p++) {
        st = ra_engine_time(members, p, &rows, &results[p], err);
        if (st != RA_OK)
            st = ra_fail_context(err, st, "%s", ra_policy_spec_canonical(first->tracks[p].spec));
    }
    ra_decode_rows_close(&rows);
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

static enum ra_status conclude(const struct ra_members *members, int p,
                               struct ra_replay_result *result, struct ra_error *err)
{
    const struct ra_member *first = &members->list[0];
    for (int i = 0; i < members->n; i++) {
        enum ra_status st = check_near_ties(&members->list[i].tracks[p], err);
        if (st != RA_OK && i > 0)
            return ra_fail_context(err, st, "copy %d", i);
        RA_TRY(st);
    }
    if (ra_track_exports(&first->tracks[p]))
        RA_TRY(ra_engine_export(&first->tracks[p], first->config.export_paths[p], err));
    return ra_engine_summarise(&first->tracks[p], result, err);
}

static enum ra_status run(const struct ra_replay_config *config, struct ra_shape *shape,
                          struct ra_members *members, struct ra_pool *pool,
                          struct ra_replay_result *results, struct ra_error *err)
{
    bool compares_queries = false;
    for (int p = 0; p < config->n_policies; p++)
        compares_queries |= (ra_policy_spec_needs(config->specs[p]) & RA_NEEDS_QUERIES) != 0;
    if (compares_queries)
        RA_TRY(ra_shape_form_queries(shape, config, err));
    RA_TRY(ra_members_open(members, config, shape, err));
    if (config->quality)
        RA_TRY(ra_members_measure(members, pool, err));
    RA_TRY(time_all(members, results, err));
    for (int p = 0; p < config->n_policies; p++)
        RA_TRY(conclude(members, p, &results[p], err));
    return RA_OK;
}

enum ra_status ra_replay(const struct ra_replay_config *config, struct ra_replay_result *results,
                         struct ra_error *err)
{
    struct ra_shape shape;
    struct ra_members members = {0};
    struct ra_pool *pool;
    RA_BUG_ON(config->n_policies < 1 || config->repeats < 1);
    RA_BUG_ON(ra_engine_members(config) > 1 && !config->backend->turn);
    for (int p = 0; p < config->n_policies; p++)
        results[p] = (struct ra_replay_result){.kernel_err_max = NAN};
    RA_TRY(ra_shape_open(&shape, config, err));
    enum ra_status st = ra_pool_open(&pool, config->n_threads, err);
    if (st == RA_OK)
        st = run(config, &shape, &members, pool, results, err);
    ra_members_close(&members);
    ra_pool_close(pool);
    ra_shape_close(&shape);
    return st;
}

void ra_replay_release(struct ra_replay_result *results, int n)
{
    for (int p = 0; p < n; p++) {
        json_decref(results[p].by_type);
        results[p].by_type = NULL;
    }
}
