/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Typed members of one object of a config.json: every value has a type and a range, or the message
 * names file, key, what was expected and what came. null reads as absent, as Hugging Face reads it.
 */
#ifndef RA_TRACES_MODEL_CONFIG_KEYS_H
#define RA_TRACES_MODEL_CONFIG_KEYS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Borrowed; object NULL has no members. */
struct ra_lm_keys {
    const char *path;
    char inside[96]; /* before a key in messages: "", "text_config." */
    const json_t *object;
};

/* "PATH: KEY: expected ..., got ..." as `code`. */
enum ra_status ra_lm_keys_fail(const struct ra_lm_keys *keys, enum ra_status code, const char *key,
                               const char *expected, struct ra_error *err);

/* NULL when absent or null. */
const json_t *ra_lm_keys_get(const struct ra_lm_keys *keys, const char *key);

/* The object that is a member; inner->object is NULL when absent. */
RA_MUST_CHECK enum ra_status ra_lm_keys_object(const struct ra_lm_keys *keys, const char *key,
                                               struct ra_lm_keys *inner, struct ra_error *err);

/* Absent, *value stays as it is, but for numbers that are required. RA_EFORMAT. */
RA_MUST_CHECK enum ra_status ra_lm_keys_int(const struct ra_lm_keys *keys, const char *key,
                                            bool required, int32_t min, int32_t max, int32_t *value,
                                            struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_lm_keys_real(const struct ra_lm_keys *keys, const char *key,
                                             bool required, double min, double max, double *value,
                                             struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_lm_keys_bool(const struct ra_lm_keys *keys, const char *key,
                                             bool *value, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_lm_keys_text(const struct ra_lm_keys *keys, const char *key,
                                             const char **value, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
