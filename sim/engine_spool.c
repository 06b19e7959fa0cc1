/* SPDX-License-Identifier: Apache-2.0 */
/* An append-only temporary file with an index in memory. Writes are gathered in a buffer. */
#include "sim/engine_spool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct slot {
    uint64_t offset;
    size_t size;
};

struct ra_spool {
    int fd;
    uint64_t end; /* of the file, the buffer's bytes included */
    size_t used;
    size_t n_slots;
    struct slot *slots;
    char buffer[RA_SPOOL_BYTES];
};

static const char *folder(void)
{
    const char *name = getenv("TMPDIR");
    return name && *name ? name : "/tmp";
}

enum ra_status ra_spool_open(struct ra_spool **out, size_t n_slots, struct ra_error *err)
{
    *out = NULL;
    struct ra_spool *spool = calloc(1, sizeof *spool);
    char path[4096];
    if (spool)
        spool->slots = calloc(n_slots + 1, sizeof *spool->slots);
    if (!spool || !spool->slots) {
        free(spool);
        return ra_fail(err, RA_ENOMEM, "spool: no memory for an index of %zu records", n_slots);
    }
    spool->n_slots = n_slots;
    snprintf(path, sizeof path, "%s/rattn-sim-XXXXXX", folder());
    spool->fd = mkstemp(path);
    if (spool->fd < 0) {
        enum ra_status st =
            ra_fail(err, RA_EIO, "%s: temporary file: %s", folder(), strerror(errno));
        free(spool->slots);
        free(spool);
        return st;
    }
    unlink(path);
    *out = spool;
    return RA_OK;
}

static enum ra_status write_out(struct ra_spool *spool, const char *bytes, size_t n,
                                struct ra_error *err)
{
    while (n > 0) {
        ssize_t done = write(spool->fd, bytes, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return ra_fail(err, RA_EIO, "%s: temporary file of %llu bytes: %s", folder(),
                           (unsigned long long)spool->end, strerror(done < 0 ? errno : ENOSPC));
        bytes += done;
        n -= (size_t)done;
    }
    return RA_OK;
}

static enum ra_status flush(struct ra_spool *spool, struct ra_error *err)
{
    size_t n = spool->used;
    spool->used = 0;
    return write_out(spool, spool->buffer, n, err);
}

enum ra_status ra_spool_put(struct ra_spool *spool, size_t slot, const void *bytes, size_t n,
                            struct ra_error *err)
{
    RA_BUG_ON(slot >= spool->n_slots || spool->slots[slot].size != 0);
    spool->slots[slot] = (struct slot){.offset = spool->end, .size = n};
    spool->end += n;
    if (spool->used + n > RA_SPOOL_BYTES)
        RA_TRY(flush(spool, err));
    if (n > RA_SPOOL_BYTES)
        return write_out(spool, bytes, n, err);
    memcpy(spool->buffer + spool->used, bytes, n);
    spool->used += n;
    return RA_OK;
}

size_t ra_spool_size(const struct ra_spool *spool, size_t slot)
{
    RA_BUG_ON(slot >= spool->n_slots);
    return spool->slots[slot].size;
}

enum ra_status ra_spool_get(struct ra_spool *spool, size_t slot, void *out, struct ra_error *err)
{
    RA_BUG_ON(slot >= spool->n_slots);
    uint64_t offset = spool->slots[slot].offset;
    size_t n = spool->slots[slot].size;
    char *to = out;
    RA_TRY(flush(spool, err));
    while (n > 0) {
        ssize_t done = pread(spool->fd, to, n, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return ra_fail(err, RA_EIO, "%s: temporary file at %llu: %s", folder(),
                           (unsigned long long)offset, done < 0 ? strerror(errno) : "cut short");
        to += done;
        offset += (uint64_t)done;
        n -= (size_t)done;
    }
    return RA_OK;
}

void ra_spool_close(struct ra_spool *spool)
{
    if (!spool)
        return;
    close(spool->fd);
    free(spool->slots);
    free(spool);
}
