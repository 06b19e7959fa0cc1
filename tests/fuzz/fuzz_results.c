/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results as JSON from anywhere: a saved file given to --check, or what a store holds. Every
 * rendering keeps the rules of its format, JSON reads back to what it was, and a result equals
 * itself.
 */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/report.h"
#include "sim/verify.h"

static void same_json(const json_t *results, const char *text, size_t n)
{
    json_t *again = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
    size_t size = json_array_size(results);
    const json_t *expected = size == 1 ? json_array_get(results, 0) : results;
    FUZZ_CHECK(again && json_equal(again, expected), "%s", text);
    json_decref(again);
}

static void write_as(const json_t *results, enum ra_report_format format)
{
    struct ra_error err = FUZZ_NO_ERROR;
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    FUZZ_CHECK(out, "memory");
    enum ra_status status = ra_report_write(out, results, format, &err);
    fuzz_check_error(status, &err);
    FUZZ_CHECK(fclose(out) == 0, "memory");
    if (format == RA_REPORT_TEXT)
        fuzz_check_text(text, n);
    else if (format == RA_REPORT_CSV && status == RA_OK)
        fuzz_check_csv(text, n);
    else if (status == RA_OK)
        same_json(results, text, n);
    free(text);
}

static bool has_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text && *text;
}

static void compare(const json_t *results, const char *path)
{
    struct ra_error err = FUZZ_NO_ERROR;
    const json_t *first = json_array_get(results, 0);
    enum ra_status status = ra_verify_against(results, NULL, path, &err);
    fuzz_check_error(status, &err);
    if (json_array_size(results) != 1 || !has_text(first, "policy") ||
        !has_text(first, "fingerprint") || !json_is_integer(json_object_get(first, "sequence")))
        return;
    FUZZ_CHECK(status == RA_OK, "%s", err.msg);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = fuzz_path("results.json");
    json_t *value = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    fuzz_write(path, data, size);
    json_t *results = json_is_array(value) ? json_incref(value) : json_array();
    if (json_is_object(value))
        json_array_append(results, value);
    compare(results, path);
    if (value)
        for (int format = RA_REPORT_TEXT; format <= RA_REPORT_CSV; format++)
            write_as(results, (enum ra_report_format)format);
    json_decref(results);
    json_decref(value);
    return 0;
}
