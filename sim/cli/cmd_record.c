/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record: token ids in, a trace out. The model decodes greedily, or is told what comes next, under
 * full attention or under a schedule.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sim/cli/commands.h"
#include "sim/cli/eval_store.h"
#include "sim/cli/interrupt.h"
#include "sim/cli/language_model.h"
#include "sim/cli/layer_list.h"
#include "sim/cli/output.h"
#include "sim/cli/run_rows.h"
#include "sim/report_table.h"
#include "traces/model/layers.h"
#include "traces/model/loop.h"
#include "traces/model/recorder.h"
#include "traces/trace.h"

struct values {
    const char *model, *tokens, *output, *policy, *layers, *check_steps, *db;
    int64_t steps, prompt_len, q_tail, top_k, threads;
    int dtype, mode;
};
enum { MODE_TEACHER_FORCED, MODE_GREEDY };

static const struct ra_operand operands[] = {
    RA_MODEL_OPERAND(struct values),
    {.name = NULL},
};

#define FIELD(member) .offset = offsetof(struct values, member)
static const struct ra_option options[] = {
    RA_MODEL_TOKENS(struct values),
    RA_MODEL_STEPS(struct values),
    {.name = "output",
     .letter = 'o',
     .kind = RA_OPTION_TEXT,
     FIELD(output),
     .argument = "TRACE",
     .is_required = true,
     .help = "trace to write"},
    {.name = "prompt-len",
     .kind = RA_OPTION_INT,
     FIELD(prompt_len),
     .argument = "P",
     .min = 1,
     .max = 1 << 24,
     .help = "tokens of the prompt; without it all that the steps leave"},
    {.name = "policy",
     .letter = 'p',
     .kind = RA_OPTION_TEXT,
     FIELD(policy),
     .argument = "POLICY",
     .fallback = "full",
     .words = RA_WORDS_POLICIES,
     .help = "schedule to decode under (see 'list policies')"},
    {.name = "mode",
     .kind = RA_OPTION_CHOICE,
     FIELD(mode),
     .argument = "MODE",
     .fallback = "teacher_forced",
     .choices = "teacher_forced|greedy",
     .help = "the text says what comes next, or the likeliest token does"},
    {.name = "layers",
     .kind = RA_OPTION_TEXT,
     FIELD(layers),
     .argument = "LIST",
     .words = RA_WORDS_NONE,
     .help = "record these alone: 0,9,20-29"},
    RA_MODEL_DTYPE(struct values),
    {.name = "q-tail",
     .kind = RA_OPTION_INT,
     FIELD(q_tail),
     .argument = "W",
     .fallback = "64",
     .min = 1,
     .max = 1 << 20,
     .help = "queries kept of the prompt's end; at most P"},
    {.name = "check-steps",
     .kind = RA_OPTION_TEXT,
     FIELD(check_steps),
     .argument = "STEPS",
     .fallback = "16",
     .words = RA_WORDS_NONE,
     .help = "steps whose attention is kept for 'info --verify': how many, evenly spaced, or a "
             "list with a comma"},
    {.name = "top-k",
     .kind = RA_OPTION_INT,
     FIELD(top_k),
     .argument = "K",
     .fallback = "16",
     .min = 0,
     .max = 1024,
     .help = "likeliest tokens kept of each step"},
    {.name = "db",
     .kind = RA_OPTION_TEXT,
     FIELD(db),
     .argument = "FILE",
     .help = "store the run there; made when missing, else appended to"},
    RA_MODEL_THREADS(struct values),
    {.name = NULL},
};

/* One recording on its way. */
struct job {
    const struct values *v;
    struct ra_language_model model;
    struct ra_policy_spec *spec;
    struct ra_ids *ids;
    struct ra_lm_prompt *prompt;
    struct ra_lm_loop *loop;
    struct ra_lm_recorder *recorder;
    struct ra_lm_recording recording;
    int *layers;          /* [RA_LAYER_LIST_MAX] */
    int32_t *check_steps; /* [N] */
    int32_t *tokens;      /* [P + N + 1] */
    float *logits;
    double sum; /* of log-probabilities */
    struct ra_eval_store runs;
    int64_t run_id;  /* 0: none */
    char sha256[65]; /* of the trace's data section; "" until it is whole */
};

static void close_job(struct job *job)
{
    ra_lm_recorder_close(job->recorder);
    ra_lm_loop_close(job->loop);
    ra_lm_prompt_close(job->prompt);
    ra_ids_close(job->ids);
    ra_policy_spec_close(job->spec);
    ra_language_model_close(&job->model);
    free(job->layers);
    free(job->check_steps);
    free(job->tokens);
    free(job->logits);
}

