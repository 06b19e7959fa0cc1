/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Layers as a schedule's transformation leaves them. Layers with a sliding window stay as they are.
 * Internal to the engine.
 */
#ifndef RA_SIM_ENGINE_TRANSFORM_H
#define RA_SIM_ENGINE_TRANSFORM_H

#include "sim/engine_member.h"

/* Do both schedules see the same keys and values? */
bool ra_engine_same_rows(const struct ra_policy_spec *a, const struct ra_policy_spec *b);

/* Is schedule p the first of those that see the same rows, and how many such are there? */
bool ra_engine_opens_rows(const struct ra_replay_config *config, int p);
uint64_t ra_engine_count_rows(const struct ra_replay_config *config);

/* Rows of a lane and, of the steps at hand in phase 1, what follows from them. */
struct ra_lane_view {
    char *k, *v; /* [Hkv][P + run_steps][D], [Hkv][..][Dv] as stored */
    double *prob, *out;
};
/* Room for transformed ones beside those recorded; none where no schedule needs it. */
RA_MUST_CHECK enum ra_status ra_engine_open_beside(const struct ra_replay_config *config,
                                                   const struct ra_shape *shape,
                                                   struct ra_lane_view *view, struct ra_error *err);
void ra_engine_close_beside(struct ra_lane_view *view);

/* Room beside what is recorded, 0 without a transformation: in phase 1 for rows and probabilities,
 * in phase 2 for decode rows and a lane. */
uint64_t ra_engine_transform_bytes(const struct ra_replay_config *config,
                                   const struct ra_shape *shape, int phase);

/*
 * Transform a lane's rows in place: kv->k [Hkv][P + run_steps][D] and kv->v as stored. kv->bits is
 * what they take then, all together.
 */
RA_MUST_CHECK enum ra_status ra_engine_transform(const struct ra_replay_config *config,
                                                 const struct ra_shape *shape,
                                                 const struct ra_lane *lane,
                                                 const struct ra_transform_chain *chain,
                                                 struct ra_lane_kv *kv, struct ra_error *err);

/* Rows of all members for phase 2 of one schedule. */
struct ra_transformed;

/* NULL where the schedule has no transformation. The members' own decode rows must be resident. */
RA_MUST_CHECK enum ra_status ra_transformed_open(struct ra_transformed **transformed,
                                                 const struct ra_members *members, int policy,
                                                 struct ra_error *err);
void ra_transformed_close(struct ra_transformed *transformed);

/* A member's decode rows; those of a lane are its transformed ones once it was loaded. */
const struct ra_decode_rows *ra_transformed_rows(const struct ra_transformed *transformed,
                                                 int member);

/* Read and transform a lane of a member: its prompt rows into *rows, borrowed until the next call;
 * what a row takes into the member's books. */
RA_MUST_CHECK enum ra_status ra_transformed_load(struct ra_transformed *transformed, int member,
                                                 int lane, struct ra_prompt_rows *rows,
                                                 struct ra_error *err);

#endif
