/* SPDX-License-Identifier: Apache-2.0 */
/* Layers as the command line spells them: "0,9,20-29". */
#ifndef RA_SIM_CLI_LAYER_LIST_H
#define RA_SIM_CLI_LAYER_LIST_H

#include "sim/base/error.h"

enum { RA_LAYER_LIST_MAX = 4096 };

/* Decimal, 0 to 4095, at *at, which moves behind it; RA_EUSAGE, without a message, for others. */
RA_MUST_CHECK enum ra_status ra_layer_number(const char **at, int *value);

/* Fill layers [RA_LAYER_LIST_MAX], in the order given. RA_EUSAGE naming --layers. */
RA_MUST_CHECK enum ra_status ra_layer_list(const char *text, int *layers, int *n,
                                           struct ra_error *err);

#endif
