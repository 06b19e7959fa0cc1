/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that one process holds: an open-file-description lock, which the kernel drops when its
 * holder dies, however it dies. The file holds a line of its holder's, for people; it goes when the
 * lock is released. Symbolic links are not followed.
 */
#ifndef RA_PROFILER_LOCK_FILE_H
#define RA_PROFILER_LOCK_FILE_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A zeroed struct with fd -1 holds nothing. */
struct ra_lock_file {
    int fd;
    char *path;
};

/*
 * Take the lock of `path`, which becomes the lock's to free, trying for `wait_ms`. `is_shared`: the
 * file is in a folder where everybody may write, and whoever comes next may take it. Returns 0,
 * EAGAIN when it is held, or another errno; the lock then holds its path until it is released.
 */
int ra_lock_file_take(struct ra_lock_file *lock, char *path, bool is_shared, int wait_ms);
void ra_lock_file_release(struct ra_lock_file *lock);

/* What the holder says of itself. A full disk may refuse even these few bytes; the lock holds all
 * the same. */
void ra_lock_file_sign(const struct ra_lock_file *lock, const char *line);

/* What the holder has said, as anybody may have written it; "" where that is not there. */
void ra_lock_file_signature(const struct ra_lock_file *lock, char *line, size_t size);

/* Whether nobody holds the lock; takes nothing, works where nothing can be written. */
bool ra_lock_file_is_free(const char *path);

#ifdef __cplusplus
}
#endif

#endif
