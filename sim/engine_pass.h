/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pass over the steps in the store: of every reported sequence's run, for all are decoded
 * together and what is measured is of the batch. Nothing is done without a store. Internal to the
 * engine.
 */
#ifndef RA_SIM_ENGINE_PASS_H
#define RA_SIM_ENGINE_PASS_H

#include "sim/engine_member.h"

struct ra_stored_pass {
    struct ra_store *store; /* NULL: none */
    int n;                  /* runs */
    int64_t *runs, *ids;    /* [n] runs, and the pass at hand of each */
    int64_t *scopes;        /* [n][n_scopes] of the first pass's brackets, shared by the rest */
    size_t n_scopes;
};

RA_MUST_CHECK enum ra_status ra_stored_pass_open(struct ra_stored_pass *pass,
                                                 const struct ra_members *members, int policy,
                                                 struct ra_error *err);
void ra_stored_pass_close(struct ra_stored_pass *pass);

RA_MUST_CHECK enum ra_status ra_stored_pass_begin(struct ra_stored_pass *pass, int ordinal,
                                                  const char *mode, struct ra_error *err);

/* What whole steps launched and gave, [1 + run_steps] each. */
struct ra_step_facts {
    const char *launch_mode; /* of the pass */
    const struct ra_step_launches *launched;
    const uint64_t *outputs; /* hashes; 0: not looked at */
    int32_t n;               /* of both */
};

/* What was recorded, as executions of scopes; facts may be NULL, of steps that were called. */
RA_MUST_CHECK enum ra_status ra_stored_pass_fill(struct ra_stored_pass *pass,
                                                 const struct ra_recorder *recorder,
                                                 const struct ra_step_facts *facts,
                                                 struct ra_error *err);

/* It ends as `st` says, which comes back unless that fails too; incomplete where it ran to its end
 * and records are missing. */
enum ra_status ra_stored_pass_end(struct ra_stored_pass *pass, enum ra_status st, bool is_whole,
                                  struct ra_error *err);

#endif
