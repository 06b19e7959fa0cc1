/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer: everything is declared first, so that the header can be written with its final
 * offsets and slices put anywhere. Written ranges are remembered per tensor; a byte written twice
 * or never is an error, not a silent zero.
 */
#include "traces/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/base/json_memory.h"
#include "traces/file.h"
#include "traces/ranges.h"

#define CHECKSUM_KEY "content.sha256"
enum { DATA_ALIGNMENT = 4096, BIG_ALIGNMENT = 64 };

struct tensor {
    char *name, *json_name; /* json_name is quoted */
    enum ra_st_dtype dtype;
    int rank;
    uint64_t shape[RA_ST_MAX_RANK];
    uint64_t bytes, offset;
    size_t index;
    struct ra_ranges written;
};

struct pair {
    char *key, *json_key, *json_value;
};

struct ra_st_writer {
    char *path, *temporary;
    int fd;
    bool begun, committed;
    struct pair *pairs;
    size_t n_pairs, pairs_cap;
    struct tensor *tensors; /* in the order of declaration */
    size_t n_tensors, tensors_cap;
    uint64_t data_start, data_bytes;
    uint64_t checksum_at; /* file offset of its 64 digits, 0: not declared */
};

static enum ra_status out_of_memory(const struct ra_st_writer *w, struct ra_error *err)
{
    return ra_fail(err, RA_ENOMEM, "%s: out of memory", w->path);
}

static bool grow(void **array, size_t n, size_t *cap, size_t element)
{
    if (n < *cap)
        return true;
    size_t wanted = *cap ? 2 * *cap : 16;
    void *grown = realloc(*array, wanted * element);
    if (!grown)
        return false;
    *array = grown;
    *cap = wanted;
    return true;
}

/* Quoted and escaped; NULL when it is no UTF-8. */
static char *to_json(const char *text)
{
    json_t *string = json_string(text);
    char *quoted = string ? ra_json_dump(string, JSON_ENCODE_ANY) : NULL;
    json_decref(string);
    return quoted;
}

