/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/speculate.h"

#include <stdlib.h>
#include <string.h>

#include "traces/model/layers.h"

/* Who drafts, or guesses for who drafts. */
struct drafter {
    const struct ra_policy_spec *spec;
    struct ra_lm_sequence *sequence; /* NULL: nobody */
    int32_t start, t;                /* position of its step 0; its next step */
    int32_t settled;                 /* rows that it has and that stay */
};

struct run {
    const struct ra_speculate_config *config;
    const struct ra_speculate_draft *draft;
    const int32_t *plain;
    struct ra_speculate_score *score;
    struct drafter upper, lower;
    const struct drafter *active;
    float *logits;    /* [gamma + 1][vocab] */
    int32_t *tokens;  /* [gamma + 1] the last token that stands, and drafts */
    int32_t *guesses; /* [below_gamma] */
};

/* Rows that n queries from position `begin` read in layers with a window, or in the others, under
 * full attention. */
static int64_t dense_rows(const struct ra_lm *lm, bool slides, int32_t begin, int n)
{
    const struct ra_lm_config *c = lm->config;
    int64_t rows = 0;
    for (int l = 0; l < c->n_layers; l++) {
        int64_t L = begin + n, seen = (int64_t)c->window + n - 1;
        bool is_windowed = c->window && c->slides[l];
        if (is_windowed == slides)
            rows += (int64_t)c->Hkv * (is_windowed && seen < L ? seen : L);
    }
    return rows;
}

static int64_t all_rows(const struct ra_lm *lm, int32_t begin, int n)
{
    return dense_rows(lm, false, begin, n) + dense_rows(lm, true, begin, n);
}

static enum ra_status show(const struct ra_speculate_config *config, int32_t done,
                           struct ra_error *err)
{
    if (config->progress && !config->progress(config->context, done, config->N))
        return ra_fail(err, RA_EINTERRUPTED, "interrupted");
    return RA_OK;
}

enum ra_status ra_speculate_accepts(const struct ra_policy_spec *spec, struct ra_error *err)
{
    if (!(ra_policy_spec_needs(spec) & RA_NEEDS_ACC))
        return RA_OK;
    return ra_fail(err, RA_EUSAGE,
                   "%s: expected a policy for drafts, got one that needs what all queries gave "
                   "each position, which is not kept up while tokens are verified",
                   ra_policy_spec_canonical(spec));
}

/* --- row by row --------------------------------------------------------------------------------*/

/* Called with the logits that follow token `t` of those decoded so far. */
typedef void row_seen(void *context, int32_t t, const float *logits);

/* Tokens [N + 1], or those of the text, one at a time, from the prompt as it was opened. */
static enum ra_status walk(const struct ra_speculate_config *config, const int32_t *tokens,
                           row_seen *seen, void *context, struct ra_error *err)
{
    int vocab = config->lm->config->vocab;
    float *logits = malloc((size_t)vocab * sizeof *logits);
    if (!logits)
        return ra_fail(err, RA_ENOMEM, "speculate: no memory for %d logits", vocab);
    ra_lm_prompt_resize(config->prompt, config->prompt->opened);
    enum ra_status st = RA_OK;
    for (int32_t t = 0; st == RA_OK && t < config->N; t++) {
        const int32_t *token = (config->text ? config->text : tokens) + t;
        st = ra_lm_prompt_extend(config->prompt, config->lm, token, 1, config->pool, logits, err);
        if (st == RA_OK)
            seen(context, t, logits);
        if (st == RA_OK)
            st = show(config, t + 1, err);
    }
    free(logits);
    ra_lm_prompt_resize(config->prompt, config->prompt->opened);
    return st;
}

struct plain {
    const struct ra_speculate_config *config;
    struct ra_speculate_score *score;
};

static void choose(void *context, int32_t t, const float *logits)
{
    struct plain *p = context;
    p->score->tokens[t + 1] = ra_lm_likeliest(logits, p->config->lm->config->vocab);
    p->score->rows += all_rows(p->config->lm, p->config->prompt->opened + t, 1);
}

