/* SPDX-License-Identifier: Apache-2.0 */
/* One list of positions under as many heads as there are. */
#include "sim/policy_pattern.h"

#include <stdlib.h>

enum ra_status ra_policy_pattern_open(struct ra_policy_pattern *pattern, const char *name,
                                      const struct ra_policy_env *env, struct ra_error *err)
{
    int32_t rows = env->P + env->N;
    pattern->Hkv = env->model->Hkv;
    pattern->pos = calloc((size_t)rows, sizeof *pattern->pos);
    pattern->sets = calloc((size_t)pattern->Hkv, sizeof *pattern->sets);
    if (!pattern->pos || !pattern->sets)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for %d positions", name, rows);
    return RA_OK;
}

void ra_policy_pattern_close(struct ra_policy_pattern *pattern)
{
    free(pattern->pos);
    free(pattern->sets);
}

void ra_policy_pattern_plan(struct ra_policy_pattern *pattern, int32_t n, struct ra_plan *plan)
{
    for (int h = 0; h < pattern->Hkv; h++)
        pattern->sets[h] = (struct ra_positions){.pos = pattern->pos, .n = n};
    plan->attend = RA_ATTEND_SETS;
    plan->sets = pattern->sets;
}

void ra_policy_pattern_plan_sinks(struct ra_policy_pattern *pattern, int32_t sinks, int32_t recent,
                                  int32_t self, struct ra_plan *plan)
{
    int32_t first = sinks < self ? sinks : self, from = self - recent, n = 0;
    for (; n < first; n++)
        pattern->pos[n] = n;
    for (int32_t pos = from > first ? from : first; pos < self; pos++)
        pattern->pos[n++] = pos;
    ra_policy_pattern_plan(pattern, n, plan);
}