/* A name of our own beside the target, so that the rename stays within one file system. */
static enum ra_status open_temporary(struct ra_st_writer *w, struct ra_error *err)
{
    static atomic_uint counter;
    size_t room = strlen(w->path) + 48;
    w->temporary = malloc(room);
    if (!w->temporary)
        return out_of_memory(w, err);
    do {
        snprintf(w->temporary, room, "%s.tmp-%ld-%u", w->path, (long)getpid(),
                 atomic_fetch_add(&counter, 1));
        w->fd = open(w->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (w->fd < 0 && (errno == EEXIST || errno == EINTR));
    if (w->fd >= 0)
        return RA_OK;
    enum ra_status st = ra_file_fail(err, w->temporary, "cannot create");
    free(w->temporary);
    w->temporary = NULL;
    return st;
}

enum ra_status ra_st_writer_open(struct ra_st_writer **writer, const char *path,
                                 struct ra_error *err)
{
    *writer = NULL;
    struct ra_st_writer *w = calloc(1, sizeof *w);
    if (!w)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    w->fd = -1;
    w->path = strdup(path);
    struct stat info;
    enum ra_status st = RA_OK;
    if (!w->path)
        st = ra_fail(err, RA_ENOMEM, "%s: out of memory", path);
    else if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        st = ra_fail(err, RA_EIO, "%s: exists and is no regular file", path);
    else
        st = open_temporary(w, err);
    if (st == RA_OK)
        *writer = w;
    else
        ra_st_writer_close(w);
    return st;
}

enum ra_status ra_st_writer_metadata(struct ra_st_writer *w, const char *key, const char *value,
                                     struct ra_error *err)
{
    RA_BUG_ON(w->begun);
    if (strlen(value) > RA_ST_MAX_METADATA)
        return ra_fail(err, RA_ERANGE, "%s: metadata: %.100s: value of %zu bytes, at most %zu",
                       w->path, key, strlen(value), RA_ST_MAX_METADATA);
    if (strcmp(key, CHECKSUM_KEY) == 0 &&
        (strlen(value) != RA_SHA256_HEX - 1 || strspn(value, "0") != RA_SHA256_HEX - 1))
        return ra_fail(err, RA_EUSAGE, "%s: metadata: " CHECKSUM_KEY ": expected 64 zeros, got %s",
                       w->path, value);
    if (!grow((void **)&w->pairs, w->n_pairs, &w->pairs_cap, sizeof *w->pairs))
        return out_of_memory(w, err);
    struct pair *pair = &w->pairs[w->n_pairs++];
    *pair = (struct pair){strdup(key), to_json(key), to_json(value)};
    if (!pair->key || ra_json_starved())
        return out_of_memory(w, err);
    if (!pair->json_key || !pair->json_value)
        return ra_fail(err, RA_EUSAGE, "%s: metadata: %.100s: expected UTF-8", w->path, key);
    return RA_OK;
}

static enum ra_status tensor_bytes(const struct ra_st_writer *w, struct tensor *t,
                                   struct ra_error *err)
{
    uint64_t product = ra_st_dtype_bytes(t->dtype);
    bool has_zero = false, overflow = false;
    for (int i = 0; i < t->rank; i++) {
        has_zero = has_zero || t->shape[i] == 0;
        overflow = overflow ||
                   (t->shape[i] != 0 && __builtin_mul_overflow(product, t->shape[i], &product));
    }
    if (overflow || product > INT64_MAX)
        return ra_fail(err, RA_ERANGE, "%s: %.100s: its size exceeds 63 bits", w->path, t->name);
    t->bytes = has_zero ? 0 : product;
    return RA_OK;
}

enum ra_status ra_st_writer_tensor(struct ra_st_writer *w, const char *name, enum ra_st_dtype dtype,
                                   int rank, const uint64_t *shape, size_t *index,
                                   struct ra_error *err)
{
    RA_BUG_ON(w->begun || dtype == RA_ST_UNKNOWN);
    if (name[0] == '\0' || strcmp(name, "__metadata__") == 0)
        return ra_fail(err, RA_EUSAGE, "%s: '%s' cannot name a tensor", w->path, name);
    if (rank < 0 || rank > RA_ST_MAX_RANK)
        return ra_fail(err, RA_ERANGE, "%s: %.100s: rank %d, at most %d", w->path, name, rank,
                       RA_ST_MAX_RANK);
    if (w->n_tensors == RA_ST_MAX_TENSORS)
        return ra_fail(err, RA_ERANGE, "%s: more than %d tensors", w->path, RA_ST_MAX_TENSORS);
    if (!grow((void **)&w->tensors, w->n_tensors, &w->tensors_cap, sizeof *w->tensors))
        return out_of_memory(w, err);
    *index = w->n_tensors++;
    struct tensor *t = &w->tensors[*index];
    *t = (struct tensor){.name = strdup(name),
                         .json_name = to_json(name),
                         .dtype = dtype,
                         .rank = rank,
                         .index = *index};
    if (!t->name || ra_json_starved())
        return out_of_memory(w, err);
    if (!t->json_name)
        return ra_fail(err, RA_EUSAGE, "%s: %.100s: expected a name in UTF-8", w->path, name);
    if (rank > 0)
        memcpy(t->shape, shape, (size_t)rank * sizeof *shape);
    return tensor_bytes(w, t, err);
}

static int by_name(const void *a, const void *b)
{
    const struct tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int by_key(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    return strcmp(x->key, y->key);
}

/* Whole cache lines first, then by falling element size: every tensor lies aligned to its elements
 * although the format leaves no gaps. */
static int by_layout(const void *a, const void *b)
{
    const struct tensor *x = *(const struct tensor *const *)a;
    const struct tensor *y = *(const struct tensor *const *)b;
    bool x_big = x->bytes % BIG_ALIGNMENT == 0, y_big = y->bytes % BIG_ALIGNMENT == 0;
    if (x_big != y_big)
        return x_big ? -1 : 1;
    size_t x_element = ra_st_dtype_bytes(x->dtype), y_element = ra_st_dtype_bytes(y->dtype);
    if (!x_big && x_element != y_element)
        return x_element > y_element ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static enum ra_status check_duplicates(struct ra_st_writer *w, struct tensor **order,
                                       struct ra_error *err)
{
    qsort(order, w->n_tensors, sizeof(struct tensor *), by_name);
    for (size_t i = 1; i < w->n_tensors; i++)
        if (strcmp(order[i - 1]->name, order[i]->name) == 0)
            return ra_fail(err, RA_EUSAGE, "%s: %.100s: declared twice", w->path, order[i]->name);
    if (w->n_pairs > 0)
        qsort(w->pairs, w->n_pairs, sizeof *w->pairs, by_key);
    for (size_t i = 1; i < w->n_pairs; i++)
        if (strcmp(w->pairs[i - 1].key, w->pairs[i].key) == 0)
            return ra_fail(err, RA_EUSAGE, "%s: metadata: %.100s: declared twice", w->path,
                           w->pairs[i].key);
    return RA_OK;
}

static enum ra_status assign_offsets(struct ra_st_writer *w, struct tensor **order,
                                     struct ra_error *err)
{
    qsort(order, w->n_tensors, sizeof(struct tensor *), by_layout);
    for (size_t i = 0; i < w->n_tensors; i++) {
        order[i]->offset = w->data_bytes;
        if (__builtin_add_overflow(w->data_bytes, order[i]->bytes, &w->data_bytes) ||
            w->data_bytes > INT64_MAX - 2 * RA_ST_MAX_HEADER)
            return ra_fail(err, RA_ERANGE, "%s: the data would exceed 63 bits", w->path);
    }
    return RA_OK;
}

static void print_entry(FILE *out, const struct tensor *t, const char *separator)
{
    fprintf(out, "%s%s:{\"dtype\":\"%s\",\"shape\":[", separator, t->json_name,
            ra_st_dtype_name(t->dtype));
    for (int d = 0; d < t->rank; d++)
        fprintf(out, "%s%" PRIu64, d ? "," : "", t->shape[d]);
    fprintf(out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", t->offset, t->offset + t->bytes);
}

/* Eight bytes of length, the JSON text, blanks. Caller frees. */
static enum ra_status make_header(struct ra_st_writer *w, struct tensor **order, char **text,
                                  struct ra_error *err)
{
    size_t n = 0;
    *text = NULL;
    FILE *out = open_memstream(text, &n);
    if (!out)
        return out_of_memory(w, err);
    fputs("........{", out);
    for (size_t i = 0; i < w->n_pairs; i++) {
        fprintf(out, "%s%s:", i ? "," : "\"__metadata__\":{", w->pairs[i].json_key);
        if (strcmp(w->pairs[i].key, CHECKSUM_KEY) == 0)
            w->checksum_at = (uint64_t)ftello(out) + 1;
        fprintf(out, "%s%s", w->pairs[i].json_value, i + 1 == w->n_pairs ? "}" : "");
    }
    for (size_t i = 0; i < w->n_tensors; i++)
        print_entry(out, order[i], i || w->n_pairs ? "," : "");
    fputc('}', out);
    while (!ferror(out) && ftello(out) % DATA_ALIGNMENT != 0)
        fputc(' ', out);
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0 || failed)
        return out_of_memory(w, err);
    if (n - 8 > RA_ST_MAX_HEADER)
        return ra_fail(err, RA_ERANGE, "%s: a header of %zu bytes, at most %" PRIu64, w->path,
                       n - 8, RA_ST_MAX_HEADER);
    for (int i = 0; i < 8; i++)
        (*text)[i] = (char)((uint64_t)(n - 8) >> (8 * i) & 0xff);
    w->data_start = n;
    return RA_OK;
}

/* Take the room now: a disk that is too small should refuse before a long recording. */
static enum ra_status reserve(const struct ra_st_writer *w, struct ra_error *err)
{
    off_t total = (off_t)(w->data_start + w->data_bytes);
    if (fallocate(w->fd, 0, 0, total) == 0)
        return RA_OK;
    if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINTR)
        return ra_file_fail(err, w->path, "cannot reserve room");
    if (TEMP_FAILURE_RETRY(ftruncate(w->fd, total)) != 0)
        return ra_file_fail(err, w->path, "cannot set the length");
    return RA_OK;
}

enum ra_status ra_st_writer_begin(struct ra_st_writer *w, struct ra_error *err)
{
    RA_BUG_ON(w->begun);
    char *text = NULL;
    struct tensor **order = malloc((w->n_tensors + 1) * sizeof(struct tensor *));
    if (!order)
        return out_of_memory(w, err);
    for (size_t i = 0; i < w->n_tensors; i++)
        order[i] = &w->tensors[i];
    enum ra_status st = check_duplicates(w, order, err);
    if (st == RA_OK)
        st = assign_offsets(w, order, err);
    if (st == RA_OK)
        st = make_header(w, order, &text, err);
    if (st == RA_OK)
        st = reserve(w, err);
    if (st == RA_OK)
        st = ra_file_write(w->fd, w->path, 0, text, (size_t)w->data_start, err);
    w->begun = st == RA_OK;
    free(text);
    free((void *)order);
    return st;
}

enum ra_status ra_st_writer_put(struct ra_st_writer *w, size_t index, uint64_t offset,
                                const void *bytes, size_t n, struct ra_error *err)
{
    RA_BUG_ON(!w->begun || w->committed || index >= w->n_tensors);
    struct tensor *t = &w->tensors[index];
    if (offset > t->bytes || n > t->bytes - offset)
        return ra_fail(err, RA_ERANGE,
                       "%s: %.100s: %zu bytes at byte %" PRIu64 ", the tensor has %" PRIu64,
                       w->path, t->name, n, offset, t->bytes);
    if (n == 0)
        return RA_OK;
    enum ra_status st = ra_ranges_add(&t->written, offset, offset + n);
    if (st == RA_ERANGE)
        return ra_fail(err, st, "%s: %.100s: bytes %" PRIu64 " to %" PRIu64 " are written twice",
                       w->path, t->name, offset, offset + n);
    if (st != RA_OK)
        return out_of_memory(w, err);
    return ra_file_write(w->fd, w->path, w->data_start + t->offset + offset, bytes, n, err);
}

enum ra_status ra_st_writer_get(const struct ra_st_writer *w, size_t index, uint64_t offset,
                                void *bytes, size_t n, struct ra_error *err)
{
    RA_BUG_ON(!w->begun || w->committed || index >= w->n_tensors);
    const struct tensor *t = &w->tensors[index];
    RA_BUG_ON(offset > t->bytes || n > t->bytes - offset);
    return ra_file_read(w->fd, w->path, w->data_start + t->offset + offset, bytes, n, err);
}

static enum ra_status check_complete(const struct ra_st_writer *w, struct ra_error *err)
{
    for (size_t i = 0; i < w->n_tensors; i++) {
        const struct tensor *t = &w->tensors[i];
        uint64_t first = ra_ranges_first_gap(&t->written);
        if (first != t->bytes)
            return ra_fail(err, RA_EUSAGE,
                           "%s: %.100s: byte %" PRIu64 " of %" PRIu64 " was never written", w->path,
                           t->name, first, t->bytes);
    }
    return RA_OK;
}

/* Read back what is on its way to the disk: slices came in any order. */
static enum ra_status fill_checksum(const struct ra_st_writer *w, struct ra_error *err)
{
    if (w->checksum_at == 0)
        return RA_OK;
    static const size_t room = (size_t)1 << 20;
    unsigned char *buffer = malloc(room);
    if (!buffer)
        return out_of_memory(w, err);
    struct ra_sha256 hash;
    ra_sha256_init(&hash);
    enum ra_status st = RA_OK;
    for (uint64_t done = 0; st == RA_OK && done < w->data_bytes; done += room) {
        size_t n = w->data_bytes - done < room ? (size_t)(w->data_bytes - done) : room;
        st = ra_file_read(w->fd, w->temporary, w->data_start + done, buffer, n, err);
        ra_sha256_bytes(&hash, buffer, st == RA_OK ? n : 0);
    }
    free(buffer);
    if (st != RA_OK)
        return st;
    char hex[RA_SHA256_HEX];
    ra_sha256_hex(&hash, hex);
    return ra_file_write(w->fd, w->temporary, w->checksum_at, hex, RA_SHA256_HEX - 1, err);
}

/* So that the new name, too, survives a crash. Folders that cannot be synced are left alone. */
static void sync_folder(const struct ra_st_writer *w)
{
    char *folder = strdup(w->path);
    if (!folder)
        return;
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = '\0';
    int fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(folder);
}

enum ra_status ra_st_writer_commit(struct ra_st_writer *w, struct ra_error *err)
{
    RA_BUG_ON(!w->begun || w->committed);
    RA_TRY(check_complete(w, err));
    RA_TRY(fill_checksum(w, err));
    if (TEMP_FAILURE_RETRY(fsync(w->fd)) != 0)
        return ra_file_fail(err, w->temporary, "cannot sync");
    if (rename(w->temporary, w->path) != 0)
        return ra_file_fail(err, w->path, "cannot rename the finished file");
    w->committed = true;
    sync_folder(w);
    return RA_OK;
}

void ra_st_writer_close(struct ra_st_writer *w)
{
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    if (w->temporary && !w->committed)
        unlink(w->temporary);
    for (size_t i = 0; i < w->n_pairs; i++) {
        free(w->pairs[i].key);
        free(w->pairs[i].json_key);
        free(w->pairs[i].json_value);
    }
    for (size_t i = 0; i < w->n_tensors; i++) {
        free(w->tensors[i].name);
        free(w->tensors[i].json_name);
        ra_ranges_fini(&w->tensors[i].written);
    }
    free(w->pairs);
    free(w->tensors);
    free(w->temporary);
    free(w->path);
    free(w);
}
