/* SPDX-License-Identifier: Apache-2.0 */
/*
 * eval: the model itself decodes under schedules, and what it then thinks of the true tokens is
 * compared with what it thinks under full attention, text by text.
 */
#include <stdlib.h>
#include <string.h>

#include "sim/cli/commands.h"
#include "sim/cli/eval_figures.h"
#include "sim/cli/eval_store.h"
#include "sim/cli/interrupt.h"
#include "sim/cli/language_model.h"
#include "sim/cli/output.h"
#include "sim/cli/run_rows.h"

struct values {
    const char *model, *db;
    struct ra_option_texts tasks, policies;
    int64_t threads;
    int dtype;
    bool per_token;
};

static const struct ra_operand operands[] = {
    RA_MODEL_OPERAND(struct values),
    {.name = NULL},
};

#define FIELD(member) .offset = offsetof(struct values, member)
static const struct ra_option options[] = {
    {.name = "task",
     .kind = RA_OPTION_TEXTS,
     FIELD(tasks),
     .argument = "TASK",
     .is_required = true,
     .words = RA_WORDS_NONE,
     .help = "what to decode: ppl:file=IDS or ppl:dir=FOLDER with prompt=P and steps=N, or "
             "prompts:file=PROMPTS; may repeat"},
    {.name = "policy",
     .letter = 'p',
     .kind = RA_OPTION_TEXTS,
     FIELD(policies),
     .argument = "POLICY",
     .is_required = true,
     .words = RA_WORDS_POLICIES,
     .help = "schedule to decode under; may repeat; full is always among them"},
    {.name = "db",
     .kind = RA_OPTION_TEXT,
     FIELD(db),
     .argument = "FILE",
     .help = "store the runs there; made when missing, else appended to"},
    RA_MODEL_DTYPE(struct values),
    {.name = "per-token",
     .kind = RA_OPTION_FLAG,
     FIELD(per_token),
     .help = "json: every token's NLL too"},
    RA_MODEL_THREADS(struct values),
    {.name = NULL},
};

enum { MOST = RA_OPTION_TEXTS_MAX + 1, TAIL = 64 };

struct job {
    const struct values *v;
    const struct ra_cli *cli;
    struct ra_language_model model;
    struct ra_policy_spec *specs[MOST];
    int n, full;
    struct ra_eval_task task;
    struct ra_eval_score *scores; /* [task.n][n] */
    double *nll, *kl;             /* behind scores, as are the next two */
    float *since;
    struct ra_eval_answer *answers;
    json_t *results;
    int item; /* at hand */
    struct ra_eval_store runs;
    int64_t run_ids[MOST]; /* of the task at hand; 0: none */
};

static enum ra_status parse_policies(struct job *job, struct ra_error *err)
{
    const struct ra_option_texts *texts = &job->v->policies;
    job->full = -1;
    for (int i = 0; i < texts->n; i++) {
        RA_TRY(ra_policy_parse(&job->specs[job->n], texts->text[i], err));
        if (strcmp(ra_policy_spec_canonical(job->specs[job->n]), "full") == 0)
            job->full = job->n;
        job->n++;
    }
    if (job->full >= 0)
        return RA_OK;
    job->full = job->n;
    return ra_policy_parse(&job->specs[job->n++], "full", err);
}

