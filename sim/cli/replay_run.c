/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Carries a replay out: each sequence of each trace is one call of the engine and one stored run
 * per schedule. A run row is committed before work starts and ended whatever happens.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/base/json_memory.h"
#include "sim/cli/interrupt.h"
#include "sim/cli/progress.h"
#include "sim/cli/replay.h"
#include "sim/cli/wrap.h"
#include "sim/report.h"
#include "sim/verify.h"
#include "traces/safetensors.h"

/* One sequence of one trace. */
struct session {
    struct ra_replay_job *job;
    struct ra_replay_config config;
    struct ra_store *store;
    struct ra_progress progress;
    char invocation[37];
    int trace_number; /* of the one at hand, from 0 */
    int64_t run_ids[RA_OPTION_TEXTS_MAX];
    int n_begun; /* runs begun for the sequence at hand */
    char *export_paths[RA_OPTION_TEXTS_MAX];
    json_t *results; /* of all sequences so far */
};

static enum ra_status make_uuid(char out[37], struct ra_error *err)
{
    unsigned char b[16];
    if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
        return ra_fail(err, RA_EIO, "random numbers: %s", strerror(errno));
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    for (int i = 0, at = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            out[at++] = '-';
        at += snprintf(out + at, (size_t)(37 - at), "%02x", b[i]);
    }
    return RA_OK;
}

static char *argv_json(const struct ra_cli *cli)
{
    json_t *list = json_array();
    for (int i = 0; i < cli->argc; i++) {
        json_t *word = json_string(cli->argv[i]);
        json_array_append_new(list, word ? word : json_string("(not UTF-8)"));
    }
    char *text = ra_json_dump(list, JSON_COMPACT);
    json_decref(list);
    return text;
}

static char *config_json(const struct ra_replay_config *config)
{
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
        json_object_set_new(object, "phase", json_string(config->spread ? "spread" : "aligned"));
        json_object_set_new(object, "ragged", json_real(config->ragged));
    }
    json_t *layers = json_array();
    for (int i = 0; i < config->n_layer_ids; i++)
        json_array_append_new(layers, json_integer(config->layer_ids[i]));
    json_object_set_new(object, "layers", layers);
    char folder[4096]; /* paths of argv start here */
    json_object_set_new(object, "cwd",
                        getcwd(folder, sizeof folder) ? json_string(folder) : json_null());
    char *text = ra_json_dump(object, JSON_COMPACT);
    json_decref(object);
    return text;
}

/* {"k":"256","stride":"16"}: the canonical spelling taken apart. */
static char *params_json(const char *canonical)
{
    json_t *object = json_object();
    const char *at = strchr(canonical, ':');
    while (at && *at) {
        char key[64], value[1024];
        int used = 0;
        if (sscanf(at + 1, "%63[^=]=%1023[^,]%n", key, value, &used) != 2)
            break;
        json_object_set_new(object, key, json_string(value));
        at += 1 + used;
        at = *at == ',' ? at : NULL;
    }
    char *text = ra_json_dump(object, JSON_COMPACT);
    json_decref(object);
    return text;
}

static enum ra_status begin_runs(struct session *s, struct ra_error *err)
{
    const struct ra_replay_config *config = &s->config;
    const struct ra_trace_info *info = ra_trace_info(config->trace);
    char device[128] = "", *argv = argv_json(s->job->cli), *conf = config_json(config);
    enum ra_status st =
        argv && conf && !ra_json_starved() ? RA_OK : ra_fail(err, RA_ENOMEM, "no memory for a run");
    if (config->backend->device)
        config->backend->device(device, sizeof device);
    s->n_begun = 0;
    for (int p = 0; st == RA_OK && p < config->n_policies; p++) {
        const char *canonical = ra_policy_spec_canonical(config->specs[p]);
        char *params = params_json(canonical), uuid[37];
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
                                 .seq = config->seq,
                                 .backend = config->backend->name,
                                 .device = device[0] ? device : NULL,
                                 .scores =
                                     config->scores == RA_SCORES_FUSED ? "fused" : "recompute",
                                 .cache = config->cache == RA_CACHE_COMPACT ? "compact" : "gather",
                                 .dtype = ra_dtype_name(info->model.dtype),
                                 .schedule_of_trace = info->seqs[config->seq].schedule,
                                 .method = config->backend->method,
                                 .launch_mode = ra_replay_launch_mode(config),
                                 .seed = s->job->cli->seed};
        st = params && !ra_json_starved()
                 ? ra_store_run_begin(s->store, &row, &s->run_ids[p], uuid, err)
                 : ra_fail(err, RA_ENOMEM, "no memory for a run");
        if (st == RA_OK)
            s->n_begun = p + 1;
        free(params);
    }
    free(argv);
    free(conf);
    return st;
}

