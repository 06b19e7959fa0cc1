/* SPDX-License-Identifier: Apache-2.0 */
#include "traces/model/sequence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/reference.h"
#include "sim/scores.h"

struct ra_lm_sequence {
    struct ra_lm_sequence_config config;
    struct ra_model shape;
    struct ra_policy *policy;
    struct ra_scorer *scorer;
    void *dev;
    int32_t P;    /* of the prompt at the last start */
    int32_t rows; /* that the prompt may have, + N */
    int n_full;
    int *full_ids;    /* [n_full] model layers with full attention */
    int *full_of;     /* [n_layers] their index, -1: slides */
    int32_t *windows; /* [n_layers] */
    char *k;          /* [n_full][Hkv][rows][D] as stored: what scores are formed from */
    struct ra_queries queries;
    double *means;                           /* behind queries */
    double *prob;                            /* [Hq][rows] */
    int32_t *storage;                        /* [Hq][rows] of sets with self */
    struct ra_positions *attended, *without; /* [Hq] with self; without, for the backend */
    unsigned char *is_read;                  /* [rows] of a group's union */
    int32_t *last_full;                      /* [n_full] step; -1: the prefill */
    struct ra_lm_step_counts counts;
};

void ra_lm_sequence_close(struct ra_lm_sequence *s)
{
    if (!s)
        return;
    if (s->dev)
        s->config.backend->close(s->dev);
    ra_policy_close(s->policy);
    ra_scorer_close(s->scorer);
    free(s->full_ids);
    free(s->full_of);
    free(s->windows);
    free(s->k);
    free(s->means);
    free(s->prob);
    free(s->storage);
    free(s->attended);
    free(s->without);
    free(s->is_read);
    free(s->last_full);
    free(s);
}

static size_t row_bytes(const struct ra_lm_sequence *s)
{
    return (size_t)s->shape.D * ra_dtype_bytes(s->shape.dtype);
}

static char *keys_of(const struct ra_lm_sequence *s, int full, int head)
{
    size_t at = (size_t)full * (size_t)s->shape.Hkv + (size_t)head;
    return s->k + at * (size_t)s->rows * row_bytes(s);
}

static enum ra_status take_room(struct ra_lm_sequence *s, struct ra_error *err)
{
    size_t L = (size_t)s->shape.n_layers, Hq = (size_t)s->shape.Hq, rows = (size_t)s->rows;
    size_t keys = L * (size_t)s->shape.Hkv * rows * row_bytes(s);
    size_t means = L * ((size_t)s->config.N + 1) * (size_t)s->shape.D;
    s->full_ids = malloc(L * sizeof *s->full_ids);
    s->full_of = malloc(L * sizeof *s->full_of);
    s->windows = malloc(L * sizeof *s->windows);
    s->k = malloc(keys);
    s->means = malloc(means * sizeof *s->means);
    s->prob = malloc(Hq * rows * sizeof *s->prob);
    s->storage = malloc(Hq * rows * sizeof *s->storage);
    s->attended = malloc(Hq * sizeof *s->attended);
    s->without = malloc(Hq * sizeof *s->without);
    s->is_read = calloc(rows, 1);
    s->last_full = malloc(L * sizeof *s->last_full);
    if (!s->full_ids || !s->full_of || !s->windows || !s->k || !s->means || !s->prob ||
        !s->storage || !s->attended || !s->without || !s->is_read || !s->last_full)
        return ra_fail(err, RA_ENOMEM, "decoder: no memory for a sequence of %d tokens", s->rows);
    return RA_OK;
}

static void find_layers(struct ra_lm_sequence *s)
{
    const struct ra_lm_config *c = s->config.lm->config;
    for (int l = 0; l < c->n_layers; l++) {
        bool slides = c->window && c->slides[l];
        s->windows[l] = slides ? c->window : 0;
        s->full_of[l] = slides ? -1 : s->n_full;
        if (!slides)
            s->full_ids[s->n_full++] = l;
    }
}

static enum ra_status open_backend(struct ra_lm_sequence *s, struct ra_error *err)
{
    struct ra_backend_config config = {.model = &s->shape,
                                       .n_layers = s->shape.n_layers,
                                       .window = s->windows,
                                       .max_rows = s->rows,
                                       .cache = RA_CACHE_GATHER,
                                       .n_threads = s->config.n_threads};
    return s->config.backend->open(&s->dev, &config, err);
}

