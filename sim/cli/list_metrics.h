/* SPDX-License-Identifier: Apache-2.0 */
/* The listings of metrics, in the form of the others in list.h. */
#ifndef RA_SIM_CLI_LIST_METRICS_H
#define RA_SIM_CLI_LIST_METRICS_H

#include <jansson.h>

#include "sim/base/error.h"

/* All metrics; or, with the name of a chip, the counters of GPUs with what CUPTI says of them on
 * it: errors as ra_counter_probe. */
RA_MUST_CHECK enum ra_status ra_list_metrics(json_t *rows, const char *chip, struct ra_error *err);
void ra_list_print_metrics(const json_t *rows, int verbosity);

#endif
