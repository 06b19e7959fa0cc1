/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/engine_scopes.h"

#include <string.h>

void ra_scopes_init(struct ra_scopes *scopes, struct ra_store *store, int64_t run_id,
                    const struct ra_shape *shape)
{
    *scopes = (struct ra_scopes){.store = store, .run_id = run_id, .shape = shape};
}

void ra_scopes_fini(struct ra_scopes *scopes)
{
    ra_idmap_clear(&scopes->known);
}

/* Distinct for what is distinct: step, layer + 1 (0: several), operation + 1 (0: a step's own). */
static uint64_t key_of(int32_t t, int layer, unsigned op)
{
    return (uint64_t)(uint32_t)(t + 1) << 32 | (uint64_t)(uint32_t)(layer + 1) << 8 | op;
}

static enum ra_status find(struct ra_scopes *scopes, uint64_t key, const struct ra_scope_row *row,
                           int64_t *id, struct ra_error *err)
{
    *id = ra_idmap_get(&scopes->known, key);
    if (*id)
        return RA_OK;
    RA_TRY(ra_store_scope(scopes->store, row, id, err));
    return ra_idmap_put(&scopes->known, key, *id, err);
}

enum ra_status ra_scopes_step(struct ra_scopes *scopes, int32_t t, int64_t *id,
                              struct ra_error *err)
{
    const struct ra_scope_row row = {.run_id = scopes->run_id,
                                     .kind = "step",
                                     .step = t,
                                     .layer = RA_SCOPE_NONE,
                                     .name = t < 0 ? "prefill" : "step"};
    return find(scopes, key_of(t, -1, 0), &row, id, err);
}

enum { LAYER_ITSELF = 255 };

/* Tiles of a layer are one scope. */
static int lane_of(const struct ra_scopes *scopes, int layer)
{
    return layer < 0 ? -1 : layer % scopes->shape->n_lanes;
}

static int number_in_model(const struct ra_scopes *scopes, int lane)
{
    return lane < 0 ? RA_SCOPE_NONE : scopes->shape->lanes[lane].id;
}

enum ra_status ra_scopes_layer(struct ra_scopes *scopes, int32_t t, int layer, int64_t *id,
                               struct ra_error *err)
{
    int lane = lane_of(scopes, layer);
    struct ra_scope_row row = {.run_id = scopes->run_id,
                               .kind = "layer",
                               .step = t,
                               .layer = number_in_model(scopes, lane),
                               .name = lane < 0 ? "of several layers" : "layer"};
    uint64_t key = key_of(t, lane, LAYER_ITSELF);
    *id = ra_idmap_get(&scopes->known, key);
    if (*id)
        return RA_OK;
    RA_TRY(ra_scopes_step(scopes, t, &row.parent_id, err));
    return find(scopes, key, &row, id, err);
}

static unsigned number_of(const char *op)
{
    for (unsigned i = 0; i < RA_OP_COUNT; i++)
        if (strcmp(op, ra_op_name((enum ra_op)i)) == 0)
            return i + 1;
    return RA_OP_COUNT + 1; /* "between" */
}

enum ra_status ra_scopes_op(struct ra_scopes *scopes, int32_t t, int layer, const char *op,
                            int64_t *id, struct ra_error *err)
{
    int lane = lane_of(scopes, layer);
    struct ra_scope_row row = {.run_id = scopes->run_id,
                               .kind = "op",
                               .step = t,
                               .layer = number_in_model(scopes, lane),
                               .name = op};
    uint64_t key = key_of(t, lane, number_of(op));
    *id = ra_idmap_get(&scopes->known, key);
    if (*id)
        return RA_OK;
    RA_TRY(ra_scopes_step(scopes, t, &row.parent_id, err));
    return find(scopes, key, &row, id, err);
}
