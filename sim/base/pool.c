/* SPDX-License-Identifier: Apache-2.0 */
/* Worker threads that wait on a condition and take loop indices from one atomic counter. */
#include "sim/base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct worker {
    struct ra_pool *pool;
    pthread_t thread;
    int number;
};

struct ra_pool {
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    unsigned long round; /* bumped for every loop; workers wait for it to change */
    int n_threads, busy;
    bool quit;
    size_t n;
    void (*task)(void *, size_t, int);
    void *context;
    atomic_size_t next;
    struct worker workers[]; /* the threads beside the caller's */
};

static void drain(struct ra_pool *pool, int number)
{
    size_t index;
    while ((index = atomic_fetch_add(&pool->next, 1)) < pool->n)
        pool->task(pool->context, index, number);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct ra_pool *pool = worker->pool;
    unsigned long seen = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->round == seen && !pool->quit)
            pthread_cond_wait(&pool->start, &pool->lock);
        if (pool->quit)
            break;
        seen = pool->round;
        pthread_mutex_unlock(&pool->lock);
        drain(pool, worker->number);
        pthread_mutex_lock(&pool->lock);
        if (--pool->busy == 0)
            pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static int processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : n;
}

enum ra_status ra_pool_open(struct ra_pool **out, int n_threads, struct ra_error *err)
{
    *out = NULL;
    int n = n_threads == 0 ? processors() : n_threads;
    RA_BUG_ON(n < 1);
    struct ra_pool *pool = calloc(1, sizeof *pool + (size_t)(n - 1) * sizeof pool->workers[0]);
    if (!pool)
        return ra_fail(err, RA_ENOMEM, "thread pool: no memory for %d threads", n);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->start, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->n_threads = 1;
    for (int i = 0; i < n - 1; i++) {
        struct worker *worker = &pool->workers[i];
        *worker = (struct worker){.pool = pool, .number = i + 1};
        int code = pthread_create(&worker->thread, NULL, work, worker);
        if (code) {
            ra_pool_close(pool);
            return ra_fail(err, RA_EIO, "thread pool: thread %d of %d: %s", i + 2, n,
                           strerror(code));
        }
        pool->n_threads++;
    }
    *out = pool;
    return RA_OK;
}

int ra_pool_threads(const struct ra_pool *pool)
{
    return pool ? pool->n_threads : 1;
}

void ra_pool_run(struct ra_pool *pool, size_t n, void (*task)(void *, size_t, int), void *context)
{
    if (!pool || pool->n_threads == 1 || n <= 1) {
        for (size_t i = 0; i < n; i++)
            task(context, i, 0);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->n = n;
    pool->task = task;
    pool->context = context;
    atomic_store(&pool->next, 0);
    pool->busy = pool->n_threads - 1;
    pool->round++;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    drain(pool, 0);
    pthread_mutex_lock(&pool->lock);
    while (pool->busy > 0)
        pthread_cond_wait(&pool->done, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

void ra_pool_close(struct ra_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->quit = true;
    pthread_cond_broadcast(&pool->start);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->n_threads - 1; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->start);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
