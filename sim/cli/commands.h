/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of the command table, one per cmd_NAME.c. main.c lists them; nothing else needs them. */
#ifndef RA_SIM_CLI_COMMANDS_H
#define RA_SIM_CLI_COMMANDS_H

#include "sim/cli/options.h"

extern const struct ra_command ra_cmd_explain;
extern const struct ra_command ra_cmd_record;
extern const struct ra_command ra_cmd_info;
extern const struct ra_command ra_cmd_replay;
extern const struct ra_command ra_cmd_eval;
extern const struct ra_command ra_cmd_speculate;
extern const struct ra_command ra_cmd_import;
extern const struct ra_command ra_cmd_compare;
extern const struct ra_command ra_cmd_report;
extern const struct ra_command ra_cmd_plot;
extern const struct ra_command ra_cmd_export;
extern const struct ra_command ra_cmd_list;
extern const struct ra_command ra_cmd_metrics;
extern const struct ra_command ra_cmd_doctor;

#endif