/* The score of nothing, but for the first token. */
static void begin(const struct ra_speculate_config *config, struct ra_speculate_score *score)
{
    *score = (struct ra_speculate_score){.tokens = score->tokens, .first_difference = -1};
    score->tokens[0] = ra_lm_likeliest(config->prompt->logits, config->lm->config->vocab);
}

enum ra_status ra_speculate_plain(const struct ra_speculate_config *config,
                                  struct ra_speculate_score *score, struct ra_error *err)
{
    struct plain p = {config, score};
    RA_BUG_ON(config->prompt->rows - config->prompt->opened < config->N);
    begin(config, score);
    score->passes = score->verifications = config->N;
    return walk(config, score->tokens, choose, &p, err);
}

static void judge(void *context, int32_t t, const float *logits)
{
    struct plain *p = context;
    int32_t best = ra_lm_likeliest(logits, p->config->lm->config->vocab);
    int32_t chosen = p->score->tokens[t + 1];
    double gap = (double)logits[best] - (double)logits[chosen];
    if (chosen == best)
        return;
    p->score->near_ties += gap < RA_SPECULATE_NEAR;
    p->score->wrong += gap >= RA_SPECULATE_NEAR;
    p->score->furthest = gap > p->score->furthest ? gap : p->score->furthest;
}

/* Where the tokens are not plain decoding's, each must still be the model's own choice. */
static enum ra_status compare(const struct ra_speculate_config *config, const int32_t *plain,
                              struct ra_speculate_score *score, struct ra_error *err)
{
    struct plain p = {config, score};
    for (int32_t t = config->N; t >= 0; t--)
        if (score->tokens[t] != plain[t])
            score->first_difference = t;
    return score->first_difference < 0 ? RA_OK : walk(config, score->tokens, judge, &p, err);
}

/* --- drafting ----------------------------------------------------------------------------------*/

static enum ra_status attend(void *context, const struct ra_lm_rows *rows, struct ra_error *err)
{
    struct run *run = context;
    const struct drafter *d = run->active;
    struct ra_lm_row row = {.layer = rows->layer,
                            .t = d->t,
                            .q = rows->q,
                            .k = rows->k_raw,
                            .v = rows->v_raw,
                            .out = rows->out};
    /* Who guesses starts from rows of who checks. */
    if (d == &run->upper && run->lower.sequence)
        ra_lm_prompt_put(run->config->prompt, run->config->lm, rows);
    return ra_lm_sequence_attend(d->sequence, &row, err);
}

/* Let it start from the prompt as it is, whose rows below `settled` stay. */
static enum ra_status start(struct run *run, struct drafter *d, int32_t settled,
                            struct ra_error *err)
{
    enum ra_status st = ra_lm_sequence_restart(d->sequence, d->settled, err);
    if (st != RA_OK)
        return ra_fail_context(err, st, "%s", ra_policy_spec_canonical(d->spec));
    d->settled = settled;
    d->start = run->config->prompt->P;
    d->t = 0;
    return RA_OK;
}

/* Its next token after `token`, and the rows that its layers without a window read. */
static enum ra_status step(struct run *run, struct drafter *d, int32_t token, int32_t *next,
                           int64_t *rows, struct ra_error *err)
{
    const struct ra_speculate_config *config = run->config;
    int32_t position = d->start + d->t;
    const float *hidden;
    struct ra_lm_attention attention = {attend, run};
    run->active = d;
    enum ra_status st = ra_lm_forward(config->lm, 1, &token, &position, &attention, &hidden, err);
    if (st != RA_OK)
        return ra_fail_context(err, st, "%s", ra_policy_spec_canonical(d->spec));
    ra_lm_logits(config->lm, 1, hidden, run->logits);
    *next = ra_lm_likeliest(run->logits, config->lm->config->vocab);
    *rows = ra_lm_sequence_counts(d->sequence).keys_read;
    d->t++;
    return RA_OK;
}

/* n guesses for what follows `token`, from the rows that stand and those that the upper one made.
 */
