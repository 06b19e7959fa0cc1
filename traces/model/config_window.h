/* SPDX-License-Identifier: Apache-2.0 */
/* Which layers of a model attend to a sliding window, from its config.json. */
#ifndef RA_TRACES_MODEL_CONFIG_WINDOW_H
#define RA_TRACES_MODEL_CONFIG_WINDOW_H

#include "traces/model/config_keys.h"

#ifdef __cplusplus
extern "C" {
#endif

enum ra_lm_window_rule {
    RA_LM_WINDOW_NONE,   /* llama: no layer slides */
    RA_LM_WINDOW_ALL,    /* mistral: all slide, unless sliding_window is null */
    RA_LM_WINDOW_LAST,   /* qwen: with use_sliding_window, those from max_window_layers on */
    RA_LM_WINDOW_PATTERN /* gemma3: all but every sliding_window_pattern-th, 6 unless stated */
};

/*
 * Fill slides [n_layers] and *window, 0 when no layer slides. layer_types, where stated, decides
 * for the last two rules and must agree with the first two. RA_EFORMAT, RA_EUSAGE.
 */
RA_MUST_CHECK enum ra_status ra_lm_config_window(const struct ra_lm_keys *keys,
                                                 enum ra_lm_window_rule rule, int n_layers,
                                                 bool *slides, int32_t *window,
                                                 struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
