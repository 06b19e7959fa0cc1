/* SPDX-License-Identifier: Apache-2.0 */
/*
 * speculate: the model drafts under schedules and verifies under full attention; how many drafts
 * stand, what was read for each token, and that the output is greedy decoding's.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/text.h"
#include "sim/cli/commands.h"
#include "sim/cli/interrupt.h"
#include "sim/cli/language_model.h"
#include "sim/cli/output.h"
#include "sim/cli/wrap.h"
#include "sim/speculate.h"
#include "traces/model/ids.h"

struct values {
    const char *model, *tokens, *gammas, *below;
    struct ra_option_texts policies;
    int64_t steps, prompt_len, below_gamma, threads;
    int dtype, mode;
};
enum { MODE_GREEDY, MODE_TEXT };

static const struct ra_operand operands[] = {
    RA_MODEL_OPERAND(struct values),
    {.name = NULL},
};

#define FIELD(member) .offset = offsetof(struct values, member)
static const struct ra_option options[] = {
    RA_MODEL_TOKENS(struct values),
    RA_MODEL_STEPS(struct values),
    {.name = "policy",
     .letter = 'p',
     .kind = RA_OPTION_TEXTS,
     FIELD(policies),
     .argument = "POLICY",
     .is_required = true,
     .words = RA_WORDS_POLICIES,
     .help = "schedule to draft under; may repeat"},
    {.name = "gamma",
     .kind = RA_OPTION_TEXT,
     FIELD(gammas),
     .argument = "LIST",
     .fallback = "4",
     .words = RA_WORDS_NONE,
     .help = "drafts between two verifications: 2,4,6 tries each"},
    {.name = "below",
     .kind = RA_OPTION_TEXT,
     FIELD(below),
     .argument = "POLICY",
     .words = RA_WORDS_POLICIES,
     .help = "schedule that guesses for the one that drafts, which checks the guesses in one pass"},
    {.name = "below-gamma",
     .kind = RA_OPTION_INT,
     FIELD(below_gamma),
     .argument = "n",
     .fallback = "2",
     .min = 1,
     .max = RA_LM_CHUNK - 2,
     .needs = "--below",
     .help = "guesses at once"},
    {.name = "prompt-len",
     .kind = RA_OPTION_INT,
     FIELD(prompt_len),
     .argument = "P",
     .min = 1,
     .max = 1 << 24,
     .help = "tokens of the prompt; without it all that the mode leaves"},
    {.name = "mode",
     .kind = RA_OPTION_CHOICE,
     FIELD(mode),
     .argument = "MODE",
     .fallback = "greedy",
     .choices = "greedy|text",
     .help = "each round goes on from the output, or from the text"},
    RA_MODEL_DTYPE(struct values),
    RA_MODEL_THREADS(struct values),
    {.name = NULL},
};

enum { MOST_GAMMAS = 64, TAIL = 64 };

struct job {
    const struct values *v;
    const struct ra_cli *cli;
    struct ra_language_model model;
    struct ra_policy_spec *specs[RA_OPTION_TEXTS_MAX], *below;
    struct ra_ids *ids;
    struct ra_lm_prompt *prompt;
    int32_t gammas[MOST_GAMMAS];
    int n_gammas;
    struct ra_speculate_config config;
    struct ra_speculate_score plain, score;
    json_t *runs;
    int64_t wrong;    /* over all runs */
    const char *what; /* at hand */
};

static enum ra_status parse_gammas(struct job *job, struct ra_error *err)
{
    struct ra_span rest = ra_span_of(job->v->gammas), word;
    for (bool more = true; more;) {
        more = ra_span_cut(&rest, ',', &word);
        int32_t gamma = 0;
        if (!ra_span_count(word, &gamma) || gamma < 1 || gamma >= RA_LM_CHUNK ||
            job->n_gammas == MOST_GAMMAS)
            return ra_fail(err, RA_EUSAGE,
                           "--gamma: expected at most %d numbers from 1 to %d, joined by commas, "
                           "got '%s'",
                           MOST_GAMMAS, RA_LM_CHUNK - 1, job->v->gammas);
        job->gammas[job->n_gammas++] = gamma;
    }
    return RA_OK;
}

static bool on_progress(void *context, int32_t done, int32_t N)
{
    struct job *job = context;
    ra_progress_show(&job->model.progress, job->what, (uint64_t)done, (uint64_t)N);
    return !ra_interrupt_requested();
}

