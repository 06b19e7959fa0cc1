/* SPDX-License-Identifier: Apache-2.0 */
/* {"metadata": {...}, "weight_map": {"tensor": "file", ...}}; other members are let pass. */
#include "traces/shards_index.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "traces/file.h"
#include "traces/json_members.h"
#include "traces/shards.h"

enum { MAX_MEMBERS = 16, MAX_IGNORED_PARTS = 4096 };

struct parser {
    struct ra_shards_index *index;
    const char *path;
    bool has_map;
};

/* A name in the same folder and nothing else. */
static bool is_plain_name(const char *name)
{
    return name[0] != '\0' && !strchr(name, '/') && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static enum ra_status add_entry(struct parser *p, const char *tensor, const char *file_name,
                                struct ra_error *err)
{
    struct ra_shards_index *index = p->index;
    if (!is_plain_name(file_name))
        return ra_fail(err, RA_EFORMAT,
                       "%s: weight_map: %.100s: expected a plain file name, got '%.100s'", p->path,
                       tensor, file_name);
    if (index->n == index->cap) {
        size_t cap = index->cap ? 2 * index->cap : 64;
        struct ra_shards_entry *grown = realloc(index->entries, cap * sizeof *grown);
        if (!grown)
            return ra_fail(err, RA_ENOMEM, "%s: out of memory", p->path);
        index->entries = grown;
        index->cap = cap;
    }
    struct ra_shards_entry *entry = &index->entries[index->n++];
    *entry = (struct ra_shards_entry){strdup(tensor), strdup(file_name), 0};
    if (!entry->tensor || !entry->file_name)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", p->path);
    return RA_OK;
}

static enum ra_status map_member(void *context, const char *tensor, struct ra_json_text text,
                                 struct ra_error *err)
{
    struct parser *p = context;
    if (text.bytes[0] != '"')
        return ra_fail(err, RA_EFORMAT, "%s: weight_map: %.100s: expected a string", p->path,
                       tensor);
    json_t *value;
    RA_TRY(ra_json_load(p->path, text, &value, err));
    enum ra_status st = add_entry(p, tensor, json_string_value(value), err);
    json_decref(value);
    return st;
}

static enum ra_status top_member(void *context, const char *key, struct ra_json_text text,
                                 struct ra_error *err)
{
    struct parser *p = context;
    if (strcmp(key, "weight_map") == 0) {
        if (p->has_map)
            return ra_fail(err, RA_EFORMAT, "%s: weight_map: given twice", p->path);
        p->has_map = true;
        struct ra_json_walk walk = {p->path, RA_ST_MAX_TENSORS, 1, map_member, p};
        size_t end;
        return ra_json_members(&walk, text, &end, err);
    }
    if (text.parts > MAX_IGNORED_PARTS)
        return ra_fail(err, RA_EFORMAT, "%s: %.100s: more than %d values", p->path, key,
                       MAX_IGNORED_PARTS);
    json_t *value;
    RA_TRY(ra_json_load(p->path, text, &value, err));
    json_decref(value);
    return RA_OK;
}

static int by_file(const void *a, const void *b)
{
    const struct ra_shards_entry *x = a, *y = b;
    return strcmp(x->file_name, y->file_name);
}

static int by_tensor(const void *a, const void *b)
{
    const struct ra_shards_entry *x = a, *y = b;
    return strcmp(x->tensor, y->tensor);
}

/* Number the files, then order by tensor. */
static enum ra_status number_files(struct ra_shards_index *index, const char *path,
                                   struct ra_error *err)
{
    qsort(index->entries, index->n, sizeof *index->entries, by_file);
    index->files = calloc(RA_SHARDS_MAX, sizeof *index->files);
    if (!index->files)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    for (size_t i = 0; i < index->n; i++) {
        struct ra_shards_entry *entry = &index->entries[i];
        if (i == 0 || strcmp(entry->file_name, index->entries[i - 1].file_name) != 0) {
            if (index->n_files == RA_SHARDS_MAX)
                return ra_fail(err, RA_EFORMAT, "%s: more than %d files", path, RA_SHARDS_MAX);
            index->files[index->n_files++] = entry->file_name;
        }
        entry->file = index->n_files - 1;
    }
    qsort(index->entries, index->n, sizeof *index->entries, by_tensor);
    for (size_t i = 1; i < index->n; i++)
        if (strcmp(index->entries[i - 1].tensor, index->entries[i].tensor) == 0)
            return ra_fail(err, RA_EFORMAT, "%s: weight_map: %.100s: given twice", path,
                           index->entries[i].tensor);
    return RA_OK;
}

static enum ra_status parse(struct ra_shards_index *index, const char *path, const char *text,
                            size_t n, struct ra_error *err)
{
    struct parser p = {index, path, false};
    struct ra_json_walk walk = {path, MAX_MEMBERS, 0, top_member, &p};
    size_t end;
    RA_TRY(ra_json_members(&walk, (struct ra_json_text){text, n, 0, 0, false}, &end, err));
    end += strspn(text + end, " \t\r\n");
    if (end != n)
        return ra_fail(err, RA_EFORMAT, "%s: byte %zu: expected the end after '}'", path, end);
    if (index->n == 0)
        return ra_fail(err, RA_EFORMAT, "%s: weight_map: %s", path,
                       p.has_map ? "names no tensor" : "missing");
    return number_files(index, path, err);
}

enum ra_status ra_shards_index_read(struct ra_shards_index *index, const char *folder,
                                    const char *name, struct ra_error *err)
{
    char path[4096];
    int fd = -1;
    uint64_t bytes = 0;
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return ra_fail(err, RA_EIO, "%.100s...: the path is too long", folder);
    RA_TRY(ra_file_open(path, &fd, &bytes, err));
    char *text = NULL;
    enum ra_status st = RA_OK;
    if (bytes > RA_ST_MAX_HEADER)
        st = ra_fail(err, RA_EFORMAT, "%s: expected at most %" PRIu64 " bytes, got %" PRIu64, path,
                     RA_ST_MAX_HEADER, bytes);
    else
        text = calloc((size_t)bytes + 1, 1);
    if (st == RA_OK && !text)
        st = ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    if (st == RA_OK)
        st = ra_file_read(fd, path, 0, text, (size_t)bytes, err);
    if (st == RA_OK)
        st = parse(index, path, text, (size_t)bytes, err);
    free(text);
    close(fd);
    return st;
}

void ra_shards_index_fini(struct ra_shards_index *index)
{
    for (size_t i = 0; i < index->n; i++) {
        free(index->entries[i].tensor);
        free(index->entries[i].file_name);
    }
    free(index->entries);
    free((void *)index->files);
    *index = (struct ra_shards_index){0};
}
