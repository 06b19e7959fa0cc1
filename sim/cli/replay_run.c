/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Carries a replay out: each sequence of each trace, or as many of them as are one batch, is one
 * call of the engine. replay_store.c keeps the runs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/cli/interrupt.h"
#include "sim/cli/replay_session.h"
#include "sim/cli/run_rows.h"
#include "sim/cli/wrap.h"
#include "sim/report.h"
#include "sim/verify.h"
#include "traces/safetensors.h"

/* "A, sequence 0", for each that is replayed. */
static void put_parts(FILE *out, const struct ra_replay_session *s)
{
    for (int i = 0; i < s->n_at_hand; i++)
        fprintf(out, "%s%s, sequence %d", i ? "; " : "", ra_trace_info(s->at_hand[i].trace)->path,
                s->at_hand[i].seq);
}

static void announce(const struct ra_replay_session *s, const struct ra_replay_needs *needs)
{
    const char *folder = getenv("TMPDIR");
    if (s->job->cli->is_quiet)
        return;
    put_parts(stderr, s);
    if (s->config.with)
        fprintf(stderr, "; in one batch, steps %d to %d", s->config.first_step,
                s->config.last_step);
    fprintf(stderr, ":\n  memory %.1f MiB, temporary file up to %.1f MiB in %s",
            (double)needs->memory_bytes / 0x1p20, (double)needs->spool_bytes / 0x1p20,
            folder && *folder ? folder : "/tmp");
    if (needs->export_bytes)
        fprintf(stderr, ", export up to %.1f MiB", (double)needs->export_bytes / 0x1p20);
    fputc('\n', stderr);
}

static enum ra_status dry_run(const struct ra_replay_session *s,
                              const struct ra_replay_needs *needs, struct ra_error *err)
{
    for (int i = 0; i < s->n_at_hand; i++)
        for (int p = 0; p < s->config.n_policies; p++) {
            const struct ra_replay_part *part = &s->at_hand[i];
            json_t *object = json_pack(
                "{s:s,s:i,s:s,s:s,s:I,s:I,s:I}", "trace", ra_trace_info(part->trace)->path,
                "sequence", part->seq, "policy", ra_policy_spec_canonical(s->config.specs[p]),
                "backend", s->config.backend->name, "memory_bytes", (json_int_t)needs->memory_bytes,
                "temporary_bytes", (json_int_t)needs->spool_bytes, "export_bytes",
                (json_int_t)needs->export_bytes);
            if (!object || json_array_append_new(s->results, object))
                return ra_fail(err, RA_ENOMEM, "no memory for a plan");
        }
    return RA_OK;
}

static void forget_paths(struct ra_replay_part *part)
{
    for (int p = 0; p < RA_OPTION_TEXTS_MAX; p++) {
        free(part->export_paths[p]);
        part->export_paths[p] = NULL;
    }
}

/* FOLDER/TRACE-sSEQ-POLICY.safetensors, where numbers tell traces and policies apart whose names
 * are cut or equal. */
static char *name_in_folder(const struct ra_replay_session *s, const struct ra_replay_part *part,
                            int p)
{
    const char *folder = s->job->export_path, *trace = ra_trace_info(part->trace)->path;
    const char *slash = strrchr(trace, '/'), *stem = slash ? slash + 1 : trace;
    const char *policy = ra_policy_spec_canonical(s->config.specs[p]);
    size_t size = strlen(folder) + strlen(stem) + strlen(policy) + 64;
    char *name = malloc(size);
    if (!name)
        return NULL;
    int at = snprintf(name, size, "%s/", folder);
    char *tail = name + at;
    snprintf(tail, size - (size_t)at, "t%d-%.60s-s%d-p%d-%.100s.safetensors", part->trace_number,
             stem, part->seq, p, policy);
    for (char *c = tail; *c; c++)
        *c = strchr(":,=@/ ", *c) ? '_' : *c;
    return name;
}

/* A file when there is one result, else a folder of them. */
static enum ra_status name_exports(struct ra_replay_session *s, struct ra_error *err)
{
    const char *path = s->job->export_path;
    bool several = s->config.n_policies > 1 || s->n_parts > 1;
    if (!path)
        return RA_OK;
    if (several && !s->job->is_dry && mkdir(path, 0777) != 0 && errno != EEXIST)
        return ra_fail(err, RA_EIO, "%s: %s", path, strerror(errno));
    for (int i = 0; i < s->n_at_hand; i++)
        for (int p = 0; p < s->config.n_policies; p++) {
            struct ra_replay_part *part = &s->at_hand[i];
            part->export_paths[p] = several ? name_in_folder(s, part, p) : strdup(path);
            if (!part->export_paths[p])
                return ra_fail(err, RA_ENOMEM, "no memory for a path");
        }
    return RA_OK;
}