static enum ra_status open_prompt(struct job *job, struct ra_error *err)
{
    const struct values *v = job->v;
    int64_t n = (int64_t)job->ids->n, need = v->mode == MODE_TEXT ? v->steps + 1 : 0;
    int64_t P = v->prompt_len ? v->prompt_len : n - need;
    if (P + need > n || P < 1)
        return ra_fail(err, RA_EUSAGE, "%s: expected at least %" PRId64 " tokens, got %" PRId64,
                       v->tokens, (P < 1 ? 1 : P) + need, n);
    RA_TRY(ra_language_model_reaches(&job->model, v->model, P, v->steps, err));
    struct ra_lm_prompt_config of = {.tokens = job->ids->tokens,
                                     .P = (int32_t)P,
                                     .W = (int32_t)(P < TAIL ? P : TAIL),
                                     .room = (int32_t)v->steps,
                                     .pool = job->model.pool,
                                     .progress = ra_language_model_prefill,
                                     .context = &job->model};
    return ra_lm_prompt_open(&job->prompt, &job->model.lm, &of, err);
}

static enum ra_status parse_policy(struct ra_policy_spec **spec, const char *text,
                                   struct ra_error *err)
{
    RA_TRY(ra_policy_parse(spec, text, err));
    return ra_speculate_accepts(*spec, err);
}

static enum ra_status prepare(struct job *job, struct ra_error *err)
{
    const struct values *v = job->v;
    RA_TRY(parse_gammas(job, err));
    for (int i = 0; i < v->policies.n; i++)
        RA_TRY(parse_policy(&job->specs[i], v->policies.text[i], err));
    if (v->below)
        RA_TRY(parse_policy(&job->below, v->below, err));
    RA_TRY(ra_language_model_open(&job->model, v->model, (enum ra_dtype)v->dtype, RA_LM_CHUNK,
                                  (int)v->threads, job->cli, err));
    RA_TRY(ra_ids_open(&job->ids, v->tokens, job->model.config->vocab, err));
    RA_TRY(ra_language_model_speaks(&job->model, v->tokens, job->ids->tokenizer_sha256, err));
    RA_TRY(open_prompt(job, err));
    size_t n = (size_t)v->steps + 1;
    job->plain.tokens = malloc(n * sizeof *job->plain.tokens);
    job->score.tokens = malloc(n * sizeof *job->score.tokens);
    if (!job->plain.tokens || !job->score.tokens)
        return ra_fail(err, RA_ENOMEM, "speculate: no memory for %zu tokens", n);
    job->config = (struct ra_speculate_config){
        .lm = &job->model.lm,
        .prompt = job->prompt,
        .pool = job->model.pool,
        .backend = ra_backend_find("cpu"),
        .N = (int32_t)v->steps,
        .text = v->mode == MODE_TEXT ? job->ids->tokens + job->prompt->opened : NULL,
        .progress = on_progress,
        .context = job};
    job->what = "greedy";
    return ra_speculate_plain(&job->config, &job->plain, err);
}

/* --- figures -----------------------------------------------------------------------------------*/

/* Bytes of all matrices that a pass reads, in the cache's type. */
static double weight_bytes(const struct job *job)
{
    const struct ra_lm_config *c = job->model.config;
    double heads = (2.0 * c->Hq + 2.0 * c->Hkv) * c->D;
    double layer = (double)c->hidden * (heads + 3.0 * c->ffn);
    return (c->n_layers * layer + (double)c->vocab * c->hidden) *
           (double)ra_dtype_bytes(job->model.lm.shape.dtype);
}

static double kv_bytes(const struct job *job, const struct ra_speculate_score *score)
{
    const struct ra_model *m = &job->model.lm.shape;
    return (double)score->rows * (m->D + m->Dv) * (double)ra_dtype_bytes(m->dtype) / job->config.N;
}

/* Sequences that decode together, sharing the weights of a pass, from which on KV and weights come
 * to fewer bytes for each token than plain decoding's. NaN: none. */
static double pays_from(const struct job *job)
{
    double saved = kv_bytes(job, &job->plain) - kv_bytes(job, &job->score);
    double more = weight_bytes(job) * ((double)job->score.passes / job->config.N - 1);
    return saved > 0 ? floor(more / saved) + 1 : NAN;
}

static double share(int64_t part, int64_t of)
{
    return of ? (double)part / (double)of : NAN;
}

