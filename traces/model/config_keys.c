/* SPDX-License-Identifier: Apache-2.0 */
/* A value that does not fit is shown as JSON, cut when long. */
#include "traces/model/config_keys.h"

#include <math.h>
#include <stdio.h>

enum ra_status ra_lm_keys_fail(const struct ra_lm_keys *keys, enum ra_status code, const char *key,
                               const char *expected, struct ra_error *err)
{
    char got[100] = "nothing";
    const json_t *value = json_object_get(keys->object, key);
    if (value) {
        size_t n = json_dumpb(value, got, sizeof got - 1, JSON_ENCODE_ANY | JSON_COMPACT);
        if (n >= sizeof got)
            snprintf(got + sizeof got - 4, 4, "...");
        else if (n > 0)
            got[n] = '\0';
    }
    return ra_fail(err, code, "%s: %s%s: expected %s, got %s", keys->path, keys->inside, key,
                   expected, got);
}

const json_t *ra_lm_keys_get(const struct ra_lm_keys *keys, const char *key)
{
    const json_t *value = json_object_get(keys->object, key);
    return json_is_null(value) ? NULL : value;
}

enum ra_status ra_lm_keys_object(const struct ra_lm_keys *keys, const char *key,
                                 struct ra_lm_keys *inner, struct ra_error *err)
{
    const json_t *value = ra_lm_keys_get(keys, key);
    if (value && !json_is_object(value))
        return ra_lm_keys_fail(keys, RA_EFORMAT, key, "an object", err);
    *inner = (struct ra_lm_keys){.path = keys->path, .object = value};
    snprintf(inner->inside, sizeof inner->inside, "%.40s%.48s.", keys->inside, key);
    return RA_OK;
}

enum ra_status ra_lm_keys_int(const struct ra_lm_keys *keys, const char *key, bool required,
                              int32_t min, int32_t max, int32_t *value, struct ra_error *err)
{
    const json_t *got = ra_lm_keys_get(keys, key);
    if (!got && !required)
        return RA_OK;
    if (!json_is_integer(got) || json_integer_value(got) < min || json_integer_value(got) > max) {
        char expected[64];
        snprintf(expected, sizeof expected, "an integer from %d to %d", min, max);
        return ra_lm_keys_fail(keys, RA_EFORMAT, key, expected, err);
    }
    *value = (int32_t)json_integer_value(got);
    return RA_OK;
}

enum ra_status ra_lm_keys_real(const struct ra_lm_keys *keys, const char *key, bool required,
                               double min, double max, double *value, struct ra_error *err)
{
    const json_t *got = ra_lm_keys_get(keys, key);
    if (!got && !required)
        return RA_OK;
    double number = json_is_number(got) ? json_number_value(got) : NAN;
    if (!(number >= min && number <= max)) {
        char expected[64];
        snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
        return ra_lm_keys_fail(keys, RA_EFORMAT, key, expected, err);
    }
    *value = number;
    return RA_OK;
}

enum ra_status ra_lm_keys_bool(const struct ra_lm_keys *keys, const char *key, bool *value,
                               struct ra_error *err)
{
    const json_t *got = ra_lm_keys_get(keys, key);
    if (got && !json_is_boolean(got))
        return ra_lm_keys_fail(keys, RA_EFORMAT, key, "true or false", err);
    if (got)
        *value = json_is_true(got);
    return RA_OK;
}

enum ra_status ra_lm_keys_text(const struct ra_lm_keys *keys, const char *key, const char **value,
                               struct ra_error *err)
{
    const json_t *got = ra_lm_keys_get(keys, key);
    if (got && !json_is_string(got))
        return ra_lm_keys_fail(keys, RA_EFORMAT, key, "a string", err);
    if (got)
        *value = json_string_value(got);
    return RA_OK;
}
