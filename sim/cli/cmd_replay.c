/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay: recorded runs under schedules, through a backend. This file turns arguments into a
 * configuration; replay_run.c carries it out.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/counters.h"
#include "profiler/gate.h"
#include "profiler/gpu_lock.h"
#include "sim/base/text.h"
#include "sim/cli/commands.h"
#include "sim/cli/layer_list.h"
#include "sim/cli/perf_words.h"
#include "sim/cli/replay.h"

struct values {
    struct ra_operands traces;
    struct ra_option_texts policies;
    const char *backend, *db, *layers, *keep_sets, *export_path, *check;
    const char *counters;
    int profile, granularity, scores, cache, decide, select, page, between, phase;
    struct ra_option_range steps;
    int64_t repeat, threads, batch, tile_layers;
    double ragged;
    bool no_quality, by_type, dry_run, force, pdl, no_graph;
};

static const struct ra_operand operands[] = {
    {"TRACE", 1, RA_OPERAND_MANY, offsetof(struct values, traces),
     .help = "recorded run: a file, a folder with trace.index.json, or synth:..."},
    {.name = NULL},
};

#define FIELD(field) .offset = offsetof(struct values, field)
static const struct ra_option options[] = {
    {.name = "policy",
     .letter = 'p',
     .kind = RA_OPTION_TEXTS,
     .is_required = true,
     FIELD(policies),
     .argument = "POLICY",
     .words = RA_WORDS_POLICIES,
     .help = "schedule, NAME[:key=value,...]; may repeat"},
    {.name = "backend",
     .kind = RA_OPTION_TEXT,
     FIELD(backend),
     .argument = "NAME",
     .words = RA_WORDS_BACKENDS,
     .fallback = "cpu",
     .help = "what executes the schedules; see list backends"},
    {.name = "db",
     .kind = RA_OPTION_TEXT,
     FIELD(db),
     .argument = "FILE",
     .help = "store to append the runs to; without it nothing is stored"},
    {.name = "scores",
     .kind = RA_OPTION_CHOICE,
     FIELD(scores),
     .argument = "MODE",
     .choices = "fused|recompute",
     .fallback = "fused",
     .help = "scores of a full step: as a by-product, or by re-reading K"},
    {.name = "cache",
     .kind = RA_OPTION_CHOICE,
     FIELD(cache),
     .argument = "MODE",
     .choices = "compact|gather",
     .fallback = "compact",
     .help = "recycled cache: copied rows, or an index list"},
    {.name = "layers",
     .kind = RA_OPTION_TEXT,
     FIELD(layers),
     .argument = "LIST",
     .words = RA_WORDS_NONE,
     .help = "model layer numbers, 0,9,20-29; default: all recorded"},
    {.name = "steps",
     .kind = RA_OPTION_RANGE,
     FIELD(steps),
     .argument = "a..b",
     .min = 0,
     .max = INT32_MAX - 1,
     .help = "steps to count and time; earlier ones still run"},
    {.name = "repeat",
     .kind = RA_OPTION_INT,
     FIELD(repeat),
     .argument = "R",
     .min = 1,
     .max = 1000,
     .help = "timed repeats, of which the median counts; default 3, 1 where emulated"},
    {.name = "threads",
     .letter = 'j',
     .kind = RA_OPTION_INT,
     FIELD(threads),
     .argument = "N",
     .fallback = "0",
     .min = 0,
     .max = 1024,
     .help = "threads; 0: one per processor"},
    {.name = "no-quality",
     .kind = RA_OPTION_FLAG,
     FIELD(no_quality),
     .help = "leave the f64 reference out; the backend's own selections stand"},
    {.name = "by-type",
     .kind = RA_OPTION_FLAG,
     FIELD(by_type),
     .help = "split mass, kept share and error by token type (in json and csv)"},
    {.name = "keep-sets",
     .kind = RA_OPTION_TEXT,
     FIELD(keep_sets),
     .argument = "LAYER.HEAD/...",
     .words = RA_WORDS_NONE,
     .needs = "--db",
     .help = "heads whose retained positions are stored; default: middle layer, head 0"},
    {.name = "export",
     .kind = RA_OPTION_TEXT,
     FIELD(export_path),
     .argument = "PATH",
     .help = "write sets, mass, error and output as safetensors; a folder for several"},
    {.name = "force",
     .kind = RA_OPTION_FLAG,
     FIELD(force),
     .needs = "--export",
     .help = "export more than 1 GiB"},
    {.name = "check",
     .kind = RA_OPTION_TEXT,
     FIELD(check),
     .argument = "RUN|FILE.json",
     .help = "compare with a stored run of --db or with saved JSON; exit 4 if different"},
    {.name = "dry-run",
     .kind = RA_OPTION_FLAG,
     FIELD(dry_run),
     .help = "say what would run and what it takes, then stop"},
    {.name = "profile",
     .kind = RA_OPTION_CHOICE,
     FIELD(profile),
     .argument = "MODE",
     .choices = "off|timing|counters|all",
     .fallback = "off",
     .help = "passes that record operations and kernels, or count what they ask of memory"},
    {.name = "tile-layers",
     .kind = RA_OPTION_INT,
     FIELD(tile_layers),
     .argument = "N",
     .fallback = "1",
     .min = 1,
     .max = 4096,
     .help = "time the layers laid out N times in memory, as a model that has more"},
    {.name = "between",
     .kind = RA_OPTION_CHOICE,
     FIELD(between),
     .argument = "WHAT",
     .choices = "auto|model|none",
     .fallback = "auto",
     .help = "cuda: what is read, untimed, between layers; auto: as in a model on a GPU"},
    {.name = "granularity",
     .kind = RA_OPTION_CHOICE,
     FIELD(granularity),
     .argument = "WHAT",
     .choices = "step|layer|op",
     .fallback = "step",
     .needs = "--profile",
     .help = "what counters are of; on cuda, what is below steps is launched one by one"},
    {.name = "counters",
     .kind = RA_OPTION_TEXT,
     FIELD(counters),
     .argument = "LIST",
     .words = RA_WORDS_NONE,
     .needs = "--profile",
     .help = "cuda: metrics to count, or sets of them; default: core,hit,miss"},
    {.name = "select",
     .kind = RA_OPTION_CHOICE,
     FIELD(select),
     .argument = "WHEN",
     .choices = "deferred|inline|side",
     .fallback = "deferred",
     .help = "cuda: choose for all layers after a full step, in it, or beside it"},
    {.name = "decide",
     .kind = RA_OPTION_CHOICE,
     FIELD(decide),
     .argument = "WHERE",
     .choices = "known|host|device",
     .fallback = "known",
     .help = "cuda: who decides, at a check of the query, how a step goes on"},
    {.name = "page",
     .kind = RA_OPTION_CHOICE,
     FIELD(page),
     .argument = "ROWS",
     .choices = "none|16",
     .fallback = "none",
     .help = "cuda: keep all K and V in pages of so many rows, in no order"},
    {.name = "batch",
     .kind = RA_OPTION_INT,
     FIELD(batch),
     .argument = "B",
     .fallback = "1",
     .min = 1,
     .max = 256,
     .help = "cuda: so many sequences decoded together: those given, or copies of one"},
    {.name = "phase",
     .kind = RA_OPTION_CHOICE,
     FIELD(phase),
     .argument = "WHICH",
     .choices = "aligned|spread",
     .fallback = "aligned",
     .needs = "--batch",
     .help = "cuda: full steps of the copies at the same steps, or spread over a stride"},
    {.name = "ragged",
     .kind = RA_OPTION_REAL,
     FIELD(ragged),
     .argument = "SHARE",
     .fallback = "0",
     .min = 0,
     .max = 0.5,
     .needs = "--batch",
     .help = "cuda: copies lack up to this share of the prompt, its beginning"},
    {.name = "pdl",
     .kind = RA_OPTION_FLAG,
     FIELD(pdl),
     .help = "cuda: a launch may start before the one ahead of it has ended"},
    {.name = "no-graph",
     .kind = RA_OPTION_FLAG,
     FIELD(no_graph),
     .help = "cuda: a step is launched kernel by kernel, not as one graph"},
    {.name = NULL},
};

