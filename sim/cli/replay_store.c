/* SPDX-License-Identifier: Apache-2.0 */
/* The runs of a replay in the store: rows committed before the work, ended whatever happens. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim/base/json_memory.h"
#include "sim/cli/replay_session.h"
#include "sim/cli/run_rows.h"

/* The sequences of a batch, in its order. */
static json_t *batch_json(const struct ra_replay_session *s)
{
    json_t *list = json_array();
    for (int i = 0; i < s->n_at_hand; i++)
        json_array_append_new(list, json_pack("{s:s,s:i}", "trace",
                                              ra_trace_info(s->at_hand[i].trace)->path, "sequence",
                                              s->at_hand[i].seq));
    return list;
}

/* What the bytes that kernels ask for follow from, beside what is counted. */
static void put_shape(const struct ra_replay_session *s, json_t *object)
{
    const struct ra_model *m = &ra_trace_info(s->at_hand[0].trace)->model;
    size_t (*cache_bytes)(void) = s->config.backend->cache_bytes;
    json_object_set_new(
        object, "model",
        json_pack("{s:i,s:i,s:i,s:i}", "Hq", m->Hq, "Hkv", m->Hkv, "D", m->D, "Dv", m->Dv));
    json_object_set_new(object, "cache_bytes",
                        cache_bytes ? json_integer((json_int_t)cache_bytes()) : json_null());
}

static char *config_json(const struct ra_replay_session *s)
{
    const struct ra_replay_config *config = &s->config;
    json_t *object = json_pack("{s:i,s:i,s:i,s:i,s:b,s:i}", "repeat", config->repeats, "threads",
                               config->n_threads, "first_step", config->first_step, "last_step",
                               config->last_step, "quality", config->quality, "tile_layers",
                               config->tile_layers);
    if (config->backend->play) {
        json_object_set_new(object, "select", json_string(ra_select_name(config->select)));
        json_object_set_new(object, "decide", json_string(ra_decide_name(config->decide)));
        json_object_set_new(object, "pdl", json_boolean(config->early));
        json_object_set_new(object, "between", json_string(config->between ? "model" : "none"));
        json_object_set_new(object, "page", json_integer(config->page));
        json_object_set_new(object, "batch", json_integer(config->batch));
        if (config->with)
            json_object_set_new(object, "batch_of", batch_json(s));
        json_object_set_new(object, "phase", json_string(config->spread ? "spread" : "aligned"));
        json_object_set_new(object, "ragged", json_real(config->ragged));
        put_shape(s, object);
    }
    json_t *layers = json_array();
    for (int i = 0; i < config->n_layer_ids; i++)
        json_array_append_new(layers, json_integer(config->layer_ids[i]));
    json_object_set_new(object, "layers", layers);
    json_object_set_new(object, "cwd", ra_run_folder());
    char *text = ra_json_dump(object, JSON_COMPACT);
    json_decref(object);
    return text;
}

static enum ra_status begin_part(struct ra_replay_session *s, struct ra_replay_part *part,
                                 const char *argv, const char *conf, struct ra_error *err)
{
    const struct ra_replay_config *config = &s->config;
    const struct ra_trace_info *info = ra_trace_info(part->trace);
    enum ra_status st = RA_OK;
    char device[128] = "";
    if (config->backend->device)
        config->backend->device(device, sizeof device);
    part->n_begun = 0;
    for (int p = 0; st == RA_OK && p < config->n_policies; p++) {
        const char *canonical = ra_policy_spec_canonical(config->specs[p]);
        char *params = ra_run_params(canonical), uuid[37];
        struct ra_run_row row = {.invocation_uuid = s->invocation,
                                 .command = "replay",
                                 .argv_json = argv,
                                 .kind = "replay",
                                 .tool_version = RA_VERSION,
                                 .config_json = conf,
                                 .policy = canonical,
                                 .policy_name = ra_policy_spec_ops(config->specs[p])->name,
                                 .policy_params_json = params,
                                 .trace_path = info->path,
                                 .trace_sha256 = info->sha256[0] ? info->sha256 : NULL,
                                 .model_id = info->model_id,
                                 .seq = part->seq,
                                 .backend = config->backend->name,
                                 .device = device[0] ? device : NULL,
                                 .scores =
                                     config->scores == RA_SCORES_FUSED ? "fused" : "recompute",
                                 .cache = config->cache == RA_CACHE_COMPACT ? "compact" : "gather",
                                 .dtype = ra_dtype_name(info->model.dtype),
                                 .schedule_of_trace = info->seqs[part->seq].schedule,
                                 .method = config->backend->method,
                                 .launch_mode = ra_replay_launch_mode(config),
                                 .seed = s->job->cli->seed};
        st = params && !ra_json_starved()
                 ? ra_store_run_begin(s->store, &row, &part->run_ids[p], uuid, err)
                 : ra_fail(err, RA_ENOMEM, "no memory for a run");
        if (st == RA_OK)
            part->n_begun = p + 1;
        free(params);
    }
    return st;
}

enum ra_status ra_replay_begin_runs(struct ra_replay_session *s, struct ra_error *err)
{
    char *argv = ra_run_argv(s->job->cli), *conf = config_json(s);
    enum ra_status st =
        argv && conf && !ra_json_starved() ? RA_OK : ra_fail(err, RA_ENOMEM, "no memory for a run");
    for (int i = 0; st == RA_OK && i < s->n_at_hand; i++)
        st = begin_part(s, &s->at_hand[i], argv, conf, err);
    free(argv);
    free(conf);
    return st;
}

static enum ra_status end_run(struct ra_replay_session *s, int64_t run_id, enum ra_status outcome,
                              const struct ra_replay_result *result, const json_t *object,
                              struct ra_error *err)
{
    struct ra_run_ending ending = {.db = s->job->db,
                                   .source = "replay",
                                   .run_id = run_id,
                                   .fingerprint = result->fingerprint,
                                   .output_hash =
                                       result->output_hash[0] ? result->output_hash : NULL,
                                   .result = object};
    return ra_run_end(s->store, &ending, outcome, err);
}

static void tell_runs(const struct ra_replay_session *s)
{
    int n = s->n_at_hand * s->config.n_policies;
    fprintf(stderr, "%s: run%s", s->job->db, n == 1 ? "" : "s");
    for (int i = 0; i < s->n_at_hand; i++)
        for (int p = 0; p < s->config.n_policies; p++)
            fprintf(stderr, " %" PRId64, s->at_hand[i].run_ids[p]);
    fputc('\n', stderr);
}

enum ra_status ra_replay_end_runs(struct ra_replay_session *s, enum ra_status outcome,
                                  const struct ra_replay_result *results, const json_t *objects,
                                  struct ra_error *err)
{
    int n_policies = s->config.n_policies, n_ended = 0;
    for (int i = 0; i < s->n_at_hand; i++) {
        struct ra_replay_part *part = &s->at_hand[i];
        for (int p = 0; p < part->n_begun; p++, n_ended++) {
            size_t at = (size_t)(i * n_policies + p);
            const json_t *object = outcome == RA_OK ? json_array_get(objects, at) : NULL;
            outcome = end_run(s, part->run_ids[p], outcome, &results[at], object, err);
        }
        part->n_begun = 0;
    }
    if (outcome == RA_OK && n_ended && !s->job->cli->is_quiet)
        tell_runs(s);
    return outcome;
}
