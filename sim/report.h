/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results for people and machines: one rendering of an array of result objects (the keys of
 * `replay --format json`), used when a replay ends and whenever a store is read again, so that
 * both say the same.
 */
#ifndef RA_SIM_REPORT_H
#define RA_SIM_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include <jansson.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum ra_report_format { RA_REPORT_TEXT, RA_REPORT_JSON, RA_REPORT_CSV };

/*
 * Write `results`, an array of objects, to the caller's stream; the caller checks the stream for
 * errors. Values that are missing, null or of a type that makes no sense print as "-" (text), an
 * empty field (csv), as they are (json).
 *
 *   text  a table per (trace, sequence, backend, device, method), in order of appearance, so that
 *         times of two methods never share a column: the trace's line, one row per policy without
 *         the parameters that have their defaults, notes, and of rows with counters what their
 *         traffic is of; at most 80 columns
 *   json  the object when there is one, the array when there are several or none
 *   csv   quoted as in RFC 4180, with a heading; nested names joined by dots, columns in the order
 * in which the first object has them, then those that later objects add; lists joined by "/",
 *         lists of objects as JSON
 *
 * Errors: RA_EFORMAT when `results` is no array of objects; RA_ENOMEM.
 */
RA_MUST_CHECK enum ra_status ra_report_write(FILE *out, const json_t *results,
                                             enum ra_report_format format, struct ra_error *err);

/* One field, quoted where it must be; nothing for NULL. */
void ra_report_csv_field(FILE *out, const char *text);

/* The same in CSV, for ra_report_write. */
RA_MUST_CHECK enum ra_status ra_report_csv(FILE *out, const json_t *results, struct ra_error *err);

/*
 * A policy's canonical spelling without the parameters that have their default, as a user would
 * type it. A spelling that this version does not know is copied. Cut to fit, as snprintf does.
 */
void ra_report_short_policy(const char *canonical, char *out, size_t size);

/* Whether a policy exists offline only, a bound and no schedule that could be advised. Lack of
 * memory to find out is noted, see ra_json_lack. */
bool ra_report_is_bound(const char *canonical);

#ifdef __cplusplus
}
#endif

#endif
