/* SPDX-License-Identifier: Apache-2.0 */
/* What sim/policy.c needs of a parsed spelling beyond sim/policy.h. Internal to policies. */
#ifndef RA_SIM_POLICY_SPEC_H
#define RA_SIM_POLICY_SPEC_H

#include "sim/policy.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Longest spelling, given or canonical. */
enum { RA_SPELLING_MAX = 1024 };

/* RA_EUSAGE naming the "key@layers" that speaks of layers beyond the model's. */
RA_MUST_CHECK enum ra_status ra_policy_spec_fits(const struct ra_policy_spec *spec,
                                                 const struct ra_model *model,
                                                 struct ra_error *err);

/* Has any layer KV heads with values of their own? And the budget of one of them: -1 for want of
 * memory. */
bool ra_policy_spec_has_heads(const struct ra_policy_spec *spec);
int32_t ra_policy_spec_head_k(const struct ra_policy_spec *spec, int layer_id, int head, int32_t P);

/* The parameters of one layer, by its number in the model: out has ops->params_size bytes. */
void ra_policy_spec_resolve(const struct ra_policy_spec *spec, int layer_id, void *out);

#ifdef __cplusplus
}
#endif

#endif