/* Room for the scores of a task, all in one piece of each kind. */
static enum ra_status take_scores(struct job *job, struct ra_error *err)
{
    size_t n = (size_t)job->n, steps = 0, probes = 0, items = (size_t)job->task.n;
    for (size_t i = 0; i < items; i++) {
        steps += (size_t)job->task.items[i].text.N;
        probes += (size_t)job->task.items[i].text.n_probes;
    }
    job->scores = calloc(items * n, sizeof *job->scores);
    job->nll = malloc(steps * n * sizeof *job->nll);
    job->kl = malloc(steps * n * sizeof *job->kl);
    job->since = malloc(steps * n * sizeof *job->since);
    job->answers = calloc(probes * n + 1, sizeof *job->answers);
    if (!job->scores || !job->nll || !job->kl || !job->since || !job->answers)
        return ra_fail(err, RA_ENOMEM, "eval: no memory for %zu steps", steps * n);
    double *nll = job->nll, *kl = job->kl;
    float *since = job->since;
    struct ra_eval_answer *answers = job->answers;
    for (size_t i = 0; i < items * n; i++) {
        const struct ra_eval_text *text = &job->task.items[i / n].text;
        job->scores[i] =
            (struct ra_eval_score){.nll = nll, .kl = kl, .since_full = since, .answers = answers};
        nll += text->N;
        kl += text->N;
        since += text->N;
        answers += text->n_probes;
    }
    return RA_OK;
}

static void close_task(struct job *job)
{
    free(job->scores);
    free(job->nll);
    free(job->kl);
    free(job->since);
    free(job->answers);
    job->scores = NULL;
    job->nll = job->kl = NULL;
    job->since = NULL;
    job->answers = NULL;
    ra_eval_task_close(&job->task);
}

/* The work of a task, in tokens of its texts. */
static bool on_progress(void *context, const char *what, int32_t done, int32_t total)
{
    struct job *job = context;
    (void)what;
    ra_progress_show(&job->model.progress, job->task.name,
                     (uint64_t)job->item * 1000 + (uint64_t)done * 1000 / (uint64_t)total,
                     (uint64_t)job->task.n * 1000);
    return !ra_interrupt_requested();
}

static enum ra_status show(struct job *job, struct ra_error *err)
{
    struct ra_eval_done done = {.task = &job->task,
                                .model = &job->model,
                                .n = job->n,
                                .specs = (const struct ra_policy_spec *const *)job->specs,
                                .full = job->full,
                                .scores = job->scores,
                                .seed = job->cli->seed,
                                .per_token = job->v->per_token};
    bool text = job->cli->format == RA_FORMAT_TEXT;
    ra_progress_fini(&job->model.progress);
    if (text)
        ra_eval_heading(&done);
    for (int i = 0; i < job->n; i++) {
        json_t *object;
        RA_TRY(ra_eval_figures(&done, i, &object, err));
        if (text)
            ra_eval_line(object);
        json_array_append_new(job->results, object);
    }
    return RA_OK;
}

