/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and writing a regular file at given offsets, whole or with a message. Interrupted and
 * short calls are continued; pipes, devices and folders are refused without waiting for them.
 */
#ifndef RA_TRACES_FILE_H
#define RA_TRACES_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Open for reading; *fd is the caller's to close, *bytes the size now. RA_EIO otherwise. */
RA_MUST_CHECK enum ra_status ra_file_open(const char *path, int *fd, uint64_t *bytes,
                                          struct ra_error *err);

/* Fill out[n] from `offset`. RA_EIO when the file ends earlier. `path` is for the message. */
RA_MUST_CHECK enum ra_status ra_file_read(int fd, const char *path, uint64_t offset, void *out,
                                          size_t n, struct ra_error *err);

RA_MUST_CHECK enum ra_status ra_file_write(int fd, const char *path, uint64_t offset,
                                           const void *bytes, size_t n, struct ra_error *err);

/* "PATH: WHAT: reason" from errno, as RA_EIO. */
enum ra_status ra_file_fail(struct ra_error *err, const char *path, const char *what);

#ifdef __cplusplus
}
#endif

#endif
