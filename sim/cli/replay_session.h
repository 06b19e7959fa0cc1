/* SPDX-License-Identifier: Apache-2.0 */
/* A replay on its way: what is open, and what has come out. Private to the command. */
#ifndef RA_SIM_CLI_REPLAY_SESSION_H
#define RA_SIM_CLI_REPLAY_SESSION_H

#include "sim/cli/progress.h"
#include "sim/cli/replay.h"

/* One sequence of one trace. */
struct ra_replay_part {
    int trace_number, seq; /* of the traces given, from 0; in it */
    struct ra_trace *trace;
    int64_t run_ids[RA_OPTION_TEXTS_MAX];
    int n_begun; /* runs begun, and not ended */
    char *export_paths[RA_OPTION_TEXTS_MAX];
};

struct ra_replay_session {
    struct ra_replay_job *job;
    struct ra_replay_config config; /* of the parts at hand */
    struct ra_store *store;
    struct ra_progress progress;
    char invocation[37];
    struct ra_replay_part *parts; /* [n_parts] every sequence of every trace */
    int n_parts;
    struct ra_replay_part *at_hand; /* [n_at_hand] replayed together */
    int n_at_hand;
    struct ra_companion *with; /* [n_at_hand - 1] for the engine */
    json_t *results;           /* of all sequences so far */
};

/* Commit a run row for every schedule of the parts at hand. */
RA_MUST_CHECK enum ra_status ra_replay_begin_runs(struct ra_replay_session *s,
                                                  struct ra_error *err);

/* End every run begun: complete with its result, or failed or aborted, as `outcome` says; which
 * comes back unless that fails too. results and objects are in the order of parts and schedules. */
enum ra_status ra_replay_end_runs(struct ra_replay_session *s, enum ra_status outcome,
                                  const struct ra_replay_result *results, const json_t *objects,
                                  struct ra_error *err);

#endif
