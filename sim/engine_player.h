/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend opened for one schedule of all members, and its steps run: called, recorded, played.
 * What a run leaves is in the recorder and in the beat's output hashes. Internal to the engine.
 */
#ifndef RA_SIM_ENGINE_PLAYER_H
#define RA_SIM_ENGINE_PLAYER_H

#include "sim/engine_beat.h"

struct ra_player {
    struct ra_beat beat;
    struct ra_recorder recorder;     /* of the run at hand */
    struct ra_step_time *times;      /* [1 + run_steps] of what was played */
    char (*hashes)[RA_SHA256_HEX];   /* [members] of what each run must give */
    struct ra_backend_layers layers; /* lent to the backend */
    size_t backend_bytes;
    bool is_one_by_one; /* steps are launched so, whatever the configuration says */
    bool is_watched;    /* which keeps the host: its times are kept, late or not, and are of no use
                         * but to tell what watching costs */
};

/* watch is borrowed until close; NULL: ranges alone, if a tool listens. no_graph: steps launched
 * one by one whatever the configuration says. close takes what was opened when this fails. */
RA_MUST_CHECK enum ra_status ra_player_open(struct ra_player *player,
                                            const struct ra_members *members, int policy,
                                            const struct ra_backend_watch *watch, bool no_graph,
                                            struct ra_error *err);
void ra_player_close(struct ra_player *player);

/* Close the backend alone: its memory is another's, what the last run left stays. */
void ra_player_release(struct ra_player *player);

/* Steps that are called, each call timed or not: `number` of `of` such runs. The first is checked
 * against the reference. */
RA_MUST_CHECK enum ra_status ra_player_call(struct ra_player *player, int number, int of,
                                            struct ra_error *err);

/* The same calls once more, recorded: `number` of `of`. */
RA_MUST_CHECK enum ra_status ra_player_record(struct ra_player *player, int number, int of,
                                              struct ra_error *err);

/* The recording played; with is_first, members that were taken one by one are checked anew. */
RA_MUST_CHECK enum ra_status ra_player_play(struct ra_player *player, bool is_first,
                                            struct ra_error *err);

/* What is known of the steps that were played, for the store; borrowed. launch_mode is theirs. */
struct ra_step_facts ra_player_facts(const struct ra_player *player);

/* Kernels of all steps that were played, or RA_EDIVERGED where a step launched others than `first`
 * [1 + run_steps] did, or in another order. */
RA_MUST_CHECK enum ra_status ra_player_same_launches(const struct ra_player *player,
                                                     const struct ra_step_launches *first,
                                                     int64_t *n, struct ra_error *err);

/* What each run gives of a member is the same, or RA_EDIVERGED; `is_first` says what. */
RA_MUST_CHECK enum ra_status ra_player_same(struct ra_player *player, int repeat, bool is_first,
                                            struct ra_error *err);

#endif
