/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The split by token type (text, image, ...): where the mass lies, how much of each type a schedule
 * keeps, and the error of the queries of each type. Summed over counted layer-steps and heads.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/engine_internal.h"

enum ra_status ra_shape_open_types(struct ra_shape *shape, const struct ra_replay_config *config,
                                   struct ra_error *err)
{
    if (!config->by_type)
        return RA_OK;
    if (!config->quality)
        return ra_fail(err, RA_EUSAGE, "--by-type: needs the quality that --no-quality leaves out");
    if (!shape->seq->has_token_type)
        return ra_fail(err, RA_EUSAGE, "--by-type: needs tensor s%d.token_type, which %s lacks",
                       config->seq, shape->info->path);
    shape->types = malloc((size_t)shape->P + (size_t)shape->seq->N);
    if (!shape->types)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for token types");
    return ra_trace_token_types(config->trace, config->seq, shape->types, &shape->type_names, err);
}

static struct ra_type_sums *sums_of(struct ra_track *track, int32_t pos)
{
    return &track->types[track->shape->types[pos]];
}

enum ra_status ra_track_open_types(struct ra_track *track, struct ra_error *err)
{
    if (!track->shape->types)
        return RA_OK;
    track->types = calloc(RA_MAX_TYPES, sizeof *track->types);
    return track->types ? RA_OK : ra_fail(err, RA_ENOMEM, "engine: no memory for token types");
}

/* Keys: visible and attended, per set; KV heads count once, query heads where sets are theirs. */
void ra_track_types_keys(struct ra_track *track, int n_sets, int32_t L)
{
    for (int i = 0; track->types && i < n_sets; i++) {
        const struct ra_positions *set = &track->sets[i];
        for (int32_t j = 0; j < L; j++)
            sums_of(track, j)->visible++;
        for (int32_t j = 0; j < set->n; j++)
            sums_of(track, set->pos ? set->pos[j] : j)->attended++;
    }
}

void ra_track_types_head(struct ra_track *track, const double *prob, int32_t L,
                         const struct ra_positions *set, double error)
{
    if (!track->types)
        return;
    struct ra_type_sums *self = sums_of(track, L - 1);
    for (int32_t j = 0; j < L; j++)
        sums_of(track, j)->mass += prob[j];
    for (int32_t j = 0; j < set->n; j++) {
        int32_t pos = set->pos ? set->pos[j] : j;
        sums_of(track, pos)->kept += prob[pos];
    }
    track->type_heads++;
    if (!isnan(error)) {
        self->error += error;
        self->n_errors++;
    }
}

static json_t *share(double part, double whole)
{
    return whole > 0 ? json_real(part / whole) : json_null();
}

json_t *ra_types_json(const struct ra_track *track)
{
    json_t *object = json_object();
    const char *name = track->shape->type_names;
    int64_t visible = 0;
    for (int i = 0; i < RA_MAX_TYPES; i++)
        visible += track->types[i].visible;
    for (int i = 0; i < RA_MAX_TYPES && *name; i++) {
        const struct ra_type_sums *sums = &track->types[i];
        size_t n = strcspn(name, ",");
        char *key = strndup(name, n);
        json_t *entry = json_pack("{s:o,s:o,s:o,s:o,s:o}", "visible_share",
                                  share((double)sums->visible, (double)visible), "kept_share",
                                  share((double)sums->attended, (double)sums->visible), "mass",
                                  share(sums->mass, (double)track->type_heads), "mass_recovered",
                                  share(sums->kept, sums->mass), "output_rel_err_mean",
                                  share(sums->error, (double)sums->n_errors));
        if (key)
            json_object_set_new(object, key, entry);
        free(key);
        name += name[n] == ',' ? n + 1 : n;
    }
    return object;
}
