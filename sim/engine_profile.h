/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passes that observe: the steps of one schedule once more, from the same initial state, with a
 * profiler on. What they do must be what the bare passes did, or they are failed. Internal to the
 * engine.
 */
#ifndef RA_SIM_ENGINE_PROFILE_H
#define RA_SIM_ENGINE_PROFILE_H

#include "sim/engine_player.h"

/* What the bare passes did, borrowed; the pass that comes next. */
struct ra_observed {
    const struct ra_members *members;
    int policy;
    struct ra_stored_pass *stored;
    char (*hashes)[RA_SHA256_HEX];           /* [members] of outputs */
    const struct ra_step_launches *launched; /* [1 + run_steps] */
    int ordinal;
    int64_t device_id; /* row of the device, which each pass is of */
};

/* The counter passes. */
RA_MUST_CHECK enum ra_status ra_engine_count_passes(const struct ra_observed *observed,
                                                    struct ra_error *err);

/* All passes that the configuration asks for. */
RA_MUST_CHECK enum ra_status ra_engine_profile(const struct ra_observed *observed,
                                               struct ra_error *err);

/* The same where calls are timed from outside: the bare passes' player times them once more, and
 * counting needs the memory of its backend, which is closed. */
RA_MUST_CHECK enum ra_status ra_engine_profile_calls(struct ra_player *player,
                                                     struct ra_stored_pass *stored, int ordinal,
                                                     struct ra_error *err);

/* How often that runs the steps. */
int ra_engine_profile_runs(const struct ra_replay_config *config);

#endif
