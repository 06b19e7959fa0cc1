/* SPDX-License-Identifier: Apache-2.0 */
/* Every step attends to everything: the measure of all other schedules. */
#include "sim/policy.h"

static enum ra_caches caches(const void *params)
{
    (void)params;
    return RA_CACHES_FULL;
}

static enum ra_status open_full(void **self, const struct ra_policy_env *env, const void *params,
                                struct ra_error *err)
{
    (void)env;
    (void)params;
    (void)err;
    *self = NULL;
    return RA_OK;
}

static enum ra_status plan_full(void *self, const struct ra_step *step, struct ra_plan *plan,
                                struct ra_error *err)
{
    (void)self;
    (void)err;
    plan->is_full = step->t >= 0;
    plan->attend = RA_ATTEND_ALL;
    return RA_OK;
}

static void close_full(void *self)
{
    (void)self;
}

const struct ra_policy_ops ra_policy_full = {
    .name = "full",
    .summary = "attend to every position at every step",
    .source = "baseline",
    .caches = caches,
    .open = open_full,
    .plan = plan_full,
    .close = close_full,
};
