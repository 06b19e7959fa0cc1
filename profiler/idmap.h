/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From unsigned 64-bit keys to row ids: which scope a node of a graph, or a call of the runtime,
 * belongs to. Keys may be anything; what was put last counts.
 */
#ifndef RA_PROFILER_IDMAP_H
#define RA_PROFILER_IDMAP_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_idmap {
    struct ra_idmap_slot {
        uint64_t key;
        int64_t id; /* 0: free */
    } * slots;
    size_t n, capacity; /* a power of two */
};

/* id is not 0. RA_ENOMEM. Start from zeroes. */
RA_MUST_CHECK enum ra_status ra_idmap_put(struct ra_idmap *map, uint64_t key, int64_t id,
                                          struct ra_error *err);

/* 0: it is not there. */
int64_t ra_idmap_get(const struct ra_idmap *map, uint64_t key);

void ra_idmap_clear(struct ra_idmap *map);

#ifdef __cplusplus
}
#endif

#endif
