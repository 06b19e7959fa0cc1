/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/eval.h"

#include <math.h>
#include <stdlib.h>

#include "sim/base/rng.h"
#include "sim/base/stats.h"
#include "traces/model/layers.h"

enum { RESAMPLES = 2000, MOST_AT_ONCE = 64 };

struct work {
    const struct ra_eval_config *config; /* of the schedules at hand */
    const struct ra_eval_text *text;
    struct ra_eval_score *scores;
    float *logits;    /* [n][vocab] of the step at hand */
    int32_t *tokens;  /* [n] */
    const int *order; /* [n] schedules at hand, by their numbers */
    float *wanted;    /* [N][vocab] probabilities under full attention, which decodes first */
    double *entropy;  /* [N] of these, nats */
    int32_t t;        /* -1: the prefill, whose logits are the same for all */
};

static bool on_prefill(void *context, int32_t done, int32_t P)
{
    const struct ra_eval_config *config = context;
    return !config->progress || config->progress(config->context, "prefill", done, P);
}

static double margin_of(const struct ra_probe *probe, const float *logits, int vocab, int32_t gold)
{
    double best = -INFINITY;
    for (int i = 0; i < probe->n_candidates; i++)
        best = fmax(best, (double)logits[probe->candidates[i]]);
    for (int32_t id = 0; probe->n_candidates == 0 && id < vocab; id++)
        best = id == gold ? best : fmax(best, (double)logits[id]);
    return (double)logits[gold] - best;
}

/* What full attention predicts at this step: what all others are held to. */
static void keep_wanted(struct work *w, const float *logits)
{
    int vocab = w->config->lm->config->vocab;
    float *wanted = w->wanted + (size_t)w->t * (size_t)vocab;
    double whole = ra_lm_log_sum(logits, vocab), entropy = 0;
    for (int id = 0; id < vocab; id++) {
        double log_p = (double)logits[id] - whole;
        wanted[id] = (float)exp(log_p);
        entropy -= (double)wanted[id] * log_p;
    }
    w->entropy[w->t] = entropy;
}

/* sum p log p - sum p log q, q by its logits. Rounding may leave a little less than zero. */
static double divergence(const struct work *w, const float *logits, double whole)
{
    int vocab = w->config->lm->config->vocab;
    const float *wanted = w->wanted + (size_t)w->t * (size_t)vocab;
    double dot = 0, mass = 0;
    for (int id = 0; id < vocab; id++) {
        dot += (double)wanted[id] * (double)logits[id];
        mass += (double)wanted[id];
    }
    return fmax(0, mass * whole - dot - w->entropy[w->t]);
}

/* Task: what one schedule thought of the token that follows. */
static void judge(void *context, size_t index, int worker)
{
    (void)worker;
    struct work *w = context;
    const struct ra_eval_text *text = w->text;
    int vocab = w->config->lm->config->vocab;
    const float *logits = w->logits + (w->t < 0 ? 0 : index * (size_t)vocab);
    int32_t at = text->P + w->t + 1, gold = text->tokens[at];
    struct ra_eval_score *score = &w->scores[w->order[index]];
    if (w->t >= 0) {
        double whole = ra_lm_log_sum(logits, vocab);
        score->nll[w->t] = whole - (double)logits[gold];
        score->kl[w->t] = divergence(w, logits, whole);
    }
    for (int i = 0; i < text->n_probes; i++)
        if (text->probes[i].at == at)
            score->answers[i].margin = margin_of(&text->probes[i], logits, vocab, gold);
}

static enum ra_status run_steps(struct work *w, struct ra_lm_loop *loop, struct ra_error *err)
{
    const struct ra_eval_config *config = w->config;
    size_t n = (size_t)config->n;
    for (w->t = 0; w->t < w->text->N; w->t++) {
        const float *hidden;
        for (size_t i = 0; i < n; i++)
            w->tokens[i] = w->text->tokens[w->text->P + w->t];
        RA_TRY(ra_lm_loop_step(loop, w->tokens, &hidden, err));
        ra_lm_logits(config->lm, config->n, hidden, w->logits);
        if (w->order[0] == config->full)
            keep_wanted(w, w->logits);
        ra_pool_run(config->pool, n, judge, w);
        for (size_t i = 0; i < n; i++) {
            struct ra_lm_step_counts counts = ra_lm_loop_counts(loop, (int)i);
            struct ra_eval_score *score = &w->scores[w->order[i]];
            score->since_full[w->t] = (float)counts.since_full;
            score->full_layer_steps += counts.full_layers;
            score->keys_read += counts.keys_read;
        }
        if (config->progress && !config->progress(config->context, "decode", w->t + 1, w->text->N))
            return ra_fail(err, RA_EINTERRUPTED, "interrupted");
    }
    return RA_OK;
}

/* The schedules at hand, together. */
static enum ra_status run_loop(struct work *w, const struct ra_lm_prompt *prompt,
                               struct ra_error *err)
{
    const struct ra_eval_config *config = w->config;
    struct ra_lm_loop_config of = {.lm = config->lm,
                                   .prompt = prompt,
                                   .n = config->n,
                                   .specs = config->specs,
                                   .backend = config->backend,
                                   .N = w->text->N,
                                   .pool = config->pool};
    struct ra_lm_loop *loop = NULL;
    RA_TRY(ra_lm_loop_open(&loop, &of, err));
    enum ra_status st = run_steps(w, loop, err);
    ra_lm_loop_close(loop);
    return st;
}

