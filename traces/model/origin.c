/* SPDX-License-Identifier: Apache-2.0 */
#include "traces/model/origin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "traces/file.h"

enum { MAX_BYTES = 1 << 20 };

void ra_lm_origin_close(struct ra_lm_origin *origin)
{
    free(origin->id);
    free(origin->revision);
    free(origin->sha256);
    free(origin->quant);
    free(origin->license);
    free(origin->tokenizer_sha256);
    *origin = (struct ra_lm_origin){0};
}

/* The last name of a path, slashes at its end not counted. */
static char *last_name(const char *dir)
{
    size_t end = strlen(dir);
    while (end > 1 && dir[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && dir[begin - 1] != '/')
        begin--;
    return strndup(dir + begin, end - begin);
}

static enum ra_status copy_member(const json_t *object, const char *path, const char *key,
                                  const char *fallback, char **out, struct ra_error *err)
{
    const json_t *value = object ? json_object_get(object, key) : NULL;
    if (value && !json_is_string(value))
        return ra_fail(err, RA_EFORMAT, "%s: %s: expected a string", path, key);
    *out = strdup(value ? json_string_value(value) : fallback);
    return *out ? RA_OK : ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
}

static enum ra_status read_json(const char *path, json_t **object, struct ra_error *err)
{
    int fd;
    uint64_t size;
    json_error_t why;
    RA_TRY(ra_file_open(path, &fd, &size, err));
    char *text = size <= MAX_BYTES ? malloc((size_t)size + 1) : NULL;
    enum ra_status st = RA_OK;
    if (size > MAX_BYTES)
        st = ra_fail(err, RA_EFORMAT, "%s: expected at most %d bytes, got %llu", path, MAX_BYTES,
                     (unsigned long long)size);
    else if (!text)
        st = ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    if (st == RA_OK)
        st = ra_file_read(fd, path, 0, text, (size_t)size, err);
    close(fd);
    if (st == RA_OK) {
        *object = json_loadb(text, (size_t)size, JSON_REJECT_DUPLICATES, &why);
        if (!json_is_object(*object))
            st = ra_fail(err, RA_EFORMAT, "%s: expected a JSON object: %s", path,
                         *object ? "another value" : why.text);
    }
    free(text);
    return st;
}

enum ra_status ra_lm_origin_open(struct ra_lm_origin *origin, const char *dir, struct ra_error *err)
{
    *origin = (struct ra_lm_origin){0};
    size_t room = strlen(dir) + sizeof "/provenance.json";
    char *path = malloc(room), *name = last_name(dir);
    json_t *object = NULL;
    enum ra_status st = RA_OK;
    if (!path || !name)
        st = ra_fail(err, RA_ENOMEM, "%s: out of memory", dir);
    if (st == RA_OK) {
        snprintf(path, room, "%s/provenance.json", dir);
        if (access(path, F_OK) == 0)
            st = read_json(path, &object, err);
    }
    const struct {
        const char *key, *fallback;
        char **out;
    } members[] = {{"model.id", name, &origin->id},
                   {"model.revision", "", &origin->revision},
                   {"model.sha256", "", &origin->sha256},
                   {"model.quant", "", &origin->quant},
                   {"license", "unknown", &origin->license},
                   {"tokenizer.sha256", "", &origin->tokenizer_sha256}};
    for (size_t i = 0; st == RA_OK && i < sizeof members / sizeof members[0]; i++)
        st = copy_member(object, path, members[i].key, members[i].fallback, members[i].out, err);
    json_decref(object);
    free(path);
    free(name);
    if (st != RA_OK)
        ra_lm_origin_close(origin);
    return st;
}
