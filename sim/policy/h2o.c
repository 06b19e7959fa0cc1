/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Heavy hitters and recent tokens. A position's score is all the attention it has received, from
 * the prompt's queries on; when a position enters a full cache, the newest stay, and of the others
 * the one of least score goes, with its score, for good. Each step attends to what is kept and to
 * self, and the weights of exactly that softmax are added up.
 *
 * As the authors' code does, the prompt is read whole and cut once; the paper's algorithm evicts
 * while it reads. Theirs knows no shared KV heads: agg makes one score of a group's.
 */
#include <math.h>
#include <stdlib.h>

#include "sim/policy.h"
#include "sim/policy_cut.h"
#include "sim/select.h"

struct h2o_params {
    struct ra_fraction k;
    double recent;
    int32_t agg;
};

static const struct ra_param table[] = {
    {RA_PARAM_OF(struct h2o_params, k, FRACTION), .reach = RA_REACH_HEAD, .min = 1,
     .max = INT32_MAX, .help = "positions kept, self not counted"},
    {RA_PARAM_OF(struct h2o_params, recent, REAL), .min = 0, .max = 1, .fallback = "0.5",
     .help = "share of k that the newest positions have"},
    {RA_PARAM_OF(struct h2o_params, agg, CHOICE), .choices = "max|mean|first|sum",
     .fallback = "sum", .help = "how a group's query heads become one score"},
    {.name = NULL},
};

struct layer {
    struct ra_cut_rule rule;
    int32_t *recent;             /* [Hkv] of rule */
    struct ra_policy_cut *heads; /* [Hkv] */
};

struct h2o {
    struct ra_policy_env env;
    double *score;     /* [P + N] */
    uint64_t *scratch; /* [P + N] */
    struct layer layers[];
};

static unsigned needs(const void *params)
{
    (void)params;
    return RA_NEEDS_ACC | RA_NEEDS_REFERENCE;
}

static enum ra_caches caches(const void *params)
{
    (void)params;
    return RA_CACHES_REDUCED;
}

static void close_h2o(void *self)
{
    struct h2o *h2o = self;
    if (!h2o)
        return;
    for (int i = 0; i < h2o->env.n_layers; i++) {
        ra_policy_cuts_close(h2o->layers[i].heads, h2o->env.model->Hkv);
        free(h2o->layers[i].recent);
    }
    free(h2o->score);
    free(h2o->scratch);
    free(h2o);
}

static enum ra_status open_layer(struct h2o *h2o, int index, const struct h2o_params *p,
                                 struct ra_error *err)
{
    struct layer *layer = &h2o->layers[index];
    int32_t most = h2o->env.P + h2o->env.N, K = ra_policy_layer_k(&h2o->env, p->k, index);
    int Hkv = h2o->env.model->Hkv;
    layer->recent = calloc((size_t)Hkv, sizeof *layer->recent);
    if (!layer->recent)
        return ra_fail(err, RA_ENOMEM, "h2o: no memory for %d KV heads", Hkv);
    for (int h = 0; h < Hkv; h++)
        layer->recent[h] = (int32_t)floor(ra_policy_head_k(&h2o->env, p->k, index, h) * p->recent);
    layer->rule = (struct ra_cut_rule){.K = K,
                                       .recent = layer->recent[0],
                                       .K_heads = ra_policy_heads(&h2o->env, index),
                                       .recent_heads = h2o->env.head_k ? layer->recent : NULL,
                                       .agg = (enum ra_agg)p->agg,
                                       .adds_up = true};
    return ra_policy_cuts_open(&layer->heads, Hkv, K < most ? K + 1 : most, err);
}

static enum ra_status open_h2o(void **self, const struct ra_policy_env *env, const void *params,
                               struct ra_error *err)
{
    const struct h2o_params *p = params;
    size_t rows = (size_t)env->P + (size_t)env->N;
    struct h2o *h2o = calloc(1, sizeof *h2o + (size_t)env->n_layers * sizeof h2o->layers[0]);
    if (!h2o)
        return ra_fail(err, RA_ENOMEM, "h2o: no memory for %d layers", env->n_layers);
    *self = h2o;
    h2o->env = *env;
    h2o->score = calloc(rows, sizeof *h2o->score);
    h2o->scratch = calloc(rows, sizeof *h2o->scratch);
    if (!h2o->score || !h2o->scratch)
        return ra_fail(err, RA_ENOMEM, "h2o: no memory for %zu positions", rows);
    for (int i = 0; i < env->n_layers; i++)
        RA_TRY(open_layer(h2o, i, &p[i], err));
    return RA_OK;
}

static enum ra_status plan_h2o(void *self, const struct ra_step *step, struct ra_plan *plan,
                               struct ra_error *err)
{
    (void)err;
    const struct layer *layer = &((struct h2o *)self)->layers[step->layer];
    plan->attend = RA_ATTEND_CACHE;
    plan->scores = RA_SCORES_AFTER;
    plan->of = step->t < 0 ? RA_SCORES_OF_PROMPT : RA_SCORES_OF_ATTENDED;
    plan->cut = step->t < 0 ? NULL : &layer->rule;
    return RA_OK;
}

static enum ra_status learn(void *self, const struct ra_step *step, const struct ra_scores *scores,
                            struct ra_plan *plan, struct ra_error *err)
{
    (void)plan;
    (void)err;
    struct h2o *h2o = self;
    struct layer *layer = &h2o->layers[step->layer];
    int G = h2o->env.model->G;
    size_t L = (size_t)scores->L;
    for (int h = 0; h < h2o->env.model->Hkv; h++) {
        struct ra_cut_rule rule = ra_cut_rule_of(&layer->rule, h);
        ra_aggregate(scores->prob + (size_t)h * (size_t)G * L, L, G, scores->L, rule.agg,
                     h2o->score);
        if (step->t < 0)
            ra_policy_cut_choose(&layer->heads[h], &rule, h2o->score, scores->L, h2o->scratch);
        else
            ra_policy_cut_step(&layer->heads[h], &rule, h2o->score, step->self);
    }
    return RA_OK;
}

static void install(void *self, const struct ra_step *step, int kv_head,
                    const struct ra_positions *evict_order)
{
    ra_policy_cut_install(&((struct h2o *)self)->layers[step->layer].heads[kv_head], evict_order);
}

static void view(const void *self, int layer, int kv_head, struct ra_retained *out)
{
    ra_policy_cut_view(&((const struct h2o *)self)->layers[layer].heads[kv_head], out);
}

const struct ra_policy_ops ra_policy_h2o = {
    .name = "h2o",
    .summary = "heavy hitters, by all attention received, and recent positions",
    .source = "H2O, Zhang et al., arXiv:2306.14048, Algorithm 1; prompt cut once, as in its code",
    .deviations =
        "the prompt is read whole and cut once, as the code does; the paper evicts while it reads; "
        "groups: agg",
    .params = table,
    .params_size = sizeof(struct h2o_params),
    .needs = needs,
    .caches = caches,
    .cuts = true,
    .open = open_h2o,
    .plan = plan_h2o,
    .learn = learn,
    .install = install,
    .view = view,
    .close = close_h2o,
};
