/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recycled attention: full steps choose C_r from their own scores; recycled steps attend to C_r
 * alone. Their tokens enter it, and out goes what scored least at the last full step, then, when
 * all chosen ones are gone, the oldest. What the paper leaves open is an option. C_f is complete at
 * every full step, however long ago the last one was, so it needs no bookkeeping here.
 *
 * share=a/b (TidalDecode, arXiv:2410.05076): only listed layers run full steps and choose. A layer
 * behind a listed one follows the nearest listed layer below: when that one was full at this step,
 * it takes over the choice for the same KV head before attending (with a smaller k, what would be
 * evicted last). That is a refresh, not a full step. Layers before the first listed one choose too.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "sim/policy.h"
#include "sim/policy_cache.h"
#include "sim/policy_choices.h"
#include "sim/policy_schedule.h"
#include "sim/select.h"

enum attend { ATTEND_BEFORE, ATTEND_AFTER };
enum query { QUERY_PRE, QUERY_POST };
enum scope { SCOPE_LAYER, SCOPE_MODEL_PREV };

struct recycled_params {
    struct ra_fraction k;
    double sim;
    int32_t stride, pool, agg, current, evict, attend, query, scope, stagger;
    struct ra_int_list share;
};

static const struct ra_param table[] = {
    {RA_PARAM_OF(struct recycled_params, k, FRACTION), .reach = RA_REACH_HEAD, .min = 1,
     .max = INT32_MAX, .help = "positions kept, self not counted"},
    {RA_PARAM_OF(struct recycled_params, stride, INT), .min = 1, .max = INT32_MAX,
     .help = "steps per full step, or per check"},
    {RA_PARAM_OF(struct recycled_params, sim, REAL), .min = -DBL_MAX, .max = DBL_MAX,
     .fallback = "none", .help = "a check is full unless the queries' cosine exceeds sim"},
    {RA_PARAM_OF(struct recycled_params, pool, INT), .min = 1, .max = 1023, .fallback = "7",
     .help = "odd length of the max-pool"},
    {RA_PARAM_OF(struct recycled_params, agg, CHOICE), .choices = "max|mean|first|sum",
     .fallback = "max", .help = "how a group's query heads become one score"},
    {RA_PARAM_OF(struct recycled_params, current, CHOICE), .choices = "pseudo|snapkv|drop",
     .fallback = "pseudo", .help = "current token: a candidate, always chosen, never chosen"},
    {RA_PARAM_OF(struct recycled_params, evict, CHOICE), .choices = "pooled|raw",
     .fallback = "pooled", .help = "which scores order the evictions"},
    {RA_PARAM_OF(struct recycled_params, attend, CHOICE), .choices = "before|after",
     .fallback = "before", .help = "full steps attend to all, or to the new choice"},
    {RA_PARAM_OF(struct recycled_params, query, CHOICE), .choices = "pre|post", .fallback = "pre",
     .help = "queries are compared before or after RoPE"},
    {RA_PARAM_OF(struct recycled_params, scope, CHOICE), .choices = "layer|model-prev",
     .fallback = "layer", .reach = RA_REACH_ALL,
     .help = "each layer checks itself, or all by the last step's queries"},
    {RA_PARAM_OF(struct recycled_params, share, LIST), .min = 0, .max = 4095, .fallback = "none",
     .reach = RA_REACH_ALL, .help = "layers that choose; those behind them follow"},
    {RA_PARAM_OF(struct recycled_params, stagger, INT), .min = 0, .max = 1, .fallback = "0",
     .help = "1: layer l is l steps early"},
    {.name = NULL},
};

struct layer {
    const struct recycled_params *params;
    struct ra_select_rule rule;
    int32_t most;                  /* positions that a choice can hold */
    int chooser;                   /* layer whose choice is followed; its own index: chooses */
    bool is_refreshed;             /* C_r was chosen at the step in progress */
    struct ra_policy_cache *heads; /* [Hkv] */
    struct ra_choices *choices;    /* NULL unless another layer follows */
};

struct recycled {
    struct ra_policy_env env;
    struct ra_schedule *schedule;
    struct ra_selector *selector;
    struct ra_plan otherwise; /* of the plan made last */
    struct layer layers[];    /* [n_layers] */
};

static enum ra_status check(const void *params, struct ra_error *err)
{
    const struct recycled_params *p = params;
    if (p->pool % 2 == 0)
        return ra_fail(err, RA_EUSAGE, "recycled: pool: expected an odd number, got %d", p->pool);
    if (!isnan(p->sim) && p->scope == SCOPE_MODEL_PREV && p->stagger)
        return ra_fail(err, RA_EUSAGE,
                       "recycled: stagger: expected 0 with scope=model-prev, got 1");
    return RA_OK;
}

