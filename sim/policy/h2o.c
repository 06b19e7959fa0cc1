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
#include "sim/policy_cut.h"

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

static enum ra_status open_h2o(void **self, const struct ra_policy_env *env, const void *params,
                               struct ra_error *err)
{
    const struct h2o_params *p = params;
    struct ra_cut_policy *policy;
    enum ra_status st = ra_cut_open(&policy, "h2o", env, err);
    *self = policy;
    for (int i = 0; st == RA_OK && i < env->n_layers; i++) {
        struct ra_cut_rule rule = {.agg = (enum ra_agg)p[i].agg, .adds_up = true};
        st = ra_cut_open_layer(policy, i, p[i].k, p[i].recent, rule, err);
    }
    return st;
}

static enum ra_status plan_h2o(void *self, const struct ra_step *step, struct ra_plan *plan,
                               struct ra_error *err)
{
    (void)err;
    const struct ra_cut_layer *layer = &((struct ra_cut_policy *)self)->layers[step->layer];
    plan->attend = RA_ATTEND_CACHE;
    plan->scores = RA_SCORES_AFTER;
    plan->of = step->t < 0 ? RA_SCORES_OF_PROMPT : RA_SCORES_OF_ATTENDED;
    plan->cut = step->t < 0 ? NULL : &layer->rule;
    return RA_OK;
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
    .learn = ra_cut_learn,
    .install = ra_cut_install,
    .view = ra_cut_view,
    .close = ra_cut_close,
};
