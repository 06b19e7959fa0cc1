/* SPDX-License-Identifier: Apache-2.0 */
/* The reader: lengths first, then the header, then slices of data on request. Holds no data. */
#include "traces/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "traces/file.h"
#include "traces/safetensors_header.h"

struct ra_st_file {
    char *path;
    int fd;
    uint64_t data_start, data_bytes;
    struct ra_st_header header;
};

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {
    [RA_ST_UNKNOWN] = {"unknown", 0}, [RA_ST_BOOL] = {"BOOL", 1}, [RA_ST_U8] = {"U8", 1},
    [RA_ST_I8] = {"I8", 1},           [RA_ST_I16] = {"I16", 2},   [RA_ST_U16] = {"U16", 2},
    [RA_ST_F16] = {"F16", 2},         [RA_ST_BF16] = {"BF16", 2}, [RA_ST_I32] = {"I32", 4},
    [RA_ST_U32] = {"U32", 4},         [RA_ST_F32] = {"F32", 4},   [RA_ST_F64] = {"F64", 8},
    [RA_ST_I64] = {"I64", 8},         [RA_ST_U64] = {"U64", 8},
};

size_t ra_st_dtype_bytes(enum ra_st_dtype dtype)
{
    return dtypes[dtype].bytes;
}

const char *ra_st_dtype_name(enum ra_st_dtype dtype)
{
    return dtypes[dtype].name;
}

enum ra_st_dtype ra_st_dtype_parse(const char *text)
{
    for (size_t i = RA_ST_UNKNOWN + 1; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcmp(text, dtypes[i].name) == 0)
            return (enum ra_st_dtype)i;
    return RA_ST_UNKNOWN;
}

static enum ra_status read_header(struct ra_st_file *file, uint64_t file_bytes,
                                  struct ra_error *err)
{
    unsigned char length[8];
    if (file_bytes < sizeof length)
        return ra_fail(err, RA_EFORMAT,
                       "%s: expected at least the 8 bytes of a header length, got %" PRIu64
                       "; is this a safetensors file?",
                       file->path, file_bytes);
    RA_TRY(ra_file_read(file->fd, file->path, 0, length, sizeof length, err));
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | length[i];
    if (n > RA_ST_MAX_HEADER)
        return ra_fail(err, RA_EFORMAT,
                       "%s: header length: expected at most %" PRIu64 ", got %" PRIu64
                       "; is this a safetensors file?",
                       file->path, RA_ST_MAX_HEADER, n);
    if (n > file_bytes - sizeof length)
        return ra_fail(err, RA_EFORMAT,
                       "%s: header length: %" PRIu64 ", the file has %" PRIu64 " bytes after it",
                       file->path, n, file_bytes - sizeof length);
    file->data_start = sizeof length + n;
    file->data_bytes = file_bytes - file->data_start;
    char *text = malloc((size_t)n + 1);
    if (!text)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory for the header", file->path);
    file->header.path = file->path;
    enum ra_status st = ra_file_read(file->fd, file->path, sizeof length, text, (size_t)n, err);
    if (st == RA_OK)
        st = ra_st_header_parse(&file->header, text, (size_t)n, file->data_bytes, err);
    free(text);
    return st;
}

enum ra_status ra_st_open(struct ra_st_file **file, const char *path, struct ra_error *err)
{
    *file = NULL;
    struct ra_st_file *opened = calloc(1, sizeof *opened);
    if (!opened)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    opened->fd = -1;
    opened->path = strdup(path);
    uint64_t bytes = 0;
    enum ra_status st = opened->path ? ra_file_open(path, &opened->fd, &bytes, err)
                                     : ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    if (st == RA_OK)
        st = read_header(opened, bytes, err);
    if (st == RA_OK)
        *file = opened;
    else
        ra_st_close(opened);
    return st;
}

void ra_st_close(struct ra_st_file *file)
{
    if (!file)
        return;
    ra_st_header_fini(&file->header);
    if (file->fd >= 0)
        close(file->fd);
    free(file->path);
    free(file);
}

const char *ra_st_path(const struct ra_st_file *file)
{
    return file->path;
}

uint64_t ra_st_data_bytes(const struct ra_st_file *file)
{
    return file->data_bytes;
}

size_t ra_st_count(const struct ra_st_file *file)
{
    return file->header.n_tensors;
}

const struct ra_st_tensor *ra_st_at(const struct ra_st_file *file, size_t index)
{
    RA_BUG_ON(index >= file->header.n_tensors);
    return &file->header.tensors[index];
}

static int name_order(const void *key, const void *element)
{
    const struct ra_st_tensor *const *tensor = element;
    return strcmp(key, (*tensor)->name);
}

const struct ra_st_tensor *ra_st_find(const struct ra_st_file *file, const char *name)
{
    const struct ra_st_tensor **found = bsearch(name, file->header.by_name, file->header.n_tensors,
                                                sizeof(struct ra_st_tensor *), name_order);
    return found ? *found : NULL;
}

static int key_order(const void *key, const void *element)
{
    const struct ra_st_pair *pair = element;
    return strcmp(key, pair->key);
}

const char *ra_st_metadata(const struct ra_st_file *file, const char *key)
{
    if (file->header.n_pairs == 0)
        return NULL;
    const struct ra_st_pair *pair = bsearch(key, file->header.pairs, file->header.n_pairs,
                                            sizeof *file->header.pairs, key_order);
    return pair ? pair->value : NULL;
}

size_t ra_st_metadata_count(const struct ra_st_file *file)
{
    return file->header.n_pairs;
}

void ra_st_metadata_at(const struct ra_st_file *file, size_t index, const char **key,
                       const char **value)
{
    RA_BUG_ON(index >= file->header.n_pairs);
    *key = file->header.pairs[index].key;
    *value = file->header.pairs[index].value;
}

enum ra_status ra_st_read(const struct ra_st_file *file, const struct ra_st_tensor *tensor,
                          uint64_t offset, void *out, size_t n, struct ra_error *err)
{
    if (tensor->dtype == RA_ST_UNKNOWN)
        return ra_fail(err, RA_EFORMAT, "%s: %.100s: dtype %.20s cannot be read here", file->path,
                       tensor->name, tensor->dtype_text);
    RA_BUG_ON(offset > tensor->bytes || n > tensor->bytes - offset);
    char where[512]; /* of a failure: file and tensor */
    snprintf(where, sizeof where, "%s: %.100s", file->path, tensor->name);
    return ra_file_read(file->fd, where, file->data_start + tensor->offset + offset, out, n, err);
}

enum ra_status ra_st_digest(const struct ra_st_file *file, char hex[RA_SHA256_HEX],
                            struct ra_error *err)
{
    size_t room = (size_t)1 << 20;
    unsigned char *buffer = malloc(room);
    if (!buffer)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", file->path);
    struct ra_sha256 hash;
    ra_sha256_init(&hash);
    enum ra_status st = RA_OK;
    for (uint64_t done = 0; st == RA_OK && done < file->data_bytes;) {
        uint64_t left = file->data_bytes - done;
        size_t n = left < room ? (size_t)left : room;
        st = ra_file_read(file->fd, file->path, file->data_start + done, buffer, n, err);
        if (st == RA_OK)
            ra_sha256_bytes(&hash, buffer, n);
        done += n;
    }
    if (st == RA_OK)
        ra_sha256_hex(&hash, hex);
    free(buffer);
    return st;
}
