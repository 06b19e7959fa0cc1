/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fixed and query-driven schedules. Source: Xu, Goyal, Choi, arXiv:2411.05787, section 2.2: the
 * mean over heads is taken before the cosine, and only a cosine strictly above the threshold spares
 * the full step.
 */
#include "sim/policy_schedule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/rope.h"

enum { MAX_D = 256 };

struct layer {
    struct ra_schedule_rule rule;
    int32_t ahead;     /* steps by which this sequence is early */
    int32_t reference; /* row of ra_queries: the layer's last full step */
};

struct ra_schedule {
    const struct ra_model *model;
    const struct ra_queries *queries;
    int32_t P;
    int n_layers;
    struct layer layers[];
};

int32_t ra_schedule_ahead(const struct ra_policy_env *env, int32_t stride)
{
    return env->of > 0 ? (int32_t)((int64_t)stride * env->phase / env->of) : 0;
}

/* A decision that all layers take together leaves no room for values of their own. */
static enum ra_status check_rules(const char *name, const struct ra_policy_env *env,
                                  const struct ra_schedule_rule *rules, struct ra_error *err)
{
    for (int i = 0; i < env->n_layers; i++) {
        const struct ra_schedule_rule *rule = &rules[i], *first = &rules[0];
        bool compares = !isnan(rule->sim);
        if (compares && rule->before_rope && env->model->rope.type == RA_ROPE_UNKNOWN)
            return ra_fail(err, RA_EUSAGE,
                           "%s: query=pre: expected a trace that says how queries were rotated "
                           "(rope.*), got none; query=post does without",
                           name);
        bool same_sim = rule->sim == first->sim || (!compares && isnan(first->sim));
        bool same_stride = rule->stride == first->stride || !compares;
        if (rule->all_layers && !(same_sim && same_stride))
            return ra_fail(err, RA_EUSAGE,
                           "%s: scope=model-prev: expected one %s for all layers, got another at "
                           "layer %d",
                           name, same_sim ? "stride" : "sim", env->layer_ids[i]);
    }
    return RA_OK;
}

enum ra_status ra_schedule_open(struct ra_schedule **schedule, const char *name,
                                const struct ra_policy_env *env,
                                const struct ra_schedule_rule *rules, struct ra_error *err)
{
    RA_TRY(check_rules(name, env, rules, err));
    size_t n = (size_t)env->n_layers;
    struct ra_schedule *s = calloc(1, sizeof *s + n * sizeof s->layers[0]);
    if (!s)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for %d layers", name, env->n_layers);
    s->model = env->model;
    s->queries = env->queries;
    s->P = env->P;
    s->n_layers = env->n_layers;
    for (size_t i = 0; i < n; i++)
        s->layers[i] =
            (struct layer){.rule = rules[i], .ahead = ra_schedule_ahead(env, rules[i].stride)};
    *schedule = s;
    return RA_OK;
}

void ra_schedule_close(struct ra_schedule *schedule)
{
    free(schedule);
}

/* Rotation is linear: the mean may be turned back in place of every head. */
static void load(const struct ra_schedule *s, int layer, int32_t row, double *vec)
{
    int D = s->queries->D;
    size_t at = (size_t)layer * ((size_t)s->queries->N + 1) + (size_t)row;
    RA_BUG_ON(D > MAX_D || layer >= s->queries->n_layers || row > s->queries->N);
    memcpy(vec, s->queries->mean + at * (size_t)D, (size_t)D * sizeof *vec);
    if (s->layers[layer].rule.before_rope)
        ra_rope_unrotate(&s->model->rope, D, s->P - 1 + row, vec);
}

static double dot(const double *a, const double *b, int D)
{
    double sum = 0;
    for (int d = 0; d < D; d++)
        sum += a[d] * b[d];
    return sum;
}

static double cosine(const struct ra_schedule *s, int layer, int32_t row, int32_t reference)
{
    double a[MAX_D], b[MAX_D];
    int D = s->queries->D;
    load(s, layer, row, a);
    load(s, layer, reference, b);
    double norms = sqrt(dot(a, a, D)) * sqrt(dot(b, b, D));
    if (norms == 0)
        return NAN;
    return fmin(1, fmax(-1, dot(a, b, D) / norms));
}

/* NaN exceeds nothing, so a zero norm fires. */
static bool has_turned(const struct ra_schedule *s, const struct ra_step *step,
                       struct ra_plan *plan)
{
    const struct layer *self = &s->layers[step->layer];
    plan->checks_query = true;
    plan->sim = self->rule.sim;
    plan->compared_step = self->rule.all_layers ? step->t - 1 : step->t;
    if (!self->rule.all_layers) {
        plan->query_cosine = cosine(s, step->layer, step->t + 1, self->reference);
        return !(plan->query_cosine > self->rule.sim);
    }
    /* All layers fired together so far, so this layer's reference row is everybody's. */
    bool any = false;
    for (int i = 0; i < s->n_layers; i++) {
        if (s->layers[i].rule.is_follower)
            continue;
        double previous = cosine(s, i, step->t, self->reference);
        any = any || !(previous > self->rule.sim);
        if (i == step->layer)
            plan->query_cosine = previous;
    }
    return any;
}

bool ra_schedule_is_full(struct ra_schedule *schedule, const struct ra_step *step,
                         struct ra_plan *plan)
{
    struct layer *layer = &schedule->layers[step->layer];
    const struct ra_schedule_rule *rule = &layer->rule;
    int64_t i = (int64_t)step->t + 1 + layer->ahead + (rule->stagger ? step->layer_id : 0);
    if (rule->is_follower || i % rule->stride != 0)
        return false;
    if (!isnan(rule->sim) && !has_turned(schedule, step, plan))
        return false;
    layer->reference = step->t + 1;
    return true;
}
