/* SPDX-License-Identifier: Apache-2.0 */
/* Scores of what was attended to, of the prompt, of its end, of pages of keys. */
#include "sim/scores.h"

#include <stdlib.h>
#include <string.h>

#include "sim/pages.h"
#include "sim/reference.h"
#include "sim/select.h"

struct ra_scorer {
    const struct ra_model *model;
    int32_t P, rows;
    double *out;            /* [Hq][rows], NULL until needed */
    struct ra_pages *pages; /* of `layer`; NULL until needed */
    int layer;
};

enum ra_status ra_scorer_open(struct ra_scorer **scorer, const struct ra_model *model, int32_t P,
                              int32_t rows, struct ra_error *err)
{
    *scorer = calloc(1, sizeof **scorer);
    if (!*scorer)
        return ra_fail(err, RA_ENOMEM, "scores: no memory");
    **scorer = (struct ra_scorer){.model = model, .P = P, .rows = rows, .layer = -1};
    return RA_OK;
}

void ra_scorer_close(struct ra_scorer *scorer)
{
    if (!scorer)
        return;
    free(scorer->out);
    ra_pages_close(scorer->pages);
    free(scorer);
}

static const char *keys_of(const struct ra_scores_input *input, int kv)
{
    return input->k + (size_t)kv * input->k_stride;
}

/* Weights of one query head over its set: the whole softmax, renormalised. */
static void weigh(const struct ra_scorer *s, const struct ra_scores_input *input, int head)
{
    const struct ra_positions *set = &input->attended[head / s->model->G];
    size_t L = (size_t)input->step->self + 1;
    const double *prob = input->prob ? input->prob + (size_t)head * L : NULL;
    double *out = s->out + (size_t)head * L, mass = 0;
    if (!set->pos) {
        RA_BUG_ON(!prob);
        memcpy(out, prob, L * sizeof *out);
        return;
    }
    memset(out, 0, L * sizeof *out);
    for (int32_t i = 0; prob && i < set->n; i++)
        mass += prob[set->pos[i]];
    if (!prob ||
        (mass < 1e-280 && input->q)) { /* so far below the largest that f64 does not hold it */
        ra_reference_weigh_set(s->model, keys_of(input, head / s->model->G),
                               input->q + (size_t)head * (size_t)s->model->D, set, out);
        return;
    }
    for (int32_t i = 0; i < set->n; i++)
        out[set->pos[i]] = mass > 0 ? prob[set->pos[i]] / mass : 1.0 / set->n;
}

struct tail {
    float *head;    /* [n][D] */
    float *q;       /* [n][G][D] */
    double *prob;   /* [n][G][P] */
    double *pooled; /* [P] */
};

/* Sums over the last n prompt queries of one group. */
static enum ra_status sum_group(const struct ra_scorer *s, const struct ra_scores_input *input,
                                const struct ra_plan *plan, int kv, const struct tail *tail,
                                struct ra_error *err)
{
    const struct ra_model *m = s->model;
    size_t D = (size_t)m->D, G = (size_t)m->G, P = (size_t)s->P;
    int32_t n = plan->window;
    for (size_t g = 0; g < G; g++) {
        RA_TRY(input->tail(input->context, kv * m->G + (int)g, n, tail->head, err));
        for (size_t i = 0; i < (size_t)n; i++)
            memcpy(tail->q + (i * G + g) * D, tail->head + i * D, D * sizeof *tail->q);
    }
    ra_reference_attend(&(struct ra_reference){.model = m,
                                               .k = keys_of(input, kv),
                                               .q = tail->q,
                                               .q_step = G * D,
                                               .n_steps = n,
                                               .first_L = s->P - n + 1,
                                               .prob = tail->prob,
                                               .step_stride = G * P});
    for (size_t g = 0; g < G; g++) {
        double *sum = s->out + ((size_t)kv * G + g) * P;
        memset(sum, 0, P * sizeof *sum);
        for (size_t i = 0; i < (size_t)n; i++) {
            size_t L = P - (size_t)n + 1 + i;
            const double *prob = tail->prob + i * G * P + g * L;
            if (plan->window_pool > 0) {
                L = P - (size_t)n;
                ra_pool_along(prob, (int32_t)L, plan->window_pool, plan->window_pooling,
                              tail->pooled);
                prob = tail->pooled;
            }
            for (size_t j = 0; j < L; j++)
                sum[j] += prob[j];
        }
    }
    return RA_OK;
}

