/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The resolved shape of a replay: its layers, steps and rows, and where what is kept of a (layer,
 * step) stands. Internal to the engine.
 */
#ifndef RA_SIM_ENGINE_SHAPE_H
#define RA_SIM_ENGINE_SHAPE_H

#include "sim/engine.h"

/* A layer of the replay. */
struct ra_lane {
    int index;      /* in the trace's list of layers */
    int id;         /* number in the model */
    int32_t window; /* 0: full attention */
    int full;       /* index among the full-attention lanes, -1 for window lanes */
    int slot;       /* of its records: full lanes first, window lanes behind them */
};

struct ra_shape {
    const struct ra_trace_info *info;
    const struct ra_trace_seq *seq;
    const struct ra_model *model;
    int n_lanes, n_full;
    struct ra_lane *lanes; /* [n_lanes] */
    int *full_ids;         /* [n_full] model layer numbers */
    int32_t P;
    int32_t drop;                /* rows of the recorded prompt that are left out, the first */
    int phase, of;               /* the schedule is phase/of of a stride ahead; 0 of 0: not */
    int32_t first_step, n_steps; /* counted: first_step .. first_step + n_steps - 1 */
    int32_t run_steps;           /* executed: 0 .. run_steps - 1 */
    struct ra_queries queries;   /* filled when a schedule needs it */
    double *query_means;
    uint8_t *types;         /* [P + N] of --by-type, else NULL */
    const char *type_names; /* comma-separated, borrowed from the trace */
};

/* Layers and steps; closes what it opened when it fails. */
RA_MUST_CHECK enum ra_status
ra_shape_open(struct ra_shape *shape, const struct ra_replay_config *config, struct ra_error *err);
void ra_shape_close(struct ra_shape *shape);

/* Mean queries, f64, heads in index order: what schedules compare. */
RA_MUST_CHECK enum ra_status ra_shape_form_queries(struct ra_shape *shape,
                                                   const struct ra_replay_config *config,
                                                   struct ra_error *err);

/* The first row of K and V that is recorded of a lane; what is before is never looked at. */
int32_t ra_shape_first_row(const struct ra_shape *shape, const struct ra_lane *lane);

/* ra_trace_read, where rows of K and V are positions of the shape's. */
RA_MUST_CHECK enum ra_status ra_shape_read(const struct ra_shape *shape,
                                           const struct ra_trace *trace,
                                           struct ra_trace_slice slice, void *out,
                                           struct ra_error *err);

/* acc [Hq][P] of the shape's prompt, in room for that of the recorded one. */
RA_MUST_CHECK enum ra_status ra_shape_read_acc(const struct ra_shape *shape,
                                               const struct ra_replay_config *config,
                                               const struct ra_lane *lane, float *acc,
                                               struct ra_error *err);

/* Queries of the prompt's last W positions, widened: q [Hq][W][D], W at most as many as recorded.
 */
RA_MUST_CHECK enum ra_status ra_shape_read_tail(const struct ra_shape *shape,
                                                const struct ra_replay_config *config,
                                                const struct ra_lane *lane, int32_t W, float *q,
                                                struct ra_error *err);

/* All queries of a lane, widened: q [run_steps + 1][Hq][D], the prefill's first. */
RA_MUST_CHECK enum ra_status ra_shape_read_q(const struct ra_replay_config *config,
                                             const struct ra_shape *shape,
                                             const struct ra_lane *lane, float *q,
                                             struct ra_error *err);

/* Token types, with --by-type. */
RA_MUST_CHECK enum ra_status ra_shape_open_types(struct ra_shape *shape,
                                                 const struct ra_replay_config *config,
                                                 struct ra_error *err);

/* Whether (full lane, step) is counted, and where its values start. */
bool ra_shape_counts(const struct ra_shape *shape, int32_t t);
size_t ra_shape_at(const struct ra_shape *shape, int full, int32_t t);

enum ra_record { RA_RECORD_ORDER, RA_RECORD_SETS, RA_RECORD_OUT, RA_RECORD_COUNT };

/* Slot of a record of (lane.slot, step t >= -1). */
size_t ra_shape_slot(const struct ra_shape *shape, enum ra_record kind, int slot, int32_t t);
size_t ra_shape_slots(const struct ra_shape *shape);

#endif
