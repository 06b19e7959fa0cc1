/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of keys, of which each step reads the few that may matter to its query: of each page the
 * least and the largest value of every dimension are kept, which bound q.k from above without
 * reading a key. Nothing is ever evicted, and no step depends on another.
 *
 * The authors' code reads at least three pages and does not force the newest (least=3,newest=0),
 * and both leave the first two layers dense (dense=2). It scores per query head; agg makes one
 * bound of a group's.
 */
#include <stdlib.h>

#include "sim/kvset.h"
#include "sim/pages.h"
#include "sim/policy.h"
#include "sim/policy_sets.h"

struct quest_params {
    struct ra_fraction k;
    int32_t page, agg, dense, least, newest;
};

static const struct ra_param table[] = {
    {RA_PARAM_OF(struct quest_params, k, FRACTION), .reach = RA_REACH_HEAD, .min = 1,
     .max = INT32_MAX, .help = "positions whose pages are read, self not counted"},
    {RA_PARAM_OF(struct quest_params, page, INT), .min = 1, .max = 65536, .fallback = "16",
     .help = "positions of a page"},
    {RA_PARAM_OF(struct quest_params, agg, CHOICE), .choices = "max|mean|first|sum",
     .fallback = "max", .help = "how a group's query heads become one score"},
    {RA_PARAM_OF(struct quest_params, dense, INT), .min = 0, .max = 4096, .fallback = "0",
     .help = "first layers of the model that attend to everything"},
    {RA_PARAM_OF(struct quest_params, least, INT), .min = 1, .max = 4096, .fallback = "1",
     .help = "pages that are read at least"},
    {RA_PARAM_OF(struct quest_params, newest, INT), .min = 0, .max = 1, .fallback = "1",
     .help = "1: the page of self is among them, whatever its score"},
    {.name = NULL},
};

struct quest {
    const struct ra_model *model;
    const struct quest_params *params; /* [n_layers] */
    struct ra_page_rule *rules;        /* [n_layers] */
    struct ra_policy_sets sets;        /* [Hkv] */
    double *scratch;                   /* [2 * rows] */
};

static unsigned needs(const void *params)
{
    (void)params;
    return RA_NEEDS_REFERENCE;
}

static enum ra_caches caches(const void *params)
{
    (void)params;
    return RA_CACHES_FULL;
}

static void pages(const void *params, int32_t P, struct ra_page_rule *rule)
{
    const struct quest_params *p = params;
    *rule = (struct ra_page_rule){.K = ra_fraction_resolve(p->k, P),
                                  .page = p->page,
                                  .least = p->least,
                                  .digest = RA_PAGE_BOUNDS,
                                  .agg = (enum ra_agg)p->agg,
                                  .takes_newest = p->newest == 1};
}

static int32_t most(const void *params, int32_t P, int32_t N)
{
    const struct quest_params *p = params;
    int64_t k = ra_fraction_resolve(p->k, P), least = (int64_t)p->least * p->page, rows = P + N;
    k = k > least ? k : least;
    return (int32_t)(k < rows ? k : rows);
}

static void close_quest(void *self)
{
    struct quest *q = self;
    if (!q)
        return;
    free(q->rules);
    ra_policy_sets_close(&q->sets);
    free(q->scratch);
    free(q);
}

static enum ra_status open_quest(void **self, const struct ra_policy_env *env, const void *params,
                                 struct ra_error *err)
{
    int32_t rows = env->P + env->N;
    struct quest *q = calloc(1, sizeof *q);
    if (!q)
        return ra_fail(err, RA_ENOMEM, "quest: no memory");
    *self = q;
    q->model = env->model;
    q->params = params;
    q->rules = calloc((size_t)env->n_layers, sizeof *q->rules);
    q->scratch = calloc(2 * (size_t)rows, sizeof *q->scratch);
    if (!q->rules || !q->scratch)
        return ra_fail(err, RA_ENOMEM, "quest: no memory for %d positions", rows);
    for (int i = 0; i < env->n_layers; i++) {
        pages(&q->params[i], env->P, &q->rules[i]);
        q->rules[i].K = ra_policy_layer_k(env, q->params[i].k, i);
        q->rules[i].K_heads = ra_policy_heads(env, i);
    }
    return ra_policy_sets_open(&q->sets, "quest", env->model->Hkv, rows, err);
}

static enum ra_status plan_quest(void *self, const struct ra_step *step, struct ra_plan *plan,
                                 struct ra_error *err)
{
    (void)err;
    const struct quest *q = self;
    if (step->layer_id < q->params[step->layer].dense) {
        plan->is_full = step->t >= 0;
        plan->attend = RA_ATTEND_ALL;
        return RA_OK;
    }
    plan->pages = &q->rules[step->layer];
    if (step->t < 0)
        return RA_OK;
    plan->attend = RA_ATTEND_SETS;
    plan->scores = RA_SCORES_BEFORE;
    plan->of = RA_SCORES_OF_PAGES;
    return RA_OK;
}

static enum ra_status learn(void *self, const struct ra_step *step, const struct ra_scores *scores,
                            struct ra_plan *plan, struct ra_error *err)
{
    (void)err;
    struct quest *q = self;
    size_t G = (size_t)q->model->G, n = (size_t)scores->L;
    for (int h = 0; h < q->model->Hkv; h++) {
        int32_t *set = ra_policy_sets_room(&q->sets, h);
        struct ra_page_rule rule = ra_page_rule_of(plan->pages, h);
        int32_t size = ra_pages_choose(&rule, scores->prob + (size_t)h * G * n, q->model->G,
                                       step->self + 1, set, q->scratch);
        ra_kvset_sort(set, size);
        size -= size > 0 && set[size - 1] == step->self;
        ra_policy_sets_put(&q->sets, h, size);
    }
    plan->sets = q->sets.sets;
    return RA_OK;
}

const struct ra_policy_ops ra_policy_quest = {
    .name = "quest",
    .summary = "pages of keys that may matter to the query, by bounds kept of each",
    .source = "Quest, Tang et al., arXiv:2406.10774, Algorithm 1",
    .deviations = "code: least=3,newest=0; paper and code: dense=2; groups: agg",
    .params = table,
    .params_size = sizeof(struct quest_params),
    .needs = needs,
    .caches = caches,
    .pages = pages,
    .most = most,
    .open = open_quest,
    .plan = plan_quest,
    .learn = learn,
    .close = close_quest,
};
