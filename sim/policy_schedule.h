/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a layer runs a full step: every stride-th step, or at those steps if its query has turned
 * away from that of its last full step. The schedule follows from the queries alone; no score is
 * looked at.
 */
#ifndef RA_SIM_POLICY_SCHEDULE_H
#define RA_SIM_POLICY_SCHEDULE_H

#include "sim/policy.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Step t is the paper's step i = t + 1. */
struct ra_schedule_rule {
    int32_t stride;   /* due at (i + steps ahead) mod stride = 0 */
    bool stagger;     /* by the layer's number more ahead */
    double sim;       /* when due, full unless the cosine exceeds it; NaN: always full */
    bool before_rope; /* compare mean queries turned back to position 0 */
    bool all_layers;  /* decide together, by the queries of step t - 1 and their smallest cosine */
    bool is_follower; /* this layer never runs a full step and takes no part in decisions */
};

/* Steps by which a stride's full steps are early: of this sequence among those of its batch. */
int32_t ra_schedule_ahead(const struct ra_policy_env *env, int32_t stride);

struct ra_schedule;

/*
 * rules [env->n_layers] are copied; env is borrowed. RA_EUSAGE, opening with `name`, when queries
 * cannot be un-rotated or layers that decide together have different rules. The query of the last
 * prompt token is the first reference.
 */
RA_MUST_CHECK enum ra_status ra_schedule_open(struct ra_schedule **schedule, const char *name,
                                              const struct ra_policy_env *env,
                                              const struct ra_schedule_rule *rules,
                                              struct ra_error *err);
void ra_schedule_close(struct ra_schedule *schedule);

/*
 * Decide a decode step, once, in the order of steps of that layer; a full step's query becomes the
 * layer's reference. Fills plan->checks_query, sim and query_cosine: this layer's own cosine,
 * clamped to [-1, 1]; NaN where a norm is zero, and then the step is full.
 */
bool ra_schedule_is_full(struct ra_schedule *schedule, const struct ra_step *step,
                         struct ra_plan *plan);

#ifdef __cplusplus
}
#endif

#endif
