/* SPDX-License-Identifier: Apache-2.0 */
/* What `replay` was asked to do, and the function that does it. Private to the command. */
#ifndef RA_SIM_CLI_REPLAY_H
#define RA_SIM_CLI_REPLAY_H

#include "profiler/lock_file.h"
#include "sim/cli/layer_list.h"
#include "sim/cli/options.h"
#include "sim/engine.h"

enum { RA_REPLAY_MAX_KEEP = 64 };

struct ra_replay_job {
    const struct ra_cli *cli;
    char **traces;
    int n_traces;
    struct ra_policy_spec *specs[RA_OPTION_TEXTS_MAX];
    int n_policies;
    int layers[RA_LAYER_LIST_MAX];
    int n_layers;
    struct ra_keep_set keep[RA_REPLAY_MAX_KEEP];
    int n_keep;
    const char *db, *export_path, *check;
    char chip[32]; /* that counters are of */
    struct ra_lock_file gpu_lock;
    bool is_forced, is_dry;
    struct ra_replay_config config; /* what is of one sequence is filled later */
};

/* Run every sequence of every trace; print results on stdout, what was stored on stderr. */
RA_MUST_CHECK enum ra_status ra_replay_job_run(struct ra_replay_job *job, struct ra_error *err);

#endif
