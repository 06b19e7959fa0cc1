/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cli/eval_store.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "profiler/store_eval.h"
#include "sim/base/json_memory.h"
#include "sim/cli/run_rows.h"
#include "sim/policy.h"
#include "sim/report_table.h"

enum ra_status ra_eval_store_open(struct ra_eval_store *runs, const char *db, const char *command,
                                  const struct ra_cli *cli, struct ra_error *err)
{
    *runs = (struct ra_eval_store){.cli = cli, .db = db, .command = command};
    if (!db)
        return RA_OK;
    RA_TRY(ra_run_invocation(runs->invocation, err));
    runs->argv = ra_run_argv(cli);
    if (!runs->argv)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for a run", db);
    return ra_store_open(&runs->store, db, RA_STORE_APPEND, err);
}

enum ra_status ra_eval_store_begin(struct ra_eval_store *runs, const struct ra_eval_run *run,
                                   int64_t *run_id, struct ra_error *err)
{
    char uuid[37];
    *run_id = 0;
    if (!runs->store)
        return RA_OK;
    const char *canonical = ra_policy_spec_canonical(run->spec);
    char *params = ra_run_params(canonical), *config = ra_json_dump(run->config, JSON_COMPACT);
    struct ra_run_row row = {.invocation_uuid = runs->invocation,
                             .command = runs->command,
                             .argv_json = runs->argv,
                             .kind = run->kind,
                             .tool_version = RA_VERSION,
                             .config_json = config,
                             .policy = canonical,
                             .policy_name = ra_policy_spec_ops(run->spec)->name,
                             .policy_params_json = params,
                             .trace_path = run->trace_path,
                             .model_id = run->model_id,
                             .seq = -1,
                             .backend = run->backend,
                             .device = run->device,
                             .dtype = run->dtype,
                             .schedule_of_trace = run->schedule_of_trace,
                             .seed = runs->cli->seed};
    enum ra_status st = params && config && !ra_json_starved()
                            ? ra_store_run_begin(runs->store, &row, run_id, uuid, err)
                            : ra_fail(err, RA_ENOMEM, "%s: no memory for a run", runs->db);
    free(params);
    free(config);
    return st;
}

/* Figures of a result, and what they are measured in. */
static const struct {
    const char *name, *unit;
    bool has_interval;
} metrics[] = {
    {"nll", "nat", false},
    {"delta_nll", "nat", true},
    {"ppl", "1", false},
    {"kl", "nat", true},
    {"accuracy", "1", false},
    {"delta_accuracy", "1", true},
    {"hits", "1", false},
    {"margin", "logit", false},
    {"baseline_accuracy", "1", false},
    {"keys_share", "1", false},
    {"effective_stride", "steps", false},
};

/* A figure that is not known has no row. */
static enum ra_status put_metrics(struct ra_store *store, int64_t run_id, const json_t *result,
                                  struct ra_error *err)
{
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
        bool has = metrics[i].has_interval;
        const char *name = metrics[i].name;
        struct ra_eval_result_row row = {
            .run_id = run_id,
            .task = ra_result_text(result, "task"),
            .metric = name,
            .unit = metrics[i].unit,
            .value = ra_result_number(result, name, has ? "mean" : NULL),
            .low = has ? ra_result_number(result, name, "low") : NAN,
            .high = has ? ra_result_number(result, name, "high") : NAN,
            .n_samples = json_integer_value(json_object_get(result, "texts"))};
        if (!isnan(row.value))
            RA_TRY(ra_store_eval_result(store, &row, err));
    }
    return RA_OK;
}

static enum ra_status put_samples(struct ra_store *store, int64_t run_id, const json_t *result,
                                  struct ra_error *err)
{
    const json_t *documents = json_object_get(result, "documents");
    for (size_t i = 0; i < json_array_size(documents); i++) {
        const json_t *one = json_array_get(documents, i), *right = json_object_get(one, "right"),
                     *seed = json_object_get(one, "seed");
        struct ra_eval_sample_row row = {
            .run_id = run_id,
            .task = ra_result_text(result, "task"),
            .sample = (int64_t)i,
            .name = ra_result_text(one, "document"),
            .seed = json_is_integer(seed) ? json_integer_value(seed) : RA_EVAL_NO_SEED,
            .depth = ra_result_number(one, "depth", NULL),
            .prompt_len = json_integer_value(json_object_get(one, "prompt_len")),
            .steps = json_integer_value(json_object_get(one, "steps")),
            .nll = ra_result_number(one, "mean_nll", NULL),
            .kl = ra_result_number(one, "mean_kl", NULL),
            .correct = json_is_boolean(right) ? json_is_true(right) : -1,
            .hits = ra_result_number(one, "hits", NULL),
            .margin = ra_result_number(one, "margin", NULL)};
        RA_TRY(ra_store_eval_sample(store, &row, err));
    }
    return RA_OK;
}

static enum ra_status keep_id(struct ra_eval_store *runs, int64_t run_id, struct ra_error *err)
{
    int64_t *ids = realloc(runs->ids, ((size_t)runs->n + 1) * sizeof *ids);
    if (!ids)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for a run", runs->db);
    runs->ids = ids;
    ids[runs->n++] = run_id;
    return RA_OK;
}

enum ra_status ra_eval_store_end(struct ra_eval_store *runs, int64_t run_id, enum ra_status outcome,
                                 const json_t *result, struct ra_error *err)
{
    if (run_id == 0)
        return outcome;
    struct ra_run_ending ending = {.db = runs->db,
                                   .source = runs->command,
                                   .run_id = run_id,
                                   .result = outcome == RA_OK ? result : NULL};
    if (outcome == RA_OK && json_object_get(result, "task"))
        outcome = put_metrics(runs->store, run_id, result, err);
    if (outcome == RA_OK && json_object_get(result, "task"))
        outcome = put_samples(runs->store, run_id, result, err);
    if (outcome == RA_OK)
        outcome = keep_id(runs, run_id, err);
    if (outcome != RA_OK)
        ending.result = NULL;
    return ra_run_end(runs->store, &ending, outcome, err);
}

enum ra_status ra_eval_store_close(struct ra_eval_store *runs, enum ra_status outcome,
                                   struct ra_error *err)
{
    enum ra_status closed = ra_store_close(runs->store, outcome == RA_OK ? err : NULL);
    outcome = outcome == RA_OK ? closed : outcome;
    if (runs->n > 0 && !runs->cli->is_quiet) {
        fprintf(stderr, "%s: run%s", runs->db, runs->n == 1 ? "" : "s");
        for (int i = 0; i < runs->n; i++)
            fprintf(stderr, " %" PRId64, runs->ids[i]);
        fputc('\n', stderr);
    }
    free(runs->ids);
    free(runs->argv);
    runs->store = NULL;
    return outcome;
}
