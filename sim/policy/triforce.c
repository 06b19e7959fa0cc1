/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A retrieval cache between verifications. Every (gamma + 1)-th step verifies a draft: it attends
 * to everything, and its query chooses whole chunks of positions by their mean keys. The steps
 * between attend to those and append themselves; what ranks lowest makes room, as the authors' code
 * overwrites it.
 *
 * That code keeps chunk 0 always (first=1), and chooses among chunks of the prompt only, keeping
 * all later positions besides (over=prompt). draft=streaming attends, between verifications, as the
 * paper's smaller draft model does: to the first positions and the newest.
 */
#include <stdlib.h>

#include "sim/pages.h"
#include "sim/policy_cache.h"
#include "sim/policy_pattern.h"
#include "sim/policy_schedule.h"

enum draft { DRAFT_RETRIEVAL, DRAFT_STREAMING };
enum over { OVER_ALL, OVER_PROMPT };

struct triforce_params {
    struct ra_fraction k;
    int32_t chunk, gamma, agg, first, draft, sinks, over;
};

static const struct ra_param table[] = {
    {RA_PARAM_OF(struct triforce_params, k, FRACTION), .reach = RA_REACH_HEAD, .min = 1,
     .max = INT32_MAX, .help = "positions kept between verifications, self not counted"},
    {RA_PARAM_OF(struct triforce_params, chunk, INT), .min = 1, .max = 65536, .fallback = "8",
     .help = "positions of a chunk, at most k"},
    {RA_PARAM_OF(struct triforce_params, gamma, INT), .min = 0, .max = INT32_MAX - 1,
     .help = "drafted steps between two verifications"},
    {RA_PARAM_OF(struct triforce_params, agg, CHOICE), .choices = "max|mean|first|sum",
     .fallback = "max", .help = "how a group's query heads become one score"},
    {RA_PARAM_OF(struct triforce_params, first, INT), .min = 0, .max = 1, .fallback = "0",
     .help = "1: chunk 0 is always among them"},
    {RA_PARAM_OF(struct triforce_params, draft, CHOICE), .choices = "retrieval|streaming",
     .fallback = "retrieval", .reach = RA_REACH_ALL, .help = "what drafted steps attend to"},
    {RA_PARAM_OF(struct triforce_params, sinks, INT), .min = 0, .max = INT32_MAX, .fallback = "4",
     .help = "first positions of draft=streaming"},
    {RA_PARAM_OF(struct triforce_params, over, CHOICE), .choices = "all|prompt", .fallback = "all",
     .help = "chunks of all positions, or of the prompt and all later ones"},
    {.name = NULL},
};

struct layer {
    const struct triforce_params *params;
    struct ra_page_rule rule;
    int32_t K, ahead;
    bool is_rebuilt;               /* in the step in progress */
    struct ra_policy_cache *heads; /* [Hkv] */
};

struct triforce {
    struct ra_policy_env env;
    int32_t *order;  /* [P + N] */
    double *scratch; /* [2 * (P + N)] */
    struct ra_policy_pattern pattern;
    struct layer layers[];
};

static enum ra_status check(const void *params, struct ra_error *err)
{
    const struct triforce_params *p = params;
    if (p->k.den == 0 && p->chunk > p->k.num)
        return ra_fail(err, RA_EUSAGE, "triforce: chunk: expected at most k=%d, got %d", p->k.num,
                       p->chunk);
    if (p->k.den == 0 && p->draft == DRAFT_STREAMING && p->sinks > p->k.num)
        return ra_fail(err, RA_EUSAGE, "triforce: sinks: expected at most k=%d, got %d", p->k.num,
                       p->sinks);
    return RA_OK;
}

static unsigned needs(const void *params)
{
    return ((const struct triforce_params *)params)->draft == DRAFT_RETRIEVAL ? RA_NEEDS_REFERENCE
                                                                              : 0u;
}

static enum ra_caches caches(const void *params)
{
    return ((const struct triforce_params *)params)->draft == DRAFT_RETRIEVAL ? RA_CACHES_BOTH
                                                                              : RA_CACHES_FULL;
}

static void pages(const void *params, int32_t P, struct ra_page_rule *rule)
{
    const struct triforce_params *p = params;
    if (p->draft == DRAFT_STREAMING)
        return;
    *rule = (struct ra_page_rule){.K = ra_fraction_resolve(p->k, P),
                                  .page = p->chunk,
                                  .least = 1,
                                  .rows = p->over == OVER_PROMPT ? P : 0,
                                  .digest = RA_PAGE_MEAN,
                                  .agg = (enum ra_agg)p->agg,
                                  .takes_newest = p->over == OVER_ALL,
                                  .takes_first = p->first == 1};
}

static void close_triforce(void *self)
{
    struct triforce *f = self;
    if (!f)
        return;
    for (int i = 0; i < f->env.n_layers; i++)
        ra_policy_caches_close(f->layers[i].heads, f->env.model->Hkv);
    free(f->order);
    free(f->scratch);
    ra_policy_pattern_close(&f->pattern);
    free(f);
}

