/* SPDX-License-Identifier: Apache-2.0 */
/* Sets and scores beside them, kept in step. */
#include "sim/policy_cut.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/select.h"

/* Become what `rule` leaves of positions 0..L-1. */
static void choose(struct ra_policy_cut *cut, const struct ra_cut_rule *rule, const double *score,
                   int32_t L, uint64_t *scratch)
{
    int32_t *order = cut->cache.order, older = L > rule->recent ? L - rule->recent : 0;
    struct ra_select_rule best = {.K = L > rule->K ? rule->K - rule->recent : older,
                                  .pool = 1,
                                  .agg = rule->agg,
                                  .current = RA_CURRENT_PSEUDO,
                                  .evict = RA_EVICT_RAW};
    int32_t n = ra_select(&best, score, score, older, order, scratch);
    for (int32_t pos = older; pos < L; pos++)
        order[n++] = pos;
    ra_kvset_assign(&cut->cache.set, order, n);
    for (int32_t i = 0; i < n; i++)
        cut->score[i] = score[cut->cache.set.pos[i]];
    cut->is_scored = true;
}

/* Index of the least score below the newest `recent`; of equal ones the highest position. */
static int32_t weakest(const double *score, int32_t n)
{
    int32_t at = 0;
    for (int32_t i = 1; i < n; i++)
        at = score[i] <= score[at] ? i : at;
    return at;
}

/* Scores grow, or are new; self enters; cut. */
static void take_in(struct ra_policy_cut *cut, const struct ra_cut_rule *rule,
                    const double *received, int32_t self)
{
    struct ra_kvset *set = &cut->cache.set;
    for (int32_t i = 0; i < set->n; i++)
        cut->score[i] = (rule->adds_up ? cut->score[i] : 0) + received[set->pos[i]];
    cut->score[set->n] = received[self];
    RA_BUG_ON(!ra_kvset_insert(set, self));
    if (set->n > rule->K) {
        int32_t at = weakest(cut->score, set->n - rule->recent);
        size_t after = (size_t)(set->n - at - 1);
        memmove(cut->score + at, cut->score + at + 1, after * sizeof *cut->score);
        ra_kvset_remove(set, set->pos[at]);
    }
    memcpy(cut->cache.order, set->pos, (size_t)set->n * sizeof *set->pos);
}

enum ra_status ra_cut_open(struct ra_cut_policy **policy, const char *name,
                           const struct ra_policy_env *env, struct ra_error *err)
{
    size_t rows = (size_t)env->P + (size_t)env->N;
    struct ra_cut_policy *p = calloc(1, sizeof *p);
    *policy = p;
    if (!p)
        return ra_fail(err, RA_ENOMEM, "%s: no memory", name);
    p->env = *env;
    p->layers = calloc((size_t)env->n_layers, sizeof *p->layers);
    if (!p->layers)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for %d layers", name, env->n_layers);
    p->score = calloc(rows, sizeof *p->score);
    p->scratch = calloc(rows, sizeof *p->scratch);
    if (!p->score || !p->scratch)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for %zu positions", name, rows);
    return RA_OK;
}

enum ra_status ra_cut_open_layer(struct ra_cut_policy *policy, int index, struct ra_fraction k,
                                 double recent, struct ra_cut_rule rule, struct ra_error *err)
{
    const struct ra_policy_env *env = &policy->env;
    struct ra_cut_layer *layer = &policy->layers[index];
    int32_t most = env->P + env->N, K = ra_policy_layer_k(env, k, index);
    size_t Hkv = (size_t)env->model->Hkv, capacity = (size_t)(K < most ? K + 1 : most);
    layer->recent = calloc(Hkv, sizeof *layer->recent);
    layer->heads = calloc(Hkv, sizeof *layer->heads);
    if (!layer->recent || !layer->heads)
        return ra_fail(err, RA_ENOMEM, "no memory for the caches of %zu KV heads", Hkv);
    for (size_t h = 0; h < Hkv; h++) {
        layer->recent[h] = (int32_t)floor(ra_policy_head_k(env, k, index, (int)h) * recent);
        RA_TRY(ra_policy_cache_open(&layer->heads[h].cache, (int32_t)capacity, err));
        layer->heads[h].score = calloc(capacity + 1, sizeof *layer->heads[h].score);
        if (!layer->heads[h].score)
            return ra_fail(err, RA_ENOMEM, "no memory for the scores of %zu positions", capacity);
    }
    rule.K = K;
    rule.recent = layer->recent[0];
    rule.K_heads = ra_policy_heads(env, index);
    rule.recent_heads = env->head_k ? layer->recent : NULL;
    layer->rule = rule;
    layer->first = (struct ra_select_rule){.K = K,
                                           .K_heads = rule.K_heads,
                                           .pool = 1,
                                           .agg = rule.agg,
                                           .current = RA_CURRENT_PSEUDO,
                                           .evict = RA_EVICT_RAW};
    return RA_OK;
}

void ra_cut_close(void *self)
{
    struct ra_cut_policy *policy = self;
    if (!policy)
        return;
    for (int i = 0; policy->layers && i < policy->env.n_layers; i++) {
        struct ra_cut_layer *layer = &policy->layers[i];
        for (int h = 0; layer->heads && h < policy->env.model->Hkv; h++) {
            ra_policy_cache_close(&layer->heads[h].cache);
            free(layer->heads[h].score);
        }
        free(layer->heads);
        free(layer->recent);
    }
    free(policy->layers);
    free(policy->score);
    free(policy->scratch);
    free(policy);
}

enum ra_status ra_cut_learn(void *self, const struct ra_step *step, const struct ra_scores *scores,
                            struct ra_plan *plan, struct ra_error *err)
{
    (void)plan;
    (void)err;
    struct ra_cut_policy *policy = self;
    const struct ra_model *m = policy->env.model;
    struct ra_cut_layer *layer = &policy->layers[step->layer];
    bool is_one = layer->rule.of_layer;
    size_t L = (size_t)scores->L;
    for (int h = 0; h < m->Hkv; h++) {
        struct ra_cut_rule rule = ra_cut_rule_of(&layer->rule, h);
        if (h == 0 || !is_one)
            ra_aggregate(scores->prob + (size_t)h * (size_t)m->G * L, L, is_one ? m->Hq : m->G,
                         scores->L, rule.agg, policy->score);
        if (step->t < 0)
            choose(&layer->heads[h], &rule, policy->score, scores->L, policy->scratch);
        else
            take_in(&layer->heads[h], &rule, policy->score, step->self);
    }
    return RA_OK;
}

void ra_cut_install(void *self, const struct ra_step *step, int kv_head,
                    const struct ra_positions *evict_order)
{
    struct ra_policy_cut *cut = &((struct ra_cut_policy *)self)->layers[step->layer].heads[kv_head];
    ra_policy_cache_replace(&cut->cache, evict_order->pos, evict_order->n, 0);
    cut->is_scored = false;
}

void ra_cut_view(const void *self, int layer, int kv_head, struct ra_retained *view)
{
    const struct ra_cut_policy *policy = self;
    const struct ra_policy_cut *cut = &policy->layers[layer].heads[kv_head];
    ra_policy_cache_view(&cut->cache, view);
    view->score = cut->is_scored ? cut->score : NULL;
    view->evictions = RA_EVICTIONS_BY_SCORE;
}
