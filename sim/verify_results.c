/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comparing result objects: those of this invocation with those of a file or a stored run. What
 * is compared is a table of keys; a null must stay a null.
 */
#include "sim/verify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/base/json_memory.h"

/* "a.b" is member b of a. Times, kernel_err, near_ties and output_hash are not here: they belong
 * to a machine, not to a schedule. */
static const char *const exact_keys[] = {
    "k_resolved",
    "steps",
    "layers",
    "window_layers",
    "full_layer_steps",
    "recycled_layer_steps",
    "keys_read",
    "kv_read_bytes",
    "kv_write_bytes",
    "refresh_entries",
    "refresh_bytes",
    "selection_bytes",
    "prefill.kv_read_bytes",
    "prefill.kv_write_bytes",
    "prefill.selection_bytes",
    "fingerprint",
};
static const char *const near_keys[] = {
    "effective_stride",
    "mass_recovered.mean",
    "mass_recovered.p05",
    "mass_recovered.min",
    "output_rel_err.mean",
    "output_rel_err.p95",
    "output_rel_err.max",
    "topk_recall.mean",
    "refresh_overlap.mean",
    "refresh_overlap.p05",
    "on_recycled.mass_recovered.mean",
    "on_recycled.mass_recovered.p05",
    "on_recycled.mass_recovered.min",
    "on_recycled.output_rel_err.mean",
    "on_recycled.output_rel_err.p95",
    "on_recycled.output_rel_err.max",
    "on_recycled.topk_recall.mean",
    "on_recycled.refresh_overlap.mean",
    "on_recycled.refresh_overlap.p05",
};

