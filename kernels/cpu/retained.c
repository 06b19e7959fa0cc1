/* SPDX-License-Identifier: Apache-2.0 */
/* Bookkeeping of a recycled cache: merge of old and new entries, free slots, eviction queue. */
#include "kernels/cpu/retained.h"

#include <string.h>

void ra_cpu_retained_reset(struct ra_cpu_retained *cache)
{
    cache->n = cache->n_slots = cache->n_free = 0;
    cache->queue_first = cache->queue_n = 0;
    cache->adopted = false;
    cache->self_pos = -1;
}

bool ra_cpu_retained_has_last(const struct ra_cpu_retained *cache, int32_t p)
{
    return cache->n > 0 && cache->pos[cache->n - 1] == p;
}

void ra_cpu_retained_adopt(struct ra_cpu_retained *cache, const struct ra_retained *retained)
{
    int32_t n = retained->set.n;
    RA_BUG_ON(n > cache->cap || retained->evict.n != n || retained->n_pinned > n);
    if (n > 0) {
        memcpy(cache->next_pos, retained->set.pos, (size_t)n * sizeof *cache->next_pos);
        memcpy(cache->next_evict, retained->evict.pos, (size_t)n * sizeof *cache->next_evict);
    }
    cache->is_scored = retained->score != NULL;
    if (n > 0 && retained->score)
        memcpy(cache->given_score, retained->score, (size_t)n * sizeof *cache->given_score);
    cache->next_n = n;
    cache->next_pinned = retained->n_pinned;
    cache->adopted = true;
}

static double first_score(const struct ra_cpu_retained *cache, int32_t p)
{
    return p == cache->self_pos ? cache->self_score : 0;
}

/* Row of position p into a free slot; returns the slot. */
static int32_t place(struct ra_cpu_retained *cache, int32_t p, const char *full_k,
                     const char *full_v)
{
    if (!cache->k)
        return 0;
    int32_t slot = cache->n_free > 0 ? cache->free_slot[--cache->n_free] : cache->n_slots++;
    RA_BUG_ON(slot >= cache->cap);
    memcpy(cache->k + (size_t)slot * cache->k_bytes, full_k + (size_t)p * cache->k_bytes,
           cache->k_bytes);
    memcpy(cache->v + (size_t)slot * cache->v_bytes, full_v + (size_t)p * cache->v_bytes,
           cache->v_bytes);
    cache->slot_pos[slot] = p;
    return slot;
}

/* New rows lie anywhere in the full cache: ask for one that comes later while this one moves. */
static void prefetch(const struct ra_cpu_retained *cache, int32_t i, const char *full_k,
                     const char *full_v)
{
    enum { AHEAD = 12, LINE = 64 };
    if (!cache->k || i + AHEAD >= cache->next_n || cache->next_slot[i + AHEAD] >= 0)
        return;
    size_t row = (size_t)cache->next_pos[i + AHEAD];
    for (size_t at = 0; at < cache->k_bytes; at += LINE)
        __builtin_prefetch(full_k + row * cache->k_bytes + at);
    for (size_t at = 0; at < cache->v_bytes; at += LINE)
        __builtin_prefetch(full_v + row * cache->v_bytes + at);
}

/* Forget holes at the end, and list the others so that the lowest is taken first. */
static void list_free(struct ra_cpu_retained *cache)
{
    while (cache->n_slots > 0 && cache->slot_pos[cache->n_slots - 1] < 0)
        cache->n_slots--;
    cache->n_free = 0;
    for (int32_t slot = cache->n_slots - 1; slot >= 0; slot--)
        if (cache->slot_pos[slot] < 0)
            cache->free_slot[cache->n_free++] = slot;
}

/* next_slot and next_score of entries that stay; -1 for new ones. Slots of the others are freed. */
static void keep_survivors(struct ra_cpu_retained *cache)
{
    int32_t old = 0;
    for (int32_t i = 0; i <= cache->next_n; i++) {
        bool at_end = i == cache->next_n;
        for (; old < cache->n && (at_end || cache->pos[old] < cache->next_pos[i]); old++)
            if (cache->k)
                cache->slot_pos[cache->slot[old]] = -1;
        if (at_end)
            break;
        bool stays = old < cache->n && cache->pos[old] == cache->next_pos[i];
        cache->next_slot[i] = stays ? cache->slot[old] : -1;
        cache->next_score[i] = stays              ? cache->score[old]
                               : cache->is_scored ? cache->given_score[i]
                                                  : first_score(cache, cache->next_pos[i]);
        old += stays;
    }
}

static void swap_lists(struct ra_cpu_retained *cache)
{
    int32_t *pos = cache->pos, *slot = cache->slot;
    double *score = cache->score;
    cache->pos = cache->next_pos;
    cache->slot = cache->next_slot;
    cache->score = cache->next_score;
    cache->next_pos = pos;
    cache->next_slot = slot;
    cache->next_score = score;
}