static unsigned needs(const void *params)
{
    return isnan(((const struct recycled_params *)params)->sim) ? 0u : RA_NEEDS_QUERIES;
}

static enum ra_caches caches(const void *params)
{
    (void)params;
    return RA_CACHES_BOTH;
}

static void close_recycled(void *self)
{
    struct recycled *r = self;
    if (!r)
        return;
    for (int i = 0; i < r->env.n_layers; i++) {
        struct layer *layer = &r->layers[i];
        ra_policy_caches_close(layer->heads, r->env.model->Hkv);
        ra_choices_close(layer->choices);
    }
    ra_schedule_close(r->schedule);
    ra_selector_close(r->selector);
    free(r);
}

static enum ra_status open_layer(struct recycled *r, int index, const struct recycled_params *p,
                                 struct ra_error *err)
{
    struct layer *layer = &r->layers[index];
    int32_t rows = r->env.P + r->env.N, K = ra_policy_layer_k(&r->env, p->k, index);
    layer->params = p;
    layer->rule = (struct ra_select_rule){.K = K,
                                          .K_heads = ra_policy_heads(&r->env, index),
                                          .pool = p->pool,
                                          .agg = (enum ra_agg)p->agg,
                                          .current = (enum ra_current)p->current,
                                          .evict = (enum ra_evict)p->evict};
    layer->most = K < rows ? K : rows;
    layer->chooser = index;
    return ra_policy_caches_open(&layer->heads, r->env.model->Hkv, layer->most + 1, err);
}

static enum ra_status share(struct recycled *r, const struct ra_int_list *list,
                            struct ra_error *err)
{
    int chooser = -1, found = 0;
    for (int i = 0; i < r->env.n_layers && list->n > 0; i++) {
        bool is_listed = found < list->n && list->values[found] == r->env.layer_ids[i];
        found += is_listed;
        chooser = is_listed ? i : chooser;
        if (chooser == -1 || is_listed)
            continue;
        struct layer *followed = &r->layers[chooser];
        r->layers[i].chooser = chooser;
        if (!followed->choices)
            RA_TRY(ra_choices_open(&followed->choices, r->env.N, r->env.model->Hkv, followed->most,
                                   err));
    }
    if (found < list->n)
        return ra_fail(err, RA_EUSAGE,
                       "recycled: share: expected layers replayed here with full attention, got %d",
                       list->values[found]);
    return RA_OK;
}

static enum ra_status schedule(struct recycled *r, struct ra_error *err)
{
    struct ra_schedule_rule *rules = calloc((size_t)r->env.n_layers, sizeof *rules);
    if (!rules)
        return ra_fail(err, RA_ENOMEM, "recycled: no memory for %d layers", r->env.n_layers);
    for (int i = 0; i < r->env.n_layers; i++) {
        const struct recycled_params *p = r->layers[i].params;
        rules[i] = (struct ra_schedule_rule){.stride = p->stride,
                                             .stagger = p->stagger != 0,
                                             .sim = p->sim,
                                             .before_rope = p->query == QUERY_PRE,
                                             .all_layers = p->scope == SCOPE_MODEL_PREV,
                                             .is_follower = r->layers[i].chooser != i};
    }
    enum ra_status st = ra_schedule_open(&r->schedule, "recycled", &r->env, rules, err);
    free(rules);
    return st;
}

static enum ra_status open_parts(struct recycled *r, const struct recycled_params *params,
                                 struct ra_error *err)
{
    RA_TRY(ra_selector_open(&r->selector, r->env.P + r->env.N, err));
    for (int i = 0; i < r->env.n_layers; i++)
        RA_TRY(open_layer(r, i, &params[i], err));
    RA_TRY(share(r, &params->share, err));
    return schedule(r, err);
}

static enum ra_status open_recycled(void **self, const struct ra_policy_env *env,
                                    const void *params, struct ra_error *err)
{
    size_t n = (size_t)env->n_layers;
    struct recycled *r = calloc(1, sizeof *r + n * sizeof r->layers[0]);
    if (!r)
        return ra_fail(err, RA_ENOMEM, "recycled: no memory for %zu layers", n);
    r->env = *env;
    *self = r;
    return open_parts(r, params, err);
}

