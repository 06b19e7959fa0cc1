/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache of one (layer, KV head) whose entries have scores, by which it is cut when a position
 * enters: what H2O and TOVA have in common.
 */
#ifndef RA_SIM_POLICY_CUT_H
#define RA_SIM_POLICY_CUT_H

#include "sim/policy.h"
#include "sim/policy_cache.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_policy_cut {
    struct ra_policy_cache cache; /* in no order of eviction: scores decide at each cut */
    double *score;                /* [capacity] of the set's positions, ascending */
    bool is_scored;               /* false once the cache was chosen elsewhere */
};

struct ra_cut_layer {
    struct ra_cut_rule rule;
    struct ra_select_rule first; /* what the rule leaves of the prompt, where a backend can tell */
    int32_t *recent;             /* [Hkv] of rule */
    struct ra_policy_cut *heads; /* [Hkv] */
};

/* The state of such a policy. */
struct ra_cut_policy {
    struct ra_policy_env env;
    double *score;               /* [P + N] */
    uint64_t *scratch;           /* [P + N] */
    struct ra_cut_layer *layers; /* [env.n_layers] */
};

/* Hooks of struct ra_policy_ops; `name` opens messages. `open` leaves the layers to the policy. */
RA_MUST_CHECK enum ra_status ra_cut_open(struct ra_cut_policy **policy, const char *name,
                                         const struct ra_policy_env *env, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_cut_learn(void *self, const struct ra_step *step,
                                          const struct ra_scores *scores, struct ra_plan *plan,
                                          struct ra_error *err);
void ra_cut_install(void *self, const struct ra_step *step, int kv_head,
                    const struct ra_positions *evict_order);
void ra_cut_view(const void *self, int layer, int kv_head, struct ra_retained *view);
void ra_cut_close(void *self);

/* The caches of a layer: `rule` without its numbers, which follow from k and from the share of it
 * that the newest positions have. */
RA_MUST_CHECK enum ra_status ra_cut_open_layer(struct ra_cut_policy *policy, int index,
                                               struct ra_fraction k, double recent,
                                               struct ra_cut_rule rule, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
