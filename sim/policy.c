/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of policies, and an open one. Between the engine and a policy's hooks stand the checks
 * of what the engine promised: a step out of order would corrupt a cache without a trace.
 */
#include "sim/policy.h"

#include <stdlib.h>

#include "sim/policy_spec.h"

#define RA_POLICY(id) extern const struct ra_policy_ops ra_policy_##id;
#include "sim/policy/policies.def"
#undef RA_POLICY

#define RA_POLICY(id) &ra_policy_##id,
const struct ra_policy_ops *const ra_policies[] = {
#include "sim/policy/policies.def"
    NULL};
#undef RA_POLICY

struct ra_policy {
    const struct ra_policy_ops *ops;
    void *self;
    struct ra_policy_env env;
    unsigned char *params; /* [n_layers] of ops->params_size */
    int32_t *next_t;       /* [n_layers] step that each layer is due for */
    int32_t *head_k;       /* [n_layers][Hkv] of env; NULL */
    int layer;             /* of the step in progress; -1: none */
};

static enum ra_status resolve_heads(struct ra_policy *policy, const struct ra_policy_spec *spec,
                                    struct ra_error *err)
{
    struct ra_policy_env *env = &policy->env;
    int Hkv = env->model->Hkv;
    if (!ra_policy_spec_has_heads(spec))
        return RA_OK;
    policy->head_k = calloc((size_t)(env->n_layers * Hkv), sizeof *policy->head_k);
    if (!policy->head_k)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for %d budgets", policy->ops->name,
                       env->n_layers * Hkv);
    for (int i = 0; i < env->n_layers * Hkv; i++) {
        policy->head_k[i] = ra_policy_spec_head_k(spec, env->layer_ids[i / Hkv], i % Hkv, env->P);
        if (policy->head_k[i] < 1)
            return ra_fail(err, RA_ENOMEM, "%s: no memory for a budget", policy->ops->name);
    }
    env->head_k = policy->head_k;
    return RA_OK;
}

static enum ra_status open_self(struct ra_policy *policy, const struct ra_policy_spec *spec,
                                struct ra_error *err)
{
    const struct ra_policy_env *env = &policy->env;
    size_t n = (size_t)env->n_layers, size = policy->ops->params_size;
    RA_TRY(ra_policy_spec_fits(spec, env->model, err));
    if (ra_policy_spec_needs(spec) & RA_NEEDS_QUERIES && !env->queries)
        return ra_fail(err, RA_EUSAGE, "%s: expected the queries of every step, which are missing",
                       policy->ops->name);
    policy->params = calloc(n, size + 1);
    policy->next_t = calloc(n, sizeof *policy->next_t);
    if (!policy->params || !policy->next_t)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for %d layers", policy->ops->name,
                       env->n_layers);
    for (size_t i = 0; i < n; i++) {
        policy->next_t[i] = -1;
        ra_policy_spec_resolve(spec, env->layer_ids[i], policy->params + i * size);
    }
    RA_TRY(resolve_heads(policy, spec, err));
    return policy->ops->open(&policy->self, env, policy->params, err);
}

int32_t ra_policy_head_k(const struct ra_policy_env *env, struct ra_fraction k, int layer,
                         int kv_head)
{
    return env->head_k ? env->head_k[layer * env->model->Hkv + kv_head]
                       : ra_fraction_resolve(k, env->P);
}

int32_t ra_policy_layer_k(const struct ra_policy_env *env, struct ra_fraction k, int layer)
{
    int32_t most = 0;
    for (int h = 0; h < env->model->Hkv; h++) {
        int32_t own = ra_policy_head_k(env, k, layer, h);
        most = own > most ? own : most;
    }
    return most;
}

const int32_t *ra_policy_heads(const struct ra_policy_env *env, int layer)
{
    return env->head_k ? env->head_k + layer * env->model->Hkv : NULL;
}

enum ra_status ra_policy_open(struct ra_policy **policy, const struct ra_policy_spec *spec,
                              const struct ra_policy_env *env, struct ra_error *err)
{
    RA_BUG_ON(env->n_layers < 1 || env->P < 1 || env->N < 0);
    *policy = calloc(1, sizeof **policy);
    if (!*policy)
        return ra_fail(err, RA_ENOMEM, "policy: no memory");
    (*policy)->ops = ra_policy_spec_ops(spec);
    (*policy)->env = *env;
    (*policy)->layer = -1;
    enum ra_status st = open_self(*policy, spec, err);
    if (st != RA_OK) {
        ra_policy_close(*policy);
        *policy = NULL;
    }
    return st;
}

void ra_policy_close(struct ra_policy *policy)
{
    if (!policy)
        return;
    policy->ops->close(policy->self);
    free(policy->params);
    free(policy->next_t);
    free(policy->head_k);
    free(policy);
}

enum ra_status ra_policy_plan(struct ra_policy *policy, const struct ra_step *step,
                              struct ra_plan *plan, struct ra_error *err)
{
    RA_BUG_ON(policy->layer != -1);
    RA_BUG_ON(step->layer < 0 || step->layer >= policy->env.n_layers);
    RA_BUG_ON(step->layer_id != policy->env.layer_ids[step->layer]);
    RA_BUG_ON(step->t != policy->next_t[step->layer] || step->t >= policy->env.N);
    RA_BUG_ON(step->layer > 0 && policy->next_t[step->layer - 1] <= step->t);
    RA_BUG_ON(step->self != policy->env.P + step->t);
    policy->layer = step->layer;
    return policy->ops->plan(policy->self, step, plan, err);
}

enum ra_status ra_policy_learn(struct ra_policy *policy, const struct ra_step *step,
                               const struct ra_scores *scores, struct ra_plan *plan,
                               struct ra_error *err)
{
    RA_BUG_ON(policy->layer != step->layer || policy->next_t[step->layer] != step->t);
    RA_BUG_ON(plan->scores == RA_SCORES_NONE);
    RA_BUG_ON(plan->of != RA_SCORES_OF_PAGES && scores->L != step->self + 1);
    return policy->ops->learn(policy->self, step, scores, plan, err);
}

void ra_policy_install(struct ra_policy *policy, const struct ra_step *step, int kv_head,
                       const struct ra_positions *evict_order)
{
    RA_BUG_ON(policy->layer != step->layer || policy->next_t[step->layer] != step->t);
    RA_BUG_ON(kv_head < 0 || kv_head >= policy->env.model->Hkv);
    policy->ops->install(policy->self, step, kv_head, evict_order);
}

void ra_policy_advance(struct ra_policy *policy, const struct ra_step *step)
{
    RA_BUG_ON(policy->layer != step->layer || policy->next_t[step->layer] != step->t);
    if (policy->ops->advance)
        policy->ops->advance(policy->self, step);
    policy->next_t[step->layer]++;
    policy->layer = -1;
}

bool ra_policy_view(const struct ra_policy *policy, int layer, int kv_head,
                    struct ra_retained *view)
{
    *view = (struct ra_retained){0};
    if (!policy->ops->view)
        return false;
    policy->ops->view(policy->self, layer, kv_head, view);
    return true;
}
