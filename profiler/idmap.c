/* SPDX-License-Identifier: Apache-2.0 */
/* Open addressing, half full at most. */
#include "profiler/idmap.h"

#include <stdlib.h>

enum { FIRST = 64 };

/* Ids of a device differ in few bits, high ones or low ones. */
static size_t place(const struct ra_idmap *map, uint64_t key)
{
    key ^= key >> 32;
    key *= 0x9e3779b97f4a7c15u;
    key ^= key >> 29;
    return (size_t)key & (map->capacity - 1);
}

static struct ra_idmap_slot *find(const struct ra_idmap *map, uint64_t key)
{
    size_t at = place(map, key);
    while (map->slots[at].id != 0 && map->slots[at].key != key)
        at = (at + 1) & (map->capacity - 1);
    return &map->slots[at];
}

static enum ra_status grow(struct ra_idmap *map, struct ra_error *err)
{
    struct ra_idmap more = {.capacity = map->capacity ? 2 * map->capacity : FIRST};
    more.slots = calloc(more.capacity, sizeof *more.slots);
    if (!more.slots)
        return ra_fail(err, RA_ENOMEM, "profiler: no memory for %zu ids", more.capacity);
    for (size_t i = 0; i < map->capacity; i++)
        if (map->slots[i].id != 0)
            *find(&more, map->slots[i].key) = map->slots[i];
    more.n = map->n;
    free(map->slots);
    *map = more;
    return RA_OK;
}

enum ra_status ra_idmap_put(struct ra_idmap *map, uint64_t key, int64_t id, struct ra_error *err)
{
    RA_BUG_ON(id == 0);
    if (2 * map->n >= map->capacity)
        RA_TRY(grow(map, err));
    struct ra_idmap_slot *slot = find(map, key);
    map->n += slot->id == 0;
    *slot = (struct ra_idmap_slot){key, id};
    return RA_OK;
}

int64_t ra_idmap_get(const struct ra_idmap *map, uint64_t key)
{
    return map->n ? find(map, key)->id : 0;
}

void ra_idmap_clear(struct ra_idmap *map)
{
    free(map->slots);
    *map = (struct ra_idmap){0};
}
