/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set of KV positions: ascending, unique, in storage that the caller owns. Never allocates; the
 * capacity is fixed at init, and exceeding it is the caller's bug.
 */
#ifndef RA_SIM_KVSET_H
#define RA_SIM_KVSET_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_kvset {
    int32_t *pos; /* [capacity], borrowed; the first n are the set */
    int32_t n, capacity;
};

/* Empty set over storage [capacity]. */
void ra_kvset_init(struct ra_kvset *set, int32_t *storage, int32_t capacity);

/* False if it was there already. Constant time for a position above all others. */
bool ra_kvset_insert(struct ra_kvset *set, int32_t pos);

/* False if it was not there. */
bool ra_kvset_remove(struct ra_kvset *set, int32_t pos);

/* Become the n given positions, in any order and without duplicates. */
void ra_kvset_assign(struct ra_kvset *set, const int32_t *pos, int32_t n);

/* The functions below take plain ascending lists. */

/* Index of the first entry >= pos; n when all are below. */
int32_t ra_kvset_find(const int32_t *list, int32_t n, int32_t pos);

bool ra_kvset_has(const int32_t *list, int32_t n, int32_t pos);

/* Size of the intersection. */
int32_t ra_kvset_common(const int32_t *a, int32_t n_a, const int32_t *b, int32_t n_b);

/* out [n_a + n_b] becomes the union; returns its size. out may not overlap a or b. */
int32_t ra_kvset_union(const int32_t *a, int32_t n_a, const int32_t *b, int32_t n_b, int32_t *out);

/* Sort positions ascending, in place; no memory, O(n log n). */
void ra_kvset_sort(int32_t *list, int32_t n);

#ifdef __cplusplus
}
#endif

#endif
