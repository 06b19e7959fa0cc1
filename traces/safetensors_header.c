/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each member of the header is decoded alone, checked, and reduced to one row; after the last, one
 * sort by name finds duplicates (also those that differ only by escapes) and one by offset finds
 * holes and overlaps. Nothing here is quadratic.
 */
#include "traces/safetensors_header.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/json_members.h"

/* Separators and brackets of the longest entry allowed: 3 fields, 8 extents, 2 offsets. */
enum { MAX_ENTRY_PARTS = 32 };

struct parser {
    struct ra_st_header *header;
    const char *where; /* "PATH: header" */
    const char *name;  /* of the tensor being read */
    struct ra_error *err;
};

static enum ra_status out_of_memory(const struct parser *p)
{
    return ra_fail(p->err, RA_ENOMEM, "%s: out of memory", p->where);
}

/* Room for one more element; the array keeps its place on failure. */
static bool grow(void **array, size_t n, size_t *cap, size_t element)
{
    if (n < *cap)
        return true;
    size_t wanted = *cap ? 2 * *cap : 64;
    void *grown = realloc(*array, wanted * element);
    if (!grown)
        return false;
    *array = grown;
    *cap = wanted;
    return true;
}

static enum ra_status metadata_member(void *context, const char *key, struct ra_json_text text,
                                      struct ra_error *err)
{
    struct parser *p = context;
    struct ra_st_header *h = p->header;
    if (text.bytes[0] != '"')
        return ra_fail(err, RA_EFORMAT, "%s: __metadata__: %.80s: expected a string, got '%.*s'",
                       p->where, key, text.n < 40 ? (int)text.n : 40, text.bytes);
    if (!grow((void **)&h->pairs, h->n_pairs, &h->pairs_cap, sizeof *h->pairs))
        return out_of_memory(p);
    json_t *value;
    RA_TRY(ra_json_load(p->where, text, &value, err));
    enum ra_status st = RA_OK;
    if (json_string_length(value) > RA_ST_MAX_METADATA)
        st = ra_fail(err, RA_EFORMAT, "%s: __metadata__: %.80s: value of %zu bytes, at most %zu",
                     p->where, key, json_string_length(value), RA_ST_MAX_METADATA);
    if (st == RA_OK) {
        struct ra_st_pair *pair = &h->pairs[h->n_pairs++];
        pair->key = strdup(key);
        pair->value = strdup(json_string_value(value));
        if (!pair->key || !pair->value)
            st = out_of_memory(p);
    }
    json_decref(value);
    return st;
}

static enum ra_status parse_metadata(struct parser *p, struct ra_json_text text)
{
    if (p->header->has_metadata)
        return ra_fail(p->err, RA_EFORMAT, "%s: __metadata__: given twice", p->where);
    p->header->has_metadata = true;
    struct ra_json_walk walk = {p->where, RA_ST_MAX_TENSORS, 1, metadata_member, p};
    size_t end;
    return ra_json_members(&walk, text, &end, p->err);
}

static enum ra_status entry_fail(const struct parser *p, const char *what)
{
    return ra_fail(p->err, RA_EFORMAT, "%s: %.100s: %s", p->where, p->name, what);
}

/* A JSON integer that is not negative; 1.0 and 1e3 are none. */
static enum ra_status get_u64(const struct parser *p, const json_t *value, const char *field,
                              uint64_t *out)
{
    if (json_is_real(value))
        return ra_fail(p->err, RA_EFORMAT, "%s: %.100s: %s: expected an integer, got the real %g",
                       p->where, p->name, field, json_real_value(value));
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return ra_fail(p->err, RA_EFORMAT, "%s: %.100s: %s: expected integers of 0 or more",
                       p->where, p->name, field);
    *out = (uint64_t)json_integer_value(value);
    return RA_OK;
}

static enum ra_status parse_shape(const struct parser *p, const json_t *shape,
                                  struct ra_st_tensor *tensor)
{
    if (!json_is_array(shape))
        return entry_fail(p, "shape: expected an array");
    if (json_array_size(shape) > RA_ST_MAX_RANK)
        return ra_fail(p->err, RA_EFORMAT, "%s: %.100s: shape: rank %zu, at most %d", p->where,
                       p->name, json_array_size(shape), RA_ST_MAX_RANK);
    tensor->rank = (int)json_array_size(shape);
    /* A zero extent must not hide that the others overflow. */
    uint64_t product = 1;
    bool has_zero = false;
    for (int i = 0; i < tensor->rank; i++) {
        RA_TRY(get_u64(p, json_array_get(shape, (size_t)i), "shape", &tensor->shape[i]));
        has_zero = has_zero || tensor->shape[i] == 0;
        if (tensor->shape[i] != 0 && __builtin_mul_overflow(product, tensor->shape[i], &product))
            return entry_fail(p, "shape: the product of its extents exceeds 64 bits");
    }
    tensor->n_elements = has_zero ? 0 : product;
    return RA_OK;
}