/* End every run begun: complete with its result, or failed or aborted. */
static enum ra_status end_runs(struct session *s, enum ra_status outcome,
                               const struct ra_replay_result *results, const json_t *objects,
                               struct ra_error *err)
{
    enum ra_run_state state = outcome == RA_OK             ? RA_RUN_COMPLETE
                              : outcome == RA_EINTERRUPTED ? RA_RUN_ABORTED
                                                           : RA_RUN_FAILED;
    for (int p = 0; p < s->n_begun; p++) {
        const json_t *object = outcome == RA_OK ? json_array_get(objects, (size_t)p) : NULL;
        char *text = object ? ra_json_dump(object, JSON_COMPACT) : NULL;
        const char *hash = object && results[p].output_hash[0] ? results[p].output_hash : NULL;
        if (object && !text) {
            outcome = ra_fail(err, RA_ENOMEM, "%s: no memory for the result of run %" PRId64,
                              s->job->db, s->run_ids[p]);
            state = RA_RUN_FAILED;
            object = NULL;
        }
        if (outcome != RA_OK && err)
            (void)!ra_store_diagnostic(s->store, s->run_ids[p], "error", "replay", err->msg, NULL);
        enum ra_status st =
            ra_store_run_end(s->store, s->run_ids[p], state, object ? results[p].fingerprint : NULL,
                             hash, text, outcome == RA_OK ? err : NULL);
        free(text);
        if (st != RA_OK && outcome == RA_OK)
            return st;
    }
    if (outcome == RA_OK && s->n_begun && !s->job->cli->is_quiet) {
        fprintf(stderr, "%s: run%s", s->job->db, s->n_begun == 1 ? "" : "s");
        for (int p = 0; p < s->n_begun; p++)
            fprintf(stderr, " %" PRId64, s->run_ids[p]);
        fputc('\n', stderr);
    }
    s->n_begun = 0;
    return outcome;
}

static void announce(const struct session *s, const struct ra_replay_needs *needs)
{
    const char *folder = getenv("TMPDIR");
    if (s->job->cli->is_quiet)
        return;
    fprintf(stderr, "%s, sequence %d:\n  memory %.1f MiB, temporary file up to %.1f MiB in %s",
            ra_trace_info(s->config.trace)->path, s->config.seq,
            (double)needs->memory_bytes / 0x1p20, (double)needs->spool_bytes / 0x1p20,
            folder && *folder ? folder : "/tmp");
    if (needs->export_bytes)
        fprintf(stderr, ", export up to %.1f MiB", (double)needs->export_bytes / 0x1p20);
    fputc('\n', stderr);
}

static enum ra_status dry_run(const struct session *s, const struct ra_replay_needs *needs,
                              struct ra_error *err)
{
    for (int p = 0; p < s->config.n_policies; p++) {
        json_t *object = json_pack(
            "{s:s,s:i,s:s,s:s,s:I,s:I,s:I}", "trace", ra_trace_info(s->config.trace)->path,
            "sequence", s->config.seq, "policy", ra_policy_spec_canonical(s->config.specs[p]),
            "backend", s->config.backend->name, "memory_bytes", (json_int_t)needs->memory_bytes,
            "temporary_bytes", (json_int_t)needs->spool_bytes, "export_bytes",
            (json_int_t)needs->export_bytes);
        if (!object || json_array_append_new(s->results, object))
            return ra_fail(err, RA_ENOMEM, "no memory for a plan");
    }
    return RA_OK;
}

static void forget_paths(struct session *s)
{
    for (int p = 0; p < RA_OPTION_TEXTS_MAX; p++) {
        free(s->export_paths[p]);
        s->export_paths[p] = NULL;
    }
}

/* A file when there is one result; else FOLDER/TRACE-sSEQ-POLICY.safetensors, where numbers tell
 * traces and policies apart whose names are cut or equal. */
