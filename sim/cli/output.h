/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Putting results on stdout. Text may come from a foreign file: control bytes must not reach a
 * terminal, and what is not UTF-8 must not break JSON.
 */
#ifndef RA_SIM_CLI_OUTPUT_H
#define RA_SIM_CLI_OUTPUT_H

#include <jansson.h>

#include "sim/base/error.h"

/* Print with control bytes as '?'. NULL prints as "-". */
void ra_put_safe(const char *text);

/* A JSON string; null for NULL; bytes beyond ASCII become '?' where the text is not UTF-8. */
json_t *ra_json_text(const char *text);

/* A JSON number; null for NaN and Inf. */
json_t *ra_json_real(double value);

/* Dump `value`, indented, with a newline. */
RA_MUST_CHECK enum ra_status ra_put_json(const json_t *value, struct ra_error *err);

#endif
