/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store: one SQLite file that holds many runs, written in place in WAL mode by one writer at a
 * time. A run is one (invocation, trace, sequence, policy); its repeats and profile modes are
 * passes that share its scopes. Rows are written in batches; a pass becomes complete in the
 * transaction of its last batch, so a process killed at any instant leaves whole passes and a
 * `running` row, which the next command that opens the store turns into `aborted`.
 */
#ifndef RA_PROFILER_STORE_H
#define RA_PROFILER_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_store;

enum ra_store_mode {
    RA_STORE_READ,  /* must exist; works on media that cannot be written */
    RA_STORE_APPEND /* created when missing; takes the writer lock, waiting 5 s */
};

/*
 * Open, check application_id and schema version, migrate an older schema (after a backup beside
 * the file), mark abandoned runs. RA_ESTORE naming the file and, for a newer schema, both
 * versions; for a held lock, the holder's pid.
 */
RA_MUST_CHECK enum ra_status ra_store_open(struct ra_store **store, const char *path,
                                           enum ra_store_mode mode, struct ra_error *err);
/* Flush, checkpoint, release the lock. NULL is allowed. RA_ESTORE when the flush failed. */
enum ra_status ra_store_close(struct ra_store *store, struct ra_error *err);

/* Version of the SQLite library in use, "3.40.1". */
const char *ra_store_library(void);

enum ra_run_state {
    RA_RUN_RUNNING,
    RA_RUN_COMPLETE,
    RA_RUN_FAILED,
    RA_RUN_ABORTED,
    RA_RUN_INCOMPLETE /* of a pass only: it ran to its end, but records of it were lost */
};
const char *ra_run_state_name(enum ra_run_state state);

/*
 * Everything that re-runs the run. Borrowed for the call; NULL text is stored as NULL. Never NULL:
 * kind, tool_version, config_json, and with a policy its name and parameters.
 */
struct ra_run_row {
    const char *invocation_uuid, *command, *argv_json, *kind, *tool_version, *config_json;
    const char *policy, *policy_name,
        *policy_params_json; /* canonical spelling, name, parameters */
    const char *trace_path, *trace_sha256, *model_id;
    int seq; /* -1: of no sequence */
    const char *backend, *device, *scores, *cache, *dtype, *schedule_of_trace, *method,
        *launch_mode;
    uint64_t seed;
};

/* Commit a `running` row at once; *run_id and uuid (37 bytes) are filled. */
RA_MUST_CHECK enum ra_status ra_store_run_begin(struct ra_store *store,
                                                const struct ra_run_row *row, int64_t *run_id,
                                                char uuid[37], struct ra_error *err);
/* Name the trace that the run wrote, now that it is whole. */
RA_MUST_CHECK enum ra_status ra_store_run_trace(struct ra_store *store, int64_t run_id,
                                                const char *sha256, struct ra_error *err);
/* Flush and commit the end. fingerprint, output_hash and result_json may be NULL. */
RA_MUST_CHECK enum ra_status ra_store_run_end(struct ra_store *store, int64_t run_id,
                                              enum ra_run_state state, const char *fingerprint,
                                              const char *output_hash, const char *result_json,
                                              struct ra_error *err);

/* One row of layer_step: counted in phase 1, once per run. NaN is stored as NULL. */
struct ra_layer_step_row {
    int64_t run_id;
    int32_t step; /* -1: the prefill */
    int layer;    /* model layer number */
    bool is_full;
    int64_t keys_read, kv_read_bytes, kv_write_bytes, refresh_entries, refresh_bytes,
        selection_bytes;
    double mass_recovered_mean, mass_recovered_min, output_rel_err_mean, output_rel_err_max,
        topk_recall, refresh_overlap, query_cosine;
};
/* Waits in memory until its batch is written; a refused row is told then. */
RA_MUST_CHECK enum ra_status ra_store_layer_step(struct ra_store *store,
                                                 const struct ra_layer_step_row *row,
                                                 struct ra_error *err);

/* The same of a copy, from 1, of the run's batch that differs from the first. Its quality is not
 * kept. `visible`: positions, self included. */
RA_MUST_CHECK enum ra_status ra_store_member_step(struct ra_store *store,
                                                  const struct ra_layer_step_row *row, int member,
                                                  int32_t visible, struct ra_error *err);

/* Residence of one position in C_r. */
struct ra_retained_row {
    int64_t run_id;
    int layer, head;
    int32_t pos, first_step, last_step;
};
RA_MUST_CHECK enum ra_status
ra_store_retained(struct ra_store *store, const struct ra_retained_row *row, struct ra_error *err);

/*
 * Commit what is pending now. When a batch cannot be written (full disk, read-only) it is rolled
 * back as a whole, what was committed stays, and every later row and every end as complete is
 * refused with RA_ESTORE; ends as failed or aborted are still tried. A row that only breaks a
 * constraint is refused alone: RA_ESTORE from the call that writes it, the rest being kept.
 */
RA_MUST_CHECK enum ra_status ra_store_flush(struct ra_store *store, struct ra_error *err);

/* Begin a pass of a run ("bare", "timing", ...), ordinal from 0. */
RA_MUST_CHECK enum ra_status ra_store_pass_begin(struct ra_store *store, int64_t run_id,
                                                 int ordinal, const char *mode, int64_t *pass_id,
                                                 struct ra_error *err);
/* In any state but running, in the transaction of the pass's last rows. */
RA_MUST_CHECK enum ra_status ra_store_pass_end(struct ra_store *store, int64_t pass_id,
                                               enum ra_run_state state, struct ra_error *err);

