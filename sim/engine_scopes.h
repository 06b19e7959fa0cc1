/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scopes of the runs that a pass observes, by step, and by step, layer and operation: made when
 * first asked for, before the clock starts. Internal to the engine.
 */
#ifndef RA_SIM_ENGINE_SCOPES_H
#define RA_SIM_ENGINE_SCOPES_H

#include "profiler/idmap.h"
#include "sim/engine_pass.h"

struct ra_scopes {
    struct ra_store *store;
    int64_t run_id;
    const struct ra_shape *shape;
    struct ra_idmap known;
};

void ra_scopes_init(struct ra_scopes *scopes, struct ra_store *store, int64_t run_id,
                    const struct ra_shape *shape);
void ra_scopes_fini(struct ra_scopes *scopes);

RA_MUST_CHECK enum ra_status ra_scopes_step(struct ra_scopes *scopes, int32_t t, int64_t *id,
                                            struct ra_error *err);

/* layer: the backend's; -1: several together, or none. */
RA_MUST_CHECK enum ra_status ra_scopes_layer(struct ra_scopes *scopes, int32_t t, int layer,
                                             int64_t *id, struct ra_error *err);

/* op: as a backend's watch names it. */
RA_MUST_CHECK enum ra_status ra_scopes_op(struct ra_scopes *scopes, int32_t t, int layer,
                                          const char *op, int64_t *id, struct ra_error *err);

#endif