/* A path that cannot be written is told before the work, not after. */
static enum ra_status try_exports(const struct ra_replay_session *s, struct ra_error *err)
{
    for (int i = 0; i < s->n_at_hand; i++)
        for (int p = 0; p < s->config.n_policies && s->at_hand[i].export_paths[p]; p++) {
            struct ra_st_writer *writer;
            RA_TRY(ra_st_writer_open(&writer, s->at_hand[i].export_paths[p], err));
            ra_st_writer_close(writer);
        }
    return RA_OK;
}

/* Name the parts at hand to the engine; steps that only some have are left out. */
static void configure(struct ra_replay_session *s)
{
    const struct ra_replay_part *first = &s->at_hand[0];
    struct ra_replay_config *config = &s->config;
    const char *const *paths =
        s->job->export_path ? (const char *const *)first->export_paths : NULL;
    config->trace = first->trace;
    config->seq = first->seq;
    config->export_paths = paths;
    config->run_ids = first->run_ids;
    config->with = s->n_at_hand > 1 ? s->with : NULL;
    config->last_step = s->job->config.last_step;
    int32_t least = ra_trace_info(first->trace)->seqs[first->seq].N;
    for (int i = 1; i < s->n_at_hand; i++) {
        const struct ra_replay_part *part = &s->at_hand[i];
        int32_t N = ra_trace_info(part->trace)->seqs[part->seq].N;
        paths = s->job->export_path ? (const char *const *)part->export_paths : NULL;
        least = N < least ? N : least;
        s->with[i - 1] = (struct ra_companion){.trace = part->trace,
                                               .seq = part->seq,
                                               .export_paths = paths,
                                               .run_ids = part->run_ids};
    }
    if (config->with && config->last_step < 0)
        config->last_step = least - 1; /* of none at all the engine says so */
}

static enum ra_status replay_parts(struct ra_replay_session *s, struct ra_error *err)
{
    struct ra_replay_needs needs;
    json_t *objects = NULL;
    RA_TRY(name_exports(s, err));
    configure(s);
    RA_TRY(ra_replay_plan(&s->config, &needs, err));
    if (s->job->is_dry)
        return dry_run(s, &needs, err);
    RA_TRY(try_exports(s, err));
    if (needs.export_bytes > (uint64_t)1 << 30 && !s->job->is_forced)
        return ra_fail(err, RA_EUSAGE, "--export: up to %.1f GiB; above 1 GiB give --force too",
                       (double)needs.export_bytes / 0x1p30);
    announce(s, &needs);
    int n_results = s->n_at_hand * s->config.n_policies;
    struct ra_replay_result *results = calloc((size_t)n_results, sizeof *results);
    if (!results)
        return ra_fail(err, RA_ENOMEM, "no memory for %d results", n_results);
    enum ra_status st = s->store ? ra_replay_begin_runs(s, err) : RA_OK;
    if (st == RA_OK)
        st = ra_replay(&s->config, results, err);
    ra_progress_fini(&s->progress);
    if (st == RA_OK) {
        objects = ra_replay_json(&s->config, results);
        if (!objects || json_array_extend(s->results, objects))
            st = ra_fail(err, RA_ENOMEM, "no memory for results");
    }
    if (s->store)
        st = ra_replay_end_runs(s, st, results, objects, err);
    json_decref(objects);
    ra_replay_release(results, n_results);
    free(results);
    return st;
}

static enum ra_status open_parts(struct ra_replay_session *s, struct ra_error *err)
{
    for (int i = 0; i < s->n_at_hand; i++) {
        struct ra_replay_part *part = &s->at_hand[i];
        if (i > 0 && part->trace_number == part[-1].trace_number)
            part->trace = part[-1].trace;
        else
            RA_TRY(ra_trace_open(&part->trace, s->job->traces[part->trace_number], err));
    }
    return RA_OK;
}

