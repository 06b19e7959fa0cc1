/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The holder removes the file while it still holds the lock, so a taker checks that the file it
 * locked is the one that still has the name. In a folder that all may write to, the kernel refuses
 * O_CREAT of another user's file, and a name may be a trap: a link to a file worth having, a pipe.
 */
#include "profiler/lock_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { retry_ms = 20, flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK };

/* 0, EAGAIN when the name is gone or another file's, or another errno. */
static int still_named(int fd, const char *path)
{
    struct stat held, named;
    if (fstat(fd, &held) != 0 || lstat(path, &named) != 0)
        return errno == ENOENT ? EAGAIN : errno;
    return held.st_ino == named.st_ino && held.st_dev == named.st_dev ? 0 : EAGAIN;
}

/* Whoever else may write to the folder may have put a name of a file of ours there. */
static int is_plain(int fd)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return errno;
    if (!S_ISREG(info.st_mode))
        return EINVAL;
    return info.st_nlink > 1 ? EMLINK : 0;
}

/* The umask is for files of one's own. */
static int make(const char *path, bool is_shared)
{
    int fd = open(path, flags | O_CREAT | O_EXCL, 0666);
    if (fd >= 0 && is_shared)
        (void)!fchmod(fd, 0666);
    return fd;
}

/* Lock the file that has the name now. Returns 0, EAGAIN when it is held, or another errno. */
static int try_once(struct ra_lock_file *lock, bool is_shared)
{
    int fd = open(lock->path, flags);
    if (fd < 0 && errno == ENOENT)
        fd = make(lock->path, is_shared);
    if (fd < 0)
        return errno == EEXIST ? EAGAIN : errno;
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int why = is_shared ? is_plain(fd) : 0;
    if (why == 0 && fcntl(fd, F_OFD_SETLK, &whole) != 0)
        why = errno == EACCES ? EAGAIN : errno;
    if (why == 0)
        why = still_named(fd, lock->path);
    if (why != 0) {
        close(fd);
        return why;
    }
    lock->fd = fd;
    return 0;
}

int ra_lock_file_take(struct ra_lock_file *lock, char *path, bool is_shared, int wait_ms)
{
    lock->fd = -1;
    lock->path = path;
    int why = try_once(lock, is_shared);
    for (int waited = 0; why == EAGAIN && waited < wait_ms; waited += retry_ms) {
        nanosleep(&(struct timespec){.tv_nsec = retry_ms * 1000000L}, NULL);
        why = try_once(lock, is_shared);
    }
    return why;
}

void ra_lock_file_release(struct ra_lock_file *lock)
{
    if (lock->fd >= 0) {
        unlink(lock->path);
        close(lock->fd);
    }
    free(lock->path);
    *lock = (struct ra_lock_file){.fd = -1};
}

void ra_lock_file_sign(const struct ra_lock_file *lock, const char *line)
{
    if (ftruncate(lock->fd, 0) == 0)
        dprintf(lock->fd, "%s\n", line);
}

void ra_lock_file_signature(const struct ra_lock_file *lock, char *line, size_t size)
{
    int fd = open(lock->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t n = fd < 0 ? 0 : read(fd, line, size - 1);
    if (fd >= 0)
        close(fd);
    line[n > 0 ? n : 0] = '\0';
    line[strcspn(line, "\n")] = '\0';
}

bool ra_lock_file_is_free(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT;
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    bool is_free = fcntl(fd, F_OFD_GETLK, &whole) == 0 && whole.l_type == F_UNLCK;
    close(fd);
    return is_free;
}
