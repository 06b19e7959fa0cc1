/* SPDX-License-Identifier: Apache-2.0 */
/* The index of a folder: which tensor lies in which file. Names are checked here. */
#ifndef RA_TRACES_SHARDS_INDEX_H
#define RA_TRACES_SHARDS_INDEX_H

#include <stddef.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_shards_entry {
    char *tensor, *file_name;
    size_t file; /* index into `files` */
};

/* All zero is an empty index. */
struct ra_shards_index {
    struct ra_shards_entry *entries; /* ascending tensor names, unique */
    size_t n, cap;
    const char **files; /* ascending, unique; plain names */
    size_t n_files;
};

/* Read FOLDER/NAME. Errors: RA_EIO, RA_EFORMAT, RA_ENOMEM; to be released anyway. */
RA_MUST_CHECK enum ra_status ra_shards_index_read(struct ra_shards_index *index, const char *folder,
                                                  const char *name, struct ra_error *err);
void ra_shards_index_fini(struct ra_shards_index *index);

#ifdef __cplusplus
}
#endif

#endif