static enum ra_status name_exports(struct session *s, struct ra_error *err)
{
    const char *path = s->job->export_path, *trace = ra_trace_info(s->config.trace)->path;
    const char *slash = strrchr(trace, '/'), *stem = slash ? slash + 1 : trace;
    bool several = s->config.n_policies > 1 || s->job->n_traces > 1 ||
                   ra_trace_info(s->config.trace)->n_seq > 1;
    forget_paths(s);
    if (!path)
        return RA_OK;
    if (several && !s->job->is_dry && mkdir(path, 0777) != 0 && errno != EEXIST)
        return ra_fail(err, RA_EIO, "%s: %s", path, strerror(errno));
    for (int p = 0; p < s->config.n_policies; p++) {
        const char *policy = ra_policy_spec_canonical(s->config.specs[p]);
        size_t size = strlen(path) + strlen(stem) + strlen(policy) + 64;
        char *name = malloc(size);
        if (!name)
            return ra_fail(err, RA_ENOMEM, "no memory for a path");
        s->export_paths[p] = name;
        if (!several) {
            snprintf(name, size, "%s", path);
            continue;
        }
        int at = snprintf(name, size, "%s/", path);
        char *tail = name + at;
        snprintf(tail, size - (size_t)at, "t%d-%.60s-s%d-p%d-%.100s.safetensors", s->trace_number,
                 stem, s->config.seq, p, policy);
        for (char *c = tail; *c; c++)
            *c = strchr(":,=@/ ", *c) ? '_' : *c;
    }
    s->config.export_paths = (const char *const *)s->export_paths;
    return RA_OK;
}

/* A path that cannot be written is told before the work, not after. */
static enum ra_status try_exports(const struct session *s, struct ra_error *err)
{
    for (int p = 0; p < s->config.n_policies && s->export_paths[p]; p++) {
        struct ra_st_writer *writer;
        RA_TRY(ra_st_writer_open(&writer, s->export_paths[p], err));
        ra_st_writer_close(writer);
    }
    return RA_OK;
}

static enum ra_status replay_sequence(struct session *s, struct ra_error *err)
{
    struct ra_replay_needs needs;
    struct ra_replay_result results[RA_OPTION_TEXTS_MAX] = {0};
    json_t *objects = NULL;
    RA_TRY(name_exports(s, err));
    RA_TRY(ra_replay_plan(&s->config, &needs, err));
    if (s->job->is_dry)
        return dry_run(s, &needs, err);
    RA_TRY(try_exports(s, err));
    if (needs.export_bytes > (uint64_t)1 << 30 && !s->job->is_forced)
        return ra_fail(err, RA_EUSAGE, "--export: up to %.1f GiB; above 1 GiB give --force too",
                       (double)needs.export_bytes / 0x1p30);
    announce(s, &needs);
    enum ra_status st = s->store ? begin_runs(s, err) : RA_OK;
    s->config.run_ids = s->run_ids;
    if (st == RA_OK)
        st = ra_replay(&s->config, results, err);
    ra_progress_fini(&s->progress);
    if (st == RA_OK) {
        objects = ra_replay_json(&s->config, results);
        if (!objects || json_array_extend(s->results, objects))
            st = ra_fail(err, RA_ENOMEM, "no memory for results");
    }
    if (s->store) {
        enum ra_status ended = end_runs(s, st, results, objects, err);
        st = st == RA_OK ? ended : st;
    }
    json_decref(objects);
    ra_replay_release(results, s->config.n_policies);
    return st;
}

static enum ra_status replay_traces(struct session *s, struct ra_error *err)
{
    for (int i = 0; i < s->job->n_traces; i++) {
        struct ra_trace *trace;
        enum ra_status st = RA_OK;
        RA_TRY(ra_trace_open(&trace, s->job->traces[i], err));
        s->config.trace = trace;
        s->trace_number = i;
        for (int seq = 0; st == RA_OK && seq < ra_trace_info(trace)->n_seq; seq++) {
            s->config.seq = seq;
            st = replay_sequence(s, err);
        }
        ra_trace_close(trace);
        if (st != RA_OK)
            return st;
    }
    return RA_OK;
}

static double mebibytes(const json_t *object, const char *key)
{
    return (double)json_integer_value(json_object_get(object, key)) / 0x1p20;
}

