/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Worker threads that take loop indices from one ticket. Loops of a decoding step are shorter than
 * it takes to wake a thread, so both sides watch for a while before they sleep, and the caller
 * waits for the indices that were taken, not for threads that came too late to take one.
 */
#include "sim/base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { WATCH = 4000 }; /* looks before sleeping: some tens of microseconds */
#define CLOSED UINT32_MAX

struct worker {
    struct ra_pool *pool;
    pthread_t thread;
    int number;
};

/* All shared state is atomic and sequentially consistent: who is about to sleep says so before the
 * last look, and who has news looks for sleepers after telling it. */
struct ra_pool {
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    atomic_uint_fast64_t ticket; /* number of the loop << 32 | next index, or CLOSED */
    _Atomic(uint32_t) n, finished;
    _Atomic(ra_pool_task) task;
    _Atomic(void *) context;
    atomic_int n_asleep;
    atomic_bool caller_sleeps, quit;
    int n_threads;
    struct worker workers[]; /* the threads beside the caller's */
};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static uint32_t loop_of(const struct ra_pool *pool)
{
    return (uint32_t)(pool->ticket >> 32);
}

/*
 * Take and run indices of the open loop. What describes a loop is read before an index is taken:
 * the exchange succeeds only if that loop is still open, and so what was read is its own.
 */
static void drain(struct ra_pool *pool, int number)
{
    for (;;) {
        uint_fast64_t ticket = pool->ticket;
        uint32_t index = (uint32_t)ticket, n = pool->n;
        ra_pool_task task = pool->task;
        void *context = pool->context;
        if (index == CLOSED || index >= n)
            return;
        if (!atomic_compare_exchange_strong(&pool->ticket, &ticket, ticket + 1))
            continue;
        task(context, index, number);
        if (atomic_fetch_add(&pool->finished, 1) + 1 == n && pool->caller_sleeps) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

/* Until the loop is another than `seen`, or the end. */
static void await_loop(struct ra_pool *pool, uint32_t seen)
{
    for (int i = 0; i < WATCH; i++, relax())
        if (loop_of(pool) != seen || pool->quit)
            return;
    pthread_mutex_lock(&pool->lock);
    pool->n_asleep++;
    while (loop_of(pool) == seen && !pool->quit)
        pthread_cond_wait(&pool->start, &pool->lock);
    pool->n_asleep--;
    pthread_mutex_unlock(&pool->lock);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct ra_pool *pool = worker->pool;
    uint32_t seen = 0;
    for (;;) {
        await_loop(pool, seen);
        if (pool->quit)
            return NULL;
        /* A loop that is still being described is closed: look again. */
        uint_fast64_t ticket = pool->ticket;
        if ((uint32_t)ticket == CLOSED)
            continue;
        seen = (uint32_t)(ticket >> 32);
        drain(pool, worker->number);
    }
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

void ra_pool_run(struct ra_pool *pool, size_t n, ra_pool_task task, void *context)
{
    if (!pool || pool->n_threads == 1 || n <= 1) {
        for (size_t i = 0; i < n; i++)
            task(context, i, 0);
        return;
    }
    RA_BUG_ON(n >= CLOSED);
    uint_fast64_t loop = (uint_fast64_t)(uint32_t)(loop_of(pool) + 1) << 32;
    pool->ticket = loop | CLOSED;
    pool->n = (uint32_t)n;
    pool->finished = 0;
    pool->task = task;
    pool->context = context;
    pool->ticket = loop;
    if (pool->n_asleep > 0) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->start);
        pthread_mutex_unlock(&pool->lock);
    }
    drain(pool, 0);
    for (int i = 0; i < WATCH && pool->finished < n; i++)
        relax();
    if (pool->finished == n)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->caller_sleeps = true;
    while (pool->finished < n)
        pthread_cond_wait(&pool->done, &pool->lock);
    pool->caller_sleeps = false;
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
