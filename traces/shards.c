/* SPDX-License-Identifier: Apache-2.0 */
/* All files are opened at once and their tensors sorted into one table, where a tensor that two
 * files hold, or that only the index knows, is found in one pass. */
#include "traces/shards.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "traces/shards_index.h"

#define CHECKSUM_KEY "content.sha256"

struct ra_shards {
    char *path;
    struct ra_st_file *files[RA_SHARDS_MAX]; /* ascending names */
    size_t n_files;
    struct ra_shard_tensor *table; /* ascending tensor names */
    size_t n_tensors;
};

static enum ra_status out_of_memory(const char *path, struct ra_error *err)
{
    return ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
}

static int by_tensor_name(const void *a, const void *b)
{
    const struct ra_shard_tensor *x = a, *y = b;
    return strcmp(x->tensor->name, y->tensor->name);
}

static enum ra_status build_table(struct ra_shards *s, struct ra_error *err)
{
    for (size_t f = 0; f < s->n_files; f++)
        s->n_tensors += ra_st_count(s->files[f]);
    if (s->n_tensors > RA_ST_MAX_TENSORS)
        return ra_fail(err, RA_EFORMAT, "%s: %zu tensors in all files, at most %d", s->path,
                       s->n_tensors, RA_ST_MAX_TENSORS);
    s->table = calloc(s->n_tensors + 1, sizeof *s->table);
    if (!s->table)
        return out_of_memory(s->path, err);
    size_t n = 0;
    for (size_t f = 0; f < s->n_files; f++)
        for (size_t i = 0; i < ra_st_count(s->files[f]); i++)
            s->table[n++] = (struct ra_shard_tensor){s->files[f], ra_st_at(s->files[f], i)};
    qsort(s->table, n, sizeof *s->table, by_tensor_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(s->table[i - 1].tensor->name, s->table[i].tensor->name) == 0)
            return ra_fail(err, RA_EFORMAT, "%s: %.100s: also in %.100s", s->path,
                           s->table[i].tensor->name, ra_st_path(s->table[i - 1].file));
    return RA_OK;
}

/* The index and the files must list the same tensors in the same places. */
static enum ra_status compare_index(const struct ra_shards *s, const struct ra_shards_index *index,
                                    struct ra_error *err)
{
    for (size_t i = 0; i < index->n; i++) {
        const struct ra_shards_entry *entry = &index->entries[i];
        struct ra_shard_tensor found = ra_shards_find(s, entry->tensor);
        if (!found.tensor || found.file != s->files[entry->file])
            return ra_fail(err, RA_EFORMAT, "%s: %.100s: the index says it is in %.100s, it is not",
                           s->path, entry->tensor, index->files[entry->file]);
    }
    if (index->n == s->n_tensors)
        return RA_OK;
    for (size_t i = 0, j = 0; i < s->n_tensors; i++, j++)
        if (j == index->n || strcmp(s->table[i].tensor->name, index->entries[j].tensor) != 0)
            return ra_fail(err, RA_EFORMAT, "%s: %.100s: is not in the index",
                           ra_st_path(s->table[i].file), s->table[i].tensor->name);
    return RA_OK;
}

static bool differs_by_nature(const char *key)
{
    return strcmp(key, CHECKSUM_KEY) == 0 || strcmp(key, "capture.time_utc") == 0;
}

/* Against the first file that states a key: agreeing with it is agreeing with all. */
static enum ra_status compare_metadata(const struct ra_shards *s, struct ra_error *err)
{
    for (size_t f = 1; f < s->n_files; f++) {
        for (size_t i = 0; i < ra_st_metadata_count(s->files[f]); i++) {
            const char *key, *value;
            ra_st_metadata_at(s->files[f], i, &key, &value);
            const char *other = ra_shards_metadata(s, key);
            if (!differs_by_nature(key) && strcmp(value, other) != 0)
                return ra_fail(err, RA_EFORMAT,
                               "%s: metadata: %.80s: expected '%.60s' as in the other files, got "
                               "'%.60s'",
                               ra_st_path(s->files[f]), key, other, value);
        }
    }
    return RA_OK;
}

static enum ra_status open_folder(struct ra_shards *s, const char *index_name, struct ra_error *err)
{
    struct ra_shards_index index = {0};
    enum ra_status st = ra_shards_index_read(&index, s->path, index_name, err);
    for (size_t f = 0; st == RA_OK && f < index.n_files; f++) {
        size_t room = strlen(s->path) + strlen(index.files[f]) + 2;
        char *path = malloc(room);
        if (!path) {
            st = out_of_memory(s->path, err);
            break;
        }
        snprintf(path, room, "%s/%s", s->path, index.files[f]);
        st = ra_st_open(&s->files[f], path, err);
        s->n_files += st == RA_OK;
        free(path);
    }
    if (st == RA_OK)
        st = build_table(s, err);
    if (st == RA_OK)
        st = compare_index(s, &index, err);
    if (st == RA_OK)
        st = compare_metadata(s, err);
    ra_shards_index_fini(&index);
    return st;
}

static enum ra_status open_file(struct ra_shards *s, struct ra_error *err)
{
    RA_TRY(ra_st_open(&s->files[0], s->path, err));
    s->n_files = 1;
    return build_table(s, err);
}