int32_t ra_cpu_retained_install(struct ra_cpu_retained *cache, const char *full_k,
                                const char *full_v)
{
    if (!cache->adopted)
        return 0;
    keep_survivors(cache);
    if (cache->k)
        list_free(cache);
    int32_t moved = 0;
    for (int32_t i = 0; i < cache->next_n; i++) {
        prefetch(cache, i, full_k, full_v);
        if (cache->next_slot[i] >= 0)
            continue;
        cache->next_slot[i] = place(cache, cache->next_pos[i], full_k, full_v);
        moved++;
    }
    if (cache->k)
        list_free(cache);
    swap_lists(cache);
    cache->n = cache->next_n;
    cache->queue_first = 0;
    cache->queue_n = cache->next_n - cache->next_pinned;
    memcpy(cache->queue, cache->next_evict, (size_t)cache->queue_n * sizeof *cache->queue);
    cache->adopted = false;
    cache->self_pos = -1;
    return moved;
}

/* Index of the entry at position p. */
static int32_t find(const struct ra_cpu_retained *cache, int32_t p)
{
    int32_t low = 0, high = cache->n;
    while (high - low > 1) {
        int32_t middle = low + (high - low) / 2;
        if (cache->pos[middle] <= p)
            low = middle;
        else
            high = middle;
    }
    RA_BUG_ON(high == 0 || cache->pos[low] != p);
    return low;
}

/* Take the entry out of everything but the queue. */
static void remove_entry(struct ra_cpu_retained *cache, int32_t victim)
{
    int32_t at = find(cache, victim);
    if (cache->k) {
        cache->slot_pos[cache->slot[at]] = -1;
        cache->free_slot[cache->n_free++] = cache->slot[at];
    }
    size_t after = (size_t)(cache->n - at - 1);
    memmove(cache->pos + at, cache->pos + at + 1, after * sizeof *cache->pos);
    memmove(cache->slot + at, cache->slot + at + 1, after * sizeof *cache->slot);
    memmove(cache->score + at, cache->score + at + 1, after * sizeof *cache->score);
    cache->n--;
}

static int32_t evict_front(struct ra_cpu_retained *cache)
{
    int32_t victim = cache->queue[cache->queue_first];
    cache->queue_first = (cache->queue_first + 1) % cache->cap;
    cache->queue_n--;
    remove_entry(cache, victim);
    return victim;
}

/* Where a cache is cut by scores its queue says nothing: the hole is closed, order or not. */
static void leave_queue(struct ra_cpu_retained *cache, int32_t victim)
{
    for (int32_t i = 0; i < cache->queue_n; i++) {
        int32_t *entry = &cache->queue[(cache->queue_first + i) % cache->cap];
        if (*entry != victim)
            continue;
        *entry = cache->queue[(cache->queue_first + cache->queue_n - 1) % cache->cap];
        cache->queue_n--;
        return;
    }
}

int32_t ra_cpu_retained_insert(struct ra_cpu_retained *cache, int32_t self, int32_t K,
                               const char *full_k, const char *full_v)
{
    RA_BUG_ON(K < 1 || (cache->n > 0 && cache->pos[cache->n - 1] >= self));
    int32_t evicted = -1;
    while (cache->n + 1 > K && cache->queue_n > 0) {
        int32_t victim = evict_front(cache);
        evicted = evicted < 0 ? victim : evicted;
    }
    RA_BUG_ON(cache->n >= cache->cap);
    cache->slot[cache->n] = place(cache, self, full_k, full_v);
    cache->pos[cache->n] = self;
    cache->score[cache->n] = first_score(cache, self);
    cache->n++;
    cache->queue[(cache->queue_first + cache->queue_n) % cache->cap] = self;
    cache->queue_n++;
    cache->self_pos = -1;
    return evicted;
}

/* Position of least score among all but the newest; self, the newest of all, is not an entry. */
static int32_t weakest(const struct ra_cpu_retained *cache, int32_t self, int32_t recent)
{
    int32_t n = cache->n + 1 - recent, at = -1;
    double least = 0;
    for (int32_t i = 0; i < n; i++) {
        double score = i < cache->n ? cache->score[i] : cache->self_score;
        if (at >= 0 && score > least)
            continue;
        least = score;
        at = i;
    }
    return at < 0 || at == cache->n ? self : cache->pos[at];
}

int32_t ra_cpu_retained_cut(struct ra_cpu_retained *cache, int32_t self,
                            const struct ra_cut_rule *rule, int32_t instead, const char *full_k,
                            const char *full_v)
{
    RA_BUG_ON(cache->self_pos != self);
    bool is_over = cache->n + 1 > rule->K;
    int32_t own = is_over ? weakest(cache, self, rule->recent) : -1;
    int32_t victim = instead >= 0 ? instead : own;
    if (victim == self) {
        cache->self_pos = -1;
        return own;
    }
    if (victim >= 0) {
        remove_entry(cache, victim);
        leave_queue(cache, victim);
    }
    ra_cpu_retained_insert(cache, self, cache->n + 1, full_k, full_v);
    return own;
}