/* The prompt's rows, of which those below `first` are there already. */
static enum ra_status load_prompt(struct ra_lm_sequence *s, int32_t first, struct ra_error *err)
{
    const struct ra_lm_prompt *prompt = s->config.prompt;
    size_t layer = ra_lm_prompt_layer_bytes(s->config.lm, prompt->rows), row = row_bytes(s);
    size_t stride = (size_t)prompt->rows * row, at = (size_t)first * row;
    s->config.backend->reset(s->dev);
    for (int l = 0; l < s->shape.n_layers; l++) {
        struct ra_prompt_rows rows = {.k = prompt->k + (size_t)l * layer,
                                      .v = prompt->v + (size_t)l * layer,
                                      .k_stride = stride,
                                      .v_stride = stride,
                                      .P = s->P};
        RA_TRY(s->config.backend->load(s->dev, l, &rows, err));
        for (int h = 0; s->full_of[l] >= 0 && h < s->shape.Hkv; h++) {
            char *keys = keys_of(s, s->full_of[l], h);
            memcpy(keys + at, (const char *)rows.k + (size_t)h * stride + at,
                   (size_t)(s->P - first) * row);
            memset(keys + (size_t)s->P * row, 0xff, (size_t)(s->rows - s->P) * row);
        }
    }
    return RA_OK;
}

/* The mean over heads of a layer's query; row 0 is the last prompt token's. */
static void put_mean(struct ra_lm_sequence *s, int full, int32_t row, const float *q, size_t stride)
{
    size_t D = (size_t)s->shape.D;
    double *mean = s->means + ((size_t)full * ((size_t)s->config.N + 1) + (size_t)row) * D;
    for (size_t d = 0; d < D; d++) {
        double sum = 0;
        for (size_t h = 0; h < (size_t)s->shape.Hq; h++)
            sum += (double)q[h * stride + d];
        mean[d] = sum / s->shape.Hq;
    }
}

static enum ra_status open_policy(struct ra_lm_sequence *s, struct ra_error *err)
{
    ra_policy_close(s->policy);
    ra_scorer_close(s->scorer);
    s->policy = NULL;
    s->scorer = NULL;
    s->queries = (struct ra_queries){
        .n_layers = s->n_full, .D = s->shape.D, .N = s->config.N, .mean = s->means};
    struct ra_policy_env env = {.model = &s->shape,
                                .P = s->P,
                                .N = s->config.N,
                                .W = s->config.prompt->W,
                                .n_layers = s->n_full,
                                .layer_ids = s->full_ids,
                                .queries = &s->queries};
    RA_TRY(ra_policy_open(&s->policy, s->config.spec, &env, err));
    return ra_scorer_open(&s->scorer, &s->shape, env.P, s->rows, err);
}

/* The last n prompt queries of a head of the layer whose step is at hand. */
struct tail {
    const struct ra_lm_sequence *s;
    int layer;
};

static enum ra_status read_tail(void *context, int head, int32_t n, float *q, struct ra_error *err)
{
    (void)err;
    const struct tail *tail = context;
    const struct ra_lm_prompt *prompt = tail->s->config.prompt;
    size_t D = (size_t)tail->s->shape.D;
    RA_BUG_ON(n > prompt->W);
    memcpy(q,
           ra_lm_prompt_queries(prompt, tail->s->config.lm, tail->layer, head) +
               (size_t)(prompt->W - n) * D,
           (size_t)n * D * sizeof *q);
    return RA_OK;
}

/* What the plan wants scored, of q [Hq][D]; the schedule learns from it. */
static enum ra_status learn(struct ra_lm_sequence *s, const struct ra_step *step, const float *q,
                            struct ra_plan *plan, struct ra_error *err)
{
    const struct ra_model *m = &s->shape;
    const struct ra_lm_prompt *prompt = s->config.prompt;
    int32_t L = step->self + 1;
    size_t acc = (size_t)step->layer_id * (size_t)m->Hq * (size_t)s->P;
    struct tail tail = {s, step->layer_id};
    bool all = plan->of == RA_SCORES_OF_ALL ||
               (plan->of == RA_SCORES_OF_ATTENDED && step->t >= 0 && !s->attended[0].pos);
    struct ra_scores_input input = {.step = step,
                                    .prob = all ? s->prob : NULL,
                                    .q = q,
                                    .k = keys_of(s, step->layer, 0),
                                    .k_stride = (size_t)s->rows * row_bytes(s),
                                    .acc = step->t < 0 && prompt->acc ? prompt->acc + acc : NULL,
                                    .attended = step->t < 0 ? NULL : s->attended,
                                    .tail = read_tail,
                                    .context = &tail};
    struct ra_scores scores;
    for (int h = 0; all && h < m->Hkv; h++)
        ra_reference_attend(&(struct ra_reference){.model = m,
                                                   .k = keys_of(s, step->layer, h),
                                                   .q = q + (size_t)h * (size_t)m->G * (size_t)m->D,
                                                   .q_step = (size_t)m->Hq * (size_t)m->D,
                                                   .n_steps = 1,
                                                   .first_L = L,
                                                   .prob = s->prob,
                                                   .step_stride = (size_t)m->Hq * (size_t)L,
                                                   .first_head = h * m->G});
    RA_TRY(ra_scorer_form(s->scorer, plan, &input, &scores, err));
    return ra_policy_learn(s->policy, step, &scores, plan, err);
}

