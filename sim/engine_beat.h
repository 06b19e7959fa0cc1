/* SPDX-License-Identifier: Apache-2.0 */
/* One schedule on one backend, step by step: the inner part of phase 2. Internal to the engine. */
#ifndef RA_SIM_ENGINE_BEAT_H
#define RA_SIM_ENGINE_BEAT_H

#include "profiler/range.h"
#include "sim/engine_pass.h"
#include "sim/engine_transform.h"

struct ra_beat;

/* Sees every call, innermost: between its time stamps. `ends` only follows a call that succeeded.
 */
struct ra_beat_watch {
    void *context;
    enum ra_status (*begins)(void *context, struct ra_error *err);
    enum ra_status (*ends)(void *context, const struct ra_beat *b, struct ra_error *err);
};

/* What is at hand at one (lane, step). The first block is the caller's to fill. */
struct ra_beat {
    const struct ra_members *members;
    int policy;
    const struct ra_backend_ops *ops;
    void *dev;
    struct ra_recorder *recorder;
    const struct ra_beat_watch *watch; /* NULL: none; borrowed */
    bool first_repeat;
    bool is_recording; /* calls are recorded, not run: what they return means nothing */

    int member; /* what follows is of it, until another's turn */
    const struct ra_replay_config *config;
    const struct ra_shape *shape;
    const struct ra_decode_rows *rows; /* of copies the same: prompts are cut at their beginning */
    struct ra_track *track;

    const struct ra_lane *lane;
    int lane_number; /* among the backend's layers */
    struct ra_step step;
    float *q, *unrotated; /* [Hq][D] */
    double *head;         /* [D] */
    float *out;           /* [Hq][Dv] */
    float *first_out;     /* [members][n_lanes][Hq][Dv] of this step in tile 0 */
    int32_t *record;      /* a spooled record */
    size_t record_bytes;
    struct ra_positions *sets;          /* [Hq] of a record */
    struct ra_positions *chosen;        /* [Hkv] the backend's selection */
    int32_t *evicted, *most;            /* [Hkv] */
    double *scores;                     /* [Hkv][ra_beat_rows] of a record */
    bool has_scores;                    /* `scores` are of what is being installed */
    const float **entry_scores;         /* [Hkv] the backend's, before a cut */
    int32_t *cut_order;                 /* [ra_beat_rows] */
    char *prompt;                       /* one lane's prompt rows, K then V */
    struct ra_transformed *transformed; /* in place of those recorded; NULL: they stay */
    struct ra_sha256 *output;           /* [members] */
    uint64_t *step_outputs; /* [1 + run_steps] hashes of what each step played gave; 0: none */
    int *full_lanes;        /* [n_steps] lanes that ran a full step, of all tiles and members */
};

/* Storage for one step; everything in the struct's first block must be set. Member 0 is at hand. */
RA_MUST_CHECK enum ra_status ra_beat_open(struct ra_beat *b, struct ra_error *err);
void ra_beat_close(struct ra_beat *b);

/* The member at hand, and the copy of which the backend's operations are. */
void ra_beat_turn(struct ra_beat *b, int member);

/* All steps once, from empty caches. RA_EDIVERGED, RA_EINTERRUPTED, and what the backend fails
 * with. */
RA_MUST_CHECK enum ra_status ra_beat_repeat(struct ra_beat *b, uint64_t done_before, uint64_t total,
                                            struct ra_error *err);

/* Rows of the longest member. */
size_t ra_beat_rows(const struct ra_beat *b);

/* Read the spool's record of this (lane, step) into b->record. */
RA_MUST_CHECK enum ra_status ra_beat_load_record(struct ra_beat *b, enum ra_record kind,
                                                 struct ra_error *err);

/*
 * The output at hand: held to the reference's in the first repeat, and to tile 0's in each, which
 * is exported and goes into b->output. Only of counted steps that run.
 */
RA_MUST_CHECK enum ra_status ra_beat_check_output(struct ra_beat *b, struct ra_error *err);

