/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes are bounded by the file's, and by what an int counts. */
#include "traces/model/ids_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/metadata.h"

static enum ra_status check_version(const struct ra_shards *file, const char *format,
                                    struct ra_error *err)
{
    const char *stated = ra_shards_metadata(file, "format");
    const char *version = ra_shards_metadata(file, "version");
    int32_t minor;
    if (!stated || strcmp(stated, format) != 0)
        return ra_metadata_fail(file, "format", format, stated, err);
    if (!version || strncmp(version, "1.", 2) != 0 || !ra_metadata_parse_int(version + 2, &minor))
        return ra_metadata_fail(file, "version", "1.x (this reader knows 1.0)", version, err);
    return RA_OK;
}

enum ra_status ra_ids_file_open(struct ra_shards **file, const char *path, const char *format,
                                struct ra_error *err)
{
    RA_TRY(ra_shards_open(file, path, err));
    enum ra_status st = check_version(*file, format, err);
    if (st != RA_OK) {
        ra_shards_close(*file);
        *file = NULL;
    }
    return st;
}

static enum ra_status out_of_memory(const struct ra_shards *file, struct ra_error *err)
{
    return ra_fail(err, RA_ENOMEM, "%s: out of memory", ra_shards_path(file));
}

enum ra_status ra_ids_file_text(const struct ra_shards *file, const char *key, bool required,
                                char **value, struct ra_error *err)
{
    const char *text = ra_shards_metadata(file, key);
    if (!text && required)
        return ra_metadata_fail(file, key, "a text", NULL, err);
    *value = strdup(text ? text : "");
    return *value ? RA_OK : out_of_memory(file, err);
}

/* A length of 0 reads as `zero`. */
static void describe(char out[192], const char *dtype, int rank, const uint64_t *length,
                     const char *zero)
{
    size_t size = 192, used = (size_t)snprintf(out, size, "%.20s [", dtype);
    for (int d = 0; d < rank && used < size; d++) {
        char number[24];
        snprintf(number, sizeof number, "%" PRIu64, length[d]);
        used += (size_t)snprintf(out + used, size - used, "%s%s", d ? ", " : "",
                                 length[d] ? number : zero);
    }
    if (used < size)
        snprintf(out + used, size - used, "]");
}

static bool fits(const struct ra_st_tensor *tensor, struct ra_ids_shape *shape)
{
    if (tensor->dtype != shape->dtype || tensor->rank != shape->rank || tensor->n_elements == 0 ||
        tensor->n_elements > INT32_MAX)
        return false;
    for (int d = 0; d < shape->rank; d++)
        if (shape->length[d] && tensor->shape[d] != shape->length[d])
            return false;
    for (int d = 0; d < shape->rank; d++)
        shape->length[d] = tensor->shape[d];
    return true;
}

enum ra_status ra_ids_file_tensor(const struct ra_shards *file, const char *name, bool required,
                                  struct ra_ids_shape *shape, void **out, struct ra_error *err)
{
    *out = NULL;
    struct ra_shard_tensor in = ra_shards_find(file, name);
    if (!in.tensor && !required)
        return RA_OK;
    if (!in.tensor)
        return ra_fail(err, RA_EFORMAT, "%s: %s: missing", ra_shards_path(file), name);
    if (!fits(in.tensor, shape)) {
        char expected[192], got[192];
        describe(expected, ra_st_dtype_name(shape->dtype), shape->rank, shape->length, "n");
        describe(got, in.tensor->dtype_text, in.tensor->rank, in.tensor->shape, "0");
        return ra_fail(err, RA_EFORMAT, "%s: %s: expected %s, got %s", ra_shards_path(file), name,
                       expected, got);
    }
    *out = malloc((size_t)in.tensor->bytes);
    if (!*out)
        return out_of_memory(file, err);
    enum ra_status st = ra_st_read(in.file, in.tensor, 0, *out, (size_t)in.tensor->bytes, err);
    if (st != RA_OK) {
        free(*out);
        *out = NULL;
    }
    return st;
}

enum ra_status ra_ids_file_fail(const struct ra_shards *file, const char *name, size_t i,
                                const char *expected, int64_t got, struct ra_error *err)
{
    return ra_fail(err, RA_EFORMAT, "%s: %s: element %zu: expected %s, got %" PRId64,
                   ra_shards_path(file), name, i, expected, got);
}

enum ra_status ra_ids_file_range(const struct ra_shards *file, const char *name,
                                 const int32_t *values, size_t n, int32_t min, int32_t max,
                                 struct ra_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (values[i] < min || values[i] > max) {
            char expected[48];
            snprintf(expected, sizeof expected, "%d to %d", min, max);
            return ra_ids_file_fail(file, name, i, expected, values[i], err);
        }
    }
    return RA_OK;
}
