/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Passes that observe: the steps of one schedule once more, from the same initial state, with a
 * profiler on. What they do must be what the bare passes did, or they are failed. Internal to the
 * engine.
 */
#ifndef RA_SIM_ENGINE_PROFILE_H
#define RA_SIM_ENGINE_PROFILE_H

#include "sim/engine_player.h"

/* The counter passes, from this ordinal on. */
RA_MUST_CHECK enum ra_status ra_engine_count_passes(const struct ra_members *members, int policy,
                                                    struct ra_stored_pass *stored,
                                                    char (*hashes)[RA_SHA256_HEX], int ordinal,
                                                    struct ra_error *err);

/* After the bare passes, whose output hashes are given, as many as there are ordinals of. */
RA_MUST_CHECK enum ra_status ra_engine_profile(const struct ra_members *members, int policy,
                                               struct ra_stored_pass *stored,
                                               char (*hashes)[RA_SHA256_HEX], int ordinal,
                                               struct ra_error *err);

#endif
