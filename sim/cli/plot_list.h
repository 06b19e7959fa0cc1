/* SPDX-License-Identifier: Apache-2.0 */
/* The listing of figures, in the form of the others in list.h. */
#ifndef RA_SIM_CLI_PLOT_LIST_H
#define RA_SIM_CLI_PLOT_LIST_H

#include <jansson.h>

#include "sim/base/error.h"

RA_MUST_CHECK enum ra_status ra_list_figures(json_t *rows, const char *db, struct ra_error *err);
void ra_list_print_figures(const json_t *rows, int verbosity);

#endif