static void close_parts(struct ra_replay_session *s)
{
    for (int i = 0; i < s->n_at_hand; i++) {
        struct ra_replay_part *part = &s->at_hand[i];
        if (i == 0 || part->trace != part[-1].trace)
            ra_trace_close(part->trace);
        forget_paths(part);
    }
    for (int i = 0; i < s->n_at_hand; i++)
        s->at_hand[i].trace = NULL;
}

/* Sequences one after the other, or as many of them together as the batch has. */
static enum ra_status replay_all(struct ra_replay_session *s, struct ra_error *err)
{
    int batch = s->job->config.batch, each = s->n_parts > 1 ? batch : 1;
    if (s->n_parts % each != 0)
        return ra_fail(err, RA_EUSAGE,
                       "--batch %d: expected one sequence, to be decoded so many times at once, or "
                       "a multiple of %d, to be decoded together; got %d",
                       batch, batch, s->n_parts);
    if (each > 1 && s->job->config.ragged > 0)
        return ra_fail(err, RA_EUSAGE,
                       "--ragged: expected one sequence, whose copies it cuts; got %d, of lengths "
                       "of their own",
                       s->n_parts);
    s->n_at_hand = each;
    s->with = calloc((size_t)each, sizeof *s->with);
    if (!s->with)
        return ra_fail(err, RA_ENOMEM, "no memory for a batch of %d", each);
    for (int first = 0; first < s->n_parts; first += each) {
        s->at_hand = &s->parts[first];
        enum ra_status st = open_parts(s, err);
        if (st == RA_OK)
            st = replay_parts(s, err);
        close_parts(s);
        RA_TRY(st);
    }
    return RA_OK;
}

static double mebibytes(const json_t *object, const char *key)
{
    return (double)json_integer_value(json_object_get(object, key)) / 0x1p20;
}

static enum ra_status print(const struct ra_replay_session *s, struct ra_error *err)
{
    static const enum ra_report_format formats[] = {[RA_FORMAT_TEXT] = RA_REPORT_TEXT,
                                                    [RA_FORMAT_JSON] = RA_REPORT_JSON,
                                                    [RA_FORMAT_CSV] = RA_REPORT_CSV};
    enum ra_report_format format = formats[s->job->cli->format];
    if (!s->job->is_dry || format != RA_REPORT_TEXT)
        return ra_report_write(stdout, s->results, format, err);
    /* Rows that are replayed together share what it takes. */
    size_t n = (size_t)(s->n_at_hand * s->config.n_policies);
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

static enum ra_status add_parts(struct ra_replay_session *s, int trace_number, int n_seq,
                                struct ra_error *err)
{
    size_t n = (size_t)s->n_parts + (size_t)n_seq;
    struct ra_replay_part *more = realloc(s->parts, (n + 1) * sizeof *more);
    if (!more)
        return ra_fail(err, RA_ENOMEM, "no memory for %zu sequences", n);
    s->parts = more;
    for (int seq = 0; seq < n_seq; seq++)
        s->parts[s->n_parts++] = (struct ra_replay_part){.trace_number = trace_number, .seq = seq};
    return RA_OK;
}

/* Find the sequences, and what would otherwise fail after the work, or leave an empty store
 * behind. */
static enum ra_status check_inputs(struct ra_replay_session *s, struct ra_error *err)
{
    const struct ra_replay_job *job = s->job;
    for (int i = 0; i < job->n_traces; i++) {
        struct ra_trace *trace;
        json_t *name = json_string(job->traces[i]);
        json_decref(name);
        if (!name)
            return ra_fail(err, RA_EUSAGE, "trace %d: its path is not UTF-8, and results name it",
                           i + 1);
        RA_TRY(ra_trace_open(&trace, job->traces[i], err));
        enum ra_status st = add_parts(s, i, ra_trace_info(trace)->n_seq, err);
        ra_trace_close(trace);
        RA_TRY(st);
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

static enum ra_status work(struct ra_replay_session *s, struct ra_error *err)
{
    struct ra_replay_job *job = s->job;
    RA_TRY(ra_run_invocation(s->invocation, err));
    RA_TRY(check_inputs(s, err));
    if (job->db && !job->is_dry)
        RA_TRY(ra_store_open(&s->store, job->db, RA_STORE_APPEND, err));
    s->config.store = s->store;
    enum ra_status st = replay_all(s, err);
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
    struct ra_replay_session *s = calloc(1, sizeof *s);
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
    free(s->parts);
    free(s->with);
    json_decref(s->results);
    free(s);
    return st == RA_OK ? closed : st;
}
