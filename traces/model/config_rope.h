/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rotary embedding as a config.json states it. Spellings differ by version of the library that
 * wrote it: rope_theta beside rope_scaling, or both in rope_parameters, which may be one object per
 * type of layer.
 */
#ifndef RA_TRACES_MODEL_CONFIG_ROPE_H
#define RA_TRACES_MODEL_CONFIG_ROPE_H

#include "sim/model.h"
#include "traces/model/config_keys.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * *rope for layers with full attention, *local for those that slide. `dual`: the two have bases of
 * their own (1e6, and rope_local_base_freq or 1e4, unless stated), and scaling is of the first
 * only; else they are the same, base 1e4 unless stated. Errors: RA_EFORMAT; RA_EUSAGE for types
 * other than default, linear and llama3.
 */
RA_MUST_CHECK enum ra_status ra_lm_config_rope(const struct ra_lm_keys *keys, bool dual,
                                               struct ra_rope *rope, struct ra_rope *local,
                                               struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
