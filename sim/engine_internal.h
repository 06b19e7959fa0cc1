/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the engine share, beside the shape: the books that are kept for each schedule.
 * engine.c plans and runs the phases, engine_track.c counts, engine_measure.c is phase 1,
 * engine_figures.c measures a layer-step, engine_transform.c has the rows that schedules see,
 * engine_time.c is phase 2, engine_member.c has what of a batch differs, engine_check.c compares a
 * backend's selections with the reference's, engine_output.c its outputs, engine_summary.c reduces,
 * engine_export.c writes files.
 */
#ifndef RA_SIM_ENGINE_INTERNAL_H
#define RA_SIM_ENGINE_INTERNAL_H

#include "sim/base/pool.h"
#include "sim/engine.h"
#include "sim/engine_shape.h"
#include "sim/engine_spool.h"
#include "sim/scores.h"

/* Sums of one token type; see ra_types_json for what becomes of them. */
enum { RA_MAX_TYPES = 256 };
struct ra_type_sums {
    int64_t visible, attended, n_errors;
    double mass, kept, error;
};

/* Residence of one KV head's entries. */
struct ra_residence {
    int full, head;   /* lane index among full lanes, KV head */
    int32_t *entered; /* [P + run_steps] step of entry, INT32_MIN: not in C_r */
    int32_t *now;     /* retained set as last seen */
    int32_t n_now;
};

/* Keys and values of a lane as stored, and what they take in memory, all rows together. */
struct ra_lane_kv {
    char *k, *v;
    struct ra_transform_bits bits;
};

/* The books of one schedule. */
struct ra_track {
    const struct ra_replay_config *config;
    const struct ra_shape *shape;
    const struct ra_policy_spec *spec;
    struct ra_policy *policy; /* of the tile at hand */
    struct ra_policy **tiles; /* [n_tiles] one for each time that phase 2 has the layers */
    int tile, n_tiles;        /* only tile 0 counts: others do the same */
    enum ra_caches caches;
    /* With a transformation, else NULL: [n_full] bits of all rows of a lane, and [n_full][Hkv] the
     * keys that phase 2 loaded. */
    struct ra_transform_bits *row_bits;
    struct ra_spool *keys;
    int number;                           /* of the schedule */
    const struct ra_replay_config *whole; /* whose runs a copy's rows are of; NULL: its own */
    int member;                           /* which copy it is */

    struct ra_sha256 *lane_hash; /* [n_lanes] */
    struct ra_counts total, prefill;
    int64_t window_keys, window_read, window_write;
    int64_t full_layer_steps, recycled_layer_steps;

    /* [n_full][n_steps][...]; NaN where there is nothing. NULL without quality. */
    double *mass, *err, *recall; /* [Hq] each; behind err [n_full][n_steps] of whole layers, all
                                  * heads as one vector */
    double *overlap;             /* [Hkv] */
    uint8_t *flags;              /* RA_FLAG_* */
    int64_t err_undefined;
    struct ra_type_sums *types; /* [RA_MAX_TYPES], NULL without --by-type */
    int64_t type_heads;         /* query heads of counted layer-steps */

    struct ra_layer_step_row *rows; /* waiting for the store */
    size_t n_rows, rows_capacity;
    struct ra_retained_row *stays;
    size_t n_stays, stays_capacity;
    struct ra_residence *residence; /* [n_keep] */
    int n_residence;

    /* Workspace of one (layer, step). */
    struct ra_positions *sets;  /* [Hq] attended, self included; pos NULL: everything */
    int32_t *set_storage;       /* [Hkv][P + run_steps + 1], [Hq][...] once is_wide */
    bool is_wide;               /* the schedule has had sets per query head */
    struct ra_retained *before; /* [Hkv] retained before a rebuild */
    int32_t *before_storage;
    uint8_t *mark;            /* [P + run_steps] */
    double *aggregated;       /* [P + run_steps] */
    uint64_t *scratch;        /* [P + run_steps] */
    double *attended;         /* [Hq][Dv] output over A */
    struct ra_scorer *scorer; /* forms the scores that the schedule asks for in phase 1 */
    int32_t *record;          /* a spool record being built */
    size_t record_capacity;
    enum ra_agg agg; /* of the schedule's selection, for recall */