static json_t *config_json(const struct job *job)
{
    const struct ra_lm_origin *origin = &job->model.origin;
    json_t *config = json_object();
    const struct {
        const char *key, *text;
    } texts[] = {{"task", job->task.spelling},
                 {"model_dir", job->v->model},
                 {"model_revision", origin->revision},
                 {"model_sha256", origin->sha256},
                 {"tokenizer_sha256", origin->tokenizer_sha256}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        json_object_set_new(config, texts[i].key,
                            texts[i].text[0] ? ra_json_text(texts[i].text) : json_null());
    json_object_set_new(config, "threads", json_integer(job->v->threads));
    json_object_set_new(config, "per_token", json_boolean(job->v->per_token));
    json_object_set_new(config, "cwd", ra_run_folder());
    return config;
}

static enum ra_status begin_runs(struct job *job, struct ra_error *err)
{
    char device[128] = "";
    const struct ra_backend_ops *backend = ra_backend_find("cpu");
    if (backend->device)
        backend->device(device, sizeof device);
    struct ra_eval_run run = {.kind = "eval",
                              .config = config_json(job),
                              .trace_path = job->task.path,
                              .model_id = job->model.origin.id,
                              .backend = backend->name,
                              .device = device[0] ? device : NULL,
                              .dtype = ra_dtype_name((enum ra_dtype)job->v->dtype)};
    enum ra_status st = RA_OK;
    for (int i = 0; st == RA_OK && i < job->n; i++) {
        run.spec = job->specs[i];
        st = ra_eval_store_begin(&job->runs, &run, &job->run_ids[i], err);
    }
    json_decref(run.config);
    return st;
}

/* The last n results are the task's when all went well. */
static enum ra_status end_runs(struct job *job, enum ra_status outcome, struct ra_error *err)
{
    size_t first = json_array_size(job->results) - (outcome == RA_OK ? (size_t)job->n : 0);
    for (int i = 0; i < job->n; i++) {
        outcome = ra_eval_store_end(&job->runs, job->run_ids[i], outcome,
                                    json_array_get(job->results, first + (size_t)i), err);
        job->run_ids[i] = 0;
    }
    return outcome;
}

static enum ra_status decode(struct job *job, struct ra_error *err)
{
    struct ra_eval_config config = {.lm = &job->model.lm,
                                    .pool = job->model.pool,
                                    .backend = ra_backend_find("cpu"),
                                    .n = job->n,
                                    .full = job->full,
                                    .specs = (const struct ra_policy_spec *const *)job->specs,
                                    .W = TAIL,
                                    .progress = on_progress,
                                    .context = job};
    ra_progress_init(&job->model.progress, "thousandths of a text", job->cli->is_quiet);
    for (job->item = 0; job->item < job->task.n; job->item++) {
        enum ra_status st = ra_eval_text_run(&config, &job->task.items[job->item].text,
                                             &job->scores[(size_t)job->item * (size_t)job->n], err);
        if (st != RA_OK)
            return ra_fail_context(err, st, "%s: %s", job->task.name,
                                   job->task.items[job->item].name);
    }
    return show(job, err);
}

static enum ra_status run_task(struct job *job, const char *spelling, struct ra_error *err)
{
    RA_TRY(ra_eval_task_open(&job->task, spelling, &job->model, err));
    RA_TRY(take_scores(job, err));
    enum ra_status st = begin_runs(job, err);
    if (st == RA_OK)
        st = decode(job, err);
    return end_runs(job, st, err);
}

static enum ra_status run(const struct ra_cli *cli, const void *values, struct ra_error *err)
{
    struct job *job = calloc(1, sizeof *job);
    if (!job)
        return ra_fail(err, RA_ENOMEM, "eval: out of memory");
    job->v = values;
    job->cli = cli;
    job->results = json_array();
    ra_interrupt_install();
    enum ra_status st = parse_policies(job, err);
    if (st == RA_OK)
        st = ra_eval_store_open(&job->runs, job->v->db, "eval", cli, err);
    if (st == RA_OK)
        st = ra_language_model_open(&job->model, job->v->model, (enum ra_dtype)job->v->dtype,
                                    job->n, (int)job->v->threads, cli, err);
    for (int i = 0; st == RA_OK && i < job->v->tasks.n; i++) {
        st = run_task(job, job->v->tasks.text[i], err);
        close_task(job);
    }
    ra_progress_fini(&job->model.progress);
    if (st == RA_OK && cli->format == RA_FORMAT_JSON)
        st = ra_put_json(job->results, err);
    st = ra_eval_store_close(&job->runs, st, err);
    json_decref(job->results);
    for (int i = 0; i < job->n; i++)
        ra_policy_spec_close(job->specs[i]);
    ra_language_model_close(&job->model);
    free(job);
    return st;
}

const struct ra_command ra_cmd_eval = {
    .name = "eval",
    .summary = "let a model decode under schedules and compare with full attention",
    .run = run,
    .operands = operands,
    .options = options,
    .common = RA_COMMON_FORMAT_JSON | RA_COMMON_TALK | RA_COMMON_SEED,
    .values_size = sizeof(struct values),
    .notes =
        "Closed loop: every schedule decodes from the same dense prefill, one token at a time, "
        "told what comes next. A delta is to full attention, with the middle 95 % of a paired "
        "bootstrap over texts.",
};
