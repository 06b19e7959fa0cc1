/* SPDX-License-Identifier: Apache-2.0 */
#include "profiler/store_lock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *lock_path(const char *file)
{
    char *path = NULL;
    return asprintf(&path, "%s.lock", file) < 0 ? NULL : path;
}

static enum ra_status held_by_another(const struct ra_lock_file *lock, const char *name,
                                      struct ra_error *err)
{
    char line[32];
    ra_lock_file_signature(lock, line, sizeof line);
    long pid = strtol(line, NULL, 10);
    if (pid > 0)
        return ra_fail(err, RA_ESTORE, "%s: another process writes to it: pid %ld holds %s", name,
                       pid, lock->path);
    return ra_fail(err, RA_ESTORE, "%s: another process writes to it and holds %s", name,
                   lock->path);
}

enum ra_status ra_store_lock_take(struct ra_lock_file *lock, const char *file, const char *name,
                                  int wait_ms, struct ra_error *err)
{
    char pid[24], *path = lock_path(file);
    *lock = (struct ra_lock_file){.fd = -1};
    if (!path)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for the name of its lock", name);
    enum ra_status status = RA_OK;
    int why = ra_lock_file_take(lock, path, false, wait_ms);
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    if (why == 0)
        ra_lock_file_sign(lock, pid);
    else if (why == EAGAIN)
        status = held_by_another(lock, name, err);
    else
        status = ra_fail(err, RA_ESTORE, "%s: cannot be written: %s: %s", name, lock->path,
                         strerror(why));
    if (status != RA_OK)
        ra_lock_file_release(lock);
    return status;
}

bool ra_store_lock_is_free(const char *file)
{
    char *path = lock_path(file);
    bool is_free = path && ra_lock_file_is_free(path);
    free(path);
    return is_free;
}