/*
 * The same of outputs that were played, [run_steps][tiles][n_lanes][members][Hq][Dv]. What members
 * do together is rounded otherwise than what each does alone, so the first played are held to the
 * reference anew, where there are several.
 */
RA_MUST_CHECK enum ra_status ra_beat_check_played(struct ra_beat *b, const float *out,
                                                  bool is_first, struct ra_error *err);

/*
 * The backend's part of a plan that learns: choices from scores of all keys or of pages are
 * compared with the reference's, which then stand; choices that no backend makes are the
 * reference's. ra_beat_install brings C_r to what the schedule retains now.
 */
RA_MUST_CHECK enum ra_status ra_beat_choose(struct ra_beat *b, const struct ra_plan *plan,
                                            struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_beat_install(struct ra_beat *b, struct ra_error *err);

/* Hold the backend's choice among pages, b->chosen, to the reference's: pages may change sides only
 * where their scores nearly tie. RA_EDIVERGED. */
RA_MUST_CHECK enum ra_status
ra_engine_check_pages(struct ra_beat *b, const struct ra_page_rule *rule, struct ra_error *err);

/* Self enters C_r, which is cut by the scores of the attention just made. */
RA_MUST_CHECK enum ra_status ra_beat_cut(struct ra_beat *b, const struct ra_plan *plan,
                                         struct ra_error *err);

/* Count what the recorded steps ask memory for, in a pass of its own; nothing without a store, or
 * where nothing counts. */
RA_MUST_CHECK enum ra_status ra_beat_count(struct ra_beat *b, struct ra_stored_pass *pass,
                                           int ordinal, struct ra_error *err);

/* Time one backend call of this beat. A tool's own cost for the range stays outside the bracket;
 * that of a watch does not, so that what it sees is the call's alone. */
#define RA_TIMED(beat, op, call, err)                                                              \
    do {                                                                                           \
        ra_beat_push_range(beat, RA_RANGE_OP, (beat)->step.t, (beat)->lane->id, op);               \
        uint64_t begin_ns_ = ra_recorder_begin();                                                  \
        enum ra_status status_ = ra_beat_watch_begins(beat, err);                                  \
        if (status_ == RA_OK)                                                                      \
            status_ = (call);                                                                      \
        if (status_ == RA_OK)                                                                      \
            status_ = ra_beat_watch_ends(beat, err);                                               \
        if (status_ == RA_OK)                                                                      \
            status_ = ra_recorder_end((beat)->recorder, begin_ns_, (beat)->step.t,                 \
                                      (beat)->lane->id, op, err);                                  \
        ra_beat_pop_range(beat);                                                                   \
        RA_TRY(status_);                                                                           \
    } while (0)

static inline enum ra_status ra_beat_watch_begins(const struct ra_beat *b, struct ra_error *err)
{
    return b->watch ? b->watch->begins(b->watch->context, err) : RA_OK;
}

static inline enum ra_status ra_beat_watch_ends(const struct ra_beat *b, struct ra_error *err)
{
    return b->watch ? b->watch->ends(b->watch->context, b, err) : RA_OK;
}

/* Of calls that run: a recording's have none. */
void ra_beat_push_range(const struct ra_beat *b, enum ra_range_kind kind, int32_t step, int layer,
                        enum ra_op op);
void ra_beat_pop_range(const struct ra_beat *b);

/* Does what the backend returns hold something to check? */
bool ra_beat_is_exact(const struct ra_beat *b);

/* Compare the query, and decide by it, as far as the schedule does. */
RA_MUST_CHECK enum ra_status ra_beat_decide(struct ra_beat *b, const struct ra_plan *plan,
                                            struct ra_error *err);

/* What follows is the branch that the plan takes, until it ends; before or after it the other is
 * launched as well, if the device decides. */
RA_MUST_CHECK enum ra_status ra_beat_begin_branch(struct ra_beat *b, const struct ra_plan *plan,
                                                  struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_beat_end_branch(struct ra_beat *b, const struct ra_plan *plan,
                                                struct ra_error *err);

#endif