/* Prefill acts as a refresh with the query of the last prompt token. */
static enum ra_status begin(struct ra_lm_sequence *s, struct ra_error *err)
{
    const struct ra_lm_prompt *prompt = s->config.prompt;
    size_t D = (size_t)s->shape.D, W = (size_t)prompt->W, Hq = (size_t)s->shape.Hq;
    float *q = malloc(Hq * D * sizeof *q);
    if (!q)
        return ra_fail(err, RA_ENOMEM, "decoder: no memory for a query");
    enum ra_status st = RA_OK;
    for (int i = 0; st == RA_OK && i < s->n_full; i++) {
        struct ra_step step = {.t = -1, .self = s->P - 1, .layer = i, .layer_id = s->full_ids[i]};
        struct ra_plan plan = {.query_cosine = NAN};
        for (size_t h = 0; h < Hq; h++)
            memcpy(q + h * D,
                   ra_lm_prompt_queries(prompt, s->config.lm, step.layer_id, (int)h) + (W - 1) * D,
                   D * sizeof *q);
        put_mean(s, i, 0, q, D);
        st = ra_policy_plan(s->policy, &step, &plan, err);
        if (st == RA_OK && plan.scores != RA_SCORES_NONE)
            st = learn(s, &step, q, &plan, err);
        if (st == RA_OK)
            ra_policy_advance(s->policy, &step);
    }
    free(q);
    return st;
}

enum ra_status ra_lm_sequence_restart(struct ra_lm_sequence *s, int32_t first, struct ra_error *err)
{
    size_t means = (size_t)s->n_full * ((size_t)s->config.N + 1) * (size_t)s->shape.D;
    RA_BUG_ON(first > s->config.prompt->P);
    s->P = s->config.prompt->P;
    s->counts = (struct ra_lm_step_counts){0};
    /* Rows and queries of steps to come are no numbers: whoever reads ahead gets what shows. */
    for (size_t i = 0; i < means; i++)
        s->means[i] = NAN;
    for (int l = 0; l < s->n_full; l++)
        s->last_full[l] = -1;
    RA_TRY(load_prompt(s, first, err));
    RA_TRY(open_policy(s, err));
    return begin(s, err);
}

enum ra_status ra_lm_sequence_open(struct ra_lm_sequence **sequence,
                                   const struct ra_lm_sequence_config *config, struct ra_error *err)
{
    *sequence = NULL;
    if (ra_policy_spec_transform(config->spec))
        return ra_fail(err, RA_EUSAGE,
                       "expected a policy alone: transformations change recordings, not what a "
                       "model decodes");
    struct ra_lm_sequence *s = calloc(1, sizeof *s);
    if (!s)
        return ra_fail(err, RA_ENOMEM, "decoder: no memory for a sequence");
    s->config = *config;
    s->shape = config->lm->shape;
    s->rows = config->prompt->rows + config->N;
    enum ra_status st = take_room(s, err);
    if (st == RA_OK) {
        find_layers(s);
        st = s->n_full ? open_backend(s, err)
                       : ra_fail(err, RA_EUSAGE,
                                 "expected a model with full attention in some layer, got window "
                                 "layers only");
    }
    if (st == RA_OK)
        st = ra_lm_sequence_restart(s, 0, err);
    if (st != RA_OK) {
        ra_lm_sequence_close(s);
        return st;
    }
    *sequence = s;
    return RA_OK;
}