static enum ra_status sum_window(const struct ra_scorer *s, const struct ra_scores_input *input,
                                 const struct ra_plan *plan, struct ra_error *err)
{
    const struct ra_model *m = s->model;
    int32_t n = plan->window;
    size_t D = (size_t)m->D, G = (size_t)m->G, size = (size_t)n;
    RA_BUG_ON(input->step->t >= 0 || n < 1 || n > s->P);
    struct tail tail = {.head = malloc(size * D * sizeof *tail.head),
                        .q = malloc(size * G * D * sizeof *tail.q),
                        .prob = malloc(size * G * (size_t)s->P * sizeof *tail.prob),
                        .pooled = malloc((size_t)s->P * sizeof *tail.pooled)};
    enum ra_status st = RA_OK;
    if (!tail.head || !tail.q || !tail.prob || !tail.pooled)
        st = ra_fail(err, RA_ENOMEM, "scores: no memory for the prompt's last %d queries", n);
    for (int kv = 0; st == RA_OK && kv < m->Hkv; kv++)
        st = sum_group(s, input, plan, kv, &tail, err);
    free(tail.head);
    free(tail.q);
    free(tail.prob);
    free(tail.pooled);
    return st;
}

/* Layers may have pages of different kinds. */
static enum ra_status score_pages(struct ra_scorer *s, const struct ra_scores_input *input,
                                  const struct ra_page_rule *rule, int32_t *n, struct ra_error *err)
{
    const struct ra_model *m = s->model;
    int32_t L = ra_pages_rows(rule, input->step->self + 1);
    if (!ra_pages_are(s->pages, rule->page, rule->digest)) {
        ra_pages_close(s->pages);
        s->pages = NULL;
        RA_TRY(ra_pages_open(&s->pages, m, rule->page, rule->digest, s->rows, err));
    } else if (s->layer != input->step->layer) {
        ra_pages_restart(s->pages);
    }
    s->layer = input->step->layer;
    *n = ra_pages_count(L, rule->page);
    for (int kv = 0; kv < m->Hkv; kv++) {
        size_t head = (size_t)kv * (size_t)m->G;
        ra_pages_extend(s->pages, kv, keys_of(input, kv), L);
        ra_pages_score(s->pages, kv, input->q + head * (size_t)m->D, s->out + head * (size_t)*n);
    }
    return RA_OK;
}

static enum ra_status copy_acc(const struct ra_scorer *s, const struct ra_scores_input *input,
                               struct ra_error *err)
{
    if (!input->acc)
        return ra_fail(err, RA_EUSAGE, "needs acc, the attention that the prompt received");
    for (size_t i = 0; i < (size_t)s->model->Hq * (size_t)s->P; i++)
        s->out[i] = (double)input->acc[i];
    return RA_OK;
}

enum ra_status ra_scorer_form(struct ra_scorer *scorer, const struct ra_plan *plan,
                              const struct ra_scores_input *input, struct ra_scores *scores,
                              struct ra_error *err)
{
    const struct ra_model *m = scorer->model;
    *scores = (struct ra_scores){.prob = input->prob, .L = input->step->self + 1};
    if (plan->of == RA_SCORES_OF_ALL)
        return RA_OK;
    if (!scorer->out)
        scorer->out = malloc((size_t)m->Hq * (size_t)scorer->rows * sizeof *scorer->out);
    if (!scorer->out)
        return ra_fail(err, RA_ENOMEM, "scores: no memory for %d positions", scorer->rows);
    scores->prob = scorer->out;
    if (plan->of == RA_SCORES_OF_PROMPT)
        return copy_acc(scorer, input, err);
    if (plan->of == RA_SCORES_OF_ATTENDED) {
        RA_BUG_ON(plan->scores != RA_SCORES_AFTER || plan->per_query_head || input->step->t < 0);
        for (int h = 0; h < m->Hq; h++)
            weigh(scorer, input, h);
        return RA_OK;
    }
    if (!input->q)
        return ra_fail(err, RA_EUSAGE, "needs queries and keys, as a trace has them");
    if (plan->of == RA_SCORES_OF_WINDOW)
        return sum_window(scorer, input, plan, err);
    return score_pages(scorer, input, plan->pages, &scores->L, err);
}
