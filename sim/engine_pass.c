/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/engine_pass.h"

#include <stdio.h>
#include <stdlib.h>

enum ra_status ra_stored_pass_open(struct ra_stored_pass *pass, const struct ra_members *members,
                                   int policy, struct ra_error *err)
{
    const struct ra_replay_config *config = &members->list[0].config;
    *pass = (struct ra_stored_pass){.store = config->store};
    if (!config->store)
        return RA_OK;
    pass->n = ra_replay_sequences(config);
    pass->runs = calloc((size_t)pass->n, sizeof *pass->runs);
    pass->ids = calloc((size_t)pass->n, sizeof *pass->ids);
    if (!pass->runs || !pass->ids)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the passes of %d runs", pass->n);
    for (int i = 0; i < pass->n; i++)
        pass->runs[i] = members->list[i].config.run_ids[policy];
    return RA_OK;
}

void ra_stored_pass_close(struct ra_stored_pass *pass)
{
    free(pass->runs);
    free(pass->ids);
    free(pass->scopes);
}

enum ra_status ra_stored_pass_begin(struct ra_stored_pass *pass, int ordinal, const char *mode,
                                    struct ra_error *err)
{
    for (int i = 0; i < pass->n; i++)
        RA_TRY(ra_store_pass_begin(pass->store, pass->runs[i], ordinal, mode, &pass->ids[i], err));
    return RA_OK;
}

/* Each bracket is a scope of its own: a layer may be there several times. */
static enum ra_status make_scopes(struct ra_store *store, int64_t run_id,
                                  const struct ra_recorder *recorder, int64_t *scopes,
                                  struct ra_error *err)
{
    int64_t step_scope = 0;
    int32_t step = RA_SCOPE_NONE;
    for (size_t i = 0; i < recorder->n_ops; i++) {
        const struct ra_op_time *op = &recorder->ops[i];
        struct ra_scope_row row = {.run_id = run_id,
                                   .kind = "step",
                                   .step = op->step,
                                   .layer = RA_SCOPE_NONE,
                                   .name = op->step < 0 ? "prefill" : "step"};
        if (op->step != step)
            RA_TRY(ra_store_scope(store, &row, &step_scope, err));
        step = op->step;
        scopes[i] = step_scope;
        if (op->op == RA_OP_WHOLE_STEP)
            continue;
        row.parent_id = step_scope;
        row.kind = "op";
        row.layer = op->layer;
        row.name = ra_op_name(op->op);
        RA_TRY(ra_store_scope_new(store, &row, &scopes[i], err));
    }
    return RA_OK;
}

static enum ra_status fill_one(const struct ra_stored_pass *pass, int number, int64_t scope_id,
                               const struct ra_op_time *op, const struct ra_step_facts *facts,
                               struct ra_error *err)
{
    char hash[24];
    struct ra_scope_exec_row row = {.pass_id = pass->ids[number],
                                    .scope_id = scope_id,
                                    .start_ns = op->start_ns,
                                    .end_ns = op->end_ns,
                                    .event_ns = op->is_late ? 0 : op->event_ns};
    if (facts && op->op == RA_OP_WHOLE_STEP) {
        uint64_t output = facts->outputs[op->step + 1];
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)output);
        row.output_hash = output ? hash : NULL;
        row.launch_hash = facts->launched[op->step + 1].hash;
    }
    return ra_store_scope_exec(pass->store, &row, err);
}

/* One number of all steps' hashes, in their order. */
static uint64_t hash_of(const struct ra_step_facts *facts)
{
    uint64_t hash = 14695981039346656037u;
    for (int32_t i = 0; i < facts->n; i++)
        hash = (hash ^ facts->launched[i].hash) * 1099511628211u;
    return hash;
}

static enum ra_status fill_run(const struct ra_stored_pass *pass, int number,
                               const struct ra_recorder *recorder, bool is_first,
                               const struct ra_step_facts *facts, struct ra_error *err)
{
    int64_t *scopes = pass->scopes + (size_t)number * pass->n_scopes;
    if (is_first)
        RA_TRY(make_scopes(pass->store, pass->runs[number], recorder, scopes, err));
    if (facts)
        RA_TRY(ra_store_pass_launches(pass->store, pass->ids[number], facts->launch_mode,
                                      hash_of(facts), err));
    for (size_t i = 0; i < recorder->n_ops; i++)
        RA_TRY(fill_one(pass, number, scopes[i], &recorder->ops[i], facts, err));
    return RA_OK;
}

enum ra_status ra_stored_pass_fill(struct ra_stored_pass *pass, const struct ra_recorder *recorder,
                                   const struct ra_step_facts *facts, struct ra_error *err)
{
    bool is_first = !pass->scopes;
    if (!pass->store)
        return RA_OK;
    if (is_first) {
        pass->n_scopes = recorder->n_ops;
        pass->scopes = calloc((size_t)pass->n * pass->n_scopes + 1, sizeof *pass->scopes);
    }
    if (!pass->scopes)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for scopes");
    RA_BUG_ON(recorder->n_ops != pass->n_scopes);
    for (int i = 0; i < pass->n; i++)
        RA_TRY(fill_run(pass, i, recorder, is_first, facts, err));
    return RA_OK;
}

enum ra_status ra_stored_pass_end(struct ra_stored_pass *pass, enum ra_status st, bool is_whole,
                                  struct ra_error *err)
{
    enum ra_run_state state = st == RA_OK && is_whole ? RA_RUN_COMPLETE
                              : st == RA_OK           ? RA_RUN_INCOMPLETE
                              : st == RA_EINTERRUPTED ? RA_RUN_ABORTED
                                                      : RA_RUN_FAILED;
    for (int i = 0; i < pass->n; i++) {
        enum ra_status ended =
            ra_store_pass_end(pass->store, pass->ids[i], state, st == RA_OK ? err : NULL);
        st = st == RA_OK ? ended : st;
    }
    return st;
}
