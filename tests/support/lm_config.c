/* SPDX-License-Identifier: Apache-2.0 */
/* Changes are made by jansson, not by the code under test. */
#include "tests/support/lm_config.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/ra_test.h"
#include "tests/support/tmp_dir.h"

char *lm_json(const char *text)
{
    char *copy = strdup(text);
    assert_non_null(copy);
    for (char *c = copy; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    return copy;
}

static json_t *parsed(const char *text)
{
    char *copy = lm_json(text);
    json_error_t error;
    json_t *value = json_loads(copy, JSON_REJECT_DUPLICATES, &error);
    if (!value)
        fail_msg("%s: %s", copy, error.text);
    free(copy);
    return value;
}

void lm_config_write(const char *base, const char *change)
{
    json_t *object = parsed(base), *edit = parsed(change), *value;
    const char *key;
    json_object_foreach(edit, key, value)
    {
        const char *text = json_string_value(value);
        if (text && strcmp(text, "DROP") == 0)
            json_object_del(object, key);
        else
            json_object_set(object, key, value);
    }
    char *text = json_dumps(object, JSON_INDENT(2));
    assert_non_null(text);
    tmp_write(tmp_path(tmp_dir, "config.json"), text, strlen(text));
    free(text);
    json_decref(object);
    json_decref(edit);
}

struct ra_lm_config *lm_config_opened(const char *base, const char *change)
{
    struct ra_error err;
    struct ra_lm_config *config = NULL;
    lm_config_write(base, change);
    ra_assert_ok(ra_lm_config_open(&config, tmp_dir, &err));
    return config;
}

void lm_config_refused(const char *base, const char *change, enum ra_status status,
                       const char *text)
{
    struct ra_error err;
    struct ra_lm_config *config = NULL;
    lm_config_write(base, change);
    ra_assert_fails(ra_lm_config_open(&config, tmp_dir, &err), status, text);
    assert_null(config);
    assert_non_null(strstr(err.msg, "/config.json: "));
}
