/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walk the members of one JSON object without building a tree of it. Untrusted headers may hold
 * megabytes of tiny values; only one member at a time is decoded (by jansson), so memory follows
 * the largest member and not the number of values, and nesting is bounded before any recursion.
 */
#ifndef RA_TRACES_JSON_MEMBERS_H
#define RA_TRACES_JSON_MEMBERS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RA_JSON_MAX_DEPTH = 8 };

/* A stretch of JSON text; not terminated. Borrowed. */
struct ra_json_text {
    const char *bytes;
    size_t n;
    size_t at;     /* where it starts in the whole text, for messages */
    size_t parts;  /* separators and brackets in it, outside strings */
    bool negative; /* holds a minus sign outside strings */
};

/* `where` opens every message: "run.safetensors: header". */
typedef enum ra_status (*ra_json_member_fn)(void *context, const char *key,
                                            struct ra_json_text value, struct ra_error *err);

/*
 * Call member() for each key of the object that `text` starts with (blanks may precede it); *end
 * is the offset after its closing brace. Keys come decoded, in file order, duplicates included.
 * Values are not checked beyond brackets and depth: member() decodes each with ra_json_load, or
 * walks it. Errors: RA_EFORMAT for text that is no object, deeper than RA_JSON_MAX_DEPTH
 * (counting `depth` levels around it) or with more than max_members keys; what member() returns.
 */
struct ra_json_walk {
    const char *where;
    size_t max_members;
    int depth; /* objects and arrays around this one */
    ra_json_member_fn member;
    void *context;
};
RA_MUST_CHECK enum ra_status ra_json_members(const struct ra_json_walk *walk,
                                             struct ra_json_text text, size_t *end,
                                             struct ra_error *err);

/* Decode one value; the caller drops it with json_decref. Duplicate keys, bad UTF-8, numbers
 * beyond 64 bits and NUL in strings are RA_EFORMAT. */
RA_MUST_CHECK enum ra_status ra_json_load(const char *where, struct ra_json_text text,
                                          json_t **value, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
