/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiles: phase 2 may have the recorded layers several times over, as a model with more layers would
 * have. Each tile runs the schedule by itself, so what its layers share stays within it.
 */
#include <stdlib.h>

#include "sim/engine_internal.h"

int ra_engine_tiles(const struct ra_replay_config *config)
{
    return config->tile_layers > 1 ? config->tile_layers : 1;
}

enum ra_status ra_track_restart(struct ra_track *track, int n_tiles, struct ra_error *err)
{
    const struct ra_shape *shape = track->shape;
    struct ra_policy_env env = {.model = shape->model,
                                .P = shape->P,
                                .N = shape->run_steps,
                                .W = shape->seq->W,
                                .n_layers = shape->n_full,
                                .layer_ids = shape->full_ids,
                                .queries = shape->query_means ? &shape->queries : NULL,
                                .phase = shape->phase,
                                .of = shape->of};
    ra_track_end(track);
    track->tiles = calloc((size_t)n_tiles, sizeof(struct ra_policy *));
    if (!track->tiles)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for %d tiles", n_tiles);
    for (; track->n_tiles < n_tiles; track->n_tiles++)
        RA_TRY(ra_policy_open(&track->tiles[track->n_tiles], track->spec, &env, err));
    ra_track_turn(track, 0);
    return RA_OK;
}

void ra_track_turn(struct ra_track *track, int tile)
{
    track->tile = tile;
    track->policy = track->tiles[tile];
}

void ra_track_end(struct ra_track *track)
{
    for (int i = 0; i < track->n_tiles; i++)
        ra_policy_close(track->tiles[i]);
    free(track->tiles);
    track->tiles = NULL;
    track->policy = NULL;
    track->n_tiles = 0;
}