static enum ra_status pick_backend(const char *name, const struct ra_backend_ops **backend,
                                   struct ra_error *err)
{
    const char *names[16];
    char hint[RA_HINT_MAX];
    size_t n = 0;
    RA_TRY(ra_backend_load(name, backend, err));
    if (*backend)
        return (*backend)->probe(err);
    for (; n < 16 && ra_backends[n]; n++)
        names[n] = ra_backends[n]->name;
    struct ra_span span = ra_span_of(name);
    return ra_fail(err, RA_EUSAGE, "--backend: no backend named '%.*s'; %s", RA_SPAN(span),
                   ra_text_hint(span, names, n, sizeof *names, hint));
}

/* "14.0/29.2" */
static enum ra_status parse_keep(const char *text, struct ra_replay_job *job, struct ra_error *err)
{
    const char *at = text;
    for (;;) {
        struct ra_keep_set keep = {0};
        enum ra_status st = ra_layer_number(&at, &keep.layer_id);
        if (st == RA_OK && *at++ == '.')
            st = ra_layer_number(&at, &keep.head);
        else
            st = RA_EUSAGE;
        if (st != RA_OK || (*at != '/' && *at != '\0') || job->n_keep == RA_REPLAY_MAX_KEEP)
            return ra_fail(err, RA_EUSAGE,
                           "--keep-sets: expected up to %d of LAYER.HEAD joined by '/', got '%s'",
                           RA_REPLAY_MAX_KEEP, text);
        for (int i = 0; i < job->n_keep; i++)
            if (job->keep[i].layer_id == keep.layer_id && job->keep[i].head == keep.head)
                return ra_fail(err, RA_EUSAGE, "--keep-sets: %d.%d is given twice", keep.layer_id,
                               keep.head);
        job->keep[job->n_keep++] = keep;
        if (*at++ == '\0')
            return RA_OK;
    }
}

