/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata values as types. A container states text only; here a number is a number or an error
 * that names file, key, expected and got: no sign, blank, leading zero or trailing character.
 */
#ifndef RA_TRACES_METADATA_H
#define RA_TRACES_METADATA_H

#include <stdbool.h>
#include <stdint.h>

#include "traces/shards.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "PATH: metadata: KEY: ..." as RA_EFORMAT; `got` NULL reads as "nothing". */
enum ra_status ra_metadata_fail(const struct ra_shards *shards, const char *key,
                                const char *expected, const char *got, struct ra_error *err);

/* RA_EFORMAT when absent. */
RA_MUST_CHECK enum ra_status ra_metadata_text(const struct ra_shards *shards, const char *key,
                                              const char **value, struct ra_error *err);

/* A decimal integer within [min, max]. Absent and not required, *value stays as it is. */
RA_MUST_CHECK enum ra_status ra_metadata_int(const struct ra_shards *shards, const char *key,
                                             bool required, int32_t min, int32_t max,
                                             int32_t *value, struct ra_error *err);

/* A positive finite decimal number, exponent allowed. Required. */
RA_MUST_CHECK enum ra_status ra_metadata_real(const struct ra_shards *shards, const char *key,
                                              double *value, struct ra_error *err);

/* Absent, or one of the words in `allowed` ("none|0"); else an error that names the value. */
RA_MUST_CHECK enum ra_status ra_metadata_only(const struct ra_shards *shards, const char *key,
                                              const char *allowed, struct ra_error *err);

/*
 * Cut the next item off a comma-separated list: *list moves on, NULL after the last. False when
 * there was none left, or when an item is empty or does not fit (*item is "" then).
 */
bool ra_metadata_item(const char **list, char *item, size_t size);

/* Strict decimal, 0 to INT32_MAX. */
bool ra_metadata_parse_int(const char *text, int32_t *value);

#ifdef __cplusplus
}
#endif

#endif
