/* SPDX-License-Identifier: Apache-2.0 */
/* Residence of positions in C_r, for the heads that were asked for: when each came and went. */
#include <stdlib.h>
#include <string.h>

#include "sim/engine_internal.h"

enum ra_status ra_track_open_residence(struct ra_track *track, struct ra_error *err)
{
    const struct ra_replay_config *config = track->config;
    const struct ra_shape *shape = track->shape;
    track->residence = calloc((size_t)config->n_keep + 1, sizeof *track->residence);
    if (!track->residence)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for residence records");
    for (int i = 0; i < config->n_keep; i++) {
        const struct ra_keep_set *keep = &config->keep[i];
        struct ra_residence *r = &track->residence[track->n_residence];
        r->full = keep->layer_id == RA_KEEP_DEFAULT ? shape->n_full / 2 : -1;
        for (int l = 0; l < shape->n_full && r->full < 0; l++)
            if (shape->full_ids[l] == keep->layer_id)
                r->full = l;
        if (r->full < 0)
            return ra_fail(err, RA_EUSAGE,
                           "--keep-sets: layer %d is not a replayed "
                           "full-attention layer",
                           keep->layer_id);
        if (keep->head < 0 || keep->head >= shape->model->Hkv)
            return ra_fail(err, RA_EUSAGE, "--keep-sets: head %d, expected 0 to %d", keep->head,
                           shape->model->Hkv - 1);
        r->head = keep->head;
        r->entered = calloc((size_t)(shape->P + shape->run_steps + 1), sizeof *r->entered);
        r->now = calloc((size_t)(shape->P + shape->run_steps + 1), sizeof *r->now);
        track->n_residence++;
        if (!r->entered || !r->now)
            return ra_fail(err, RA_ENOMEM, "engine: no memory for residence records");
    }
    return RA_OK;
}

static enum ra_status push_stay(struct ra_track *track, const struct ra_residence *r, int32_t pos,
                                int32_t last, struct ra_error *err)
{
    if (track->n_stays == track->stays_capacity) {
        size_t more = 2 * track->stays_capacity + 1024;
        struct ra_retained_row *stays = realloc(track->stays, more * sizeof *stays);
        if (!stays)
            return ra_fail(err, RA_ENOMEM, "engine: no memory for %zu residences", more);
        track->stays = stays;
        track->stays_capacity = more;
    }
    track->stays[track->n_stays++] =
        (struct ra_retained_row){.layer = track->shape->full_ids[r->full],
                                 .head = r->head,
                                 .pos = pos,
                                 .first_step = r->entered[pos],
                                 .last_step = last};
    return RA_OK;
}

enum ra_status ra_track_residence(struct ra_track *track, const struct ra_step *step,
                                  struct ra_error *err)
{
    for (int i = 0; i < track->n_residence; i++) {
        struct ra_residence *r = &track->residence[i];
        struct ra_retained view;
        if (r->full != step->layer)
            continue;
        ra_policy_view(track->policy, step->layer, r->head, &view);
        int32_t a = 0, b = 0;
        while (a < r->n_now || b < view.set.n) {
            if (b == view.set.n || (a < r->n_now && r->now[a] < view.set.pos[b])) {
                RA_TRY(push_stay(track, r, r->now[a++], step->t - 1, err));
            } else if (a == r->n_now || view.set.pos[b] < r->now[a]) {
                r->entered[view.set.pos[b++]] = step->t;
            } else {
                a++;
                b++;
            }
        }
        r->n_now = view.set.n;
        if (view.set.n)
            memcpy(r->now, view.set.pos, (size_t)view.set.n * sizeof *r->now);
    }
    return RA_OK;
}

enum ra_status ra_track_leave(struct ra_track *track, int full, struct ra_error *err)
{
    for (int i = 0; i < track->n_residence; i++) {
        struct ra_residence *r = &track->residence[i];
        if (r->full != full)
            continue;
        for (int32_t a = 0; a < r->n_now; a++)
            RA_TRY(push_stay(track, r, r->now[a], track->shape->run_steps - 1, err));
        r->n_now = 0;
    }
    return RA_OK;
}
