/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/engine_player.h"

#include <stdlib.h>
#include <string.h>

static void range_of_played_step(void *context, int32_t t, bool begins)
{
    (void)context;
    if (begins)
        ra_range_push(RA_RANGE_PLAYED, t, RA_RANGE_ALL_LAYERS, RA_OP_COUNT);
    else
        ra_range_pop();
}

static const struct ra_backend_watch ranges = {.step = range_of_played_step};

static enum ra_status open_backend(struct ra_player *player, const struct ra_backend_watch *watch,
                                   bool no_graph, struct ra_error *err)
{
    struct ra_beat *b = &player->beat;
    size_t n_layers = (size_t)b->shape->n_lanes * (size_t)ra_engine_tiles(b->config);
    RA_TRY(ra_backend_layers_open(&player->layers, n_layers, err));
    player->hashes = calloc((size_t)b->members->n, sizeof *player->hashes);
    player->times = calloc((size_t)b->shape->run_steps + 1, sizeof *player->times);
    if (!player->hashes || !player->times)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the times of %d steps",
                       b->shape->run_steps);
    struct ra_backend_config backend =
        ra_engine_backend_config(b->members, b->policy, &player->layers);
    backend.watch = watch ? watch : ra_range_enabled() ? &ranges : NULL;
    backend.no_graph |= no_graph;
    player->is_one_by_one = no_graph;
    player->is_watched = watch != NULL;
    player->backend_bytes = b->ops->memory(&backend);
    return b->ops->open(&b->dev, &backend, err);
}

enum ra_status ra_player_open(struct ra_player *player, const struct ra_members *members,
                              int policy, const struct ra_backend_watch *watch, bool no_graph,
                              struct ra_error *err)
{
    struct ra_beat *b = &player->beat;
    *player = (struct ra_player){
        .beat = {.members = members, .policy = policy, .ops = members->list[0].config.backend}};
    RA_TRY(ra_beat_open(b, err));
    const struct ra_shape *shape = b->shape;
    int n_lanes = shape->n_lanes * ra_engine_tiles(b->config) * members->n;
    RA_TRY(ra_recorder_open(&player->recorder, shape->first_step, shape->n_steps,
                            (size_t)n_lanes * ((size_t)shape->n_steps + 1) * 4, err));
    b->recorder = &player->recorder;
    return open_backend(player, watch, no_graph, err);
}

void ra_player_release(struct ra_player *player)
{
    struct ra_beat *b = &player->beat;
    b->ops->close(b->dev);
    b->dev = NULL;
}

void ra_player_close(struct ra_player *player)
{
    struct ra_beat *b = &player->beat;
    ra_player_release(player);
    ra_beat_close(b);
    ra_recorder_close(&player->recorder);
    free(player->times);
    free(player->hashes);
    ra_backend_layers_close(&player->layers);
}

enum ra_status ra_player_call(struct ra_player *player, int number, int of, struct ra_error *err)
{
    struct ra_beat *b = &player->beat;
    uint64_t per_run = (uint64_t)b->shape->run_steps + 1;
    uint64_t total = per_run * (uint64_t)(of * b->config->n_policies);
    uint64_t before = per_run * (uint64_t)(of * b->track->number + number);
    ra_recorder_clear(b->recorder);
    b->first_repeat = number == 0;
    memset(b->full_lanes, 0, (size_t)b->shape->n_steps * sizeof *b->full_lanes);
    return ra_beat_repeat(b, before, total, err);
}

enum ra_status ra_player_record(struct ra_player *player, int number, int of, struct ra_error *err)
{
    struct ra_beat *b = &player->beat;
    RA_TRY(b->ops->record_begin(b->dev, err));
    b->is_recording = true;
    enum ra_status st = ra_player_call(player, number, of, err);
    b->is_recording = false;
    return st;
}

enum ra_status ra_player_play(struct ra_player *player, bool is_first, struct ra_error *err)
{
    struct ra_beat *b = &player->beat;
    const float *out = NULL;
    if (b->config->stop && b->config->stop())
        return ra_fail(err, RA_EINTERRUPTED, "interrupted before a timed repeat");
    RA_TRY(b->ops->play(b->dev, player->times, &out, err));
    ra_recorder_clear(b->recorder);
    for (int32_t t = -1; t < b->shape->run_steps; t++) {
        const struct ra_step_time *time = &player->times[t + 1];
        bool is_late = time->is_late && !player->is_watched;
        RA_TRY(ra_recorder_step(b->recorder, t, time->begin_ns, time->end_ns, time->event_ns,
                                is_late, err));
    }
    return ra_beat_check_played(b, out, is_first, err);
}

struct ra_step_facts ra_player_facts(const struct ra_player *player)
{
    const struct ra_beat *b = &player->beat;
    return (struct ra_step_facts){
        .launch_mode = player->is_one_by_one ? "stream" : ra_replay_launch_mode(b->config),
        .launched = b->ops->launched(b->dev),
        .outputs = b->step_outputs,
        .n = b->shape->run_steps + 1};
}

enum ra_status ra_player_same_launches(const struct ra_player *player,
                                       const struct ra_step_launches *first, int64_t *n,
                                       struct ra_error *err)
{
    const struct ra_beat *b = &player->beat;
    const struct ra_step_launches *now = b->ops->launched(b->dev);
    *n = 0;
    for (int32_t i = 0; i <= b->shape->run_steps; i++) {
        *n += (int64_t)now[i].n;
        if (now[i].n == first[i].n && now[i].hash == first[i].hash)
            continue;
        return ra_fail(err, RA_EDIVERGED,
                       "step %d: launched %llu kernels, hash %016llx; the bare passes %llu, hash "
                       "%016llx",
                       i - 1, (unsigned long long)now[i].n, (unsigned long long)now[i].hash,
                       (unsigned long long)first[i].n, (unsigned long long)first[i].hash);
    }
    return RA_OK;
}

enum ra_status ra_player_same(struct ra_player *player, int repeat, bool is_first,
                              struct ra_error *err)
{
    const struct ra_beat *b = &player->beat;
    for (int i = 0; i < b->members->n; i++) {
        char hash[RA_SHA256_HEX], *first = player->hashes[i];
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
