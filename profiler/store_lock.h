/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer lock: an open-file-description lock on `STORE.lock`, which the kernel drops when its
 * holder dies, however it dies. The file holds the holder's pid, for people; it goes when the lock
 * is released. SQLite's own locks keep the file whole; this one tells a living run from a dead one.
 */
#ifndef RA_PROFILER_STORE_LOCK_H
#define RA_PROFILER_STORE_LOCK_H

#include <stdbool.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A zeroed struct with fd -1 holds nothing. */
struct ra_store_lock {
    int fd;
    char *path;
};

/*
 * Take the lock of the store at `file`, trying for `wait_ms`. `name` is the store in messages.
 * RA_ESTORE naming the holder's pid, or the reason why the lock file cannot be made.
 */
RA_MUST_CHECK enum ra_status ra_store_lock_take(struct ra_store_lock *lock, const char *file,
                                                const char *name, int wait_ms,
                                                struct ra_error *err);
void ra_store_lock_release(struct ra_store_lock *lock);

/* Whether nobody holds the lock; takes nothing, works where nothing can be written. */
bool ra_store_lock_is_free(const char *file);

#ifdef __cplusplus
}
#endif

#endif