static enum ra_status choose_lengths(struct job *job, struct ra_error *err)
{
    const struct values *v = job->v;
    struct ra_lm_recording *r = &job->recording;
    int64_t n = (int64_t)job->ids->n, need = v->mode == MODE_GREEDY ? 0 : v->steps + 1;
    int64_t P = v->prompt_len ? v->prompt_len : n - need;
    if (P < 1 || P + need > n)
        return ra_fail(err, RA_EUSAGE,
                       "%s: expected at least %" PRId64 " tokens for a prompt of %" PRId64
                       " and %" PRId64 " steps%s, got %" PRId64,
                       v->tokens, (P < 1 ? 1 : P) + need, P < 1 ? 1 : P, v->steps,
                       need ? " with their targets" : "", n);
    RA_TRY(ra_language_model_reaches(&job->model, v->model, P, v->steps, err));
    r->P = (int32_t)P;
    r->N = (int32_t)v->steps;
    r->W = (int32_t)(v->q_tail < P ? v->q_tail : P);
    return RA_OK;
}

static enum ra_status choose_layers(struct job *job, struct ra_error *err)
{
    struct ra_lm_recording *r = &job->recording;
    int n_layers = job->model.config->n_layers;
    bool has_full = false;
    job->layers = calloc(RA_LAYER_LIST_MAX, sizeof *job->layers);
    if (!job->layers)
        return ra_fail(err, RA_ENOMEM, "record: out of memory");
    r->layers = job->layers;
    if (job->v->layers) {
        RA_TRY(ra_layer_list(job->v->layers, job->layers, &r->n_layers, err));
    } else {
        for (int l = 0; l < n_layers; l++)
            job->layers[r->n_layers++] = l;
    }
    for (int i = 0; i < r->n_layers; i++) {
        if (job->layers[i] >= n_layers || (i && job->layers[i] <= job->layers[i - 1]))
            return ra_fail(err, RA_EUSAGE, "--layers: expected ascending layers below %d, got '%s'",
                           n_layers, job->v->layers);
        has_full |= !job->model.config->window || !job->model.config->slides[job->layers[i]];
    }
    if (!has_full)
        return ra_fail(err, RA_EUSAGE,
                       "--layers: expected one with full attention among them, got window layers "
                       "only");
    return RA_OK;
}

/* "16": so many, evenly spaced, first and last included; "0,5,": these. */
static enum ra_status choose_check_steps(struct job *job, struct ra_error *err)
{
    struct ra_lm_recording *r = &job->recording;
    const char *text = job->v->check_steps, *at = text;
    bool is_list = strchr(text, ',') != NULL, is_good = true;
    job->check_steps = malloc((size_t)r->N * sizeof *job->check_steps);
    if (!job->check_steps)
        return ra_fail(err, RA_ENOMEM, "record: out of memory");
    r->check_steps = job->check_steps;
    while (*at && is_good) {
        char *end;
        long long number = *at >= '0' && *at <= '9' ? strtoll(at, &end, 10) : -1;
        int32_t last = r->n_check ? job->check_steps[r->n_check - 1] : -1;
        is_good = number >= 0 && (*end == ',' || (*end == 0 && end > at));
        if (is_good && !is_list) {
            int32_t n = number < r->N ? (int32_t)number : r->N;
            for (r->n_check = 0; r->n_check < n; r->n_check++)
                job->check_steps[r->n_check] =
                    n == 1 ? 0 : (int32_t)nearbyint((double)r->n_check * (r->N - 1) / (n - 1));
            return RA_OK;
        }
        is_good = is_good && number > last && number < r->N;
        if (is_good) {
            job->check_steps[r->n_check++] = (int32_t)number;
            at = *end == ',' ? end + 1 : end;
        }
    }
    if (!is_good || !text[0])
        return ra_fail(err, RA_EUSAGE,
                       "--check-steps: expected a number, or ascending steps below %d joined by "
                       "commas, got '%s'",
                       r->N, text);
    return RA_OK;
}

/* A directory that does not say what it holds is known by the digest of what it holds. */
static enum ra_status name_model(struct job *job, struct ra_error *err)
{
    struct ra_lm_origin *origin = &job->model.origin;
    char hex[RA_SHA256_HEX];
    if (origin->sha256[0])
        return RA_OK;
    RA_TRY(ra_lm_weights_digest(job->v->model, hex, err));
    free(origin->sha256);
    origin->sha256 = strdup(hex);
    return origin->sha256 ? RA_OK : ra_fail(err, RA_ENOMEM, "record: out of memory");
}