/* Take over what the chooser chose at this step, if it did. */
static bool follow(struct recycled *r, struct layer *layer, int32_t t)
{
    const struct layer *chooser = &r->layers[layer->chooser];
    for (int h = 0; h < r->env.model->Hkv; h++) {
        struct ra_positions order;
        if (!ra_choices_get(chooser->choices, t, h, &order))
            return false;
        int32_t K = ra_select_rule_of(&layer->rule, h).K, n = order.n < K ? order.n : K;
        ra_policy_cache_replace(&layer->heads[h], order.pos + order.n - n, n, 0);
    }
    return true;
}

/* A step that chooses anew, or one that does not. */
static void make(const struct layer *layer, int32_t t, bool chooses, struct ra_plan *plan)
{
    bool before = chooses && layer->params->attend == ATTEND_AFTER && t >= 0;
    plan->attend = chooses && !before ? RA_ATTEND_ALL : RA_ATTEND_CACHE;
    plan->scores = !chooses ? RA_SCORES_NONE : before ? RA_SCORES_BEFORE : RA_SCORES_AFTER;
    plan->rebuilds = chooses;
    plan->rule = chooses ? &layer->rule : NULL;
}

static enum ra_status plan_recycled(void *self, const struct ra_step *step, struct ra_plan *plan,
                                    struct ra_error *err)
{
    struct recycled *r = self;
    struct layer *layer = &r->layers[step->layer];
    plan->attend = RA_ATTEND_CACHE;
    plan->compares_unrotated = !isnan(layer->params->sim) && layer->params->query == QUERY_PRE;
    if (layer->chooser != step->layer) {
        plan->rebuilds = layer->is_refreshed = follow(r, layer, step->t);
        return RA_OK;
    }
    plan->is_full = step->t >= 0 && ra_schedule_is_full(r->schedule, step, plan);
    layer->is_refreshed = plan->is_full || step->t < 0;
    make(layer, step->t, layer->is_refreshed, plan);
    r->otherwise = (struct ra_plan){.is_full = !plan->is_full};
    make(layer, step->t, !plan->is_full, &r->otherwise);
    if (plan->checks_query && layer->params->scope == SCOPE_LAYER)
        plan->otherwise = &r->otherwise;
    bool is_followed = layer->choices && layer->is_refreshed;
    return is_followed ? ra_choices_begin(layer->choices, step->t, err) : RA_OK;
}

static void install(void *self, const struct ra_step *step, int kv_head,
                    const struct ra_positions *evict_order)
{
    struct recycled *r = self;
    struct layer *layer = &r->layers[step->layer];
    RA_BUG_ON(!layer->is_refreshed || evict_order->n > layer->most);
    ra_policy_cache_replace(&layer->heads[kv_head], evict_order->pos, evict_order->n, 0);
    if (layer->choices)
        ra_choices_put(layer->choices, step->t, kv_head, evict_order);
}

static enum ra_status learn(void *self, const struct ra_step *step, const struct ra_scores *scores,
                            struct ra_plan *plan, struct ra_error *err)
{
    (void)plan;
    (void)err;
    struct recycled *r = self;
    int G = r->env.model->G;
    const double *prob = scores->prob;
    for (int h = 0; h < r->env.model->Hkv; h++, prob += (size_t)G * (size_t)scores->L) {
        struct ra_select_rule rule = ra_select_rule_of(&r->layers[step->layer].rule, h);
        struct ra_positions order = ra_selector_choose(r->selector, &rule, prob, G, scores->L);
        install(r, step, h, &order);
    }
    return RA_OK;
}

static void advance(void *self, const struct ra_step *step)
{
    struct recycled *r = self;
    struct layer *layer = &r->layers[step->layer];
    if (layer->is_refreshed)
        return;
    for (int h = 0; h < r->env.model->Hkv; h++) {
        ra_policy_cache_append(&layer->heads[h], step->self);
        ra_policy_cache_evict(&layer->heads[h], ra_select_rule_of(&layer->rule, h).K);
    }
}

static void view(const void *self, int layer, int kv_head, struct ra_retained *out)
{
    ra_policy_cache_view(&((const struct recycled *)self)->layers[layer].heads[kv_head], out);
}

const struct ra_policy_ops ra_policy_recycled = {
    .name = "recycled",
    .summary = "few positions between full steps that choose them anew",
    .source = "Xu, Goyal, Choi, arXiv:2411.05787 (Recycled Attention, RefreshKV), Algorithm 1",
    .deviations = "v1 of the paper is agg=first,pool=1; what it leaves open is an option",
    .params = table,
    .params_size = sizeof(struct recycled_params),
    .check = check,
    .needs = needs,
    .caches = caches,
    .open = open_recycled,
    .plan = plan_recycled,
    .learn = learn,
    .install = install,
    .advance = advance,
    .view = view,
    .close = close_recycled,
};
