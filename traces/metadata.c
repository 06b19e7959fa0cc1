/* SPDX-License-Identifier: Apache-2.0 */
/* Strict readings of text; the whole value must match, or the message shows it. */
#include "traces/metadata.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum ra_status ra_metadata_fail(const struct ra_shards *shards, const char *key,
                                const char *expected, const char *got, struct ra_error *err)
{
    return ra_fail(err, RA_EFORMAT, "%s: metadata: %s: expected %s, got %s%.80s%s",
                   ra_shards_path(shards), key, expected, got ? "'" : "", got ? got : "nothing",
                   got ? "'" : "");
}

enum ra_status ra_metadata_text(const struct ra_shards *shards, const char *key, const char **value,
                                struct ra_error *err)
{
    *value = ra_shards_metadata(shards, key);
    if (*value)
        return RA_OK;
    return ra_fail(err, RA_EFORMAT, "%s: metadata: %s: missing", ra_shards_path(shards), key);
}

bool ra_metadata_parse_int(const char *text, int32_t *value)
{
    int64_t sum = 0;
    size_t n = strspn(text, "0123456789");
    if (n == 0 || n > 10 || text[n] != '\0' || (n > 1 && text[0] == '0'))
        return false;
    for (size_t i = 0; i < n; i++)
        sum = 10 * sum + (text[i] - '0');
    *value = (int32_t)sum;
    return sum <= INT32_MAX;
}

enum ra_status ra_metadata_int(const struct ra_shards *shards, const char *key, bool required,
                               int32_t min, int32_t max, int32_t *value, struct ra_error *err)
{
    const char *text = ra_shards_metadata(shards, key);
    if (!text && !required)
        return RA_OK;
    RA_TRY(ra_metadata_text(shards, key, &text, err));
    int32_t parsed;
    if (!ra_metadata_parse_int(text, &parsed) || parsed < min || parsed > max) {
        char expected[64];
        if (min == max)
            snprintf(expected, sizeof expected, "%d", min);
        else
            snprintf(expected, sizeof expected, "an integer from %d to %d", min, max);
        return ra_metadata_fail(shards, key, expected, text, err);
    }
    *value = parsed;
    return RA_OK;
}

enum ra_status ra_metadata_real(const struct ra_shards *shards, const char *key, double *value,
                                struct ra_error *err)
{
    const char *text;
    RA_TRY(ra_metadata_text(shards, key, &text, err));
    char *end = NULL;
    size_t n = strspn(text, "0123456789.eE+-"); /* strtod alone would take "inf" and "0x1p3" */
    double parsed = n > 0 && text[n] == '\0' ? strtod(text, &end) : NAN;
    if (!end || *end != '\0' || !isfinite(parsed) || parsed <= 0)
        return ra_metadata_fail(shards, key, "a positive number", text, err);
    *value = parsed;
    return RA_OK;
}

enum ra_status ra_metadata_only(const struct ra_shards *shards, const char *key,
                                const char *allowed, struct ra_error *err)
{
    const char *text = ra_shards_metadata(shards, key);
    if (!text)
        return RA_OK;
    for (const char *word = allowed; word; word = strchr(word, '|')) {
        word += *word == '|';
        size_t n = strcspn(word, "|");
        if (strlen(text) == n && memcmp(text, word, n) == 0)
            return RA_OK;
    }
    char expected[96];
    snprintf(expected, sizeof expected, "%s (rattn-trace 1.0 holds nothing else)", allowed);
    return ra_metadata_fail(shards, key, expected, text, err);
}

bool ra_metadata_item(const char **list, char *item, size_t size)
{
    item[0] = '\0';
    if (!*list)
        return false;
    size_t n = strcspn(*list, ",");
    const char *rest = (*list)[n] == ',' ? *list + n + 1 : NULL;
    bool fits = n > 0 && n < size;
    if (fits) {
        memcpy(item, *list, n);
        item[n] = '\0';
    }
    *list = rest;
    return fits;
}
