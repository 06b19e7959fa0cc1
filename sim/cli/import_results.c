/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cli/import_results.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sim/base/json_memory.h"
#include "sim/cli/import_figures.h"
#include "sim/cli/output.h"
#include "sim/policy.h"
#include "sim/report_table.h"
#include "traces/json_members.h"

enum { LARGEST_FILE = 256 << 20, MOST_STEPS = 1 << 24, MOST_RESULTS = 10000 };

/* --- the file ----------------------------------------------------------------------------------
 */

static enum ra_status read_file(const char *path, struct ra_json_text *text, struct ra_error *err)
{
    struct stat info;
    FILE *file = stat(path, &info) == 0 ? fopen(path, "re") : NULL;
    if (!file)
        return ra_fail(err, RA_EIO, "%s: %s", path, strerror(errno));
    enum ra_status st = RA_OK;
    char *bytes = NULL;
    if (!S_ISREG(info.st_mode) || info.st_size > LARGEST_FILE)
        st = ra_fail(err, RA_EFORMAT, "%s: expected a file of at most %d bytes, got %s", path,
                     LARGEST_FILE, S_ISREG(info.st_mode) ? "more" : "no file");
    else if (!(bytes = malloc((size_t)info.st_size + 1)))
        st = ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    else if (fread(bytes, 1, (size_t)info.st_size, file) != (size_t)info.st_size)
        st = ra_fail(err, RA_EIO, "%s: cannot be read to its end", path);
    fclose(file);
    if (st != RA_OK)
        free(bytes);
    else
        *text = (struct ra_json_text){.bytes = bytes, .n = (size_t)info.st_size};
    return st;
}

/* --- places and what was found there -----------------------------------------------------------
 */

struct place {
    const char *path;
    size_t result, document; /* SIZE_MAX: above them */
};