    struct ra_spool *spool;  /* orders, sets, reference outputs */
    struct ra_spool *output; /* backend outputs for the export: slot of RA_RECORD_OUT */
    double max_abs_logit, max_abs_window; /* of full and of window lanes */
    double worst_err;                     /* of the backend's outputs */
    int64_t selections, near_ties;
    struct ra_error error;
    enum ra_status status;
};

static inline double *ra_track_layer_err(const struct ra_track *track)
{
    const struct ra_shape *shape = track->shape;
    return track->err + (size_t)shape->n_full * (size_t)shape->n_steps * (size_t)shape->model->Hq;
}

enum { RA_FLAG_FULL = 1, RA_FLAG_SPARSE = 2 }; /* is_full; counts in on_recycled */

RA_MUST_CHECK enum ra_status ra_track_open(struct ra_track *track,
                                           const struct ra_replay_config *config,
                                           const struct ra_shape *shape, int number,
                                           struct ra_error *err);
void ra_track_close(struct ra_track *track);
/* Open the schedule anew, at its prefill, for so many tiles; 0 is at hand. */
RA_MUST_CHECK enum ra_status ra_track_restart(struct ra_track *track, int n_tiles,
                                              struct ra_error *err);
void ra_track_turn(struct ra_track *track, int tile);
/* It has run: drop the schedule, keep the books. */
void ra_track_end(struct ra_track *track);

/* Remember what is retained before the schedule may change it. */
void ra_track_before(struct ra_track *track, const struct ra_step *step);
/* Make room for sets per query head where a plan has them. */
RA_MUST_CHECK enum ra_status ra_track_widen(struct ra_track *track, const struct ra_plan *plan,
                                            struct ra_error *err);
/* Resolve the attended sets into track->sets, count reads into *row. */
void ra_track_attend(struct ra_track *track, const struct ra_step *step, const struct ra_plan *plan,
                     struct ra_layer_step_row *row);
/* Spool the attended sets: n_sets, then each one's size (negative: everything), then positions. */
RA_MUST_CHECK enum ra_status ra_track_spool_sets(struct ra_track *track, const struct ra_step *step,
                                                 const struct ra_plan *plan, struct ra_error *err);
/* Does phase 2 need what the step retains, which no backend finds by itself? */
bool ra_track_spools_order(const struct ra_track *track, const struct ra_step *step,
                           const struct ra_plan *plan);
/* Spool which position of each KV head the step evicted by a cut, -1 where none. */
RA_MUST_CHECK enum ra_status ra_track_spool_cut(struct ra_track *track, const struct ra_step *step,
                                                struct ra_error *err);
/* Spool the retained sets' eviction orders: n of each KV head, whether there are scores, then
 * positions, then scores as f64. */
RA_MUST_CHECK enum ra_status ra_track_spool_order(struct ra_track *track,
                                                  const struct ra_step *step, struct ra_error *err);
/* One counted step of a layer as it was recorded, and as the schedule sees it. */
struct ra_seen {
    const struct ra_step *step;
    bool is_true;            /* both are one */
    const double *true_prob; /* [Hq][L], L = self + 1 */
    const double *true_out;  /* [Hq][Dv] over everything */
    const double *prob, *out;
    const char *k, *v; /* [Hkv][P + run_steps][D] as stored, [..][Dv]: as it sees them */
    const float *q;    /* [Hq][D] */
};
/* Fill the figures of a counted layer-step, and the output that a backend will be held to. */
void ra_track_measure(struct ra_track *track, const struct ra_seen *seen,
                      const struct ra_plan *plan, struct ra_layer_step_row *row);
/* Close the layer-step: refresh, writes, selection bytes, fingerprint, totals, the row. */
RA_MUST_CHECK enum ra_status ra_track_close_step(struct ra_track *track, const struct ra_lane *lane,
                                                 const struct ra_step *step,
                                                 const struct ra_plan *plan,
                                                 struct ra_layer_step_row *row,
                                                 struct ra_error *err);
