/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer lock of the store. The holder removes the file while it still holds the lock, so a
 * taker checks that the file it locked is the one that still has the name.
 */
#include "profiler/store_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { retry_ms = 20 };

static char *lock_path(const char *file)
{
    char *path = NULL;
    return asprintf(&path, "%s.lock", file) < 0 ? NULL : path;
}

/* 0, EAGAIN when the name is gone or another file's, or another errno. */
static int still_named(int fd, const char *path)
{
    struct stat held, named;
    if (fstat(fd, &held) != 0 || stat(path, &named) != 0)
        return errno == ENOENT ? EAGAIN : errno;
    return held.st_ino == named.st_ino && held.st_dev == named.st_dev ? 0 : EAGAIN;
}

/* Lock the file that has the name now. Returns 0, EAGAIN when it is held, or another errno. */
static int try_once(struct ra_store_lock *lock)
{
    int fd = open(lock->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0)
        return errno;
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int why = fcntl(fd, F_OFD_SETLK, &whole) == 0 ? 0 : errno;
    if (why == 0)
        why = still_named(fd, lock->path);
    if (why != 0) {
        close(fd);
        return why == EACCES ? EAGAIN : why;
    }
    lock->fd = fd;
    return 0;
}

/* A full disk may refuse even these few bytes; the lock holds all the same. */
static void write_pid(int fd)
{
    if (ftruncate(fd, 0) == 0)
        dprintf(fd, "%ld\n", (long)getpid());
}

static long read_pid(const char *path)
{
    char text[32] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? strtol(text, NULL, 10) : 0;
}

static enum ra_status held_by_another(const struct ra_store_lock *lock, const char *name,
                                      struct ra_error *err)
{
    long pid = read_pid(lock->path);
    if (pid > 0)
        return ra_fail(err, RA_ESTORE, "%s: another process writes to it: pid %ld holds %s", name,
                       pid, lock->path);
    return ra_fail(err, RA_ESTORE, "%s: another process writes to it and holds %s", name,
                   lock->path);
}

enum ra_status ra_store_lock_take(struct ra_store_lock *lock, const char *file, const char *name,
                                  int wait_ms, struct ra_error *err)
{
    lock->fd = -1;
    lock->path = lock_path(file);
    if (!lock->path)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for the name of its lock", name);
    enum ra_status status = RA_OK;
    int why = try_once(lock);
    for (int waited = 0; why == EAGAIN && waited < wait_ms; waited += retry_ms) {
        nanosleep(&(struct timespec){.tv_nsec = retry_ms * 1000000L}, NULL);
        why = try_once(lock);
    }
    if (why == 0)
        write_pid(lock->fd);
    else if (why == EAGAIN)
        status = held_by_another(lock, name, err);
    else
        status = ra_fail(err, RA_ESTORE, "%s: cannot be written: %s: %s", name, lock->path,
                         strerror(why));
    if (status != RA_OK)
        ra_store_lock_release(lock);
    return status;
}

void ra_store_lock_release(struct ra_store_lock *lock)
{
    if (lock->fd >= 0) {
        unlink(lock->path);
        close(lock->fd);
    }
    free(lock->path);
    *lock = (struct ra_store_lock){.fd = -1};
}

bool ra_store_lock_is_free(const char *file)
{
    char *path = lock_path(file);
    if (!path)
        return false;
    bool is_free = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        is_free = errno == ENOENT;
    } else {
        struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        is_free = fcntl(fd, F_OFD_GETLK, &whole) == 0 && whole.l_type == F_UNLCK;
        close(fd);
    }
    free(path);
    return is_free;
}
