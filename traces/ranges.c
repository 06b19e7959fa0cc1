/* SPDX-License-Identifier: Apache-2.0 */
/* A sorted array: found by bisection, joined with its neighbours on the way in. */
#include "traces/ranges.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Index of the first range that ends at or after `begin`. */
static size_t lower_bound(const struct ra_ranges *set, uint64_t begin)
{
    size_t lo = 0, hi = set->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (set->ranges[mid].end < begin)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static enum ra_status insert(struct ra_ranges *set, size_t at, struct ra_range range)
{
    if (set->n == set->cap) {
        size_t cap = set->cap ? 2 * set->cap : 8;
        struct ra_range *grown = realloc(set->ranges, cap * sizeof *grown);
        if (!grown)
            return RA_ENOMEM;
        set->ranges = grown;
        set->cap = cap;
    }
    memmove(&set->ranges[at + 1], &set->ranges[at], (set->n - at) * sizeof range);
    set->ranges[at] = range;
    set->n++;
    return RA_OK;
}

enum ra_status ra_ranges_add(struct ra_ranges *set, uint64_t begin, uint64_t end)
{
    RA_BUG_ON(begin >= end);
    size_t left = lower_bound(set, begin);
    bool joins_left = left < set->n && set->ranges[left].end == begin;
    size_t right = joins_left ? left + 1 : left;
    if (right < set->n && set->ranges[right].begin < end)
        return RA_ERANGE;
    bool joins_right = right < set->n && set->ranges[right].begin == end;
    if (!joins_left && !joins_right)
        return insert(set, right, (struct ra_range){begin, end});
    if (!joins_left) {
        set->ranges[right].begin = begin;
        return RA_OK;
    }
    set->ranges[left].end = joins_right ? set->ranges[right].end : end;
    if (joins_right) {
        set->n--;
        memmove(&set->ranges[right], &set->ranges[right + 1],
                (set->n - right) * sizeof *set->ranges);
    }
    return RA_OK;
}

uint64_t ra_ranges_first_gap(const struct ra_ranges *set)
{
    return set->n > 0 && set->ranges[0].begin == 0 ? set->ranges[0].end : 0;
}

void ra_ranges_fini(struct ra_ranges *set)
{
    free(set->ranges);
    *set = (struct ra_ranges){0};
}