/* A layer-step of a sliding-window lane. */
RA_MUST_CHECK enum ra_status ra_track_window(struct ra_track *track, const struct ra_lane *lane,
                                             int32_t t, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_track_open_residence(struct ra_track *track, struct ra_error *err);
/* Residence of the kept heads after the step. */
RA_MUST_CHECK enum ra_status ra_track_residence(struct ra_track *track, const struct ra_step *step,
                                                struct ra_error *err);
/* The lane is over: close residences. */
RA_MUST_CHECK enum ra_status ra_track_leave(struct ra_track *track, int full, struct ra_error *err);
/* Hand waiting rows to the store. */
RA_MUST_CHECK enum ra_status ra_track_store(struct ra_track *track, struct ra_error *err);
void ra_track_fingerprint(struct ra_track *track, char hex[RA_SHA256_HEX]);

/* The split by token type; all do nothing without --by-type. */
RA_MUST_CHECK enum ra_status ra_track_open_types(struct ra_track *track, struct ra_error *err);
void ra_track_types_keys(struct ra_track *track, int n_sets, int32_t L);
void ra_track_types_head(struct ra_track *track, const double *prob, int32_t L,
                         const struct ra_positions *set, double error);
/* {"text": {...}, ...}; the caller owns it. */
json_t *ra_types_json(const struct ra_track *track);

/* Room for what a transformation leaves; nothing without one. */
RA_MUST_CHECK enum ra_status ra_track_open_transform(struct ra_track *track, struct ra_error *err);
/* The first n keys of a full lane's KV head as the schedule sees them, as stored. */
RA_MUST_CHECK enum ra_status ra_track_read_keys(const struct ra_track *track,
                                                const struct ra_lane *lane, int kv, int32_t n,
                                                char *k, struct ra_error *err);

/* Bytes of n rows of K and V of a full lane, and of n rows of K. Of transformed rows the mean over
 * the lane's rows, tables included; rounded up. */
int64_t ra_track_kv_bytes(const struct ra_track *track, int full, int64_t n);
int64_t ra_track_k_bytes(const struct ra_track *track, int full, int64_t n);

/* A row in which nothing is measured yet. */
struct ra_layer_step_row ra_track_blank_row(void);

/* Is there anything that the spool must hold beyond what evictions need? */
bool ra_track_exports(const struct ra_track *track);

RA_MUST_CHECK enum ra_status ra_engine_measure(const struct ra_replay_config *config,
                                               const struct ra_shape *shape,
                                               struct ra_track *tracks, struct ra_pool *pool,
                                               struct ra_error *err);

/* Decode rows of all lanes, resident before the clock starts; shared by the schedules. */
struct ra_decode_rows {
    char *k, *v, *q; /* as stored: [n_lanes][run_steps][Hkv][D], [..][Hkv][Dv],
                        [n_lanes][run_steps + 1][Hq][D] with the prefill's query first */
};
void ra_decode_rows_close(struct ra_decode_rows *rows);

/* How often phase 2 has the layers. */
int ra_engine_tiles(const struct ra_replay_config *config);

/* Steps of phase 1 that are formed together, by the memory their probabilities take. */
int ra_engine_tile(const struct ra_shape *shape);

/*
 * Compare a backend's eviction orders [Hkv] with the reference's of this selection, by the rule for
 * near ties; count them. RA_EDIVERGED when they differ otherwise.
 */
RA_MUST_CHECK enum ra_status
ra_engine_check_order(struct ra_track *track, const struct ra_lane *lane,
                      const struct ra_step *step, const struct ra_select_rule *rule,
                      const struct ra_positions *backend, const struct ra_positions *reference,
                      struct ra_error *err);

/* Reduce the books to figures. Consumes the fingerprint. */
RA_MUST_CHECK enum ra_status
ra_engine_summarise(struct ra_track *track, struct ra_replay_result *result, struct ra_error *err);

RA_MUST_CHECK enum ra_status ra_engine_export(struct ra_track *track, const char *path,
                                              struct ra_error *err);

#endif