static void describe(const json_t *value, char *out, size_t size)
{
    switch (value ? (int)json_typeof(value) : -1) {
    case JSON_OBJECT:
        snprintf(out, size, "an object");
        break;
    case JSON_ARRAY:
        snprintf(out, size, "a list of %zu", json_array_size(value));
        break;
    case JSON_STRING:
        snprintf(out, size, "'%.40s'", json_string_value(value));
        break;
    case JSON_INTEGER:
        snprintf(out, size, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(out, size, "%g", json_real_value(value));
        break;
    case -1:
        snprintf(out, size, "nothing");
        break;
    default:
        snprintf(out, size, "%s",
                 json_is_null(value)   ? "null"
                 : json_is_true(value) ? "true"
                                       : "false");
    }
}

static enum ra_status wrong(const struct place *place, const char *member, const char *expected,
                            const json_t *got, struct ra_error *err)
{
    char where[96] = "", what[64];
    describe(got, what, sizeof what);
    if (place->document != SIZE_MAX)
        snprintf(where, sizeof where, "results[%zu].documents[%zu].", place->result,
                 place->document);
    else if (place->result != SIZE_MAX)
        snprintf(where, sizeof where, "results[%zu].", place->result);
    return ra_fail(err, RA_EFORMAT, "%s: %s%s: expected %s, got %s", place->path, where, member,
                   expected, what);
}

static enum ra_status check_text(const struct place *place, const json_t *object, const char *key,
                                 struct ra_error *err)
{
    const json_t *value = json_object_get(object, key);
    const char *text = json_string_value(value);
    return text && *text ? RA_OK : wrong(place, key, "a text", value, err);
}

/* A member that may be missing or null. */
static enum ra_status check_number(const struct place *place, const json_t *object, const char *key,
                                   double least, double most, struct ra_error *err)
{
    const json_t *value = json_object_get(object, key);
    char expected[64];
    if (!value || json_is_null(value))
        return RA_OK;
    double number = json_is_number(value) ? json_number_value(value) : NAN;
    if (number >= least && number <= most)
        return RA_OK;
    snprintf(expected, sizeof expected,
             isinf(most) ? isinf(least) ? "a number" : "a number from %g on"
                         : "a number from %g to %g",
             least, most);
    return wrong(place, key, expected, value, err);
}

static enum ra_status check_count(const struct place *place, const json_t *object, const char *key,
                                  struct ra_error *err)
{
    const json_t *value = json_object_get(object, key);
    json_int_t n = json_integer_value(value);
    return json_is_integer(value) && n >= 1 && n <= MOST_STEPS
               ? RA_OK
               : wrong(place, key, "a whole number from 1 to 16777216", value, err);
}

/* A list of as many numbers as there are steps. */
static enum ra_status check_series(const struct place *place, const json_t *document,
                                   const char *key, struct ra_error *err)
{
    const json_t *list = json_object_get(document, key);
    size_t n = (size_t)json_integer_value(json_object_get(document, "steps"));
    char expected[80];
    if (!list || json_is_null(list))
        return RA_OK;
    snprintf(expected, sizeof expected, "a list of %zu numbers, one for each step", n);
    if (!json_is_array(list) || json_array_size(list) != n)
        return wrong(place, key, expected, list, err);
    for (size_t i = 0; i < n; i++) {
        char member[64];
        snprintf(member, sizeof member, "%s[%zu]", key, i);
        if (!json_is_number(json_array_get(list, i)))
            return wrong(place, member, "a number", json_array_get(list, i), err);
    }
    return RA_OK;
}

/* --- members -----------------------------------------------------------------------------------
 */

static enum ra_status check_wall(const struct place *place, const json_t *document,
                                 struct ra_error *err)
{
    const json_t *wall = json_object_get(document, "hf_wall");
    if (!wall || json_is_null(wall))
        return RA_OK;
    if (!json_is_object(wall))
        return wrong(place, "hf_wall", "an object", wall, err);
    if (strcmp(ra_result_text(wall, "method"), "hf-wall") != 0)
        return wrong(place, "hf_wall.method", "'hf-wall'", json_object_get(wall, "method"), err);
    RA_TRY(check_number(place, wall, "prefill_s", 0, INFINITY, err));
    return check_number(place, wall, "decode_s", 0, INFINITY, err);
}

static enum ra_status check_document(const struct place *place, const json_t *document, bool asks,
                                     struct ra_error *err)
{
    static const char *const series[] = {"nll", "kl"};
    const json_t *right = json_object_get(document, "right"),
                 *seed = json_object_get(document, "seed"),
                 *layers = json_object_get(document, "layers");
    if (!json_is_object(document))
        return wrong(place, "", "an object", document, err);
    RA_TRY(check_text(place, document, "document", err));
    RA_TRY(check_count(place, document, "prompt_len", err));
    RA_TRY(check_count(place, document, "steps", err));
    for (size_t i = 0; i < 2; i++)
        RA_TRY(check_series(place, document, series[i], err));
    if (asks && !json_is_boolean(right))
        return wrong(place, "right", "true or false, as the first document has", right, err);
    if (!asks && (right || !json_is_array(json_object_get(document, "nll"))))
        return right ? wrong(place, "right", "nothing, as the first document has", right, err)
                     : wrong(place, "nll", "a list", json_object_get(document, "nll"), err);
    if (seed && !json_is_null(seed) && !json_is_integer(seed))
        return wrong(place, "seed", "a whole number", seed, err);
    if (layers && !json_is_array(layers))
        return wrong(place, "layers", "a list", layers, err);
    RA_TRY(check_number(place, document, "depth", 0, 1, err));
    RA_TRY(check_number(place, document, "hits", 0, 1, err));
    RA_TRY(check_number(place, document, "margin", -INFINITY, INFINITY, err));
    RA_TRY(check_number(place, document, "keys_read", 0, INFINITY, err));
    RA_TRY(check_number(place, document, "full_layer_steps", 0, INFINITY, err));
    return check_wall(place, document, err);
}

static enum ra_status check_result(struct ra_import *import, const struct place *place,
                                   const json_t *result, struct ra_error *err)
{
    const json_t *documents = json_object_get(result, "documents");
    struct place at = *place;
    struct ra_error why = {RA_OK, ""};
    if (!json_is_object(result))
        return wrong(place, "", "an object", result, err);
    RA_TRY(check_text(place, result, "task", err));
    RA_TRY(check_text(place, result, "policy", err));
    enum ra_status st =
        ra_policy_parse(&import->specs[place->result], ra_result_text(result, "policy"), &why);
    if (st != RA_OK)
        return ra_fail(err, st == RA_EUSAGE ? RA_EFORMAT : st, "%s: results[%zu].policy: %s",
                       place->path, place->result, why.msg);
    if (!json_is_array(documents) || json_array_size(documents) == 0)
        return wrong(place, "documents", "a list with documents", documents, err);
    bool asks = json_object_get(json_array_get(documents, 0), "right") != NULL;
    for (at.document = 0; at.document < json_array_size(documents); at.document++)
        RA_TRY(check_document(&at, json_array_get(documents, at.document), asks, err));
    return RA_OK;
}

static enum ra_status check_top(const struct place *place, const json_t *top, struct ra_error *err)
{
    static const char *const texts[] = {"tool", "tool_version", "model"};
    const json_t *results = json_object_get(top, "results");
    if (!json_is_object(top))
        return wrong(place, "", "an object", top, err);
    if (strcmp(ra_result_text(top, "format"), "rattn-eval") != 0)
        return wrong(place, "format", "'rattn-eval'", json_object_get(top, "format"), err);
    if (strncmp(ra_result_text(top, "version"), "1.", 2) != 0)
        return wrong(place, "version", "'1.0', or a later 1", json_object_get(top, "version"), err);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        RA_TRY(check_text(place, top, texts[i], err));
    if (!json_is_array(results) || json_array_size(results) == 0 ||
        json_array_size(results) > MOST_RESULTS)
        return wrong(place, "results", "a list of 1 to 10000 results", results, err);
    return RA_OK;
}

/* --- all of it ---------------------------------------------------------------------------------
 */

static bool same_documents(const json_t *a, const json_t *b)
{
    static const char *const keys[] = {"document", "prompt_len", "steps"};
    size_t n = json_array_size(a);
    for (size_t i = 0; i < n && n == json_array_size(b); i++)
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            if (!json_equal(json_object_get(json_array_get(a, i), keys[k]),
                            json_object_get(json_array_get(b, i), keys[k])))
                return false;
    return n == json_array_size(b);
}

/* The result of full attention of the same task; NULL without. */
static enum ra_status find_full(const struct ra_import *import, const struct place *place,
                                const json_t *results, const json_t **full, struct ra_error *err)
{
    const json_t *own = json_array_get(results, place->result);
    const char *task = ra_result_text(own, "task");
    *full = NULL;
    for (size_t i = 0; i < json_array_size(results); i++) {
        const json_t *other = json_array_get(results, i);
        const char *policy = ra_policy_spec_canonical(import->specs[i]);
        if (strcmp(ra_result_text(other, "task"), task) != 0)
            continue;
        if (i < place->result &&
            strcmp(policy, ra_policy_spec_canonical(import->specs[place->result])) == 0)
            return ra_fail(err, RA_EFORMAT,
                           "%s: results[%zu]: expected one result of task %s under %s, got it in "
                           "results[%zu] too",
                           place->path, place->result, task, policy, i);
        if (strcmp(policy, "full") == 0)
            *full = other;
    }
    if (*full &&
        !same_documents(json_object_get(own, "documents"), json_object_get(*full, "documents")))
        return wrong(place, "documents", "those that full attention decoded, of the same lengths",
                     json_object_get(own, "documents"), err);
    return RA_OK;
}

static enum ra_status take(struct ra_import *import, const char *path, const json_t *top,
                           uint64_t seed, struct ra_error *err)
{
    struct place place = {path, SIZE_MAX, SIZE_MAX};
    const json_t *results = json_object_get(top, "results");
    RA_TRY(check_top(&place, top, err));
    size_t n = json_array_size(results);
    import->specs = calloc(n, sizeof(struct ra_policy_spec *));
    if (!import->specs)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    import->n = n;
    import->results = json_array();
    for (place.result = 0; place.result < n; place.result++)
        RA_TRY(check_result(import, &place, json_array_get(results, place.result), err));
    for (place.result = 0; place.result < n; place.result++) {
        const json_t *full;
        json_t *object;
        RA_TRY(find_full(import, &place, results, &full, err));
        RA_TRY(ra_import_figures(top, json_array_get(results, place.result), full,
                                 ra_policy_spec_canonical(import->specs[place.result]), seed,
                                 &object, err));
        json_array_append_new(import->results, object);
    }
    return ra_json_starved() ? ra_fail(err, RA_ENOMEM, "%s: out of memory", path) : RA_OK;
}

enum ra_status ra_import_read(struct ra_import *import, const char *path, uint64_t seed,
                              struct ra_error *err)
{
    struct ra_json_text text;
    struct ra_sha256 hash;
    *import = (struct ra_import){.about = NULL};
    RA_TRY(read_file(path, &text, err));
    ra_sha256_init(&hash);
    ra_sha256_bytes(&hash, text.bytes, text.n);
    ra_sha256_hex(&hash, import->sha256);
    json_t *top = NULL;
    enum ra_status st = ra_json_load(path, text, &top, err);
    free((char *)text.bytes);
    RA_TRY(st);
    st = take(import, path, top, seed, err);
    json_object_del(top, "results");
    import->about = top;
    return st;
}

void ra_import_close(struct ra_import *import)
{
    for (size_t i = 0; i < import->n; i++)
        ra_policy_spec_close(import->specs[i]);
    free(import->specs);
    json_decref(import->results);
    json_decref(import->about);
    *import = (struct ra_import){.about = NULL};
}
