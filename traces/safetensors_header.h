/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON header of a safetensors file, checked and taken apart. Internal to the reader
 * (traces/safetensors.c): it owns all names, so that a parsed file is a handful of arrays.
 */
#ifndef RA_TRACES_SAFETENSORS_HEADER_H
#define RA_TRACES_SAFETENSORS_HEADER_H

#include "traces/safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_st_pair {
    char *key, *value;
};

struct ra_st_header {
    const char *path; /* borrowed; opens every message */
    struct ra_st_tensor *tensors;
    const struct ra_st_tensor **by_name; /* [n_tensors], ascending */
    size_t n_tensors, tensors_cap;
    struct ra_st_pair *pairs; /* __metadata__, ascending keys */
    size_t n_pairs, pairs_cap;
    bool has_metadata;
};

/*
 * Parse and check text[n], of a file whose data section has data_bytes. `header->path` is set by
 * the caller, all else zero. On return tensors are in the order of their data and cover it without
 * hole or overlap. Errors: RA_EFORMAT, RA_ENOMEM; *header is to be released in any case.
 */
RA_MUST_CHECK enum ra_status ra_st_header_parse(struct ra_st_header *header, const char *text,
                                                size_t n, uint64_t data_bytes,
                                                struct ra_error *err);
void ra_st_header_fini(struct ra_st_header *header);

/* RA_ST_UNKNOWN for any other text. */
enum ra_st_dtype ra_st_dtype_parse(const char *text);

#ifdef __cplusplus
}
#endif

#endif