static enum ra_status parse_policies(const struct ra_option_texts *texts, struct ra_replay_job *job,
                                     struct ra_error *err)
{
    for (int i = 0; i < texts->n; i++) {
        RA_TRY(ra_policy_parse(&job->specs[i], texts->text[i], err));
        job->n_policies = i + 1;
        for (int j = 0; j < i; j++)
            if (strcmp(ra_policy_spec_canonical(job->specs[i]),
                       ra_policy_spec_canonical(job->specs[j])) == 0)
                return ra_fail(err, RA_EUSAGE, "-p %s: given twice", texts->text[i]);
    }
    return RA_OK;
}

/* What only a backend that records steps can do, or one that is timed. */
static enum ra_status check_backend(const struct values *v, const struct ra_backend_ops *backend,
                                    struct ra_error *err)
{
    const struct {
        const char *option;
        bool is_given;
    } given[] = {{"--pdl", v->pdl},           {"--no-graph", v->no_graph},
                 {"--page", v->page > 0},     {"--phase", v->phase > 0},
                 {"--ragged", v->ragged > 0}, {"--batch", v->batch > 1},
                 {"--decide", v->decide > 0}, {"--between", v->between == 1}};
    for (size_t i = 0; i < sizeof given / sizeof *given && !backend->play; i++)
        if (given[i].is_given)
            return ra_fail(err, RA_EUSAGE, "%s: expected --backend cuda beside it, got %s",
                           given[i].option, backend->name);
    if ((v->phase > 0 || v->ragged > 0) && v->batch < 2)
        return ra_fail(err, RA_EUSAGE, "%s: expected --batch of more than 1 beside it, got %d",
                       v->phase > 0 ? "--phase" : "--ragged", (int)v->batch);
    if (v->tile_layers > 1 && !backend->method)
        return ra_fail(err, RA_EUSAGE,
                       "--tile-layers: expected a backend that takes time, got --backend %s",
                       backend->name);
    return RA_OK;
}

/* A metric that is none is told before the work. */
static enum ra_status check_counters(const char *chip, const char *list, struct ra_error *err)
{
    struct ra_counter_choice *choices = NULL;
    size_t n = 0;
    enum ra_status st = ra_counter_choose(chip, list, &choices, &n, err);
    free(choices);
    return st == RA_OK ? RA_OK : ra_fail_context(err, st, "--counters");
}

/* The gate's checks come before anything else has to do with a device. */
static enum ra_status check_gate(const struct values *v, struct ra_replay_job *job,
                                 struct ra_error *err)
{
    struct ra_gate gate;
    const char *tool = ra_gate_other_tool();
    if (tool) {
        if (!job->cli->is_quiet)
            fprintf(stderr, "running under %s: its are the records, ours the NVTX ranges\n", tool);
        job->config.profile = RA_PROFILE_OFF;
        return RA_OK;
    }
    RA_TRY(ra_gate_run(&gate, err));
    if (gate.uuid[0] && !job->is_dry)
        RA_TRY(ra_gpu_lock_take(&job->gpu_lock, gate.uuid, err));
    job->config.counters = v->counters;
    snprintf(job->chip, sizeof job->chip, "%s", gate.chip);
    job->config.chip = job->chip;
    bool counts = job->config.profile & RA_PROFILE_COUNTERS;
    RA_TRY(ra_gate_require(&gate, counts ? RA_GATE_FOR_COUNTERS : RA_GATE_FOR_TIMING, err));
    return v->counters ? check_counters(job->chip, v->counters, err) : RA_OK;
}

