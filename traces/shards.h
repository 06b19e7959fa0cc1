/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One or several safetensors files seen as one: a lone file, or a folder with `trace.index.json`
 * whose weight_map tells which file of that folder holds which tensor. Knows nothing of what the
 * tensors mean. Names in an index are plain file names; the folder is all that can be reached.
 */
#ifndef RA_TRACES_SHARDS_H
#define RA_TRACES_SHARDS_H

#include "traces/safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RA_SHARDS_MAX = 256 };

/* A tensor and the file it lies in. tensor is NULL when there is none. */
struct ra_shard_tensor {
    const struct ra_st_file *file;
    const struct ra_st_tensor *tensor;
};

struct ra_shards;

/*
 * Open a file or a folder. Every tensor must be in exactly one file and in the index; metadata
 * keys that several files state must agree, but for "content.sha256" and "capture.time_utc".
 * Errors: RA_EIO, RA_EFORMAT, RA_ENOMEM.
 */
RA_MUST_CHECK enum ra_status ra_shards_open(struct ra_shards **shards, const char *path,
                                            struct ra_error *err);

/* The same of a folder whose index has another name. */
RA_MUST_CHECK enum ra_status ra_shards_open_index(struct ra_shards **shards, const char *folder,
                                                  const char *index, struct ra_error *err);
void ra_shards_close(struct ra_shards *shards);

const char *ra_shards_path(const struct ra_shards *shards);

/* All tensors, by ascending name. */
size_t ra_shards_count(const struct ra_shards *shards);
struct ra_shard_tensor ra_shards_at(const struct ra_shards *shards, size_t index);
struct ra_shard_tensor ra_shards_find(const struct ra_shards *shards, const char *name);

/* Value of a key in any of the files, NULL when absent. */
const char *ra_shards_metadata(const struct ra_shards *shards, const char *key);

/*
 * The checksum that the data is stated to have: "content.sha256" of a lone file; of a folder the
 * SHA-256 of the files' checksums, in hex, in the order of file names. "" when one states none.
 */
void ra_shards_stated_digest(const struct ra_shards *shards, char hex[RA_SHA256_HEX]);

/* The checksum that the data has, put together in the same way. Reads all of it. */
RA_MUST_CHECK enum ra_status ra_shards_digest(const struct ra_shards *shards,
                                              char hex[RA_SHA256_HEX], struct ra_error *err);

/* Compare every file's data with its checksum. RA_EDIVERGED when one differs or states none. */
RA_MUST_CHECK enum ra_status ra_shards_verify_digest(const struct ra_shards *shards,
                                                     struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
