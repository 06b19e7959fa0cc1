/* SPDX-License-Identifier: Apache-2.0 */
/* Written beside, then renamed. The stream's writes are made here, so that the first that fails
 * leaves its reason: stdio keeps only that one did. */
#include "sim/cli/out_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static ssize_t put(void *context, const char *bytes, size_t n)
{
    struct ra_out_file *out = context;
    size_t left = n;
    while (left > 0) {
        ssize_t wrote = write(out->fd, bytes, left);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0) {
            out->error = out->error ? out->error : wrote < 0 ? errno : EIO;
            return 0; /* an error, says fopencookie */
        }
        bytes += wrote;
        left -= (size_t)wrote;
    }
    return (ssize_t)n;
}

static int end(void *context)
{
    struct ra_out_file *out = context;
    if (close(out->fd) == 0)
        return 0;
    out->error = out->error ? out->error : errno;
    return -1;
}

enum ra_status ra_out_open(struct ra_out_file *out, const char *path, struct ra_error *err)
{
    struct stat info;
    bool is_direct = stat(path, &info) == 0 && !S_ISREG(info.st_mode);
    out->path = path;
    out->part[0] = '\0';
    out->stream = NULL;
    out->error = 0;
    if (strlen(path) >= PATH_MAX)
        return ra_fail(err, RA_EIO, "%.64s...: path too long", path);
    if (!is_direct)
        snprintf(out->part, sizeof out->part, "%s.tmp-%ld", path, (long)getpid());
    out->fd = open(is_direct ? path : out->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (out->fd >= 0)
        out->stream = fopencookie(out, "w", (cookie_io_functions_t){.write = put, .close = end});
    if (out->stream)
        return RA_OK;
    enum ra_status st = ra_fail(err, out->fd >= 0 ? RA_ENOMEM : RA_EIO, "%s: %s", path,
                                out->fd >= 0 ? "no memory to write it" : strerror(errno));
    if (out->fd >= 0)
        close(out->fd);
    if (out->fd >= 0 && out->part[0])
        unlink(out->part);
    return st;
}

enum ra_status ra_out_close(struct ra_out_file *out, enum ra_status status, struct ra_error *err)
{
    if (!out->stream)
        return status;
    bool failed = ferror(out->stream) != 0;
    if (fclose(out->stream) != 0 || out->error)
        failed = true;
    out->stream = NULL;
    if (status == RA_OK && !failed && out->part[0] && rename(out->part, out->path) != 0) {
        failed = true;
        out->error = errno;
    }
    if (status == RA_OK && failed)
        status = ra_fail(err, RA_EIO, "%s: %s", out->path,
                         out->error ? strerror(out->error) : "write failed");
    if (status != RA_OK && out->part[0])
        unlink(out->part);
    return status;
}