static enum ra_status parse_offsets(const struct parser *p, const json_t *offsets,
                                    struct ra_st_tensor *tensor)
{
    if (!json_is_array(offsets) || json_array_size(offsets) != 2)
        return entry_fail(p, "data_offsets: expected an array of two");
    uint64_t begin = 0, end = 0;
    RA_TRY(get_u64(p, json_array_get(offsets, 0), "data_offsets", &begin));
    RA_TRY(get_u64(p, json_array_get(offsets, 1), "data_offsets", &end));
    if (begin > end)
        return ra_fail(p->err, RA_EFORMAT,
                       "%s: %.100s: data_offsets: begin %" PRIu64 " is after end %" PRIu64,
                       p->where, p->name, begin, end);
    tensor->offset = begin;
    tensor->bytes = end - begin;
    return RA_OK;
}

static enum ra_status check_bytes(const struct parser *p, const struct ra_st_tensor *tensor)
{
    if (tensor->dtype == RA_ST_UNKNOWN)
        return RA_OK; /* listed, never read */
    uint64_t wanted;
    if (__builtin_mul_overflow(tensor->n_elements, ra_st_dtype_bytes(tensor->dtype), &wanted))
        return entry_fail(p, "shape: its bytes exceed 64 bits");
    if (wanted != tensor->bytes)
        return ra_fail(p->err, RA_EFORMAT,
                       "%s: %.100s: data_offsets: expected %" PRIu64
                       " bytes for its shape and dtype %s, got %" PRIu64,
                       p->where, p->name, wanted, tensor->dtype_text, tensor->bytes);
    return RA_OK;
}

static enum ra_status parse_entry(const struct parser *p, const json_t *entry,
                                  struct ra_st_tensor *tensor)
{
    static const char *const fields[] = {"dtype", "shape", "data_offsets"};
    for (size_t i = 0; i < 3; i++)
        if (!json_object_get(entry, fields[i]))
            return ra_fail(p->err, RA_EFORMAT, "%s: %.100s: %s: missing", p->where, p->name,
                           fields[i]);
    if (json_object_size(entry) != 3)
        return entry_fail(p, "fields other than dtype, shape, data_offsets");
    const json_t *dtype = json_object_get(entry, "dtype");
    if (!json_is_string(dtype))
        return entry_fail(p, "dtype: expected a string");

    /* Name and dtype share one allocation, released by way of the name. */
    size_t name_bytes = strlen(p->name) + 1, dtype_bytes = json_string_length(dtype) + 1;
    char *texts = malloc(name_bytes + dtype_bytes);
    if (!texts)
        return out_of_memory(p);
    memcpy(texts, p->name, name_bytes);
    memcpy(texts + name_bytes, json_string_value(dtype), dtype_bytes);
    tensor->name = texts;
    tensor->dtype_text = texts + name_bytes;
    tensor->dtype = ra_st_dtype_parse(tensor->dtype_text);
    RA_TRY(parse_shape(p, json_object_get(entry, "shape"), tensor));
    RA_TRY(parse_offsets(p, json_object_get(entry, "data_offsets"), tensor));
    return check_bytes(p, tensor);
}

static enum ra_status header_member(void *context, const char *key, struct ra_json_text text,
                                    struct ra_error *err)
{
    struct parser *p = context;
    struct ra_st_header *h = p->header;
    if (strcmp(key, "__metadata__") == 0)
        return parse_metadata(p, text);
    p->name = key;
    if (key[0] == '\0')
        return ra_fail(err, RA_EFORMAT, "%s: byte %zu: a tensor with an empty name", p->where,
                       text.at);
    if (h->n_tensors == RA_ST_MAX_TENSORS)
        return ra_fail(err, RA_EFORMAT, "%s: more than %d tensors", p->where, RA_ST_MAX_TENSORS);
    if (text.bytes[0] != '{')
        return entry_fail(p, "expected an object of dtype, shape, data_offsets");
    if (text.negative)
        return entry_fail(p, "a negative number");
    if (text.parts > MAX_ENTRY_PARTS)
        return entry_fail(p, "more values than dtype, shape of rank 8 and data_offsets hold");
    if (!grow((void **)&h->tensors, h->n_tensors, &h->tensors_cap, sizeof *h->tensors))
        return out_of_memory(p);
    struct ra_st_tensor *tensor = &h->tensors[h->n_tensors++];
    memset(tensor, 0, sizeof *tensor);
    char where[400];
    snprintf(where, sizeof where, "%s: %.100s", p->where, key);
    json_t *entry;
    RA_TRY(ra_json_load(where, text, &entry, err));
    enum ra_status st = parse_entry(p, entry, tensor);
    json_decref(entry);
    return st;
}