/* A checksum that cannot be one would otherwise never match, or be taken for none. */
static enum ra_status check_checksums(const struct ra_shards *s, struct ra_error *err)
{
    for (size_t f = 0; f < s->n_files; f++) {
        const char *stated = ra_st_metadata(s->files[f], CHECKSUM_KEY);
        if (stated && (strlen(stated) != RA_SHA256_HEX - 1 ||
                       strspn(stated, "0123456789abcdef") != RA_SHA256_HEX - 1))
            return ra_fail(err, RA_EFORMAT,
                           "%s: metadata: " CHECKSUM_KEY
                           ": expected 64 lower-case hex digits, got '%.80s'",
                           ra_st_path(s->files[f]), stated);
    }
    return RA_OK;
}

/* Without the name of an index, `path` may be a file. */
static enum ra_status open_path(struct ra_shards **shards, const char *path, const char *index,
                                struct ra_error *err)
{
    *shards = NULL;
    struct ra_shards *s = calloc(1, sizeof *s);
    if (!s)
        return out_of_memory(path, err);
    s->path = strdup(path);
    struct stat info;
    enum ra_status st;
    if (!s->path) {
        st = out_of_memory(path, err);
    } else {
        size_t n = strlen(s->path);
        while (n > 1 && s->path[n - 1] == '/')
            s->path[--n] = '\0';
        bool is_folder = index || (stat(s->path, &info) == 0 && S_ISDIR(info.st_mode));
        st =
            is_folder ? open_folder(s, index ? index : "trace.index.json", err) : open_file(s, err);
    }
    if (st == RA_OK)
        st = check_checksums(s, err);
    if (st == RA_OK)
        *shards = s;
    else
        ra_shards_close(s);
    return st;
}

enum ra_status ra_shards_open(struct ra_shards **shards, const char *path, struct ra_error *err)
{
    return open_path(shards, path, NULL, err);
}

enum ra_status ra_shards_open_index(struct ra_shards **shards, const char *folder,
                                    const char *index, struct ra_error *err)
{
    return open_path(shards, folder, index, err);
}

void ra_shards_close(struct ra_shards *s)
{
    if (!s)
        return;
    for (size_t f = 0; f < s->n_files; f++)
        ra_st_close(s->files[f]);
    free(s->table);
    free(s->path);
    free(s);
}

const char *ra_shards_path(const struct ra_shards *s)
{
    return s->path;
}

size_t ra_shards_count(const struct ra_shards *s)
{
    return s->n_tensors;
}

struct ra_shard_tensor ra_shards_at(const struct ra_shards *s, size_t index)
{
    RA_BUG_ON(index >= s->n_tensors);
    return s->table[index];
}

static int name_order(const void *key, const void *element)
{
    const struct ra_shard_tensor *entry = element;
    return strcmp(key, entry->tensor->name);
}

struct ra_shard_tensor ra_shards_find(const struct ra_shards *s, const char *name)
{
    const struct ra_shard_tensor *found =
        bsearch(name, s->table, s->n_tensors, sizeof *s->table, name_order);
    return found ? *found : (struct ra_shard_tensor){NULL, NULL};
}

const char *ra_shards_metadata(const struct ra_shards *s, const char *key)
{
    const char *value = NULL;
    for (size_t f = 0; f < s->n_files && !value; f++)
        value = ra_st_metadata(s->files[f], key);
    return value;
}

void ra_shards_stated_digest(const struct ra_shards *s, char hex[RA_SHA256_HEX])
{
    struct ra_sha256 hash;
    ra_sha256_init(&hash);
    hex[0] = '\0';
    for (size_t f = 0; f < s->n_files; f++) {
        const char *stated = ra_st_metadata(s->files[f], CHECKSUM_KEY);
        if (!stated)
            return;
        if (s->n_files == 1) {
            memcpy(hex, stated, RA_SHA256_HEX);
            return;
        }
        ra_sha256_bytes(&hash, stated, RA_SHA256_HEX - 1);
    }
    ra_sha256_hex(&hash, hex);
}

enum ra_status ra_shards_digest(const struct ra_shards *s, char hex[RA_SHA256_HEX],
                                struct ra_error *err)
{
    if (s->n_files == 1)
        return ra_st_digest(s->files[0], hex, err);
    struct ra_sha256 hash;
    ra_sha256_init(&hash);
    for (size_t f = 0; f < s->n_files; f++) {
        RA_TRY(ra_st_digest(s->files[f], hex, err));
        ra_sha256_bytes(&hash, hex, RA_SHA256_HEX - 1);
    }
    ra_sha256_hex(&hash, hex);
    return RA_OK;
}

enum ra_status ra_shards_verify_digest(const struct ra_shards *s, struct ra_error *err)
{
    for (size_t f = 0; f < s->n_files; f++) {
        const char *path = ra_st_path(s->files[f]);
        const char *stated = ra_st_metadata(s->files[f], CHECKSUM_KEY);
        if (!stated)
            return ra_fail(err, RA_EDIVERGED, "%s: metadata: " CHECKSUM_KEY ": missing", path);
        char hex[RA_SHA256_HEX];
        RA_TRY(ra_st_digest(s->files[f], hex, err));
        if (strcmp(hex, stated) != 0)
            return ra_fail(err, RA_EDIVERGED, "%s: " CHECKSUM_KEY ": expected %.64s, got %s", path,
                           stated, hex);
    }
    return RA_OK;
}
