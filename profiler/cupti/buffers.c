/* SPDX-License-Identifier: Apache-2.0 */
#ifdef RA_CUPTI
#include "profiler/cupti/buffers.h"

#include <stdlib.h>
#include <string.h>

static uint8_t *make_buffer(void)
{
    uint8_t *bytes = aligned_alloc(64, RA_BUFFER_BYTES);
    if (bytes)
        memset(bytes, 0, RA_BUFFER_BYTES);
    return bytes;
}

uint8_t *ra_buffers_take(struct ra_buffers *buffers)
{
    uint8_t *bytes = NULL;
    pthread_mutex_lock(&buffers->lock);
    if (buffers->n_idle > 0)
        bytes = buffers->idle[--buffers->n_idle];
    else if (buffers->n_made < RA_BUFFERS_MAX && (bytes = make_buffer()))
        buffers->n_made++;
    buffers->n_refused += !bytes;
    pthread_mutex_unlock(&buffers->lock);
    return bytes;
}

void ra_buffers_give(struct ra_buffers *buffers, uint8_t *bytes, size_t valid)
{
    pthread_mutex_lock(&buffers->lock);
    RA_BUG_ON(buffers->n_full == RA_BUFFERS_MAX);
    int at = (buffers->first_full + buffers->n_full++) % RA_BUFFERS_MAX;
    buffers->full[at] = (struct ra_full_buffer){bytes, valid};
    pthread_cond_broadcast(&buffers->changed);
    pthread_mutex_unlock(&buffers->lock);
}

/* Read without the lock: CUPTI may call back meanwhile. */
static void read_one(struct ra_buffers *buffers)
{
    struct ra_full_buffer full = buffers->full[buffers->first_full];
    struct ra_error why = {RA_OK, ""};
    buffers->first_full = (buffers->first_full + 1) % RA_BUFFERS_MAX;
    buffers->n_full--;
    buffers->is_reading = true;
    bool goes_on = buffers->status == RA_OK;
    pthread_mutex_unlock(&buffers->lock);
    enum ra_status st = RA_OK;
    if (goes_on)
        st = ra_records_read(&buffers->records, buffers->cupti, full.bytes, full.valid, &why);
    memset(full.bytes, 0, RA_BUFFER_BYTES);
    pthread_mutex_lock(&buffers->lock);
    if (st != RA_OK) {
        buffers->status = st;
        buffers->error = why;
    }
    buffers->idle[buffers->n_idle++] = full.bytes;
    buffers->is_reading = false;
    pthread_cond_broadcast(&buffers->changed);
}

static void *read_all(void *context)
{
    struct ra_buffers *buffers = context;
    pthread_mutex_lock(&buffers->lock);
    while (!buffers->ends || buffers->n_full > 0)
        if (buffers->n_full > 0)
            read_one(buffers);
        else
            pthread_cond_wait(&buffers->changed, &buffers->lock);
    pthread_mutex_unlock(&buffers->lock);
    return NULL;
}

enum ra_status ra_buffers_open(struct ra_buffers *buffers, const struct ra_cupti *cupti,
                               struct ra_error *err)
{
    *buffers = (struct ra_buffers){.cupti = cupti};
    pthread_mutex_init(&buffers->lock, NULL);
    pthread_cond_init(&buffers->changed, NULL);
    for (int i = 0; i < 2; i++) {
        uint8_t *bytes = make_buffer();
        if (!bytes)
            return ra_fail(err, RA_ENOMEM, "profiler: no memory for buffers of %d bytes",
                           RA_BUFFER_BYTES);
        buffers->idle[buffers->n_idle++] = bytes;
        buffers->n_made++;
    }
    if (pthread_create(&buffers->reader, NULL, read_all, buffers) != 0)
        return ra_fail(err, RA_ENOMEM, "profiler: no thread to read records");
    buffers->has_reader = true;
    return RA_OK;
}

enum ra_status ra_buffers_settle(struct ra_buffers *buffers, struct ra_error *err)
{
    pthread_mutex_lock(&buffers->lock);
    while (buffers->n_full > 0 || buffers->is_reading)
        pthread_cond_wait(&buffers->changed, &buffers->lock);
    enum ra_status st = buffers->status;
    if (st != RA_OK && err)
        *err = buffers->error;
    pthread_mutex_unlock(&buffers->lock);
    return st;
}

void ra_buffers_close(struct ra_buffers *buffers)
{
    pthread_mutex_lock(&buffers->lock);
    buffers->ends = true;
    pthread_cond_broadcast(&buffers->changed);
    pthread_mutex_unlock(&buffers->lock);
    if (buffers->has_reader)
        pthread_join(buffers->reader, NULL);
    for (int i = 0; i < buffers->n_idle; i++)
        free(buffers->idle[i]);
    ra_records_clear(&buffers->records);
    pthread_cond_destroy(&buffers->changed);
    pthread_mutex_destroy(&buffers->lock);
}
#else
extern int ra_buffers_are_not_built;
#endif