static enum ra_status print(const struct session *s, struct ra_error *err)
{
    static const enum ra_report_format formats[] = {[RA_FORMAT_TEXT] = RA_REPORT_TEXT,
                                                    [RA_FORMAT_JSON] = RA_REPORT_JSON,
                                                    [RA_FORMAT_CSV] = RA_REPORT_CSV};
    enum ra_report_format format = formats[s->job->cli->format];
    if (!s->job->is_dry || format != RA_REPORT_TEXT)
        return ra_report_write(stdout, s->results, format, err);
    size_t n = (size_t)s->config.n_policies; /* rows of one sequence share what it takes */
    for (size_t i = 0; i < json_array_size(s->results); i++) {
        const json_t *object = json_array_get(s->results, i);
        char where[1024];
        snprintf(where, sizeof where, "%s, sequence %" JSON_INTEGER_FORMAT ", under",
                 json_string_value(json_object_get(object, "trace")),
                 json_integer_value(json_object_get(object, "sequence")));
        fputs("would replay ", stdout);
        ra_put_wrapped(13, 2, where);
        fputs("  ", stdout);
        ra_put_wrapped(2, 2, json_string_value(json_object_get(object, "policy")));
        if (i + 1 == json_array_size(s->results) || i % n == n - 1)
            printf("  memory %.1f MiB, temporary file up to %.1f MiB, export up to %.1f MiB\n",
                   mebibytes(object, "memory_bytes"), mebibytes(object, "temporary_bytes"),
                   mebibytes(object, "export_bytes"));
    }
    return RA_OK;
}

/* What would otherwise fail after the work, or leave an empty store behind. */
static enum ra_status check_inputs(const struct ra_replay_job *job, struct ra_error *err)
{
    for (int i = 0; i < job->n_traces; i++) {
        struct ra_trace *trace;
        json_t *name = json_string(job->traces[i]);
        json_decref(name);
        if (!name)
            return ra_fail(err, RA_EUSAGE, "trace %d: its path is not UTF-8, and results name it",
                           i + 1);
        RA_TRY(ra_trace_open(&trace, job->traces[i], err));
        ra_trace_close(trace);
    }
    if (!job->check)
        return RA_OK;
    size_t n = strlen(job->check);
    bool is_file = n > 5 && strcmp(job->check + n - 5, ".json") == 0;
    if (is_file && access(job->check, R_OK) != 0)
        return ra_fail(err, RA_EIO, "%s: %s", job->check, strerror(errno));
    if (!is_file && !job->db)
        return ra_fail(err, RA_EUSAGE,
                       "--check %s: expected a file ending in .json, or a run together with --db",
                       job->check);
    return RA_OK;
}

static enum ra_status work(struct session *s, struct ra_error *err)
{
    struct ra_replay_job *job = s->job;
    RA_TRY(make_uuid(s->invocation, err));
    RA_TRY(check_inputs(job, err));
    if (job->db && !job->is_dry)
        RA_TRY(ra_store_open(&s->store, job->db, RA_STORE_APPEND, err));
    s->config.store = s->store;
    enum ra_status st = replay_traces(s, err);
    /* What finished before an interruption or a failure is still a result. */
    if (st == RA_OK || json_array_size(s->results) > 0) {
        enum ra_status printed = print(s, st == RA_OK ? err : NULL);
        st = st == RA_OK ? printed : st;
    }
    if (st == RA_OK && job->check && !job->is_dry)
        st = ra_verify_against(s->results, s->store, job->check, err);
    return st;
}

/* Each schedule of each copy has a temporary file. */
static void allow_many_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* where it stays as it is, a file may be refused */
}

enum ra_status ra_replay_job_run(struct ra_replay_job *job, struct ra_error *err)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return ra_fail(err, RA_ENOMEM, "no memory for a replay");
    s->job = job;
    s->config = job->config;
    s->config.stop = ra_interrupt_requested;
    s->config.progress = ra_progress_show;
    s->config.progress_context = &s->progress;
    s->results = json_array();
    allow_many_files();
    ra_interrupt_install();
    ra_progress_init(&s->progress, "layer-steps", job->cli->is_quiet);
    enum ra_status st = work(s, err);
    ra_progress_fini(&s->progress);
    enum ra_status closed = ra_store_close(s->store, st == RA_OK ? err : NULL);
    forget_paths(s);
    json_decref(s->results);
    free(s);
    return st == RA_OK ? closed : st;
}
