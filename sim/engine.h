/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replay of one recorded sequence under several schedules, in two phases. Phase 1 goes layer by
 * layer: the f64 reference of a (layer, step) is formed once and shared by all schedules, which
 * decide what they attend to and are measured against it. Phase 2 goes step by step, as a model
 * decodes: a backend that owns the caches of all layers executes each schedule and is timed and
 * checked. Definitions of all figures: README, "Letters and figures".
 */
#ifndef RA_SIM_ENGINE_H
#define RA_SIM_ENGINE_H

#include <stdbool.h>

#include <jansson.h>

#include "kernels/backend.h"
#include "profiler/recorder.h"
#include "profiler/store.h"
#include "sim/base/hash.h"
#include "sim/policy.h"
#include "traces/trace.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Residence of positions is recorded for one KV head of one layer; RA_KEEP_DEFAULT: the middle
 * recorded full-attention layer, head 0. */
struct ra_keep_set {
    int layer_id, head;
};
#define RA_KEEP_DEFAULT (-1)

/* Another sequence of a batch, of a model of the same shape, with the same layers recorded. */
struct ra_companion {
    const struct ra_trace *trace;
    int seq;
    const char *const *export_paths; /* [n_policies], or NULL */
    const int64_t *run_ids;          /* [n_policies] with a store */
};

/* What is observed in passes beside the bare ones; bits. */
enum ra_profile { RA_PROFILE_OFF, RA_PROFILE_TIMING = 1, RA_PROFILE_COUNTERS = 2 };
enum ra_granularity { RA_GRANULARITY_STEP, RA_GRANULARITY_LAYER, RA_GRANULARITY_OP };

struct ra_replay_config {
    const struct ra_trace *trace;
    int seq;
    const struct ra_companion *with; /* [batch - 1] sequences decoded together with it; NULL: the
                                      * batch is copies of this one */
    struct ra_policy_spec *const *specs; /* [n_policies] */
    int n_policies;
    const struct ra_backend_ops *backend;
    enum ra_cache_mode cache;
    int page, batch; /* as in struct ra_backend_config */
    bool spread;     /* copy b of the batch is b/batch of a stride ahead in its schedule */
    double ragged;   /* copy b lacks the first ragged * P * b / (batch - 1) rows of the prompt; 0 to
                      * 0.5, and 0 beside others. What is counted is that of copy 0, as recorded;
                      * every copy is held to its own reference */
    int tile_layers; /* phase 2 has the layers so often, each time in memory of their own, one after
                      * the other as in a model that has more; 0 or 1: once */
    enum ra_scores_mode scores;
    enum ra_decide_mode decide;
    enum ra_select_mode select;
    bool early, no_graph, between; /* as in struct ra_backend_config */
    int n_threads;                 /* 0: one per processor */
    int repeats;                   /* timed repeats, >= 1 */
    unsigned profile;              /* RA_PROFILE_*; with a store, of a backend that is timed; of one
                                    * that plays only where the gate holds */
    enum ra_granularity granularity; /* of counters; a backend that plays launches what is finer
                                      * than steps one by one */
    const char *counters;            /* list of metrics of one that plays; NULL: core, hit, miss */
    const char *chip;                /* its "GH100", with counters */
    int32_t first_step;   /* steps before it bring the caches to their state, uncounted */
    int32_t last_step;    /* inclusive; -1: the last */
    const int *layer_ids; /* model layer numbers to replay; NULL: all recorded */
    int n_layer_ids;
    bool quality;                    /* phase 1; without it the backend's own selections stand */
    bool by_type;                    /* split quality by token type */
    const char *const *export_paths; /* [n_policies] files to write, or NULL */
    struct ra_store *store;          /* NULL: nothing is stored */
    const int64_t *run_ids;          /* [n_policies] with a store */
    const struct ra_keep_set *keep;  /* [n_keep] */
    int n_keep;
    bool (*stop)(void); /* asked at layer and step boundaries; NULL: never */
    void (*progress)(void *context, const char *what, uint64_t done, uint64_t total);
    void *progress_context;
};

