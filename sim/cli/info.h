/* SPDX-License-Identifier: Apache-2.0 */
/* What a trace says of itself, for people and as JSON. Used by cmd_info.c. */
#ifndef RA_SIM_CLI_INFO_H
#define RA_SIM_CLI_INFO_H

#include <jansson.h>

#include "traces/trace.h"

/* Shapes, layers, sequences, sizes and provenance; NULL when memory runs out. Caller owns it. */
json_t *ra_info_json(const struct ra_trace *trace);

/* The same on stdout. More than 20 sequences are summed up unless `is_verbose`. */
void ra_info_text(const struct ra_trace *trace, bool is_verbose);

#endif
