/* SPDX-License-Identifier: Apache-2.0 */
/* Written beside, then renamed. */
#include "sim/cli/out_file.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum ra_status ra_out_open(struct ra_out_file *out, const char *path, struct ra_error *err)
{
    struct stat info;
    bool is_direct = stat(path, &info) == 0 && !S_ISREG(info.st_mode);
    out->path = path;
    out->part[0] = '\0';
    if (strlen(path) >= PATH_MAX)
        return ra_fail(err, RA_EIO, "%.64s...: path too long", path);
    if (!is_direct)
        snprintf(out->part, sizeof out->part, "%s.tmp-%ld", path, (long)getpid());
    out->stream = fopen(is_direct ? path : out->part, "we");
    return out->stream ? RA_OK : ra_fail(err, RA_EIO, "%s: %s", path, strerror(errno));
}

enum ra_status ra_out_close(struct ra_out_file *out, enum ra_status status, struct ra_error *err)
{
    if (!out->stream)
        return status;
    errno = 0;
    bool failed = ferror(out->stream) != 0;
    if (fclose(out->stream) != 0)
        failed = true;
    out->stream = NULL;
    if (status == RA_OK && !failed && out->part[0] && rename(out->part, out->path) != 0)
        failed = true;
    if (status == RA_OK && failed)
        status =
            ra_fail(err, RA_EIO, "%s: %s", out->path, errno ? strerror(errno) : "write failed");
    if (status != RA_OK && out->part[0])
        unlink(out->part);
    return status;
}