static enum ra_status guess(struct run *run, int32_t token, int32_t n, struct ra_error *err)
{
    struct drafter *upper = &run->upper, *lower = &run->lower;
    const struct ra_lm *lm = run->config->lm;
    ra_lm_prompt_resize(run->config->prompt, upper->start + upper->t);
    RA_TRY(start(run, lower, upper->start, err));
    for (int32_t i = 0; i < n; i++) {
        int64_t rows;
        RA_TRY(step(run, lower, token, &run->guesses[i], &rows, err));
        token = run->guesses[i];
        run->score->rows += rows + dense_rows(lm, true, lower->start + i, 1);
        run->score->passes++;
    }
    run->score->guessed += n;
    return RA_OK;
}

/*
 * One pass of the upper drafter over the last token and n guesses, of which the right ones and one
 * token of its own become drafts. It goes row by row and stops at the first wrong guess, so that
 * what it keeps never has to be taken back; what is counted is one pass over all n + 1 rows: the
 * set of the first, and those behind it.
 */
static enum ra_status check(struct run *run, int32_t n, int32_t *drafted, struct ra_error *err)
{
    struct drafter *upper = &run->upper;
    const struct ra_lm *lm = run->config->lm;
    int32_t begin = upper->start + upper->t;
    int64_t most = 0;
    for (int32_t i = 0; i <= n; i++) {
        int32_t next;
        int64_t rows;
        RA_TRY(step(run, upper, run->tokens[*drafted], &next, &rows, err));
        if (i == 0)
            rows += dense_rows(lm, false, begin, n + 1) - dense_rows(lm, false, begin, 1);
        most = rows > most ? rows : most;
        run->tokens[++*drafted] = next;
        if (i == n || next != run->guesses[i])
            break;
        run->score->guesses_accepted++;
    }
    run->score->rows += most + dense_rows(lm, true, begin, n + 1);
    run->score->passes++;
    return RA_OK;
}

static enum ra_status draft(struct run *run, int32_t gamma, struct ra_error *err)
{
    struct ra_lm_prompt *prompt = run->config->prompt;
    int32_t drafted = 0, stands = prompt->P;
    if (gamma > 0)
        RA_TRY(start(run, &run->upper, stands, err));
    while (drafted < gamma) {
        int32_t n = gamma - drafted - 1;
        n = !run->lower.sequence ? 0 : n < run->draft->below_gamma ? n : run->draft->below_gamma;
        if (n > 0)
            RA_TRY(guess(run, run->tokens[drafted], n, err));
        RA_TRY(check(run, n, &drafted, err));
    }
    ra_lm_prompt_resize(prompt, stands);
    run->score->drafted += gamma;
    return RA_OK;
}

/* --- rounds ------------------------------------------------------------------------------------*/

/* Verify the drafts behind run->tokens[0]. *n: the drafts that stand, in run->tokens[1..], behind
 * which comes the model's own choice. */
static enum ra_status verify(struct run *run, int32_t gamma, int32_t *n, struct ra_error *err)
{
    const struct ra_speculate_config *config = run->config;
    struct ra_lm_prompt *prompt = config->prompt;
    int32_t begin = prompt->P, choice;
    int vocab = config->lm->config->vocab;
    RA_TRY(ra_lm_prompt_extend(prompt, config->lm, run->tokens, gamma + 1, config->pool,
                               run->logits, err));
    for (*n = 0;; ++*n) {
        choice = ra_lm_likeliest(run->logits + (size_t)*n * (size_t)vocab, vocab);
        if (*n == gamma || run->tokens[*n + 1] != choice)
            break;
    }
    run->tokens[*n + 1] = choice;
    ra_lm_prompt_resize(prompt, begin + *n + 1);
    run->score->rows += all_rows(config->lm, begin, gamma + 1);
    run->score->passes++;
    run->score->verifications++;
    run->score->accepted += *n;
    return RA_OK;
}

