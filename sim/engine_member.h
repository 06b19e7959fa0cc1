/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members: the copies of a batch that differ, by how far they are in a stride or by how long their
 * prompt is. Each is decided, measured and checked by itself. The first is the sequence as it was
 * recorded, and what is reported; copies that are alike are one member. Internal to the engine.
 */
#ifndef RA_SIM_ENGINE_MEMBER_H
#define RA_SIM_ENGINE_MEMBER_H

#include "sim/engine_internal.h"

struct ra_member {
    struct ra_replay_config config; /* the caller's of the first; of others nothing is kept */
    struct ra_shape shape;          /* its arrays are those of the recorded sequence's */
    struct ra_track *tracks;        /* [n_policies] */
};

struct ra_members {
    int n;
    struct ra_member *list;
    struct ra_track *tracks; /* [n][n_policies] */
};

/* How many there are. */
int ra_engine_members(const struct ra_replay_config *config);

/* The shape of one of them, which borrows the arrays of the recorded sequence's. */
struct ra_shape ra_member_shape(const struct ra_replay_config *config,
                                const struct ra_shape *recorded, int number);

/* Open their books. shape is borrowed until close, which takes what was opened when it fails. */
RA_MUST_CHECK enum ra_status ra_members_open(struct ra_members *members,
                                             const struct ra_replay_config *config,
                                             const struct ra_shape *shape, struct ra_error *err);
void ra_members_close(struct ra_members *members);

/* Phase 1 of all; those of one length share the reference. */
RA_MUST_CHECK enum ra_status ra_members_measure(const struct ra_members *members,
                                                struct ra_pool *pool, struct ra_error *err);

/* Phase 2 of one schedule. */
RA_MUST_CHECK enum ra_status ra_engine_time(const struct ra_members *members, int policy,
                                            const struct ra_decode_rows *rows,
                                            struct ra_replay_result *result, struct ra_error *err);

#endif
