/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sliding window and a few global positions, whatever the query. The paper's window lies on both
 * sides; a decoder has the left one only, and all of it is `window`. Its global attention goes both
 * ways: symmetric=1 lets a global position that is decoded attend to everything.
 */
#include <stdlib.h>

#include "sim/policy_pattern.h"

struct longformer_params {
    int32_t window, dilation, symmetric;
    struct ra_int_list globals;
};

static const struct ra_param table[] = {
    {RA_PARAM_OF(struct longformer_params, window, INT), .min = 1, .max = INT32_MAX,
     .help = "newest positions attended to, self among them"},
    {RA_PARAM_OF(struct longformer_params, dilation, INT), .min = 1, .max = INT32_MAX,
     .fallback = "1", .help = "steps between positions of the window"},
    {RA_PARAM_OF(struct longformer_params, globals, LIST), .min = 0, .max = INT32_MAX - 1,
     .fallback = "0", .help = "first so many positions, or a list, attended to always"},
    {RA_PARAM_OF(struct longformer_params, symmetric, INT), .min = 0, .max = 1, .fallback = "0",
     .help = "1: a listed position that is decoded attends to everything"},
    {.name = NULL},
};

struct longformer {
    const struct longformer_params *params; /* [n_layers] */
    struct ra_policy_pattern pattern;
};

static enum ra_caches caches(const void *params)
{
    (void)params;
    return RA_CACHES_FULL;
}

static int32_t most(const void *params, int32_t P, int32_t N)
{
    const struct longformer_params *p = params;
    int64_t globals = p->globals.n == 1 ? p->globals.values[0] : p->globals.n;
    int64_t n = globals + p->window, rows = P + N;
    return (int32_t)(n < rows ? n : rows);
}

static void close_longformer(void *self)
{
    struct longformer *s = self;
    if (s)
        ra_policy_pattern_close(&s->pattern);
    free(s);
}

static enum ra_status open_longformer(void **self, const struct ra_policy_env *env,
                                      const void *params, struct ra_error *err)
{
    struct longformer *s = calloc(1, sizeof *s);
    if (!s)
        return ra_fail(err, RA_ENOMEM, "longformer: no memory");
    *self = s;
    s->params = params;
    return ra_policy_pattern_open(&s->pattern, "longformer", env, err);
}

/* One number counts positions, several name them. */
static bool is_global(const struct longformer_params *p, int32_t pos)
{
    if (p->globals.n == 1)
        return pos < p->globals.values[0];
    for (int32_t i = 0; i < p->globals.n; i++)
        if (p->globals.values[i] == pos)
            return true;
    return false;
}

static bool is_near(const struct longformer_params *p, int32_t pos, int32_t self)
{
    int32_t behind = self - pos;
    return behind % p->dilation == 0 && behind / p->dilation < p->window;
}

static enum ra_status plan_longformer(void *self, const struct ra_step *step, struct ra_plan *plan,
                                      struct ra_error *err)
{
    (void)err;
    struct longformer *s = self;
    const struct longformer_params *p = &s->params[step->layer];
    int32_t n = 0;
    if (step->t < 0)
        return RA_OK;
    if (p->symmetric && is_global(p, step->self)) {
        plan->is_full = true;
        plan->attend = RA_ATTEND_ALL;
        return RA_OK;
    }
    for (int32_t pos = 0; pos < step->self; pos++)
        if (is_near(p, pos, step->self) || is_global(p, pos))
            s->pattern.pos[n++] = pos;
    ra_policy_pattern_plan(&s->pattern, n, plan);
    return RA_OK;
}

const struct ra_policy_ops ra_policy_longformer = {
    .name = "longformer",
    .summary = "a sliding window, dilated or not, and a few global positions",
    .source = "Longformer, Beltagy et al., arXiv:2004.05150, section 3.1",
    .deviations = "one-sided window; global tokens that are decoded: symmetric=1 as the paper",
    .params = table,
    .params_size = sizeof(struct longformer_params),
    .caches = caches,
    .most = most,
    .open = open_longformer,
    .plan = plan_longformer,
    .close = close_longformer,
};
