/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of a config.json that would change the arithmetic in a way this decoder does not do. */
#ifndef RA_TRACES_MODEL_CONFIG_UNSUPPORTED_H
#define RA_TRACES_MODEL_CONFIG_UNSUPPORTED_H

#include "traces/model/config_keys.h"

#ifdef __cplusplus
extern "C" {
#endif

/* RA_EUSAGE for the first that is set to anything but what leaves the arithmetic as it is. */
RA_MUST_CHECK enum ra_status ra_lm_config_unsupported(const struct ra_lm_keys *keys,
                                                      struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