/* What is measured: one step, layer or operation of a run, shared by its passes. */
enum { RA_SCOPE_NONE = INT32_MIN };
struct ra_scope_row {
    int64_t run_id, parent_id; /* parent 0: none */
    const char *kind;          /* "trace", "step", "layer", "op" */
    int32_t step;              /* -1: the prefill; RA_SCOPE_NONE: of no step */
    int layer;                 /* model layer number; RA_SCOPE_NONE: of no layer */
    const char *name;
};
/* Found again when the same (run, kind, step, layer, name) was made before. */
RA_MUST_CHECK enum ra_status ra_store_scope(struct ra_store *store, const struct ra_scope_row *row,
                                            int64_t *scope_id, struct ra_error *err);
/* One more, whatever was made before: of a layer that is there several times. */
RA_MUST_CHECK enum ra_status ra_store_scope_new(struct ra_store *store,
                                                const struct ra_scope_row *row, int64_t *scope_id,
                                                struct ra_error *err);

/* Host-side execution of a scope in a pass, ns of CLOCK_MONOTONIC. output_hash may be NULL. */
struct ra_scope_exec_row {
    int64_t pass_id, scope_id;
    uint64_t start_ns, end_ns; /* of the host */
    uint64_t event_ns;         /* taken by the device, from its events; 0: not known, as where the
                                * device waited for the host */
    const char *output_hash;   /* of what a step gave; NULL: not known */
    uint64_t launch_hash;      /* of what a step launched; 0: not known */
};
RA_MUST_CHECK enum ra_status ra_store_scope_exec(struct ra_store *store,
                                                 const struct ra_scope_exec_row *row,
                                                 struct ra_error *err);

/* What one launch of the pass covers ("step-graph"), and a hash of what all its steps launched, in
 * order; 0: not known. */
RA_MUST_CHECK enum ra_status ra_store_pass_launches(struct ra_store *store, int64_t pass_id,
                                                    const char *launch_mode, uint64_t launch_hash,
                                                    struct ra_error *err);

/* What the pass counts, and by which means: "emu-count". */
RA_MUST_CHECK enum ra_status ra_store_pass_metrics(struct ra_store *store, int64_t pass_id,
                                                   const char *metric_set, struct ra_error *err);

/* A metric as one kind of device counts it. Found again by (name, chip). */
struct ra_metric_row {
    const char *name, *chip;       /* of metrics.def; "GH100", "emulated" */
    const char *counter, *hw_unit; /* the device's own names for it and its unit */
    const char *unit;
    bool is_additive; /* over scopes */
};
RA_MUST_CHECK enum ra_status ra_store_metric(struct ra_store *store,
                                             const struct ra_metric_row *row, int64_t *metric_id,
                                             struct ra_error *err);
struct ra_value_row {
    int64_t pass_id, scope_id, metric_id;
    double value; /* NaN is not a value */
};
RA_MUST_CHECK enum ra_status ra_store_value(struct ra_store *store, const struct ra_value_row *row,
                                            struct ra_error *err);

/* A note kept with the results: severity "info", "warning" or "error". run_id 0: the store. */
RA_MUST_CHECK enum ra_status ra_store_diagnostic(struct ra_store *store, int64_t run_id,
                                                 const char *severity, const char *source,
                                                 const char *message, struct ra_error *err);

/* A run as listed. Text is borrowed until the callback returns; NULL where the store has NULL. */
struct ra_run_listing {
    int64_t id;
    const char *uuid, *state, *kind, *policy, *trace_path, *trace_sha256, *model_id, *backend,
        *device, *method, *fingerprint, *output_hash, *result_json, *argv_json, *command,
        *invocation_uuid, *tool_version;
    int seq;                                /* -1: of no sequence */
    int64_t started_unix_ns, ended_unix_ns; /* ended: 0 while running */
    int64_t n_passes_complete, n_layer_steps;
};

/*
 * Call `each` for every run, in id order, or for one: `which` is NULL, an id, or a unique prefix of
 * a uuid (at least 4 characters; an id wins). Stops when `each` fails. RA_EUSAGE when `which`
 * matches none, or several (named).
 */
RA_MUST_CHECK enum ra_status ra_store_runs(struct ra_store *store, const char *which,
                                           enum ra_status (*each)(void *context,
                                                                  const struct ra_run_listing *run,
                                                                  struct ra_error *err),
                                           void *context, struct ra_error *err);

/* Call `each` for every layer_step row of a run, by step, then layer; the prefill first. */
RA_MUST_CHECK enum ra_status
ra_store_layer_steps(struct ra_store *store, int64_t run_id,
                     enum ra_status (*each)(void *context, const struct ra_layer_step_row *row,
                                            struct ra_error *err),
                     void *context, struct ra_error *err);

/* A row of a query, as text: borrowed until the callback returns, NULL where the store has NULL. */
struct ra_store_cells {
    int n;
    const char *const *names, *const *text; /* [n] */
};
typedef enum ra_status (*ra_store_cells_fn)(void *context, const struct ra_store_cells *row,
                                            struct ra_error *err);

/*
 * Run the first statement of *sql, which may only read, with the parameter :runs bound to `runs`
 * (JSON, or NULL), call `each` for every row, and move *sql behind it. RA_END when only comments
 * were left; RA_ESTORE naming the file.
 */
RA_MUST_CHECK enum ra_status ra_store_select(struct ra_store *store, const char **sql,
                                             const char *runs, ra_store_cells_fn each,
                                             void *context, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