static json_t *tokens_of(const struct job *job, const struct ra_speculate_score *score)
{
    json_t *list = json_array();
    for (int32_t t = 0; t <= job->config.N; t++)
        json_array_append_new(list, json_integer(score->tokens[t]));
    return list;
}

static json_t *figures(const struct job *job, const struct ra_speculate_draft *draft)
{
    const struct ra_speculate_score *s = &job->score;
    json_t *o = json_object();
    json_object_set_new(o, "policy", json_string(ra_policy_spec_canonical(draft->spec)));
    json_object_set_new(o, "gamma", json_integer(draft->gamma));
    json_object_set_new(o, "below",
                        draft->below ? json_string(ra_policy_spec_canonical(draft->below))
                                     : json_null());
    json_object_set_new(o, "below_gamma",
                        draft->below ? json_integer(draft->below_gamma) : json_null());
    json_object_set_new(o, "drafted", json_integer(s->drafted));
    json_object_set_new(o, "accepted", json_integer(s->accepted));
    json_object_set_new(o, "acceptance", ra_json_real(share(s->accepted, s->drafted)));
    json_object_set_new(o, "verifications", json_integer(s->verifications));
    json_object_set_new(o, "tokens_per_verification",
                        ra_json_real(share(job->config.N, s->verifications)));
    json_object_set_new(o, "guessed", draft->below ? json_integer(s->guessed) : json_null());
    json_object_set_new(o, "guess_acceptance",
                        ra_json_real(share(s->guesses_accepted, s->guessed)));
    json_object_set_new(o, "passes_per_token", ra_json_real(share(s->passes, job->config.N)));
    json_object_set_new(o, "kv_bytes_per_token", ra_json_real(kv_bytes(job, s)));
    json_object_set_new(o, "kv_share", ra_json_real(share(s->rows, job->plain.rows)));
    json_object_set_new(o, "pays_from", ra_json_real(pays_from(job)));
    json_object_set_new(o, "same", json_boolean(s->first_difference < 0));
    json_object_set_new(o, "first_difference",
                        s->first_difference < 0 ? json_null() : json_integer(s->first_difference));
    json_object_set_new(o, "near_ties", json_integer(s->near_ties));
    json_object_set_new(o, "wrong", json_integer(s->wrong));
    json_object_set_new(o, "furthest", ra_json_real(s->furthest));
    json_object_set_new(o, "tokens", tokens_of(job, s));
    return o;
}

/* Greedy decoding of small models falls into loops, which are drafted easily. */
static int different_tokens(const struct job *job)
{
    int n = 0;
    for (int32_t t = 0, s; t <= job->config.N; t++) {
        for (s = 0; job->plain.tokens[s] != job->plain.tokens[t];)
            s++;
        n += s == t;
    }
    return n;
}

static void put_heading(const struct job *job)
{
    ra_put_safe(job->model.origin.id);
    printf(": P = %d, N = %d\n", job->prompt->opened, job->config.N);
    printf("greedy under full attention reads %.2f MiB of KV for each token;\n"
           "%d different among %d tokens\n",
           kv_bytes(job, &job->plain) / 1048576, different_tokens(job), job->config.N + 1);
}

static void put_run(const struct job *job, const struct ra_speculate_draft *draft)
{
    const struct ra_speculate_score *s = &job->score;
    double pays = pays_from(job);
    ra_put_wrapped(0, 2, ra_policy_spec_canonical(draft->spec));
    printf("    gamma %d  accepted ", draft->gamma);
    if (s->drafted)
        printf("%.1f %% of %" PRId64, 100 * share(s->accepted, s->drafted), s->drafted);
    else
        printf("n/a");
    printf("  %.2f tokens a verification\n", share(job->config.N, s->verifications));
    if (s->guessed)
        printf("    guesses of %s, %d at once: %.1f %% right\n",
               ra_policy_spec_ops(draft->below)->name, draft->below_gamma,
               100 * share(s->guesses_accepted, s->guessed));
    printf("    KV %.1f %%  %.2f passes a token  ", 100 * share(s->rows, job->plain.rows),
           share(s->passes, job->config.N));
    if (isnan(pays))
        printf("never pays\n");
    else
        printf("pays from %.0f sequence%s together on\n", pays, pays > 1 ? "s" : "");
    if (s->first_difference < 0)
        printf("    output: greedy decoding's\n");
    else
        printf("    output: another from token %d on: %d near ties, %d wrong, %.1e apart at most\n",
               s->first_difference, s->near_ties, s->wrong, s->furthest);
}

