/* SPDX-License-Identifier: Apache-2.0 */
/* Positioned reads and writes of regular files; every loop ends or advances. */
#include "traces/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum ra_status ra_file_fail(struct ra_error *err, const char *path, const char *what)
{
    int code = errno;
    return ra_fail(err, RA_EIO, "%s: %s: %s", path, what, strerror(code));
}

static const char *kind_name(mode_t mode)
{
    return S_ISDIR(mode)    ? "a folder"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISCHR(mode)  ? "a character device"
           : S_ISBLK(mode)  ? "a block device"
           : S_ISSOCK(mode) ? "a socket"
                            : "something else";
}

enum ra_status ra_file_open(const char *path, int *fd, uint64_t *bytes, struct ra_error *err)
{
    /* O_NONBLOCK: opening a pipe without a writer would otherwise wait for one. */
    int opened = (int)TEMP_FAILURE_RETRY(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (opened < 0)
        return ra_file_fail(err, path, "cannot open");
    struct stat info;
    enum ra_status st = RA_OK;
    if (fstat(opened, &info) != 0)
        st = ra_file_fail(err, path, "cannot stat");
    else if (!S_ISREG(info.st_mode))
        st = ra_fail(err, RA_EIO, "%s: expected a regular file, got %s", path,
                     kind_name(info.st_mode));
    if (st != RA_OK) {
        close(opened);
        return st;
    }
    *fd = opened;
    *bytes = (uint64_t)info.st_size;
    return RA_OK;
}

enum ra_status ra_file_read(int fd, const char *path, uint64_t offset, void *out, size_t n,
                            struct ra_error *err)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(fd, (char *)out + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return ra_file_fail(err, path, "cannot read");
        if (got == 0)
            return ra_fail(err, RA_EIO,
                           "%s: the file became shorter while open: expected %zu bytes at byte "
                           "%" PRIu64 ", got %zu",
                           path, n, offset, done);
        done += (size_t)got;
    }
    return RA_OK;
}

enum ra_status ra_file_write(int fd, const char *path, uint64_t offset, const void *bytes, size_t n,
                             struct ra_error *err)
{
    size_t done = 0;
    while (done < n) {
        ssize_t put = pwrite(fd, (const char *)bytes + done, n - done, (off_t)(offset + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return ra_file_fail(err, path, "cannot write");
        if (put == 0)
            return ra_fail(err, RA_EIO, "%s: the system wrote nothing at byte %" PRIu64, path,
                           offset + done);
        done += (size_t)put;
    }
    return RA_OK;
}