/* Keep what the round at `done` came to, whose n drafts stand. */
static enum ra_status keep(struct run *run, int32_t done, int32_t n, struct ra_error *err)
{
    const struct ra_speculate_config *config = run->config;
    int32_t *tokens = run->score->tokens + done + 1;
    size_t bytes = ((size_t)n + 1) * sizeof *tokens;
    if (!config->text) {
        memcpy(tokens, run->tokens + 1, bytes);
        return RA_OK;
    }
    /* The next round starts from the text: its rows in place of the verified ones. */
    memcpy(tokens, run->plain + done + 1, bytes);
    tokens[0] = run->tokens[1];
    ra_lm_prompt_resize(config->prompt, config->prompt->P - n - 1);
    return ra_lm_prompt_extend(config->prompt, config->lm, config->text + done, n + 1, config->pool,
                               run->logits, err);
}

static enum ra_status run_rounds(struct run *run, struct ra_error *err)
{
    const struct ra_speculate_config *config = run->config;
    ra_lm_prompt_resize(config->prompt, config->prompt->opened);
    for (int32_t done = 0; done < config->N;) {
        int32_t left = config->N - done - 1, n;
        int32_t gamma = left < run->draft->gamma ? left : run->draft->gamma;
        run->tokens[0] = (config->text ? config->text : run->score->tokens)[done];
        RA_TRY(draft(run, gamma, err));
        RA_TRY(verify(run, gamma, &n, err));
        RA_TRY(keep(run, done, n, err));
        done += n + 1;
        RA_TRY(show(config, done, err));
    }
    return RA_OK;
}

static enum ra_status open_drafter(struct run *run, struct drafter *d,
                                   const struct ra_policy_spec *spec, int32_t steps,
                                   struct ra_error *err)
{
    const struct ra_speculate_config *config = run->config;
    RA_TRY(ra_speculate_accepts(spec, err));
    struct ra_lm_sequence_config of = {.lm = config->lm,
                                       .prompt = config->prompt,
                                       .spec = spec,
                                       .backend = config->backend,
                                       .N = steps,
                                       .n_threads = ra_pool_threads(config->pool)};
    d->spec = spec;
    d->settled = config->prompt->opened;
    return ra_lm_sequence_open(&d->sequence, &of, err);
}

static enum ra_status open_run(struct run *run, struct ra_error *err)
{
    const struct ra_speculate_draft *draft = run->draft;
    size_t rows = (size_t)draft->gamma + 1,
           guesses = (size_t)(draft->below ? draft->below_gamma : 0);
    run->logits = malloc(rows * (size_t)run->config->lm->config->vocab * sizeof *run->logits);
    run->tokens = malloc((rows + 1) * sizeof *run->tokens);
    run->guesses = malloc((guesses + 1) * sizeof *run->guesses);
    if (!run->logits || !run->tokens || !run->guesses)
        return ra_fail(err, RA_ENOMEM, "speculate: no memory for %zu rows", rows);
    RA_TRY(open_drafter(run, &run->upper, draft->spec, draft->gamma, err));
    return draft->below ? open_drafter(run, &run->lower, draft->below, draft->below_gamma, err)
                        : RA_OK;
}

enum ra_status ra_speculate_run(const struct ra_speculate_config *config,
                                const struct ra_speculate_draft *draft, const int32_t *plain,
                                struct ra_speculate_score *score, struct ra_error *err)
{
    struct run run = {.config = config, .draft = draft, .plain = plain, .score = score};
    RA_BUG_ON(config->prompt->rows - config->prompt->opened < config->N);
    RA_BUG_ON(draft->gamma < 1 || draft->gamma >= RA_LM_CHUNK);
    begin(config, score);
    ra_lm_prompt_resize(config->prompt, config->prompt->opened);
    enum ra_status st = open_run(&run, err);
    if (st == RA_OK)
        st = run_rounds(&run, err);
    ra_lm_sequence_close(run.upper.sequence);
    ra_lm_sequence_close(run.lower.sequence);
    free(run.logits);
    free(run.tokens);
    free(run.guesses);
    ra_lm_prompt_resize(config->prompt, config->prompt->opened);
    return st == RA_OK ? compare(config, plain, score, err) : st;
}
