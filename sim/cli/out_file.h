/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A text file that appears under its name when it is whole: until then it has a name of its own
 * beside it, and what stood there before stays. Devices and pipes are written directly.
 */
#ifndef RA_SIM_CLI_OUT_FILE_H
#define RA_SIM_CLI_OUT_FILE_H

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>

#include "sim/base/error.h"

struct ra_out_file {
    FILE *stream; /* NULL: not open */
    const char *path;
    int fd, error;            /* of the stream; errno of the first write that failed, 0: none */
    char part[PATH_MAX + 32]; /* "" when written directly */
};

/* `path` is borrowed until close, and *out must stay where it is. RA_EIO naming the file. */
RA_MUST_CHECK enum ra_status ra_out_open(struct ra_out_file *out, const char *path,
                                         struct ra_error *err);

/* Keep the file if `status` is RA_OK and everything was written, else remove it. Returns `status`,
 * or RA_EIO naming the file. Does nothing for a file that is not open. */
RA_MUST_CHECK enum ra_status ra_out_close(struct ra_out_file *out, enum ra_status status,
                                          struct ra_error *err);

#endif
