/* SPDX-License-Identifier: Apache-2.0 */
/* Votes, and the caches that they fill; while decoding only positions come and go. */
#include "sim/policy_window.h"

#include <stdlib.h>
#include <string.h>

#include "sim/policy_cache.h"
#include "sim/select.h"

struct layer {
    const struct ra_window_params *params;
    int32_t *cap, *room;           /* [Hkv] */
    struct ra_policy_cache *heads; /* [Hkv] */
    bool pools_early;
};

struct window {
    struct ra_policy_env env;
    const char *name;
    ra_window_decide decide;
    double *raw, *pooled; /* [P], [Hkv][P] */
    int32_t *won, *n_won; /* [Hkv][P], [Hkv] */
    int32_t *order;       /* [P] */
    uint64_t *scratch;    /* [Hkv * P] */
    struct layer layers[];
};

enum ra_status ra_window_check(const char *name, const void *params, struct ra_error *err)
{
    const struct ra_window_params *p = params;
    if (p->pool % 2 == 0)
        return ra_fail(err, RA_EUSAGE, "%s: pool: expected an odd number, got %d", name, p->pool);
    if (p->k.den == 0 && p->k.num <= p->window)
        return ra_fail(err, RA_EUSAGE, "%s: k: expected more than window=%d, got %d", name,
                       p->window, p->k.num);
    return RA_OK;
}

unsigned ra_window_needs(const void *params)
{
    (void)params;
    return RA_NEEDS_TAIL | RA_NEEDS_REFERENCE;
}

enum ra_caches ra_window_caches(const void *params)
{
    (void)params;
    return RA_CACHES_REDUCED;
}

void ra_window_close(void *self)
{
    struct window *w = self;
    if (!w)
        return;
    for (int i = 0; i < w->env.n_layers; i++) {
        ra_policy_caches_close(w->layers[i].heads, w->env.model->Hkv);
        free(w->layers[i].cap);
        free(w->layers[i].room);
    }
    free(w->raw);
    free(w->pooled);
    free(w->won);
    free(w->n_won);
    free(w->order);
    free(w->scratch);
    free(w);
}

static enum ra_status open_layer(struct window *w, int index, const struct ra_window_params *p,
                                 struct ra_error *err)
{
    struct layer *layer = &w->layers[index];
    const struct ra_policy_env *env = &w->env;
    int Hkv = env->model->Hkv;
    int32_t most = env->W < env->P ? env->W : env->P;
    layer->params = p;
    if (p->window > most)
        return ra_fail(err, RA_EUSAGE,
                       "%s: window: expected at most %d, the prompt's recorded queries, got %d",
                       w->name, most, p->window);
    layer->cap = calloc((size_t)Hkv, sizeof *layer->cap);
    layer->room = calloc((size_t)Hkv, sizeof *layer->room);
    if (!layer->cap || !layer->room)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for %d KV heads", w->name, Hkv);
    for (int h = 0; h < Hkv; h++) {
        int32_t K = ra_policy_head_k(env, p->k, index, h);
        layer->room[h] = K - p->window;
        if (K <= p->window)
            return ra_fail(err, RA_EUSAGE, "%s: k: expected more than window=%d, got %d of %d",
                           w->name, p->window, K, env->P);
    }
    return ra_policy_caches_open(&layer->heads, Hkv, env->P + env->N, err);
}

enum ra_status ra_window_open(void **self, const char *name, const struct ra_policy_env *env,
                              const void *params, size_t params_size, ra_window_decide decide,
                              struct ra_error *err)
{
    size_t Hkv = (size_t)env->model->Hkv, P = (size_t)env->P;
    struct window *w = calloc(1, sizeof *w + (size_t)env->n_layers * sizeof w->layers[0]);
    if (!w)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for %d layers", name, env->n_layers);
    *self = w;
    w->env = *env;
    w->name = name;
    w->decide = decide;
    w->raw = calloc(P, sizeof *w->raw);
    w->pooled = calloc(Hkv * P, sizeof *w->pooled);
    w->won = calloc(Hkv * P, sizeof *w->won);
    w->n_won = calloc(Hkv, sizeof *w->n_won);
    w->order = calloc(P, sizeof *w->order);
    w->scratch = calloc(Hkv * P, sizeof *w->scratch);
    if (!w->raw || !w->pooled || !w->won || !w->n_won || !w->order || !w->scratch)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for a prompt of %zu", name, P);
    for (int i = 0; i < env->n_layers; i++)
        RA_TRY(
            open_layer(w, i, (const void *)((const char *)params + (size_t)i * params_size), err));
    return RA_OK;
}

