/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listings behind `list`: each appends one object per row to `rows`, and prints such rows as
 * text. Used by cmd_list.c and, for devices, by `doctor`.
 */
#ifndef RA_SIM_CLI_LIST_H
#define RA_SIM_CLI_LIST_H

#include <jansson.h>

#include "sim/base/error.h"

/* `db` is used by runs only. */
RA_MUST_CHECK enum ra_status ra_list_policies(json_t *rows, const char *db, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_list_backends(json_t *rows, const char *db, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_list_devices(json_t *rows, const char *db, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_list_runs(json_t *rows, const char *db, struct ra_error *err);

/* What a parameter may be, for people: "0..64", "1 or more", "any", "max|mean", "0..64, mid". Words
 * alone have no range: min and max 0. */
void ra_list_range(const char *choices, double min, double max, char *out, size_t size);

/* More detail with verbosity > 0. */
void ra_list_print_policies(const json_t *rows, int verbosity);
void ra_list_print_backends(const json_t *rows, int verbosity);
void ra_list_print_devices(const json_t *rows, int verbosity);
void ra_list_print_runs(const json_t *rows, int verbosity);

#endif
