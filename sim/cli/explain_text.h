/* SPDX-License-Identifier: Apache-2.0 */
/* The story of ra_explain on stdout. Used by cmd_explain.c. */
#ifndef RA_SIM_CLI_EXPLAIN_TEXT_H
#define RA_SIM_CLI_EXPLAIN_TEXT_H

#include "sim/cli/explain.h"

/* Lists of positions longer than three lines are cut unless `is_verbose`. */
void ra_explain_text(const struct ra_scene *scene, const json_t *story, bool is_verbose);

#endif