static enum ra_status check_profile(const struct values *v, struct ra_replay_job *job,
                                    struct ra_error *err)
{
    static const unsigned passes[] = {RA_PROFILE_OFF, RA_PROFILE_TIMING, RA_PROFILE_COUNTERS,
                                      RA_PROFILE_TIMING | RA_PROFILE_COUNTERS};
    bool is_cpu = strcmp(v->backend, "cpu") == 0, counts = passes[v->profile] & RA_PROFILE_COUNTERS;
    if (v->profile == 0)
        return RA_OK;
    if (!is_cpu && strcmp(v->backend, "cuda") != 0)
        return ra_fail(err, RA_EUSAGE,
                       "--profile: expected --backend cpu or cuda beside it, got %s", v->backend);
    if (!v->db)
        return ra_fail(err, RA_EUSAGE, "--profile: expected --db FILE beside it, for what is seen");
    job->config.profile = passes[v->profile];
    job->config.granularity = (enum ra_granularity)v->granularity;
    if (v->counters && is_cpu)
        return ra_fail(err, RA_EUSAGE, "--counters: expected --backend cuda beside it, got cpu");
    if (!counts && (v->counters || v->granularity > 0))
        return ra_fail(err, RA_EUSAGE, "%s: expected --profile counters or all beside it",
                       v->counters ? "--counters" : "--granularity");
    if (is_cpu && counts && !job->cli->is_quiet)
        ra_perf_tell_refusals(stderr);
    return is_cpu ? RA_OK : check_gate(v, job, err);
}

static enum ra_status fill_job(const struct ra_cli *cli, const struct values *v,
                               struct ra_replay_job *job, struct ra_error *err)
{
    job->cli = cli;
    job->db = v->db;
    job->export_path = v->export_path;
    job->check = v->check;
    job->is_forced = v->force;
    job->is_dry = v->dry_run;
    job->traces = v->traces.text;
    job->n_traces = v->traces.n;
    job->config =
        (struct ra_replay_config){.specs = job->specs,
                                  .scores = v->scores == 0 ? RA_SCORES_FUSED : RA_SCORES_RECOMPUTE,
                                  .cache = v->cache == 0 ? RA_CACHE_COMPACT : RA_CACHE_GATHER,
                                  .decide = (enum ra_decide_mode)v->decide,
                                  .select = (enum ra_select_mode)v->select,
                                  .page = v->page > 0 ? 16 : 0,
                                  .batch = (int)v->batch,
                                  .spread = v->phase > 0,
                                  .ragged = v->ragged,
                                  .tile_layers = (int)v->tile_layers,
                                  .early = v->pdl,
                                  .no_graph = v->no_graph,
                                  .n_threads = (int)v->threads,
                                  .repeats = (int)v->repeat,
                                  .first_step = v->steps.is_set ? (int32_t)v->steps.first : 0,
                                  .last_step = v->steps.is_set ? (int32_t)v->steps.last : -1,
                                  .quality = !v->no_quality,
                                  .by_type = v->by_type,
                                  .keep = job->keep};
    RA_TRY(check_profile(v, job, err));
    if (v->export_path && v->no_quality)
        return ra_fail(err, RA_EUSAGE, "--export: needs the quality that --no-quality leaves out");
    RA_TRY(pick_backend(v->backend, &job->config.backend, err));
    RA_TRY(check_backend(v, job->config.backend, err));
    const char *method = job->config.backend->method;
    bool is_card = method && strcmp(method, "cuda-event") == 0;
    job->config.between = v->between == 1 || (v->between == 0 && is_card);
    if (v->repeat == 0)
        job->config.repeats = method && strcmp(method, "synthetic") == 0 ? 1 : 3;
    RA_TRY(parse_policies(&v->policies, job, err));
    if (v->layers)
        RA_TRY(ra_layer_list(v->layers, job->layers, &job->n_layers, err));
    if (v->keep_sets)
        RA_TRY(parse_keep(v->keep_sets, job, err));
    else
        job->keep[job->n_keep++] = (struct ra_keep_set){.layer_id = RA_KEEP_DEFAULT, .head = 0};
    job->config.n_policies = job->n_policies;
    job->config.n_keep = job->n_keep;
    job->config.layer_ids = v->layers ? job->layers : NULL;
    job->config.n_layer_ids = job->n_layers;
    return RA_OK;
}

static enum ra_status run(const struct ra_cli *cli, const void *arguments, struct ra_error *err)
{
    struct ra_replay_job *job = calloc(1, sizeof *job);
    if (!job)
        return ra_fail(err, RA_ENOMEM, "no memory for a replay");
    job->gpu_lock.fd = -1;
    enum ra_status st = fill_job(cli, arguments, job, err);
    if (st == RA_OK)
        st = ra_replay_job_run(job, err);
    ra_lock_file_release(&job->gpu_lock);
    for (int i = 0; i < RA_OPTION_TEXTS_MAX; i++)
        ra_policy_spec_close(job->specs[i]);
    free(job);
    return st;
}

const struct ra_command ra_cmd_replay = {
    .name = "replay",
    .summary = "recorded runs under schedules: quality, traffic, time",
    .run = run,
    .operands = operands,
    .options = options,
    .common = RA_COMMON_FORMAT_CSV | RA_COMMON_TALK | RA_COMMON_SEED,
    .values_size = sizeof(struct values),
    .notes = "Quality is exact for the recording: sets, mass and error come from an f64 reference. "
             "Times come from the backend, in a second phase that executes the same schedule and "
             "is checked against the reference on the way.",
};
