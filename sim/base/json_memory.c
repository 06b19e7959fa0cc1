/* SPDX-License-Identifier: Apache-2.0 */
/*
 * malloc and free for jansson, a flag that stays up, and a reserve: jansson 2.14 goes on with a
 * token it could not store, and writes past it. So it gets what it asked for, and its caller, who
 * asks ra_json_starved(), throws the outcome away.
 */
#include "sim/base/json_memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { RESERVE = 4 << 20, ALIGNMENT = 16 }; /* a value of metadata is at most 1 MiB */

static atomic_bool starved;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Alignas(ALIGNMENT) char reserve[RESERVE]; /* costs nothing until it is touched */
static size_t used, n_blocks;

static void *take_reserved(size_t n)
{
    void *block = NULL;
    pthread_mutex_lock(&lock);
    if (n <= RESERVE - ALIGNMENT && used <= RESERVE - ALIGNMENT - n) {
        block = reserve + used;
        used += (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        n_blocks++;
    }
    pthread_mutex_unlock(&lock);
    return block;
}

static void *take(size_t n)
{
    void *block = malloc(n);
    if (block)
        return block;
    atomic_store(&starved, true);
    return take_reserved(n);
}

static void give(void *block)
{
    if ((char *)block < reserve || (char *)block >= reserve + RESERVE) {
        free(block);
        return;
    }
    pthread_mutex_lock(&lock);
    if (--n_blocks == 0)
        used = 0;
    pthread_mutex_unlock(&lock);
}

void ra_json_watch(void)
{
    atomic_store(&starved, false);
    json_set_alloc_funcs(take, give);
}

void ra_json_lack(void)
{
    atomic_store(&starved, true);
}

bool ra_json_starved(void)
{
    return atomic_load(&starved);
}

char *ra_json_dump(const json_t *value, size_t flags)
{
    char *text = json_dumps(value, flags);
    char *copy = text && !ra_json_starved() ? strdup(text) : NULL;
    if (text && !copy)
        atomic_store(&starved, true);
    if (text)
        give(text);
    return copy;
}
