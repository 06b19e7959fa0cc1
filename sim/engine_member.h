/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members: the sequences of a batch, or its copies that differ by how far they are in a stride or
 * by how long their prompt is. Each is decided, measured and checked by itself; copies that are
 * alike are one member. Sequences are each reported. Of copies the first is: the sequence as it was
 * recorded. Internal to the engine.
 */
#ifndef RA_SIM_ENGINE_MEMBER_H
#define RA_SIM_ENGINE_MEMBER_H

#include "sim/engine_internal.h"

struct ra_member {
    struct ra_replay_config config; /* of this sequence; of a copy nothing is kept */
    struct ra_shape shape;          /* a copy's arrays are those of the recorded sequence's */
    struct ra_decode_rows rows;     /* so are these; in phase 2 */
    struct ra_track *tracks;        /* [n_policies] */
};

struct ra_members {
    int n;
    struct ra_member *list;
    struct ra_track *tracks; /* [n][n_policies] */
};

/* How many there are. */
int ra_engine_members(const struct ra_replay_config *config);

/* The shape of a copy, which borrows the arrays of the recorded sequence's. */
struct ra_shape ra_member_shape(const struct ra_replay_config *config,
                                const struct ra_shape *recorded, int number);

/* What is replayed of a member, which the whole's configuration says. */
struct ra_replay_config ra_member_config(const struct ra_replay_config *config, int number);

/* Resolve their shapes. RA_EUSAGE for sequences that cannot be in one batch. */
RA_MUST_CHECK enum ra_status ra_members_open(struct ra_members *members,
                                             const struct ra_replay_config *config,
                                             struct ra_error *err);
void ra_members_close(struct ra_members *members);

/* Open their books. */
RA_MUST_CHECK enum ra_status ra_members_begin(struct ra_members *members, struct ra_error *err);

/* Make the decode rows of all resident. */
RA_MUST_CHECK enum ra_status ra_members_read_rows(struct ra_members *members, struct ra_error *err);

/* Say of which member an error is, where there are several. */
enum ra_status ra_member_fail(const struct ra_members *members, int number, enum ra_status st,
                              struct ra_error *err);

/* Phase 1 of all; those of one length share the reference. */
RA_MUST_CHECK enum ra_status ra_members_measure(const struct ra_members *members,
                                                struct ra_pool *pool, struct ra_error *err);

/* What of a backend's configuration is per layer: [n_lanes * tiles] each. */
struct ra_backend_layers {
    int32_t *windows;
    struct ra_page_rule *pages;
};
RA_MUST_CHECK enum ra_status ra_backend_layers_open(struct ra_backend_layers *layers, size_t n,
                                                    struct ra_error *err);
void ra_backend_layers_close(struct ra_backend_layers *layers);

/* What the backend must hold for one schedule. `layers` are filled, and lent to what is returned.
 */
struct ra_backend_config ra_engine_backend_config(const struct ra_members *members, int policy,
                                                  struct ra_backend_layers *layers);

/* Phase 2 of one schedule. results [sequences][n_policies] of all. */
RA_MUST_CHECK enum ra_status ra_engine_time(const struct ra_members *members, int policy,
                                            struct ra_replay_result *results, struct ra_error *err);

#endif