/* A set and self, in storage of the sequence's own; without[i] is the same less self. */
static void put_set(struct ra_lm_sequence *s, int i, const struct ra_positions *set, int32_t self)
{
    int32_t *out = s->storage + (size_t)i * (size_t)s->rows;
    int32_t n = set->n;
    if (n)
        memcpy(out, set->pos, (size_t)n * sizeof *out);
    if (n > 0 && out[n - 1] == self)
        n--;
    RA_BUG_ON(n > 0 && out[n - 1] > self);
    out[n] = self;
    s->attended[i] = (struct ra_positions){.pos = out, .n = n + 1};
    s->without[i] = (struct ra_positions){.pos = out, .n = n};
}

static int64_t union_of_group(struct ra_lm_sequence *s, int kv)
{
    int64_t n = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int g = 0; g < s->shape.G; g++) {
            const struct ra_positions *set = &s->attended[kv * s->shape.G + g];
            for (int32_t i = 0; i < set->n; i++) {
                n += pass == 0 && !s->is_read[set->pos[i]];
                s->is_read[set->pos[i]] = pass == 0;
            }
        }
    return n;
}

static enum ra_status attend_planned(struct ra_lm_sequence *s, const struct ra_step *step,
                                     const struct ra_plan *plan, const struct ra_lm_row *row,
                                     struct ra_error *err)
{
    const struct ra_model *m = &s->shape;
    int n_sets = plan->per_query_head ? m->Hq : m->Hkv;
    if (plan->attend == RA_ATTEND_ALL) {
        for (int h = 0; h < n_sets; h++)
            s->attended[h] = (struct ra_positions){.pos = NULL, .n = step->self + 1};
        s->counts.keys_read += (int64_t)m->Hkv * (step->self + 1);
        return s->config.backend->attend_full(s->dev, row->layer, row->q, false, row->out, err);
    }
    for (int h = 0; h < n_sets; h++) {
        struct ra_retained view;
        if (plan->attend == RA_ATTEND_CACHE)
            ra_policy_view(s->policy, step->layer, h, &view);
        put_set(s, h, plan->attend == RA_ATTEND_CACHE ? &view.set : &plan->sets[h], step->self);
        s->counts.keys_read += plan->per_query_head ? 0 : s->attended[h].n;
    }
    for (int h = 0; plan->per_query_head && h < m->Hkv; h++)
        s->counts.keys_read += union_of_group(s, h);
    return s->config.backend->attend_sets(s->dev, row->layer, row->q, s->without, n_sets, row->out,
                                          err);
}

static void keep_keys(struct ra_lm_sequence *s, int full, int32_t pos, const void *k)
{
    size_t n = row_bytes(s);
    for (int h = 0; h < s->shape.Hkv; h++)
        memcpy(keys_of(s, full, h) + (size_t)pos * n, (const char *)k + (size_t)h * n, n);
}

static void count_full(struct ra_lm_sequence *s, const struct ra_step *step, bool is_full)
{
    if (is_full)
        s->last_full[step->layer] = step->t;
    s->counts.full_layers += is_full;
    s->counts.since_full += (double)(step->t - s->last_full[step->layer]) / s->n_full;
}

enum ra_status ra_lm_sequence_attend(struct ra_lm_sequence *s, const struct ra_lm_row *row,
                                     struct ra_error *err)
{
    int full = s->full_of[row->layer];
    struct ra_step step = {
        .t = row->t, .self = s->P + row->t, .layer = full, .layer_id = row->layer};
    RA_BUG_ON(step.self >= s->rows);
    if (row->layer == 0)
        s->counts = (struct ra_lm_step_counts){0};
    RA_TRY(s->config.backend->append(s->dev, row->layer, row->k, row->v, err));
    if (full < 0)
        return s->config.backend->attend_full(s->dev, row->layer, row->q, false, row->out, err);
    struct ra_plan plan = {.query_cosine = NAN};
    keep_keys(s, full, step.self, row->k);
    put_mean(s, full, row->t + 1, row->q, (size_t)s->shape.D);
    RA_TRY(ra_policy_plan(s->policy, &step, &plan, err));
    if (plan.scores == RA_SCORES_BEFORE)
        RA_TRY(learn(s, &step, row->q, &plan, err));
    RA_TRY(attend_planned(s, &step, &plan, row, err));
    if (plan.scores == RA_SCORES_AFTER)
        RA_TRY(learn(s, &step, row->q, &plan, err));
    ra_policy_advance(s->policy, &step);
    count_full(s, &step, plan.is_full);
    return RA_OK;
}

struct ra_lm_step_counts ra_lm_sequence_counts(const struct ra_lm_sequence *sequence)
{
    return sequence->counts;
}
