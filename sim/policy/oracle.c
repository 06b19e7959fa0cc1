/* SPDX-License-Identifier: Apache-2.0 */
/*
 * At each step the K positions before self that really receive the most: the largest sum over the
 * group of true probability, known only to a replay. No policy that chooses K positions per KV
 * head recovers more mass at that step. Its scores cost nothing, so its traffic is a lower bound.
 */
#include <stdlib.h>

#include "sim/policy.h"
#include "sim/policy_sets.h"
#include "sim/select.h"

struct oracle_params {
    struct ra_fraction k;
};

static const struct ra_param table[] = {
    {RA_PARAM_OF(struct oracle_params, k, FRACTION), .reach = RA_REACH_HEAD, .min = 1,
     .max = INT32_MAX, .help = "positions attended to besides self"},
    {.name = NULL},
};

struct oracle {
    const struct ra_model *model;
    int32_t *K;                 /* [n_layers][Hkv] */
    struct ra_policy_sets sets; /* [Hkv] */
    uint64_t *scratch;          /* [P + N] */
    double *sum;                /* [P + N] */
};

static unsigned needs(const void *params)
{
    (void)params;
    return RA_NEEDS_TRUTH;
}

static enum ra_caches caches(const void *params)
{
    (void)params;
    return RA_CACHES_FULL;
}

static void close_oracle(void *self)
{
    struct oracle *o = self;
    if (!o)
        return;
    free(o->K);
    ra_policy_sets_close(&o->sets);
    free(o->scratch);
    free(o->sum);
    free(o);
}

static enum ra_status open_oracle(void **self, const struct ra_policy_env *env, const void *params,
                                  struct ra_error *err)
{
    const struct oracle_params *p = params;
    int32_t most = 1; /* the largest K, at most P + N */
    size_t rows = (size_t)env->P + (size_t)env->N, Hkv = (size_t)env->model->Hkv;
    RA_BUG_ON(rows == 0);
    struct oracle *o = calloc(1, sizeof *o);
    if (!o)
        return ra_fail(err, RA_ENOMEM, "oracle: no memory");
    *self = o;
    o->model = env->model;
    o->K = calloc((size_t)env->n_layers * Hkv, sizeof *o->K);
    for (int i = 0; o->K && i < env->n_layers * (int)Hkv; i++) {
        int layer = i / (int)Hkv;
        int32_t k = ra_policy_head_k(env, p[layer].k, layer, i % (int)Hkv);
        o->K[i] = (size_t)k < rows ? k : (int32_t)rows;
        most = o->K[i] > most ? o->K[i] : most;
    }
    o->scratch = calloc(rows, sizeof *o->scratch);
    o->sum = calloc(rows, sizeof *o->sum);
    if (!o->K || !o->scratch || !o->sum)
        return ra_fail(err, RA_ENOMEM, "oracle: no memory for %zu positions", rows);
    return ra_policy_sets_open(&o->sets, "oracle", (int)Hkv, most, err);
}

static enum ra_status plan_oracle(void *self, const struct ra_step *step, struct ra_plan *plan,
                                  struct ra_error *err)
{
    (void)self;
    (void)err;
    if (step->t < 0)
        return RA_OK;
    plan->attend = RA_ATTEND_SETS;
    plan->scores = RA_SCORES_BEFORE;
    plan->scores_are_free = true;
    return RA_OK;
}

static enum ra_status learn(void *self, const struct ra_step *step, const struct ra_scores *scores,
                            struct ra_plan *plan, struct ra_error *err)
{
    (void)err;
    struct oracle *o = self;
    int G = o->model->G;
    for (int h = 0; h < o->model->Hkv; h++) {
        const double *prob = scores->prob + (size_t)h * (size_t)G * (size_t)scores->L;
        ra_aggregate(prob, (size_t)scores->L, G, step->self, RA_AGG_SUM, o->sum);
        ra_policy_sets_put(&o->sets, h,
                           ra_top(o->sum, step->self, o->K[step->layer * o->model->Hkv + h],
                                  ra_policy_sets_room(&o->sets, h), o->scratch));
    }
    plan->sets = o->sets.sets;
    return RA_OK;
}

const struct ra_policy_ops ra_policy_oracle = {
    .name = "oracle",
    .summary = "the k positions with most true probability: bound per step",
    .source = "baseline",
    .params = table,
    .params_size = sizeof(struct oracle_params),
    .needs = needs,
    .caches = caches,
    .open = open_oracle,
    .plan = plan_oracle,
    .learn = learn,
    .close = close_oracle,
};
