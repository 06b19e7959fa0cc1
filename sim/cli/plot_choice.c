/* SPDX-License-Identifier: Apache-2.0 */
/* A run joins the choice when it has the key of the first. */
#include "sim/cli/plot_choice.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sim/cli/output.h"
#include "sim/report.h"
#include "sim/report_table.h"

/* Task and tokens as one: lengths are part of a spelling. */
static char *eval_key(const struct ra_run_listing *run)
{
    char *key = NULL;
    json_t *result = json_loads(run->result_json, 0, NULL);
    const char *spelling = ra_result_text(result, "spelling");
    if (asprintf(&key, "model %s, task %s, decoder %s", run->model_id ? run->model_id : "-",
                 *spelling ? spelling : ra_result_text(result, "task"),
                 run->backend ? run->backend : "-") < 0)
        key = NULL;
    json_decref(result);
    return key;
}

/* What runs of one figure share; caller frees. */
static char *key_of(const struct ra_run_listing *run)
{
    char *key = NULL;
    const char *trace = run->trace_sha256 ? run->trace_sha256 : run->trace_path;
    if (strcmp(run->kind, "eval") == 0)
        return eval_key(run);
    if (asprintf(&key, "trace %s, sequence %d, backend %s, device %s, method %s",
                 trace ? trace : "-", run->seq, run->backend ? run->backend : "-",
                 run->device ? run->device : "-", run->method ? run->method : "-") < 0)
        return NULL;
    return key;
}

static bool is_drawable(const struct ra_run_listing *run)
{
    if (strcmp(run->state, "complete") != 0 || !run->policy)
        return false;
    return strcmp(run->kind, "eval") == 0
               ? run->result_json != NULL
               : strcmp(run->kind, "replay") == 0 && run->n_layer_steps > 0;
}

/* As before the first run. */
static void forget(struct ra_plot_choice *choice)
{
    json_array_clear(choice->runs);
    free(choice->invocation);
    free(choice->key);
    choice->invocation = choice->key = NULL;
    choice->n_other = 0;
}

static enum ra_status add(struct ra_plot_choice *choice, const struct ra_run_listing *run,
                          struct ra_error *err)
{
    char series[512], name[600];
    bool is_taken = false;
    size_t i;
    json_t *other;
    ra_report_short_policy(run->policy, series, sizeof series);
    json_array_foreach(choice->runs, i, other)
    {
        if (json_integer_value(json_object_get(other, "id")) == run->id)
            return RA_OK;
        if (strcmp(json_string_value(json_object_get(other, "series")), series) == 0)
            is_taken = true;
    }
    snprintf(name, sizeof name, "%s", series);
    if (is_taken)
        snprintf(name, sizeof name, "%s (run %" PRId64 ")", series, run->id);
    json_t *row = json_pack("{s:I, s:o, s:b}", "id", (json_int_t)run->id, "series",
                            ra_json_text(name), "is_bound", ra_report_is_bound(run->policy));
    if (!row || json_array_append_new(choice->runs, row) != 0)
        return ra_fail(err, RA_ENOMEM, "no memory for the runs");
    return RA_OK;
}

/* Unless strict the last invocation that has a run to draw wins. */
static enum ra_status on_run(void *context, const struct ra_run_listing *run, struct ra_error *err)
{
    struct ra_plot_choice *choice = context;
    if (!is_drawable(run)) {
        if (!choice->is_strict)
            return RA_OK;
        return ra_fail(
            err, RA_EUSAGE,
            "run %" PRId64
            ": expected a complete replay with layer-steps, or a complete eval, got %s %s",
            run->id, run->kind, run->state);
    }
    if (strcmp(run->kind, choice->kind) != 0)
        return RA_OK;
    const char *invocation = run->invocation_uuid ? run->invocation_uuid : run->uuid;
    if (!choice->is_strict && choice->invocation && strcmp(choice->invocation, invocation) != 0)
        forget(choice);
    char *key = key_of(run);
    if (key && !choice->key) {
        choice->key = key;
        choice->invocation = strdup(invocation);
    } else if (key && strcmp(key, choice->key) != 0) {
        enum ra_status status = RA_OK;
        if (choice->is_strict)
            status = ra_fail(err, RA_EUSAGE, "run %" PRId64 ": has %s, the runs before have %s",
                             run->id, key, choice->key);
        choice->n_other++;
        free(key);
        return status;
    } else {
        free(key);
    }
    if (!key || !choice->invocation)
        return ra_fail(err, RA_ENOMEM, "no memory for the runs");
    return add(choice, run, err);
}

enum ra_status ra_plot_choose(struct ra_store *store, const struct ra_option_texts *runs,
                              const char *kind, bool is_strict, struct ra_plot_choice *choice,
                              struct ra_error *err)
{
    *choice = (struct ra_plot_choice){.runs = json_array(), .kind = kind};
    if (!choice->runs)
        return ra_fail(err, RA_ENOMEM, "no memory for the runs");
    choice->is_strict = is_strict && runs->n > 0;
    if (runs->n == 0)
        return ra_store_runs(store, NULL, on_run, choice, err);
    for (int i = 0; i < runs->n; i++)
        RA_TRY(ra_store_runs(store, runs->text[i], on_run, choice, err));
    return RA_OK;
}

void ra_plot_choice_close(struct ra_plot_choice *choice)
{
    forget(choice);
    json_decref(choice->runs);
    choice->runs = NULL;
}
