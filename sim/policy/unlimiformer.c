/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nearest neighbours per query head: at each step each head attends to the k positions before self
 * with the largest q.k. Heads of a group choose separately; a row that several choose is read once.
 * To find them exactly, every key is read, which is charged.
 *
 * The paper does this for the cross-attention of an encoder-decoder, through an index.
 */
#include <stdlib.h>

#include "sim/policy.h"
#include "sim/policy_sets.h"
#include "sim/select.h"

struct unlimiformer_params {
    struct ra_fraction k;
};

static const struct ra_param table[] = {
    {RA_PARAM_OF(struct unlimiformer_params, k, FRACTION), .reach = RA_REACH_HEAD, .min = 1,
     .max = INT32_MAX, .help = "positions that each query head attends to besides self"},
    {.name = NULL},
};

struct unlimiformer {
    int Hq, G;
    int32_t rows;
    int32_t *K;                 /* [n_layers][Hkv] at most rows */
    struct ra_policy_sets sets; /* [Hq] */
    uint64_t *scratch;          /* [rows] */
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

static void close_unlimiformer(void *self)
{
    struct unlimiformer *u = self;
    if (!u)
        return;
    free(u->K);
    ra_policy_sets_close(&u->sets);
    free(u->scratch);
    free(u);
}

static enum ra_status open_unlimiformer(void **self, const struct ra_policy_env *env,
                                        const void *params, struct ra_error *err)
{
    const struct unlimiformer_params *p = params;
    int Hkv = env->model->Hkv, n = env->n_layers * Hkv;
    struct unlimiformer *u = calloc(1, sizeof *u);
    if (!u)
        return ra_fail(err, RA_ENOMEM, "unlimiformer: no memory");
    *self = u;
    u->Hq = env->model->Hq;
    u->G = env->model->G;
    u->rows = env->P + env->N;
    u->K = calloc((size_t)n, sizeof *u->K);
    u->scratch = calloc((size_t)u->rows, sizeof *u->scratch);
    if (!u->K || !u->scratch)
        return ra_fail(err, RA_ENOMEM, "unlimiformer: no memory for %d positions", u->rows);
    for (int i = 0; i < n; i++) {
        int32_t k = ra_policy_head_k(env, p[i / Hkv].k, i / Hkv, i % Hkv);
        u->K[i] = k < u->rows ? k : u->rows;
    }
    return ra_policy_sets_open(&u->sets, "unlimiformer", u->Hq, u->rows, err);
}

static enum ra_status plan_unlimiformer(void *self, const struct ra_step *step,
                                        struct ra_plan *plan, struct ra_error *err)
{
    (void)self;
    (void)err;
    if (step->t < 0)
        return RA_OK;
    plan->attend = RA_ATTEND_SETS;
    plan->scores = RA_SCORES_BEFORE;
    plan->per_query_head = true;
    return RA_OK;
}

/* Probabilities rank as the products do. */
static enum ra_status learn(void *self, const struct ra_step *step, const struct ra_scores *scores,
                            struct ra_plan *plan, struct ra_error *err)
{
    (void)err;
    struct unlimiformer *u = self;
    for (int h = 0; h < u->Hq; h++) {
        int32_t n = ra_top(scores->prob + (size_t)h * (size_t)scores->L, step->self,
                           u->K[(step->layer * u->Hq + h) / u->G], ra_policy_sets_room(&u->sets, h),
                           u->scratch);
        ra_policy_sets_put(&u->sets, h, n);
    }
    plan->sets = u->sets.sets;
    return RA_OK;
}

const struct ra_policy_ops ra_policy_unlimiformer = {
    .name = "unlimiformer",
    .summary = "the k largest q.k of each query head, found anew at each step",
    .source = "Unlimiformer, Bertsch et al., arXiv:2305.01625, section 2.3",
    .deviations =
        "exact neighbours among stored keys, where the paper has an index over an encoder's states",
    .params = table,
    .params_size = sizeof(struct unlimiformer_params),
    .needs = needs,
    .caches = caches,
    .open = open_unlimiformer,
    .plan = plan_unlimiformer,
    .learn = learn,
    .close = close_unlimiformer,
};
