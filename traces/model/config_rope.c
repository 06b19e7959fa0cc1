/* SPDX-License-Identifier: Apache-2.0 */
/* One object at a time, whatever it is called: type, base, and what the type needs. Keys that no
 * supported type has are refused, since one of them may be what the angles depend on. */
#include "traces/model/config_rope.h"

#include <math.h>
#include <string.h>

static const double MAX_THETA = 1e15, MAX_FACTOR = 1e6;
static const double THETA = 1e4, THETA_FULL = 1e6, THETA_LOCAL = 1e4; /* where none is stated */

static enum ra_status read_theta(const struct ra_lm_keys *keys, const char *key, double *theta,
                                 struct ra_error *err)
{
    return ra_lm_keys_real(keys, key, false, 1, MAX_THETA, theta, err);
}

/* "type" is the older spelling; files written between the versions have both. */
static enum ra_status read_type(const struct ra_lm_keys *keys, enum ra_rope_type *type,
                                struct ra_error *err)
{
    const char *key = ra_lm_keys_get(keys, "rope_type") ? "rope_type" : "type";
    const char *text = "default", *older = NULL;
    RA_TRY(ra_lm_keys_text(keys, key, &text, err));
    RA_TRY(ra_lm_keys_text(keys, "type", &older, err));
    if (older && strcmp(text, older) != 0)
        return ra_lm_keys_fail(keys, RA_EFORMAT, "type", "the same as rope_type", err);
    if (strcmp(text, "default") == 0)
        *type = RA_ROPE_DEFAULT;
    else if (strcmp(text, "linear") == 0)
        *type = RA_ROPE_LINEAR;
    else if (strcmp(text, "llama3") == 0)
        *type = RA_ROPE_LLAMA3;
    else
        return ra_lm_keys_fail(keys, RA_EUSAGE, key, "default, linear or llama3", err);
    return RA_OK;
}

static enum ra_status check_keys(const struct ra_lm_keys *keys, struct ra_error *err)
{
    static const char *const known[] = {"type",
                                        "rope_type",
                                        "rope_theta",
                                        "factor",
                                        "low_freq_factor",
                                        "high_freq_factor",
                                        "original_max_position_embeddings",
                                        "partial_rotary_factor"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)keys->object, key, value)
    {
        size_t i = 0;
        while (i < sizeof known / sizeof known[0] && strcmp(key, known[i]) != 0)
            i++;
        if (i == sizeof known / sizeof known[0] && !json_is_null(value))
            return ra_lm_keys_fail(keys, RA_EUSAGE, key, "no such key (it is not supported)", err);
    }
    double part = 1;
    RA_TRY(ra_lm_keys_real(keys, "partial_rotary_factor", false, 0, 1, &part, err));
    return part < 1 ? ra_lm_keys_fail(keys, RA_EUSAGE, "partial_rotary_factor", "1", err) : RA_OK;
}

/* theta stays where the object states none. */
static enum ra_status read_object(const struct ra_lm_keys *keys, struct ra_rope *rope,
                                  struct ra_error *err)
{
    RA_TRY(read_type(keys, &rope->type, err));
    RA_TRY(check_keys(keys, err));
    RA_TRY(read_theta(keys, "rope_theta", &rope->theta, err));
    if (rope->type == RA_ROPE_DEFAULT)
        return RA_OK;
    RA_TRY(ra_lm_keys_real(keys, "factor", true, 1, MAX_FACTOR, &rope->factor, err));
    if (rope->type == RA_ROPE_LINEAR)
        return RA_OK;
    double low = 0, high = 0;
    RA_TRY(ra_lm_keys_real(keys, "low_freq_factor", true, 1e-3, MAX_FACTOR, &low, err));
    RA_TRY(ra_lm_keys_real(keys, "high_freq_factor", true, 1e-3, MAX_FACTOR, &high, err));
    if (high <= low)
        return ra_lm_keys_fail(keys, RA_EFORMAT, "high_freq_factor",
                               "a number above low_freq_factor", err);
    rope->low_freq_factor = low;
    rope->high_freq_factor = high;
    return ra_lm_keys_real(keys, "original_max_position_embeddings", true, 1, INT32_MAX,
                           &rope->original_max_position, err);
}

static bool is_by_layer_type(const struct ra_lm_keys *keys)
{
    return json_object_get(keys->object, "full_attention") ||
           json_object_get(keys->object, "sliding_attention");
}

/* {"full_attention": {...}, "sliding_attention": {...}} and nothing else. */
static enum ra_status read_by_layer_type(const struct ra_lm_keys *keys, struct ra_rope *rope,
                                         struct ra_rope *local, struct ra_error *err)
{
    struct ra_lm_keys inner;
    RA_TRY(ra_lm_keys_object(keys, "full_attention", &inner, err));
    RA_TRY(read_object(&inner, rope, err));
    RA_TRY(ra_lm_keys_object(keys, "sliding_attention", &inner, err));
    RA_TRY(read_object(&inner, local, err));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)keys->object, key, value)
    {
        if (strcmp(key, "full_attention") != 0 && strcmp(key, "sliding_attention") != 0)
            return ra_lm_keys_fail(keys, RA_EUSAGE, key, "full_attention or sliding_attention",
                                   err);
    }
    return RA_OK;
}

/* A base that is stated twice must be one. */
static enum ra_status check_theta(const struct ra_lm_keys *keys, const char *key, double theta,
                                  struct ra_error *err)
{
    double stated = theta;
    RA_TRY(read_theta(keys, key, &stated, err));
    if (fabs(stated - theta) > 0)
        return ra_lm_keys_fail(keys, RA_EFORMAT, key, "the same as in rope_parameters", err);
    return RA_OK;
}

enum ra_status ra_lm_config_rope(const struct ra_lm_keys *keys, bool dual, struct ra_rope *rope,
                                 struct ra_rope *local, struct ra_error *err)
{
    *rope = (struct ra_rope){.type = RA_ROPE_DEFAULT, .theta = dual ? THETA_FULL : THETA};
    *local = (struct ra_rope){.type = RA_ROPE_DEFAULT, .theta = dual ? THETA_LOCAL : THETA};
    RA_TRY(read_theta(keys, "rope_theta", &rope->theta, err));
    if (dual)
        RA_TRY(read_theta(keys, "rope_local_base_freq", &local->theta, err));
    struct ra_lm_keys scaling, parameters;
    RA_TRY(ra_lm_keys_object(keys, "rope_scaling", &scaling, err));
    RA_TRY(ra_lm_keys_object(keys, "rope_parameters", &parameters, err));
    if (scaling.object && parameters.object && !json_equal(scaling.object, parameters.object))
        return ra_lm_keys_fail(keys, RA_EFORMAT, "rope_scaling", "nothing beside rope_parameters",
                               err);
    if (dual && is_by_layer_type(&parameters)) {
        RA_TRY(read_by_layer_type(&parameters, rope, local, err));
        RA_TRY(check_theta(keys, "rope_local_base_freq", local->theta, err));
    } else {
        RA_TRY(read_object(parameters.object ? &parameters : &scaling, rope, err));
    }
    if (!dual)
        *local = *rope;
    return check_theta(keys, "rope_theta", rope->theta, err);
}
