/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first `sinks` positions and the newest others. With `stride` every stride-th step attends to
 * everything (StreamingLLM++), which needs the complete cache beside the small one; what is kept
 * stays the same. Original positions are used, not slots of the cache. Looks at no score.
 */
#include <stdlib.h>

#include "sim/policy.h"
#include "sim/policy_cache.h"
#include "sim/policy_schedule.h"

struct streaming_params {
    struct ra_fraction k;
    int32_t sinks, stride;
};

static const struct ra_param table[] = {
    {RA_PARAM_OF(struct streaming_params, k, FRACTION), .min = 1, .max = INT32_MAX,
     .help = "positions kept, sinks included, self not"},
    {RA_PARAM_OF(struct streaming_params, sinks, INT), .min = 0, .max = INT32_MAX, .fallback = "4",
     .help = "first positions of the prompt, never evicted"},
    {RA_PARAM_OF(struct streaming_params, stride, INT), .min = 1, .max = INT32_MAX,
     .fallback = "none", .help = "a full step at every stride-th step"},
    {.name = NULL},
};

struct layer {
    int32_t K, sinks, stride, ahead;
    struct ra_policy_cache cache; /* the same for all KV heads */
};

struct streaming {
    int n_layers;
    struct layer layers[];
};

static enum ra_status check(const void *params, struct ra_error *err)
{
    const struct streaming_params *p = params;
    if (p->k.den == 0 && p->k.num <= p->sinks)
        return ra_fail(err, RA_EUSAGE, "streaming: k: expected more than sinks=%d, got %d",
                       p->sinks, p->k.num);
    return RA_OK;
}

static enum ra_caches caches(const void *params)
{
    const struct streaming_params *p = params;
    return p->stride == RA_INT_NONE ? RA_CACHES_REDUCED : RA_CACHES_BOTH;
}

static void close_streaming(void *self)
{
    struct streaming *s = self;
    for (int i = 0; s && i < s->n_layers; i++)
        ra_policy_cache_close(&s->layers[i].cache);
    free(s);
}

static enum ra_status open_layer(struct layer *layer, const struct ra_policy_env *env,
                                 const struct streaming_params *p, struct ra_error *err)
{
    *layer = (struct layer){
        .K = ra_fraction_resolve(p->k, env->P), .sinks = p->sinks, .stride = p->stride};
    if (layer->K <= p->sinks)
        return ra_fail(err, RA_EUSAGE, "streaming: k: expected more than sinks=%d, got %d/%d of %d",
                       p->sinks, p->k.num, p->k.den, env->P);
    if (p->sinks > env->P)
        return ra_fail(err, RA_EUSAGE, "streaming: sinks: expected at most the prompt's %d, got %d",
                       env->P, p->sinks);
    if (p->stride != RA_INT_NONE)
        layer->ahead = ra_schedule_ahead(env, p->stride);
    int32_t most = env->P + env->N;
    return ra_policy_cache_open(&layer->cache, layer->K < most ? layer->K + 1 : most, err);
}

static enum ra_status open_streaming(void **self, const struct ra_policy_env *env,
                                     const void *params, struct ra_error *err)
{
    const struct streaming_params *p = params;
    struct streaming *s = calloc(1, sizeof *s + (size_t)env->n_layers * sizeof s->layers[0]);
    if (!s)
        return ra_fail(err, RA_ENOMEM, "streaming: no memory for %d layers", env->n_layers);
    *self = s;
    s->n_layers = env->n_layers;
    for (int i = 0; i < s->n_layers; i++)
        RA_TRY(open_layer(&s->layers[i], env, &p[i], err));
    return RA_OK;
}

static enum ra_status plan_streaming(void *self, const struct ra_step *step, struct ra_plan *plan,
                                     struct ra_error *err)
{
    (void)err;
    const struct layer *layer = &((struct streaming *)self)->layers[step->layer];
    plan->is_full = step->t >= 0 && layer->stride != RA_INT_NONE &&
                    ((int64_t)step->t + 1 + layer->ahead) % layer->stride == 0;
    plan->attend = plan->is_full ? RA_ATTEND_ALL : RA_ATTEND_CACHE;
    return RA_OK;
}

/* The prompt's positions enter as if decoded one by one, the sinks last and pinned. */
static void fill(struct layer *layer, int32_t P)
{
    int32_t n = layer->K < P ? layer->K : P, recent = n - layer->sinks;
    int32_t *order = layer->cache.order;
    for (int32_t i = 0; i < recent; i++)
        order[i] = P - recent + i;
    for (int32_t i = 0; i < layer->sinks; i++)
        order[recent + i] = i;
    ra_policy_cache_replace(&layer->cache, order, n, layer->sinks);
}

static void advance(void *self, const struct ra_step *step)
{
    struct layer *layer = &((struct streaming *)self)->layers[step->layer];
    if (step->t < 0) {
        fill(layer, step->self + 1);
        return;
    }
    ra_policy_cache_append(&layer->cache, step->self);
    ra_policy_cache_evict(&layer->cache, layer->K);
}

static void view(const void *self, int layer, int kv_head, struct ra_retained *out)
{
    (void)kv_head;
    ra_policy_cache_view(&((const struct streaming *)self)->layers[layer].cache, out);
}

const struct ra_policy_ops ra_policy_streaming = {
    .name = "streaming",
    .summary = "attention sinks and the newest positions; stride adds full steps",
    .source = "StreamingLLM, Xiao et al., arXiv:2309.17453; stride: arXiv:2411.05787v1",
    .deviations = "original positions, where the code has slots of the cache",
    .params = table,
    .params_size = sizeof(struct streaming_params),
    .check = check,
    .caches = caches,
    .open = open_streaming,
    .plan = plan_streaming,
    .advance = advance,
    .view = view,
    .close = close_streaming,
};