static enum ra_status open_layer(struct triforce *f, int index, const struct triforce_params *p,
                                 struct ra_error *err)
{
    struct layer *layer = &f->layers[index];
    int32_t K = ra_policy_layer_k(&f->env, p->k, index), rows = f->env.P + f->env.N;
    *layer = (struct layer){.params = p, .K = K};
    layer->ahead = ra_schedule_ahead(&f->env, p->gamma + 1);
    pages(p, f->env.P, &layer->rule);
    layer->rule.K = K;
    layer->rule.K_heads = ra_policy_heads(&f->env, index);
    if (p->draft == DRAFT_STREAMING && p->sinks > K)
        return ra_fail(err, RA_EUSAGE, "triforce: sinks: expected at most k=%d/%d of %d, got %d",
                       p->k.num, p->k.den, f->env.P, p->sinks);
    if (p->chunk > K)
        return ra_fail(err, RA_EUSAGE, "triforce: chunk: expected at most k=%d/%d of %d, got %d",
                       p->k.num, p->k.den, f->env.P, p->chunk);
    return ra_policy_caches_open(&layer->heads, f->env.model->Hkv, K < rows ? K + 1 : rows, err);
}

static enum ra_status open_triforce(void **self, const struct ra_policy_env *env,
                                    const void *params, struct ra_error *err)
{
    const struct triforce_params *p = params;
    size_t rows = (size_t)env->P + (size_t)env->N;
    struct triforce *f = calloc(1, sizeof *f + (size_t)env->n_layers * sizeof f->layers[0]);
    if (!f)
        return ra_fail(err, RA_ENOMEM, "triforce: no memory for %d layers", env->n_layers);
    *self = f;
    f->env = *env;
    f->order = calloc(rows, sizeof *f->order);
    f->scratch = calloc(2 * rows, sizeof *f->scratch);
    if (!f->order || !f->scratch)
        return ra_fail(err, RA_ENOMEM, "triforce: no memory for %zu positions", rows);
    RA_TRY(ra_policy_pattern_open(&f->pattern, "triforce", env, err));
    for (int i = 0; i < env->n_layers; i++)
        RA_TRY(open_layer(f, i, &p[i], err));
    return RA_OK;
}

static enum ra_status plan_triforce(void *self, const struct ra_step *step, struct ra_plan *plan,
                                    struct ra_error *err)
{
    (void)err;
    struct triforce *f = self;
    struct layer *layer = &f->layers[step->layer];
    bool retrieves = layer->params->draft == DRAFT_RETRIEVAL;
    int64_t i = (int64_t)step->t + 1 + layer->ahead;
    plan->is_full = step->t >= 0 && i % ((int64_t)layer->params->gamma + 1) == 0;
    plan->attend = plan->is_full ? RA_ATTEND_ALL : RA_ATTEND_CACHE;
    plan->pages = retrieves ? &layer->rule : NULL;
    layer->is_rebuilt = retrieves && (plan->is_full || step->t < 0);
    if (layer->is_rebuilt) {
        plan->rebuilds = true;
        plan->scores = RA_SCORES_AFTER;
        plan->of = RA_SCORES_OF_PAGES;
    }
    if (!retrieves && !plan->is_full && step->t >= 0)
        ra_policy_pattern_plan_sinks(&f->pattern, layer->params->sinks,
                                     layer->K - layer->params->sinks, step->self, plan);
    return RA_OK;
}

static enum ra_status learn(void *self, const struct ra_step *step, const struct ra_scores *scores,
                            struct ra_plan *plan, struct ra_error *err)
{
    (void)err;
    struct triforce *f = self;
    struct layer *layer = &f->layers[step->layer];
    int G = f->env.model->G;
    int32_t L = ra_pages_rows(plan->pages, step->self + 1);
    for (int h = 0; h < f->env.model->Hkv; h++) {
        const double *score = scores->prob + (size_t)h * (size_t)G * (size_t)scores->L;
        struct ra_page_rule rule = ra_page_rule_of(&layer->rule, h);
        int32_t n = ra_pages_choose(&rule, score, G, L, f->order, f->scratch);
        for (int32_t pos = L; pos <= step->self; pos++)
            f->order[n++] = pos;
        int32_t over = n > rule.K ? n - rule.K : 0;
        ra_policy_cache_replace(&layer->heads[h], f->order + over, n - over, 0);
    }
    return RA_OK;
}

static void install(void *self, const struct ra_step *step, int kv_head,
                    const struct ra_positions *evict_order)
{
    struct layer *layer = &((struct triforce *)self)->layers[step->layer];
    ra_policy_cache_replace(&layer->heads[kv_head], evict_order->pos, evict_order->n, 0);
}

static void advance(void *self, const struct ra_step *step)
{
    struct triforce *f = self;
    struct layer *layer = &f->layers[step->layer];
    if (layer->is_rebuilt || layer->params->draft == DRAFT_STREAMING)
        return;
    for (int h = 0; h < f->env.model->Hkv; h++) {
        ra_policy_cache_append(&layer->heads[h], step->self);
        ra_policy_cache_evict(&layer->heads[h], ra_page_rule_of(&layer->rule, h).K);
    }
}

static void view(const void *self, int layer, int kv_head, struct ra_retained *out)
{
    ra_policy_cache_view(&((const struct triforce *)self)->layers[layer].heads[kv_head], out);
}

const struct ra_policy_ops ra_policy_triforce = {
    .name = "triforce",
    .summary = "chunks by their mean keys, chosen anew at each verification",
    .source = "TriForce, Sun et al., arXiv:2404.11912, section 4.1",
    .deviations = "code: first=1,over=prompt; softmax over chunks ranks as the code's products do, "
                  "but between "
                  "heads of a group",
    .params = table,
    .params_size = sizeof(struct triforce_params),
    .check = check,
    .needs = needs,
    .caches = caches,
    .pages = pages,
    .open = open_triforce,
    .plan = plan_triforce,
    .learn = learn,
    .install = install,
    .advance = advance,
    .view = view,
    .close = close_triforce,
};