/* Counts of layer-steps; bytes as DESIGN's figures define them. */
struct ra_counts {
    int64_t keys_read, keys_attended, kv_read_bytes, kv_write_bytes, refresh_entries, refresh_bytes,
        selection_bytes;
};

/* Quality over a class of layer-steps; NaN where empty. */
struct ra_quality_summary {
    double mass_mean, mass_p05, mass_min;
    double err_mean, err_p95, err_max;
    double recall_mean;
    double overlap_mean, overlap_p05;
};

struct ra_replay_result {
    int32_t k_resolved; /* -1: the schedule has no k */
    int32_t steps;      /* counted */
    int64_t full_layer_steps, recycled_layer_steps;
    struct ra_counts total;
    int64_t window_keys_read, window_kv_read_bytes, window_kv_write_bytes; /* part of total */
    struct ra_counts prefill;
    double k_bits, v_bits; /* mean bits of an entry of full layers, tables included; of a schedule
                            * with a transformation */
    bool has_quality;
    struct ra_quality_summary all, on_recycled;
    /* ||o~ - o|| / ||o|| of a layer's heads as one vector, which is what the output projection
     * sees; the mean over layers, of a step; over steps. NaN without quality. */
    double step_err_mean, step_err_p95, step_err_max;
    int64_t err_undefined; /* query heads whose reference output is zero */
    double kernel_err_max; /* NaN: not measured */
    double kernel_err_bound;
    int64_t near_ties, selections;
    json_t *by_type; /* NULL unless asked for; ra_replay_release drops it */
    bool is_timed;
    bool is_cache_resident; /* KV of the run fits the last-level cache */
    int32_t late_steps; /* the device waited for the host in them: no time counts them, and totals
                         * are of the others; NaN where none is left */
    double attention_ns, step_mean_ns, step_p50_ns, step_p99_ns, full_step_mean_ns,
        recycled_step_mean_ns, prefill_ns;
    double ops_ns[RA_OP_COUNT];
    int repeats;
    size_t backend_bytes;
    char fingerprint[RA_SHA256_HEX];
    char output_hash[RA_SHA256_HEX]; /* "": not executed */
};

/* What a replay will take, told before it starts. */
struct ra_replay_needs {
    uint64_t spool_bytes;  /* temporary file in TMPDIR, all schedules together */
    uint64_t memory_bytes; /* phase 1 peak, or the backend's caches, whichever is larger */
    uint64_t export_bytes; /* at most, all files together */
};

/* Sequences that are reported: this one, and those that it is decoded with. */
int ra_replay_sequences(const struct ra_replay_config *config);

/*
 * Match schedules with the trace, resolve layers and steps. RA_EUSAGE naming what a schedule
 * needs and the trace lacks, the layer, step or K that does not fit, or what sequences of one batch
 * do not have in common.
 */
RA_MUST_CHECK enum ra_status ra_replay_plan(const struct ra_replay_config *config,
                                            struct ra_replay_needs *needs, struct ra_error *err);

/*
 * Run both phases. results [sequences][n_policies], to be released by the caller whatever comes
 * back; times are those of the batch together. On RA_EINTERRUPTED, rows of finished layers and
 * complete passes are in the store. RA_EDIVERGED: the backend's selection or output differs from
 * the reference beyond the rule for near ties, or two repeats differ.
 */
RA_MUST_CHECK enum ra_status ra_replay(const struct ra_replay_config *config,
                                       struct ra_replay_result *results, struct ra_error *err);

/* What one launch covers, of the times of this replay: step-graph; layer-graphs, each up to a
 * decision that the host waits for; stream; call. */
const char *ra_replay_launch_mode(const struct ra_replay_config *config);

/* Drop what n results hold. */
void ra_replay_release(struct ra_replay_result *results, int n);

/*
 * One JSON object per sequence and schedule, in the order of config->specs; the caller owns the
 * array. What was not measured is null. NULL when memory runs out.
 */
json_t *ra_replay_json(const struct ra_replay_config *config,
                       const struct ra_replay_result *results);

#ifdef __cplusplus
}
#endif

#endif
