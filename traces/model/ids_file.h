/* SPDX-License-Identifier: Apache-2.0 */
/* What the formats of token ids share: format and version, whole tensors of a stated type and
 * shape, values in a range. */
#ifndef RA_TRACES_MODEL_IDS_FILE_H
#define RA_TRACES_MODEL_IDS_FILE_H

#include <stdbool.h>

#include "traces/shards.h"

#ifdef __cplusplus
extern "C" {
#endif

/* RA_EFORMAT unless metadata says `format` and version 1.x. */
RA_MUST_CHECK enum ra_status ra_ids_file_open(struct ra_shards **file, const char *path,
                                              const char *format, struct ra_error *err);

/* Value of a key for free(); "" where it is absent and may be. */
RA_MUST_CHECK enum ra_status ra_ids_file_text(const struct ra_shards *file, const char *key,
                                              bool required, char **value, struct ra_error *err);

/* rank 1 or 2; a length of 0 takes any from 1 on, and is filled in. */
struct ra_ids_shape {
    enum ra_st_dtype dtype;
    int rank;
    uint64_t length[2];
};

/* All of a tensor, for free(). Absent and not required, *out is NULL. */
RA_MUST_CHECK enum ra_status ra_ids_file_tensor(const struct ra_shards *file, const char *name,
                                                bool required, struct ra_ids_shape *shape,
                                                void **out, struct ra_error *err);

/* "PATH: TENSOR: element I: expected EXPECTED, got GOT" as RA_EFORMAT. */
enum ra_status ra_ids_file_fail(const struct ra_shards *file, const char *name, size_t i,
                                const char *expected, int64_t got, struct ra_error *err);

/* Whether all values are in min..max. */
RA_MUST_CHECK enum ra_status ra_ids_file_range(const struct ra_shards *file, const char *name,
                                               const int32_t *values, size_t n, int32_t min,
                                               int32_t max, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
