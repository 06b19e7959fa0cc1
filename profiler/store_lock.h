/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer lock: a lock file `STORE.lock` that holds the holder's pid, for people. SQLite's own
 * locks keep the file whole; this one tells a living run from a dead one.
 */
#ifndef RA_PROFILER_STORE_LOCK_H
#define RA_PROFILER_STORE_LOCK_H

#include "profiler/lock_file.h"
#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Take the lock of the store at `file`, trying for `wait_ms`; ra_lock_file_release ends it. `name`
 * is the store in messages. RA_ESTORE naming the holder's pid, or the reason why the lock file
 * cannot be made.
 */
RA_MUST_CHECK enum ra_status ra_store_lock_take(struct ra_lock_file *lock, const char *file,
                                                const char *name, int wait_ms,
                                                struct ra_error *err);

/* Whether nobody holds the lock; takes nothing, works where nothing can be written. */
bool ra_store_lock_is_free(const char *file);

#ifdef __cplusplus
}
#endif

#endif