/* Sequences whose caches, and copies of keys, fit in 4 GiB. */
static int at_once(const struct ra_lm *lm, const struct ra_eval_text *text)
{
    size_t bytes =
        3 * (size_t)lm->config->n_layers * ra_lm_prompt_layer_bytes(lm, text->P + text->N);
    size_t n = ((size_t)4 << 30) / bytes, most = (size_t)lm->max_rows;
    most = most < MOST_AT_ONCE ? most : MOST_AT_ONCE;
    return (int)(n < 1 ? 1 : n > most ? most : n);
}

/* `full` comes first, because the others are held to what it predicts. */
static enum ra_status run_groups(struct work *w, const struct ra_lm_prompt *prompt, int *order,
                                 const struct ra_policy_spec **specs, struct ra_error *err)
{
    const struct ra_eval_config *all = w->config;
    int most = at_once(all->lm, w->text), n_groups = (all->n + most - 1) / most;
    enum ra_status st = RA_OK;
    for (int i = 0; i < all->n; i++) {
        order[i] = i == 0 ? all->full : i <= all->full ? i - 1 : i;
        specs[i] = all->specs[order[i]];
    }
    for (int g = 0, first = 0; st == RA_OK && g < n_groups; g++) {
        struct ra_eval_config group = *all;
        group.specs = specs + first;
        group.n = (all->n - first) / (n_groups - g);
        w->config = &group;
        w->order = order + first;
        st = run_loop(w, prompt, err);
        first += group.n;
    }
    w->config = all;
    return st;
}

/* Judge what the prefill predicted, which is the same for all; then decode. */
static enum ra_status run_all(struct work *w, const struct ra_lm_prompt *prompt,
                              struct ra_error *err)
{
    size_t n = (size_t)w->config->n, vocab = (size_t)w->config->lm->config->vocab;
    size_t N = (size_t)w->text->N;
    int *order = calloc(n, sizeof *order);
    const struct ra_policy_spec **specs = malloc(n * sizeof(struct ra_policy_spec *));
    w->tokens = malloc(n * sizeof *w->tokens);
    w->wanted = malloc(N * vocab * sizeof *w->wanted);
    w->entropy = malloc(N * sizeof *w->entropy);
    float *logits = malloc(n * vocab * sizeof *logits);
    enum ra_status st = RA_OK;
    if (!order || !specs || !w->tokens || !w->wanted || !w->entropy || !logits)
        st = ra_fail(err, RA_ENOMEM, "eval: no memory for %zu schedules of %zu steps", n, N);
    for (size_t i = 0; st == RA_OK && i < n; i++) {
        order[i] = (int)i;
        w->scores[i].full_layer_steps = w->scores[i].keys_read = 0;
    }
    w->order = order;
    w->logits = prompt->logits;
    for (size_t i = 0; st == RA_OK && i < n; i++)
        judge(w, i, 0);
    w->logits = logits;
    if (st == RA_OK)
        st = run_groups(w, prompt, order, specs, err);
    free(order);
    free(specs);
    free(w->tokens);
    free(w->wanted);
    free(w->entropy);
    free(logits);
    return st;
}

static bool wants_acc(const struct ra_eval_config *config)
{
    for (int i = 0; i < config->n; i++)
        if (ra_policy_spec_needs(config->specs[i]) & RA_NEEDS_ACC)
            return true;
    return false;
}

enum ra_status ra_eval_text_run(const struct ra_eval_config *config,
                                const struct ra_eval_text *text, struct ra_eval_score *scores,
                                struct ra_error *err)
{
    struct ra_lm_prompt_config of = {.tokens = text->tokens,
                                     .P = text->P,
                                     .W = config->W < text->P ? config->W : text->P,
                                     .wants_acc = wants_acc(config),
                                     .pool = config->pool,
                                     .progress = on_prefill,
                                     .context = (void *)config};
    struct ra_lm_prompt *prompt = NULL;
    struct work w = {.config = config, .text = text, .scores = scores, .t = -1};
    RA_TRY(ra_lm_prompt_open(&prompt, config->lm, &of, err));
    enum ra_status st = run_all(&w, prompt, err);
    ra_lm_prompt_close(prompt);
    return st;
}

enum ra_status ra_eval_bootstrap(const double *values, size_t n, uint64_t seed,
                                 struct ra_eval_interval *interval, struct ra_error *err)
{
    *interval = (struct ra_eval_interval){ra_mean(values, n), NAN, NAN, n};
    if (n < 2)
        return RA_OK;
    double *means = malloc(RESAMPLES * sizeof *means);
    if (!means)
        return ra_fail(err, RA_ENOMEM, "eval: no memory for %d resamples", RESAMPLES);
    for (size_t i = 0; i < RESAMPLES; i++) {
        double sum = 0;
        for (size_t j = 0; j < n; j++)
            sum += values[ra_rng_int(seed, i * n + j, 0, (int32_t)n - 1)];
        means[i] = sum / (double)n;
    }
    ra_sort(means, RESAMPLES);
    interval->low = means[RESAMPLES / 40];
    interval->high = means[RESAMPLES - 1 - RESAMPLES / 40];
    free(means);
    return RA_OK;
}
