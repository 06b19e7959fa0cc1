/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors container, read strictly and written whole or not at all. A file is untrusted:
 * every length is checked in 64 bits before it is used, and data is read with pread into the
 * caller's buffers, so that a file cut while open is an error message. Layout: u64 LE header
 * length, JSON header, data. Source: the format description of the safetensors project.
 */
#ifndef RA_TRACES_SAFETENSORS_H
#define RA_TRACES_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"
#include "sim/base/hash.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RA_ST_MAX_RANK = 8, RA_ST_MAX_TENSORS = 100000 };
#define RA_ST_MAX_HEADER ((uint64_t)16 << 20)
#define RA_ST_MAX_METADATA ((size_t)1 << 20)

enum ra_st_dtype {
    RA_ST_UNKNOWN, /* a name this reader does not know, or elements under a byte: listed only */
    RA_ST_BOOL,
    RA_ST_U8,
    RA_ST_I8,
    RA_ST_I16,
    RA_ST_U16,
    RA_ST_F16,
    RA_ST_BF16,
    RA_ST_I32,
    RA_ST_U32,
    RA_ST_F32,
    RA_ST_F64,
    RA_ST_I64,
    RA_ST_U64
};

/* Bytes of one element; 0 for RA_ST_UNKNOWN. */
size_t ra_st_dtype_bytes(enum ra_st_dtype dtype);
/* "F16" etc. */
const char *ra_st_dtype_name(enum ra_st_dtype dtype);

struct ra_st_tensor {
    const char *name; /* borrowed from the file */
    enum ra_st_dtype dtype;
    const char *dtype_text; /* as the file spells it */
    int rank;
    uint64_t shape[RA_ST_MAX_RANK];
    uint64_t n_elements;
    uint64_t offset, bytes; /* from the start of the data section */
};

struct ra_st_file;

/* Open and check the whole header. Errors: RA_EIO, RA_EFORMAT, RA_ENOMEM; name file and tensor. */
RA_MUST_CHECK enum ra_status ra_st_open(struct ra_st_file **file, const char *path,
                                        struct ra_error *err);
void ra_st_close(struct ra_st_file *file);

const char *ra_st_path(const struct ra_st_file *file);
uint64_t ra_st_data_bytes(const struct ra_st_file *file);
size_t ra_st_count(const struct ra_st_file *file);
/* In the order of their data. */
const struct ra_st_tensor *ra_st_at(const struct ra_st_file *file, size_t index);
/* NULL when absent. Logarithmic. */
const struct ra_st_tensor *ra_st_find(const struct ra_st_file *file, const char *name);
/* Value of a __metadata__ key, NULL when absent. */
const char *ra_st_metadata(const struct ra_st_file *file, const char *key);
size_t ra_st_metadata_count(const struct ra_st_file *file);
void ra_st_metadata_at(const struct ra_st_file *file, size_t index, const char **key,
                       const char **value);

/* Read n bytes at `offset` of the tensor's data. A file that has become shorter is RA_EIO. */
RA_MUST_CHECK enum ra_status ra_st_read(const struct ra_st_file *file,
                                        const struct ra_st_tensor *tensor, uint64_t offset,
                                        void *out, size_t n, struct ra_error *err);

/* SHA-256 of the data section, streamed. */
RA_MUST_CHECK enum ra_status ra_st_digest(const struct ra_st_file *file, char hex[RA_SHA256_HEX],
                                          struct ra_error *err);

/*
 * Writing: declare metadata and tensors, begin, write slices in any order, commit. Until commit
 * the bytes live in a temporary file beside `path`, which close removes; commit fills in
 * "content.sha256" (declare it with 64 zeros to have it), syncs and renames.
 */
struct ra_st_writer;
RA_MUST_CHECK enum ra_status ra_st_writer_open(struct ra_st_writer **writer, const char *path,
                                               struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_st_writer_metadata(struct ra_st_writer *writer, const char *key,
                                                   const char *value, struct ra_error *err);
/* *index numbers the tensors from 0 in the order of declaration. */
RA_MUST_CHECK enum ra_status ra_st_writer_tensor(struct ra_st_writer *writer, const char *name,
                                                 enum ra_st_dtype dtype, int rank,
                                                 const uint64_t *shape, size_t *index,
                                                 struct ra_error *err);
/* Write the header, padded with blanks so that the data starts at a multiple of 4096. */
RA_MUST_CHECK enum ra_status ra_st_writer_begin(struct ra_st_writer *writer, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_st_writer_put(struct ra_st_writer *writer, size_t index,
                                              uint64_t offset, const void *bytes, size_t n,
                                              struct ra_error *err);
/* Read back what was written. */
RA_MUST_CHECK enum ra_status ra_st_writer_get(const struct ra_st_writer *writer, size_t index,
                                              uint64_t offset, void *bytes, size_t n,
                                              struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_st_writer_commit(struct ra_st_writer *writer, struct ra_error *err);
/* Removes the temporary file unless committed. NULL is allowed. */
void ra_st_writer_close(struct ra_st_writer *writer);

#ifdef __cplusplus
}
#endif

#endif
