/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recycling over layers: within a step some layers attend to everything and choose, those behind
 * them attend to that choice only. Layers below the first that chooses attend to everything. No
 * state between steps.
 *
 * The authors' code chooses per query head and counts self in k; here a KV head chooses by agg over
 * its group, and k counts positions before self. correct=T makes every T-th step full in all
 * layers; the paper recomputes keys and values there, which a recording has none of to recompute.
 */
#include <stdlib.h>

#include "sim/kvset.h"
#include "sim/policy.h"
#include "sim/policy_cache.h"
#include "sim/policy_choices.h"
#include "sim/policy_schedule.h"
#include "sim/policy_sets.h"
#include "sim/select.h"

enum { NOBODY = -1 };

struct tidal_params {
    struct ra_fraction k;
    struct ra_int_list select;
    int32_t correct, agg;
};

static const struct ra_param table[] = {
    {RA_PARAM_OF(struct tidal_params, k, FRACTION), .reach = RA_REACH_HEAD, .min = 1,
     .max = INT32_MAX, .help = "positions that a layer hands on, self not counted"},
    {RA_PARAM_OF(struct tidal_params, select, LIST), .min = 0, .max = 4095, .choices = "mid",
     .fallback = "2/mid", .reach = RA_REACH_ALL,
     .help = "layers of the model that choose; mid is the middle one"},
    {RA_PARAM_OF(struct tidal_params, correct, INT), .min = 0, .max = INT32_MAX, .fallback = "0",
     .reach = RA_REACH_ALL, .help = "every so many steps all layers attend to everything"},
    {RA_PARAM_OF(struct tidal_params, agg, CHOICE), .reach = RA_REACH_ALL,
     .choices = "max|mean|first|sum", .fallback = "max",
     .help = "how a group's query heads become one score"},
    {.name = NULL},
};

struct layer {
    int chooser; /* layer whose choice is followed; its own index: chooses; NOBODY: full */
    struct ra_select_rule rule;
    struct ra_choices *choices;    /* of a layer that chooses */
    struct ra_policy_cache *heads; /* [Hkv] its last choice, to be seen */
};

struct tidal {
    struct ra_policy_env env;
    int32_t correct, ahead;
    struct ra_selector *selector;
    struct ra_policy_sets sets; /* [Hkv] */
    struct layer layers[];
};

static unsigned needs(const void *params)
{
    (void)params;
    return 0;
}

static enum ra_caches caches(const void *params)
{
    (void)params;
    return RA_CACHES_FULL;
}

static void close_tidal(void *self)
{
    struct tidal *d = self;
    if (!d)
        return;
    for (int i = 0; i < d->env.n_layers; i++) {
        ra_choices_close(d->layers[i].choices);
        ra_policy_caches_close(d->layers[i].heads, d->env.model->Hkv);
    }
    ra_selector_close(d->selector);
    ra_policy_sets_close(&d->sets);
    free(d);
}

static bool is_chooser(const struct tidal_params *p, int layer_id, int n_layers)
{
    for (int32_t i = 0; i < p->select.n; i++) {
        int32_t listed = p->select.values[i];
        if (layer_id == (listed == RA_LIST_WORD ? n_layers / 2 : listed))
            return true;
    }
    return false;
}

static enum ra_status open_layer(struct tidal *d, int index, const struct tidal_params *p,
                                 struct ra_error *err)
{
    struct layer *layer = &d->layers[index];
    const struct ra_model *m = d->env.model;
    int32_t rows = d->env.P + d->env.N, K = ra_policy_layer_k(&d->env, p->k, index);
    layer->rule = (struct ra_select_rule){.K = K,
                                          .K_heads = ra_policy_heads(&d->env, index),
                                          .pool = 1,
                                          .agg = (enum ra_agg)p->agg,
                                          .current = RA_CURRENT_DROP,
                                          .evict = RA_EVICT_RAW};
    layer->chooser = index > 0 ? d->layers[index - 1].chooser : NOBODY;
    if (is_chooser(p, d->env.layer_ids[index], m->n_layers))
        layer->chooser = index;
    if (layer->chooser != index)
        return RA_OK;
    RA_TRY(ra_policy_caches_open(&layer->heads, m->Hkv, K < rows ? K : rows, err));
    return ra_choices_open(&layer->choices, d->env.N, m->Hkv, K < rows ? K : rows, err);
}

