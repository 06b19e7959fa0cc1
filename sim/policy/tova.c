/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache of k rows, of which after each step the one with the least attention from that step's
 * query goes, be it old or new: self competes like any other. Nothing is added up; only the last
 * query counts. The last prompt query chooses first.
 *
 * Paper and code keep one set for all heads of a layer, by the mean over them (heads=layer); with
 * heads=group each KV head keeps its own, by its group.
 */
#include <stdlib.h>

#include "sim/policy.h"
#include "sim/policy_cut.h"
#include "sim/select.h"

enum heads { HEADS_GROUP, HEADS_LAYER };

struct tova_params {
    struct ra_fraction k;
    int32_t agg, heads;
};

static const struct ra_param table[] = {
    {RA_PARAM_OF(struct tova_params, k, FRACTION), .reach = RA_REACH_HEAD, .min = 1,
     .max = INT32_MAX, .help = "positions kept, self not counted"},
    {RA_PARAM_OF(struct tova_params, agg, CHOICE), .choices = "max|mean|first|sum",
     .fallback = "mean", .help = "how query heads become one score"},
    {RA_PARAM_OF(struct tova_params, heads, CHOICE), .choices = "group|layer", .fallback = "group",
     .help = "a set for each KV head, or one for all of a layer"},
    {.name = NULL},
};

struct layer {
    struct ra_select_rule first; /* at the prefill */
    struct ra_cut_rule rule;
    struct ra_policy_cut *heads; /* [Hkv] */
};

struct tova {
    struct ra_policy_env env;
    double *score;     /* [P + N] */
    uint64_t *scratch; /* [P + N] */
    struct layer layers[];
};

static unsigned needs(const void *params)
{
    (void)params;
    return RA_NEEDS_REFERENCE;
}

static enum ra_caches caches(const void *params)
{
    (void)params;
    return RA_CACHES_REDUCED;
}

static void close_tova(void *self)
{
    struct tova *tova = self;
    if (!tova)
        return;
    for (int i = 0; i < tova->env.n_layers; i++)
        ra_policy_cuts_close(tova->layers[i].heads, tova->env.model->Hkv);
    free(tova->score);
    free(tova->scratch);
    free(tova);
}

static enum ra_status open_layer(struct tova *tova, int index, const struct tova_params *p,
                                 struct ra_error *err)
{
    struct layer *layer = &tova->layers[index];
    int32_t most = tova->env.P + tova->env.N, K = ra_policy_layer_k(&tova->env, p->k, index);
    const int32_t *heads = ra_policy_heads(&tova->env, index);
    if (heads && p->heads == HEADS_LAYER)
        return ra_fail(err, RA_EUSAGE, "tova: k: expected one for all KV heads with heads=layer");
    layer->first = (struct ra_select_rule){.K = K,
                                           .K_heads = heads,
                                           .pool = 1,
                                           .agg = (enum ra_agg)p->agg,
                                           .current = RA_CURRENT_PSEUDO,
                                           .evict = RA_EVICT_RAW};
    layer->rule = (struct ra_cut_rule){
        .K = K, .K_heads = heads, .agg = (enum ra_agg)p->agg, .of_layer = p->heads == HEADS_LAYER};
    return ra_policy_cuts_open(&layer->heads, tova->env.model->Hkv, K < most ? K + 1 : most, err);
}

static enum ra_status open_tova(void **self, const struct ra_policy_env *env, const void *params,
                                struct ra_error *err)
{
    const struct tova_params *p = params;
    size_t rows = (size_t)env->P + (size_t)env->N;
    struct tova *tova = calloc(1, sizeof *tova + (size_t)env->n_layers * sizeof tova->layers[0]);
    if (!tova)
        return ra_fail(err, RA_ENOMEM, "tova: no memory for %d layers", env->n_layers);
    *self = tova;
    tova->env = *env;
    tova->score = calloc(rows, sizeof *tova->score);
    tova->scratch = calloc(rows, sizeof *tova->scratch);
    if (!tova->score || !tova->scratch)
        return ra_fail(err, RA_ENOMEM, "tova: no memory for %zu positions", rows);
    for (int i = 0; i < env->n_layers; i++)
        RA_TRY(open_layer(tova, i, &p[i], err));
    return RA_OK;
}

static enum ra_status plan_tova(void *self, const struct ra_step *step, struct ra_plan *plan,
                                struct ra_error *err)
{
    (void)err;
    const struct layer *layer = &((struct tova *)self)->layers[step->layer];
    plan->attend = RA_ATTEND_CACHE;
    plan->scores = RA_SCORES_AFTER;
    plan->of = step->t < 0 ? RA_SCORES_OF_ALL : RA_SCORES_OF_ATTENDED;
    plan->cut = step->t < 0 ? NULL : &layer->rule;
    /* A backend chooses for each KV head by itself. */
    plan->rebuilds = step->t < 0;
    plan->rule = step->t < 0 && !layer->rule.of_layer ? &layer->first : NULL;
    return RA_OK;
}

static enum ra_status learn(void *self, const struct ra_step *step, const struct ra_scores *scores,
                            struct ra_plan *plan, struct ra_error *err)
{
    (void)plan;
    (void)err;
    struct tova *tova = self;
    const struct ra_model *m = tova->env.model;
    struct layer *layer = &tova->layers[step->layer];
    bool is_one = layer->rule.of_layer;
    int n = is_one ? m->Hq : m->G;
    size_t L = (size_t)scores->L;
    for (int h = 0; h < m->Hkv; h++) {
        struct ra_cut_rule rule = ra_cut_rule_of(&layer->rule, h);
        if (h == 0 || !is_one)
            ra_aggregate(scores->prob + (size_t)h * (size_t)m->G * L, L, n, scores->L,
                         layer->rule.agg, tova->score);
        if (step->t < 0)
            ra_policy_cut_choose(&layer->heads[h], &rule, tova->score, scores->L, tova->scratch);
        else
            ra_policy_cut_step(&layer->heads[h], &rule, tova->score, step->self);
    }
    return RA_OK;
}

static void install(void *self, const struct ra_step *step, int kv_head,
                    const struct ra_positions *evict_order)
{
    ra_policy_cut_install(&((struct tova *)self)->layers[step->layer].heads[kv_head], evict_order);
}

static void view(const void *self, int layer, int kv_head, struct ra_retained *out)
{
    ra_policy_cut_view(&((const struct tova *)self)->layers[layer].heads[kv_head], out);
}

const struct ra_policy_ops ra_policy_tova = {
    .name = "tova",
    .summary = "what the last query attends to most; self may go at once",
    .source = "TOVA, Oren et al., arXiv:2401.06104, section 3.2",
    .deviations = "paper and code keep one set per layer: heads=layer",
    .params = table,
    .params_size = sizeof(struct tova_params),
    .needs = needs,
    .caches = caches,
    .cuts = true,
    .open = open_tova,
    .plan = plan_tova,
    .learn = learn,
    .install = install,
    .view = view,
    .close = close_tova,
};