static int by_name(const void *a, const void *b)
{
    const struct ra_st_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Empty tensors come before the one that begins where they lie. */
static int by_offset(const void *a, const void *b)
{
    const struct ra_st_tensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int by_key(const void *a, const void *b)
{
    const struct ra_st_pair *x = a, *y = b;
    return strcmp(x->key, y->key);
}

static enum ra_status index_names(const struct parser *p)
{
    struct ra_st_header *h = p->header;
    h->by_name = malloc((h->n_tensors + 1) * sizeof(struct ra_st_tensor *));
    if (!h->by_name)
        return out_of_memory(p);
    for (size_t i = 0; i < h->n_tensors; i++)
        h->by_name[i] = &h->tensors[i];
    qsort(h->by_name, h->n_tensors, sizeof(struct ra_st_tensor *), by_name);
    for (size_t i = 1; i < h->n_tensors; i++)
        if (strcmp(h->by_name[i - 1]->name, h->by_name[i]->name) == 0)
            return ra_fail(p->err, RA_EFORMAT, "%s: %.100s: given twice", p->where,
                           h->by_name[i]->name);
    if (h->n_pairs > 0)
        qsort(h->pairs, h->n_pairs, sizeof *h->pairs, by_key);
    for (size_t i = 1; i < h->n_pairs; i++)
        if (strcmp(h->pairs[i - 1].key, h->pairs[i].key) == 0)
            return ra_fail(p->err, RA_EFORMAT, "%s: __metadata__: %.100s: given twice", p->where,
                           h->pairs[i].key);
    return RA_OK;
}

static enum ra_status check_coverage(const struct parser *p, uint64_t data_bytes)
{
    struct ra_st_header *h = p->header;
    if (h->n_tensors > 0)
        qsort(h->tensors, h->n_tensors, sizeof *h->tensors, by_offset);
    uint64_t end = 0;
    for (size_t i = 0; i < h->n_tensors; i++) {
        const struct ra_st_tensor *tensor = &h->tensors[i];
        if (tensor->offset != end)
            return ra_fail(p->err, RA_EFORMAT,
                           "%s: %.100s: data_offsets: expected begin %" PRIu64 ", got %" PRIu64
                           " (%s)",
                           p->where, tensor->name, end, tensor->offset,
                           tensor->offset < end ? "overlaps the tensor before" : "leaves a hole");
        end += tensor->bytes; /* begin equals the end before and end is a parsed 63-bit number */
    }
    if (end != data_bytes)
        return ra_fail(p->err, RA_EFORMAT,
                       "%s: the tensors end at byte %" PRIu64 " of the data, the file has %" PRIu64
                       " bytes of data",
                       p->where, end, data_bytes);
    return RA_OK;
}

enum ra_status ra_st_header_parse(struct ra_st_header *header, const char *text, size_t n,
                                  uint64_t data_bytes, struct ra_error *err)
{
    char where[256];
    snprintf(where, sizeof where, "%.240s: header", header->path);
    struct parser p = {header, where, "", err};
    if (n == 0)
        return ra_fail(err, RA_EFORMAT, "%s: expected '{' as its first byte, got nothing", where);
    if (text[0] != '{')
        return ra_fail(err, RA_EFORMAT, "%s: expected '{' as its first byte, got 0x%02x", where,
                       (unsigned)(unsigned char)text[0]);
    struct ra_json_walk walk = {where, RA_ST_MAX_TENSORS + 1, 0, header_member, &p};
    size_t end;
    RA_TRY(ra_json_members(&walk, (struct ra_json_text){text, n, 0, 0, false}, &end, err));
    for (size_t i = end; i < n; i++)
        if (text[i] != ' ')
            return ra_fail(err, RA_EFORMAT, "%s: byte %zu: expected blanks after '}', got 0x%02x",
                           where, i, (unsigned)(unsigned char)text[i]);
    RA_TRY(check_coverage(&p, data_bytes));
    return index_names(&p);
}

void ra_st_header_fini(struct ra_st_header *header)
{
    for (size_t i = 0; i < header->n_tensors; i++)
        free((void *)(uintptr_t)header->tensors[i].name);
    for (size_t i = 0; i < header->n_pairs; i++) {
        free(header->pairs[i].key);
        free(header->pairs[i].value);
    }
    free(header->tensors);
    free((void *)header->by_name);
    free(header->pairs);
    *header = (struct ra_st_header){0};
}
