/* SPDX-License-Identifier: Apache-2.0 */
/* Room for sets that a policy chooses anew at each step: one for each KV head, or query head. */
#ifndef RA_SIM_POLICY_SETS_H
#define RA_SIM_POLICY_SETS_H

#include "sim/step.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_policy_sets {
    struct ra_positions *sets; /* [n] for ra_plan.sets */
    int32_t *pos;              /* [n][most] */
    int32_t most;
};

/* n sets of at most `most` positions. `name` opens messages. A zeroed one may be closed. */
RA_MUST_CHECK enum ra_status ra_policy_sets_open(struct ra_policy_sets *sets, const char *name,
                                                 int n, int32_t most, struct ra_error *err);
void ra_policy_sets_close(struct ra_policy_sets *sets);

/* [most] positions of a set, to be filled ascending. */
int32_t *ra_policy_sets_room(const struct ra_policy_sets *sets, int number);

/* The set has the first n of them. */
void ra_policy_sets_put(struct ra_policy_sets *sets, int number, int32_t n);

#ifdef __cplusplus
}
#endif

#endif
