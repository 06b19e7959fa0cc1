/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs of a model, decoding or recording, in the store: a row committed before the work, ended
 * whatever happens, with figures and samples taken from the result itself. Without a store every
 * call does nothing.
 */
#ifndef RA_SIM_CLI_EVAL_STORE_H
#define RA_SIM_CLI_EVAL_STORE_H

#include <jansson.h>

#include "profiler/store.h"
#include "sim/cli/options.h"
#include "sim/policy_spec.h"

struct ra_eval_store {
    const struct ra_cli *cli;
    const char *db, *command;
    struct ra_store *store; /* NULL: nothing is stored */
    char invocation[37];
    char *argv;
    int64_t *ids; /* [n] complete runs, to be told */
    int n;
};

/* Open for appending; a NULL db opens nothing. Close after failures too. */
RA_MUST_CHECK enum ra_status ra_eval_store_open(struct ra_eval_store *runs, const char *db,
                                                const char *command, const struct ra_cli *cli,
                                                struct ra_error *err);

/* What one run is of. All borrowed; NULL is stored as NULL. */
struct ra_eval_run {
    const char *kind; /* "eval", "record" */
    const struct ra_policy_spec *spec;
    json_t *config; /* what reruns it, beside the columns */
    const char *trace_path, *model_id, *backend, *device, *dtype, *schedule_of_trace;
};
/* *run_id stays 0 without a store. */
RA_MUST_CHECK enum ra_status ra_eval_store_begin(struct ra_eval_store *runs,
                                                 const struct ra_eval_run *run, int64_t *run_id,
                                                 struct ra_error *err);

/*
 * End a run: complete with `result`, whose figures of a task become rows of eval_result and whose
 * documents rows of eval_sample, else as `outcome` says. Returns `outcome`, or what went wrong
 * here. A run_id of 0 is none.
 */
enum ra_status ra_eval_store_end(struct ra_eval_store *runs, int64_t run_id, enum ra_status outcome,
                                 const json_t *result, struct ra_error *err);

/* Say on stderr which runs came, unless quiet. Returns `outcome`, or why closing failed. */
enum ra_status ra_eval_store_close(struct ra_eval_store *runs, enum ra_status outcome,
                                   struct ra_error *err);

#endif
