/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffers that CUPTI fills: zeroed beforehand, so that it need not on the launching thread; back in
 * a queue, from which a thread of its own reads them. Callbacks take and give, and do nothing else.
 */
#ifndef RA_PROFILER_CUPTI_BUFFERS_H
#define RA_PROFILER_CUPTI_BUFFERS_H

#include <pthread.h>

#include "profiler/cupti/records.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RA_BUFFER_BYTES = 4 << 20, RA_BUFFERS_MAX = 256 };

struct ra_buffers {
    const struct ra_cupti *cupti;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t reader;
    bool has_reader, ends;
    uint8_t *idle[RA_BUFFERS_MAX];
    int n_idle, n_made;
    struct ra_full_buffer {
        uint8_t *bytes;
        size_t valid;
    } full[RA_BUFFERS_MAX];
    int first_full, n_full;
    bool is_reading;
    int64_t n_refused; /* asked for when all were out */
    struct ra_records records;
    struct ra_error error;
    enum ra_status status; /* of reading */
};

/* Start the reader, with two buffers at hand. */
RA_MUST_CHECK enum ra_status ra_buffers_open(struct ra_buffers *buffers,
                                             const struct ra_cupti *cupti, struct ra_error *err);

/* For the callbacks. Take gives NULL at the limit. */
uint8_t *ra_buffers_take(struct ra_buffers *buffers);
void ra_buffers_give(struct ra_buffers *buffers, uint8_t *bytes, size_t valid);

/* Wait until all that was given is read; what reading came to. The records may be used then. */
RA_MUST_CHECK enum ra_status ra_buffers_settle(struct ra_buffers *buffers, struct ra_error *err);

void ra_buffers_close(struct ra_buffers *buffers);

#ifdef __cplusplus
}
#endif

#endif
