/* SPDX-License-Identifier: Apache-2.0 */
#include "profiler/gpu_lock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Not TMPDIR, which may be a user's own; a holder that is just leaving is waited for. */
#define FOLDER "/tmp"
enum { wait_ms = 200 };

/* "1234 2026-01-31 12:00:00 UTC" */
static void sign(const struct ra_lock_file *lock)
{
    char when[32], line[64];
    time_t now = time(NULL);
    struct tm utc;
    if (!gmtime_r(&now, &utc) || strftime(when, sizeof when, "%F %T UTC", &utc) == 0)
        when[0] = '\0';
    snprintf(line, sizeof line, "%ld %s", (long)getpid(), when);
    ra_lock_file_sign(lock, line);
}

static enum ra_status is_held(const struct ra_lock_file *lock, const char *uuid,
                              struct ra_error *err)
{
    char line[64], *since;
    ra_lock_file_signature(lock, line, sizeof line);
    long pid = strtol(line, &since, 10);
    if (pid > 0 && *since == ' ')
        return ra_fail(err, RA_ENODEV,
                       "cuda: another process profiles %s: pid %ld holds %s since%s; wait for its "
                       "end, or use --profile off",
                       uuid, pid, lock->path, since);
    return ra_fail(err, RA_ENODEV,
                   "cuda: another process profiles %s and holds %s; wait for its end, or use "
                   "--profile off",
                   uuid, lock->path);
}

enum ra_status ra_gpu_lock_take(struct ra_lock_file *lock, const char *uuid, struct ra_error *err)
{
    char *path = NULL;
    *lock = (struct ra_lock_file){.fd = -1};
    if (asprintf(&path, FOLDER "/rattn-sim.%s.lock", uuid) < 0)
        return ra_fail(err, RA_ENOMEM, "cuda: no memory for the name of the lock of %s", uuid);
    enum ra_status status = RA_OK;
    int why = ra_lock_file_take(lock, path, true, wait_ms);
    if (why == 0)
        sign(lock);
    else if (why == EAGAIN)
        status = is_held(lock, uuid, err);
    else
        status = ra_fail(err, RA_EIO,
                         "cuda: %s cannot be locked against other profilers: %s: %s; mend that, or "
                         "use --profile off",
                         uuid, lock->path, strerror(why));
    if (status != RA_OK)
        ra_lock_file_release(lock);
    return status;
}
