/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets that follow from positions alone, the same for all KV heads: what fixed patterns of
 * attention share.
 */
#ifndef RA_SIM_POLICY_PATTERN_H
#define RA_SIM_POLICY_PATTERN_H

#include "sim/policy.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_policy_pattern {
    int Hkv;
    int32_t *pos;              /* [P + N] the set at hand, which its owner fills */
    struct ra_positions *sets; /* [Hkv] all of it */
};

/* `name` opens messages. A zeroed one may be closed. */
RA_MUST_CHECK enum ra_status ra_policy_pattern_open(struct ra_policy_pattern *pattern,
                                                    const char *name,
                                                    const struct ra_policy_env *env,
                                                    struct ra_error *err);
void ra_policy_pattern_close(struct ra_policy_pattern *pattern);

/* Attend to the first n of pattern->pos, ascending and below self. */
void ra_policy_pattern_plan(struct ra_policy_pattern *pattern, int32_t n, struct ra_plan *plan);

/* Attend to the first `sinks` positions and the `recent` newest before self. */
void ra_policy_pattern_plan_sinks(struct ra_policy_pattern *pattern, int32_t sinks, int32_t recent,
                                  int32_t self, struct ra_plan *plan);

#ifdef __cplusplus
}
#endif

#endif