static enum ra_status prepare(struct job *job, const struct ra_cli *cli, struct ra_error *err)
{
    const struct values *v = job->v;
    RA_TRY(ra_policy_parse(&job->spec, v->policy, err));
    RA_TRY(ra_language_model_open(&job->model, v->model, (enum ra_dtype)v->dtype, 1,
                                  (int)v->threads, cli, err));
    RA_TRY(ra_ids_open(&job->ids, v->tokens, job->model.config->vocab, err));
    RA_TRY(ra_language_model_speaks(&job->model, v->tokens, job->ids->tokenizer_sha256, err));
    RA_TRY(name_model(job, err));
    RA_TRY(choose_lengths(job, err));
    RA_TRY(choose_layers(job, err));
    RA_TRY(choose_check_steps(job, err));
    size_t n = (size_t)(job->recording.P + job->recording.N + 1);
    job->tokens = malloc(n * sizeof *job->tokens);
    job->logits = malloc((size_t)job->model.config->vocab * sizeof *job->logits);
    if (!job->tokens || !job->logits)
        return ra_fail(err, RA_ENOMEM, "record: no memory for %zu tokens", n);
    bool forced = v->mode == MODE_TEACHER_FORCED;
    memcpy(job->tokens, job->ids->tokens,
           (forced ? n : (size_t)job->recording.P) * sizeof *job->tokens);
    job->recording.lm = &job->model.lm;
    job->recording.path = v->output;
    job->recording.top_k =
        v->top_k < job->model.config->vocab ? (int)v->top_k : job->model.config->vocab;
    job->recording.is_full = strcmp(ra_policy_spec_ops(job->spec)->name, "full") == 0;
    job->recording.is_greedy = !forced;
    job->recording.policy = ra_policy_spec_canonical(job->spec);
    job->recording.attention = "cpu";
    job->recording.origin = &job->model.origin;
    job->recording.ids = job->ids;
    return ra_lm_recorder_open(&job->recorder, &job->recording, err);
}

static enum ra_status prefill(struct job *job, struct ra_error *err)
{
    struct ra_lm_prompt_config config = {.tokens = job->tokens,
                                         .P = job->recording.P,
                                         .W = job->recording.W,
                                         .wants_acc = true,
                                         .pool = job->model.pool,
                                         .progress = ra_language_model_prefill,
                                         .context = &job->model};
    RA_TRY(ra_lm_prompt_open(&job->prompt, &job->model.lm, &config, err));
    return ra_lm_recorder_prompt(job->recorder, job->prompt, err);
}

static enum ra_status on_rows(void *context, const struct ra_lm_rows *rows, struct ra_error *err)
{
    return ra_lm_recorder_row(context, rows, err);
}

static enum ra_status decode(struct job *job, struct ra_error *err)
{
    const struct ra_lm_recording *r = &job->recording;
    const struct ra_policy_spec *spec = job->spec;
    int vocab = job->model.config->vocab;
    struct ra_lm_loop_config config = {.lm = &job->model.lm,
                                       .prompt = job->prompt,
                                       .n = 1,
                                       .specs = &spec,
                                       .backend = ra_backend_find("cpu"),
                                       .N = r->N,
                                       .pool = job->model.pool,
                                       .observe = on_rows,
                                       .context = job->recorder};
    RA_TRY(ra_lm_loop_open(&job->loop, &config, err));
    if (r->is_greedy)
        job->tokens[r->P] = ra_lm_likeliest(job->prompt->logits, vocab);
    for (int32_t t = 0; t < r->N; t++) {
        const float *hidden;
        double logprob;
        RA_TRY(ra_lm_loop_step(job->loop, &job->tokens[r->P + t], &hidden, err));
        ra_lm_logits(&job->model.lm, 1, hidden, job->logits);
        if (r->is_greedy)
            job->tokens[r->P + t + 1] = ra_lm_likeliest(job->logits, vocab);
        RA_TRY(ra_lm_recorder_step(job->recorder, t, job->logits, job->tokens[r->P + t + 1],
                                   &logprob, err));
        job->sum += logprob;
        ra_progress_show(&job->model.progress, "decode", (uint64_t)t + 1, (uint64_t)r->N);
        if (ra_interrupt_requested())
            return ra_fail(err, RA_EINTERRUPTED, "interrupted at step %d of %d; nothing is written",
                           t + 1, r->N);
    }
    return ra_lm_recorder_commit(job->recorder, job->tokens, err);
}

static json_t *text_or_null(const char *text)
{
    return text[0] ? ra_json_text(text) : json_null();
}