static enum ra_status open_tidal(void **self, const struct ra_policy_env *env, const void *params,
                                 struct ra_error *err)
{
    const struct tidal_params *p = params;
    int32_t rows = env->P + env->N;
    struct tidal *d = calloc(1, sizeof *d + (size_t)env->n_layers * sizeof d->layers[0]);
    if (!d)
        return ra_fail(err, RA_ENOMEM, "tidal: no memory for %d layers", env->n_layers);
    *self = d;
    d->env = *env;
    d->correct = p->correct;
    d->ahead = p->correct > 0 ? ra_schedule_ahead(env, p->correct) : 0;
    RA_TRY(ra_policy_sets_open(&d->sets, "tidal", env->model->Hkv, rows, err));
    RA_TRY(ra_selector_open(&d->selector, rows, err));
    for (int i = 0; i < env->n_layers; i++)
        RA_TRY(open_layer(d, i, &p[i], err));
    return RA_OK;
}

/* What the chooser took at this step, ascending; of a smaller k, what would go last. */
static void follow(struct tidal *d, const struct layer *layer, int32_t t, struct ra_plan *plan)
{
    for (int h = 0; h < d->env.model->Hkv; h++) {
        struct ra_positions order;
        int32_t *set = ra_policy_sets_room(&d->sets, h);
        RA_BUG_ON(!ra_choices_get(d->layers[layer->chooser].choices, t, h, &order));
        int32_t K = ra_select_rule_of(&layer->rule, h).K, n = order.n < K ? order.n : K;
        for (int32_t i = 0; i < n; i++)
            set[i] = order.pos[order.n - n + i];
        ra_kvset_sort(set, n);
        ra_policy_sets_put(&d->sets, h, n);
    }
    plan->attend = RA_ATTEND_SETS;
    plan->sets = d->sets.sets;
}

static enum ra_status plan_tidal(void *self, const struct ra_step *step, struct ra_plan *plan,
                                 struct ra_error *err)
{
    struct tidal *d = self;
    struct layer *layer = &d->layers[step->layer];
    bool corrects = d->correct > 0 && ((int64_t)step->t + 1 + d->ahead) % d->correct == 0;
    if (step->t < 0)
        return RA_OK;
    if (layer->chooser == step->layer) {
        plan->scores = RA_SCORES_AFTER;
        plan->rule = &layer->rule;
        RA_TRY(ra_choices_begin(layer->choices, step->t, err));
    } else if (layer->chooser != NOBODY && !corrects) {
        follow(d, layer, step->t, plan);
        return RA_OK;
    }
    plan->is_full = true;
    plan->attend = RA_ATTEND_ALL;
    return RA_OK;
}

static void install(void *self, const struct ra_step *step, int kv_head,
                    const struct ra_positions *evict_order)
{
    struct layer *layer = &((struct tidal *)self)->layers[step->layer];
    ra_policy_cache_replace(&layer->heads[kv_head], evict_order->pos, evict_order->n, 0);
    ra_choices_put(layer->choices, step->t, kv_head, evict_order);
}

static enum ra_status learn(void *self, const struct ra_step *step, const struct ra_scores *scores,
                            struct ra_plan *plan, struct ra_error *err)
{
    (void)err;
    struct tidal *d = self;
    size_t G = (size_t)d->env.model->G, L = (size_t)scores->L;
    for (int h = 0; h < d->env.model->Hkv; h++) {
        struct ra_select_rule rule = ra_select_rule_of(plan->rule, h);
        struct ra_positions order = ra_selector_choose(
            d->selector, &rule, scores->prob + (size_t)h * G * L, (int)G, scores->L);
        install(d, step, h, &order);
    }
    return RA_OK;
}

static void view(const void *self, int layer, int kv_head, struct ra_retained *out)
{
    const struct layer *of = &((const struct tidal *)self)->layers[layer];
    if (of->heads)
        ra_policy_cache_view(&of->heads[kv_head], out);
}

const struct ra_policy_ops ra_policy_tidal = {
    .name = "tidal",
    .summary = "some layers attend to everything and choose; others reuse it",
    .source = "TidalDecode, Yang et al., arXiv:2410.05076, section 3",
    .deviations = "code: chooses per query head and counts self in k; correct= recomputes nothing",
    .params = table,
    .params_size = sizeof(struct tidal_params),
    .needs = needs,
    .caches = caches,
    .open = open_tidal,
    .plan = plan_tidal,
    .learn = learn,
    .install = install,
    .view = view,
    .close = close_tidal,
};