void ra_window_pool_early(void *self, int layer)
{
    ((struct window *)self)->layers[layer].pools_early = true;
}

enum ra_status ra_window_plan(void *self, const struct ra_step *step, struct ra_plan *plan,
                              struct ra_error *err)
{
    (void)err;
    const struct layer *layer = &((struct window *)self)->layers[step->layer];
    plan->attend = RA_ATTEND_CACHE;
    if (step->t >= 0)
        return RA_OK;
    plan->scores = RA_SCORES_AFTER;
    plan->of = RA_SCORES_OF_WINDOW;
    plan->window = layer->params->window;
    if (layer->pools_early) {
        plan->window_pool = layer->params->pool;
        plan->window_pooling = (enum ra_pooling)layer->params->pooling;
    }
    return RA_OK;
}

void ra_window_take(const struct ra_window_votes *votes, int head, int32_t n)
{
    const struct ra_window_params *p = votes->params;
    size_t first = (size_t)head * (size_t)votes->n;
    votes->n_won[head] =
        ra_top(votes->score + first, votes->n, n, votes->won + first, votes->scratch);
    votes->cap[head] = n + p->window;
}

/* The pooled votes of each KV head for the prefix. */
static void count_votes(struct window *w, const struct layer *layer, const struct ra_scores *scores)
{
    const struct ra_window_params *p = layer->params;
    size_t G = (size_t)w->env.model->G, L = (size_t)scores->L;
    int32_t n = w->env.P - p->window;
    for (int h = 0; h < w->env.model->Hkv; h++) {
        double *out = w->pooled + (size_t)h * (size_t)n;
        ra_aggregate(scores->prob + (size_t)h * G * L, L, (int)G, n, (enum ra_agg)p->agg, w->raw);
        if (layer->pools_early)
            memcpy(out, w->raw, (size_t)n * sizeof *out);
        else
            ra_pool_along(w->raw, n, p->pool, (enum ra_pooling)p->pooling, out);
    }
}

enum ra_status ra_window_learn(void *self, const struct ra_step *step,
                               const struct ra_scores *scores, struct ra_plan *plan,
                               struct ra_error *err)
{
    (void)plan;
    (void)err;
    struct window *w = self;
    struct layer *layer = &w->layers[step->layer];
    const struct ra_window_params *p = layer->params;
    struct ra_window_votes votes = {.score = w->pooled,
                                    .Hkv = w->env.model->Hkv,
                                    .n = w->env.P - p->window,
                                    .room = layer->room,
                                    .layer_id = step->layer_id,
                                    .env = &w->env,
                                    .params = p,
                                    .won = w->won,
                                    .n_won = w->n_won,
                                    .cap = layer->cap,
                                    .scratch = w->scratch};
    count_votes(w, layer, scores);
    w->decide(&votes);
    for (int h = 0; h < votes.Hkv; h++) {
        int32_t n = votes.n_won[h];
        if (n > 0)
            memcpy(w->order, votes.won + (size_t)h * (size_t)votes.n, (size_t)n * sizeof *w->order);
        for (int32_t pos = votes.n; pos < w->env.P; pos++)
            w->order[n++] = pos;
        ra_policy_cache_replace(&layer->heads[h], w->order, n, 0);
    }
    return RA_OK;
}

void ra_window_install(void *self, const struct ra_step *step, int kv_head,
                       const struct ra_positions *evict_order)
{
    struct layer *layer = &((struct window *)self)->layers[step->layer];
    ra_policy_cache_replace(&layer->heads[kv_head], evict_order->pos, evict_order->n, 0);
    int32_t K = layer->room[kv_head] + layer->params->window;
    bool fits = ((struct window *)self)->env.P <= K;
    layer->cap[kv_head] = fits ? K : evict_order->n;
}

void ra_window_advance(void *self, const struct ra_step *step)
{
    struct window *w = self;
    struct layer *layer = &w->layers[step->layer];
    for (int h = 0; step->t >= 0 && h < w->env.model->Hkv; h++) {
        ra_policy_cache_append(&layer->heads[h], step->self);
        if (layer->params->evict == RA_WINDOW_EVICT_FIFO)
            ra_policy_cache_evict(&layer->heads[h], layer->cap[h]);
    }
}

void ra_window_view(const void *self, int layer, int kv_head, struct ra_retained *view)
{
    const struct layer *of = &((const struct window *)self)->layers[layer];
    ra_policy_cache_view(&of->heads[kv_head], view);
    if (of->params->evict == RA_WINDOW_EVICT_NONE)
        view->evictions = RA_EVICTIONS_NONE;
}