static enum ra_status begin_run(struct job *job, struct ra_error *err)
{
    const struct values *v = job->v;
    const struct ra_lm_origin *origin = &job->model.origin;
    const struct ra_lm_recording *r = &job->recording;
    json_t *config =
        json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:i, s:i, s:I, s:o}", "model_dir",
                  ra_json_text(v->model), "model_revision", text_or_null(origin->revision),
                  "model_sha256", text_or_null(origin->sha256), "tokenizer_sha256",
                  text_or_null(origin->tokenizer_sha256), "tokens", ra_json_text(v->tokens),
                  "tokens_source_sha256", text_or_null(job->ids->source_sha256), "prompt_len", r->P,
                  "steps", r->N, "threads", (json_int_t)v->threads, "cwd", ra_run_folder());
    struct ra_eval_run run = {.kind = "record",
                              .spec = job->spec,
                              .config = config,
                              .trace_path = v->output,
                              .model_id = origin->id,
                              .backend = "cpu",
                              .dtype = ra_dtype_name((enum ra_dtype)v->dtype),
                              .schedule_of_trace = r->policy};
    enum ra_status st = ra_eval_store_begin(&job->runs, &run, &job->run_id, err);
    json_decref(config);
    return st;
}

/* As the trace itself says. */
static enum ra_status read_checksum(struct job *job, struct ra_error *err)
{
    struct ra_trace *trace;
    RA_TRY(ra_trace_open(&trace, job->v->output, err));
    snprintf(job->sha256, sizeof job->sha256, "%s", ra_trace_info(trace)->sha256);
    ra_trace_close(trace);
    return job->run_id ? ra_store_run_trace(job->runs.store, job->run_id, job->sha256, err) : RA_OK;
}

static json_t *result_json(const struct job *job)
{
    const struct ra_lm_recording *r = &job->recording;
    struct stat info;
    double bytes = stat(r->path, &info) == 0 ? (double)info.st_size : NAN;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:o, s:o}",
                     "trace", ra_json_text(r->path), "sha256", text_or_null(job->sha256), "model",
                     ra_json_text(r->origin->id), "tokens", ra_json_text(job->v->tokens), "source",
                     text_or_null(job->ids->source), "policy", r->policy, "mode",
                     r->is_greedy ? "greedy" : "teacher_forced", "prompt_len", r->P, "steps", r->N,
                     "layers", r->n_layers, "n_layers", job->model.config->n_layers, "q_tail", r->W,
                     "bytes", ra_json_real(bytes), "perplexity",
                     ra_json_real(exp(-job->sum / r->N)));
}

static enum ra_status report(const json_t *result, const struct ra_cli *cli, struct ra_error *err)
{
    if (cli->format == RA_FORMAT_JSON)
        return ra_put_json(result, err);
    ra_put_safe(ra_result_text(result, "trace"));
    printf(": P = %.0f, N = %.0f, %.0f of %.0f layers, %.1f MiB\n",
           ra_result_number(result, "prompt_len", NULL), ra_result_number(result, "steps", NULL),
           ra_result_number(result, "layers", NULL), ra_result_number(result, "n_layers", NULL),
           ra_result_number(result, "bytes", NULL) / 1048576);
    printf("perplexity of the %.0f decoded tokens under %s: %.3f\n",
           ra_result_number(result, "steps", NULL), ra_result_text(result, "policy"),
           ra_result_number(result, "perplexity", NULL));
    return RA_OK;
}

static enum ra_status run(const struct ra_cli *cli, const void *values, struct ra_error *err)
{
    struct job job = {.v = values};
    json_t *result = NULL;
    ra_interrupt_install();
    enum ra_status st = ra_eval_store_open(&job.runs, job.v->db, "record", cli, err);
    if (st == RA_OK)
        st = prepare(&job, cli, err);
    if (st == RA_OK)
        st = begin_run(&job, err);
    if (st == RA_OK)
        st = prefill(&job, err);
    if (st == RA_OK)
        st = decode(&job, err);
    if (st == RA_OK)
        st = read_checksum(&job, err);
    ra_progress_fini(&job.model.progress);
    if (st == RA_OK && !(result = result_json(&job)))
        st = ra_fail(err, RA_ENOMEM, "record: no memory for the result");
    st = ra_eval_store_end(&job.runs, job.run_id, st, result, err);
    st = ra_eval_store_close(&job.runs, st, err);
    if (st == RA_OK)
        st = report(result, cli, err);
    json_decref(result);
    close_job(&job);
    return st;
}

const struct ra_command ra_cmd_record = {
    .name = "record",
    .summary = "run a model on a text and keep what its attention saw: a trace",
    .run = run,
    .operands = operands,
    .options = options,
    .common = RA_COMMON_FORMAT_JSON | RA_COMMON_TALK,
    .values_size = sizeof(struct values),
    .notes = "The trace has its name only when it is whole. Llama, Mistral, Qwen2, Qwen3 and Gemma "
             "3 text models; matrix products by OpenBLAS.",
};