/* NULL when the path leads nowhere, or to a null. */
static const json_t *member(const json_t *object, const char *path)
{
    char key[64];
    for (;;) {
        size_t n = strcspn(path, ".");
        snprintf(key, sizeof key, "%.*s", (int)n, path);
        object = json_object_get(object, key);
        if (!path[n])
            return json_is_null(object) ? NULL : object;
        path += n + 1;
    }
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static bool is_near(const json_t *a, const json_t *b)
{
    if (!json_is_number(a) || !json_is_number(b))
        return json_equal(a, b) || (!a && !b);
    double x = json_number_value(a), y = json_number_value(b);
    double size = fabs(x) > fabs(y) ? fabs(x) : fabs(y);
    return x == y || fabs(x - y) <= RA_VERIFY_TOLERANCE * (1 + size);
}

static void show(const json_t *value, char *out, size_t size)
{
    if (!value) {
        snprintf(out, size, "null");
        return;
    }
    size_t n = json_dumpb(value, out, size - 1, JSON_ENCODE_ANY | JSON_COMPACT);
    out[n < size - 1 ? n : size - 1] = 0;
}

static enum ra_status differs(const char *where, const char *policy, const char *path,
                              const json_t *expected, const json_t *got, struct ra_error *err)
{
    char want[96], have[96];
    show(expected, want, sizeof want);
    show(got, have, sizeof have);
    return ra_fail(err, RA_EDIVERGED, "%s: %s: %s: expected %s, got %s", where, policy, path, want,
                   have);
}

static enum ra_status compare(const json_t *got, const json_t *expected, const char *where,
                              struct ra_error *err)
{
    const char *policy = text_of(expected, "policy");
    for (size_t i = 0; i < sizeof exact_keys / sizeof *exact_keys; i++) {
        const json_t *a = member(got, exact_keys[i]), *b = member(expected, exact_keys[i]);
        if (!(a || b) || (a && b && json_equal(a, b)))
            continue;
        return differs(where, policy, exact_keys[i], b, a, err);
    }
    for (size_t i = 0; i < sizeof near_keys / sizeof *near_keys; i++) {
        const json_t *a = member(got, near_keys[i]), *b = member(expected, near_keys[i]);
        if (!is_near(a, b))
            return differs(where, policy, near_keys[i], b, a, err);
    }
    return RA_OK;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The result with expected's policy and sequence; of several, the one with its trace, which may
 * have been called by another path. */
static const json_t *counterpart(const json_t *results, const json_t *expected)
{
    const json_t *found = NULL;
    for (size_t i = 0; i < json_array_size(results); i++) {
        const json_t *result = json_array_get(results, i);
        if (strcmp(text_of(result, "policy"), text_of(expected, "policy")) != 0 ||
            !json_equal(json_object_get(result, "sequence"), json_object_get(expected, "sequence")))
            continue;
        if (strcmp(base_name(text_of(result, "trace")), base_name(text_of(expected, "trace"))) == 0)
            return result;
        if (!found)
            found = result;
    }
    return found;
}

static enum ra_status check_one(const json_t *results, const json_t *expected, const char *where,
                                struct ra_error *err)
{
    const json_t *sequence = json_object_get(expected, "sequence");
    if (!json_is_integer(sequence) || !*text_of(expected, "policy") ||
        !*text_of(expected, "fingerprint"))
        return ra_fail(err, RA_EFORMAT,
                       "%s: expected results of a replay, with policy, sequence and fingerprint",
                       where);
    const json_t *got = counterpart(results, expected);
    if (!got)
        return ra_fail(err, RA_EDIVERGED,
                       "%s: expected a result of policy %s, sequence %" JSON_INTEGER_FORMAT
                       ", got none",
                       where, text_of(expected, "policy"), json_integer_value(sequence));
    return compare(got, expected, where, err);
}

enum ra_status ra_verify_results(const json_t *results, const json_t *expected, const char *where,
                                 struct ra_error *err)
{
    if (!json_is_array(expected))
        return check_one(results, expected, where, err);
    if (json_array_size(expected) == 0)
        return ra_fail(err, RA_EFORMAT, "%s: expected results of a replay, got an empty list",
                       where);
    for (size_t i = 0; i < json_array_size(expected); i++)
        RA_TRY(check_one(results, json_array_get(expected, i), where, err));
    return RA_OK;
}

struct stored {
    json_t *result;
    int64_t id;
    char state[16];
};

static enum ra_status on_run(void *context, const struct ra_run_listing *run, struct ra_error *err)
{
    struct stored *stored = context;
    stored->id = run->id;
    snprintf(stored->state, sizeof stored->state, "%s", run->state ? run->state : "");
    if (!run->result_json)
        return RA_OK;
    json_error_t why;
    stored->result = json_loads(run->result_json, JSON_REJECT_DUPLICATES, &why);
    if (!stored->result)
        return ra_fail(err, ra_json_starved() ? RA_ENOMEM : RA_EFORMAT,
                       "run %lld: stored result: %s", (long long)run->id,
                       ra_json_starved() ? "no memory" : why.text);
    return RA_OK;
}

static enum ra_status check_stored(const json_t *results, struct ra_store *store, const char *what,
                                   struct ra_error *err)
{
    struct stored stored = {0};
    if (!store)
        return ra_fail(err, RA_EUSAGE,
                       "--check %s: expected a file ending in .json, or a run together with --db",
                       what);
    RA_TRY(ra_store_runs(store, what, on_run, &stored, err));
    if (!stored.result)
        return ra_fail(err, RA_EUSAGE, "run %lld: is %s, and holds no result to check against",
                       (long long)stored.id, stored.state);
    char where[32];
    snprintf(where, sizeof where, "run %lld", (long long)stored.id);
    enum ra_status status = ra_verify_results(results, stored.result, where, err);
    json_decref(stored.result);
    return status;
}

enum ra_status ra_verify_against(const json_t *results, struct ra_store *store, const char *what,
                                 struct ra_error *err)
{
    size_t n = strlen(what);
    if (n < 5 || strcmp(what + n - 5, ".json") != 0)
        return check_stored(results, store, what, err);
    json_error_t why;
    json_t *expected = json_load_file(what, JSON_REJECT_DUPLICATES, &why);
    if (!expected && ra_json_starved())
        return ra_fail(err, RA_ENOMEM, "%s: no memory", what);
    if (!expected && why.line < 1)
        return ra_fail(err, RA_EIO, "%s", why.text);
    if (!expected)
        return ra_fail(err, RA_EFORMAT, "%s: line %d: %s", what, why.line, why.text);
    enum ra_status status = ra_verify_results(results, expected, what, err);
    json_decref(expected);
    return status;
}