static enum ra_status run_all(struct job *job, struct ra_error *err)
{
    bool text = job->cli->format == RA_FORMAT_TEXT;
    ra_progress_fini(&job->model.progress);
    if (text)
        put_heading(job);
    for (int i = 0; i < job->v->policies.n; i++)
        for (int g = 0; g < job->n_gammas; g++) {
            struct ra_speculate_draft draft = {.spec = job->specs[i],
                                               .gamma = job->gammas[g],
                                               .below = job->below,
                                               .below_gamma = (int32_t)job->v->below_gamma};
            job->what = ra_policy_spec_ops(draft.spec)->name;
            RA_TRY(ra_speculate_run(&job->config, &draft, job->plain.tokens, &job->score, err));
            ra_progress_fini(&job->model.progress);
            job->wrong += job->score.wrong;
            if (text)
                put_run(job, &draft);
            json_array_append_new(job->runs, figures(job, &draft));
        }
    return RA_OK;
}

static enum ra_status put_json(struct job *job, struct ra_error *err)
{
    json_t *object = json_object();
    json_object_set_new(object, "model", ra_json_text(job->model.origin.id));
    json_object_set_new(object, "prompt_len", json_integer(job->prompt->opened));
    json_object_set_new(object, "steps", json_integer(job->config.N));
    json_object_set_new(object, "mode", json_string(job->v->mode == MODE_TEXT ? "text" : "greedy"));
    json_object_set_new(object, "dtype", json_string(ra_dtype_name(job->model.lm.shape.dtype)));
    json_object_set_new(object, "weight_bytes", ra_json_real(weight_bytes(job)));
    json_object_set_new(object, "kv_bytes_per_token", ra_json_real(kv_bytes(job, &job->plain)));
    json_object_set_new(object, "different_tokens", json_integer(different_tokens(job)));
    json_object_set_new(object, "tokens", tokens_of(job, &job->plain));
    json_object_set(object, "runs", job->runs);
    enum ra_status st = ra_put_json(object, err);
    json_decref(object);
    return st;
}

static void close_job(struct job *job)
{
    json_decref(job->runs);
    free(job->plain.tokens);
    free(job->score.tokens);
    ra_lm_prompt_close(job->prompt);
    ra_ids_close(job->ids);
    for (int i = 0; i < job->v->policies.n; i++)
        ra_policy_spec_close(job->specs[i]);
    ra_policy_spec_close(job->below);
    ra_language_model_close(&job->model);
    free(job);
}

static enum ra_status run(const struct ra_cli *cli, const void *values, struct ra_error *err)
{
    struct job *job = calloc(1, sizeof *job);
    if (!job)
        return ra_fail(err, RA_ENOMEM, "speculate: out of memory");
    job->v = values;
    job->cli = cli;
    job->runs = json_array();
    ra_interrupt_install();
    enum ra_status st = prepare(job, err);
    if (st == RA_OK)
        st = run_all(job, err);
    ra_progress_fini(&job->model.progress);
    if (st == RA_OK && cli->format == RA_FORMAT_JSON)
        st = put_json(job, err);
    if (st == RA_OK && job->wrong)
        st = ra_fail(err, RA_EDIVERGED,
                     "speculate: expected greedy decoding's output, got %" PRId64
                     " tokens that are further than %g from the likeliest",
                     job->wrong, RA_SPECULATE_NEAR);
    close_job(job);
    return st;
}

const struct ra_command ra_cmd_speculate = {
    .name = "speculate",
    .summary = "let a model draft under schedules and verify under full attention",
    .run = run,
    .operands = operands,
    .options = options,
    .common = RA_COMMON_FORMAT_JSON | RA_COMMON_TALK,
    .values_size = sizeof(struct values),
    .notes =
        "The output is that of greedy decoding under full attention, whatever is drafted. A "
        "verification yields the drafts that stand and one token more. Small models that decode "
        "greedily fall into loops, which are drafted easily: --mode text starts each round from "
        "the text, and shows how many drafts stand there. KV: bytes of keys and values read for "
        "each token "
        "of the output, of what greedy decoding alone reads; a verification reads every row once "
        "for all its queries. Passes through the weights are one a token at least, as the model "
        "drafts for itself: together with KV they come to fewer bytes only where enough sequences "
        "share the weights of a pass.",
};
