/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache of k rows, of which after each step the one with the least attention from that step's
 * query goes, be it old or new: self competes like any other. Nothing is added up; only the last
 * query counts. The last prompt query chooses first.
 *
 * Paper and code keep one set for all heads of a layer, by the mean over them (heads=layer); with
 * heads=group each KV head keeps its own, by its group.
 */
#include "sim/policy_cut.h"

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

static enum ra_status open_tova(void **self, const struct ra_policy_env *env, const void *params,
                                struct ra_error *err)
{
    const struct tova_params *p = params;
    struct ra_cut_policy *policy;
    enum ra_status st = ra_cut_open(&policy, "tova", env, err);
    *self = policy;
    for (int i = 0; st == RA_OK && i < env->n_layers; i++) {
        struct ra_cut_rule rule = {.agg = (enum ra_agg)p[i].agg,
                                   .of_layer = p[i].heads == HEADS_LAYER};
        if (rule.of_layer && ra_policy_heads(env, i))
            return ra_fail(err, RA_EUSAGE,
                           "tova: k: expected one for all KV heads with heads=layer");
        st = ra_cut_open_layer(policy, i, p[i].k, 0, rule, err);
    }
    return st;
}

static enum ra_status plan_tova(void *self, const struct ra_step *step, struct ra_plan *plan,
                                struct ra_error *err)
{
    (void)err;
    const struct ra_cut_layer *layer = &((struct ra_cut_policy *)self)->layers[step->layer];
    plan->attend = RA_ATTEND_CACHE;
    plan->scores = RA_SCORES_AFTER;
    plan->of = step->t < 0 ? RA_SCORES_OF_ALL : RA_SCORES_OF_ATTENDED;
    plan->cut = step->t < 0 ? NULL : &layer->rule;
    /* A backend chooses for each KV head by itself. */
    plan->rebuilds = step->t < 0;
    plan->rule = step->t < 0 && !layer->rule.of_layer ? &layer->first : NULL;
    return RA_OK;
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
    .learn = ra_cut_learn,
    .install = ra_cut_install,
    .view = ra_cut_view,
    .close = ra_cut_close,
};
