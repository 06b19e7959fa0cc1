/* SPDX-License-Identifier: Apache-2.0 */
/* The listing of metrics, in the form of the others in list.h. */
#ifndef RA_SIM_CLI_LIST_METRICS_H
#define RA_SIM_CLI_LIST_METRICS_H

#include <jansson.h>

#include "sim/base/error.h"

RA_MUST_CHECK enum ra_status ra_list_metrics(json_t *rows, const char *db, struct ra_error *err);
void ra_list_print_metrics(const json_t *rows, int verbosity);

#endif
