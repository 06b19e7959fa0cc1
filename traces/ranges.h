/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which bytes of a buffer have been written, as ascending ranges that neither overlap nor touch: a
 * tensor filled head by head, row by row, keeps one range per head.
 */
#ifndef RA_TRACES_RANGES_H
#define RA_TRACES_RANGES_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_range {
    uint64_t begin, end;
};

/* All zero is the empty set. */
struct ra_ranges {
    struct ra_range *ranges;
    size_t n, cap;
};

/* Add [begin, end), begin < end. RA_ERANGE, without a message, when part of it is there already;
 * RA_ENOMEM. The set is unchanged then. */
RA_MUST_CHECK enum ra_status ra_ranges_add(struct ra_ranges *set, uint64_t begin, uint64_t end);

/* The lowest number that is in no range. */
uint64_t ra_ranges_first_gap(const struct ra_ranges *set);

void ra_ranges_fini(struct ra_ranges *set);

#ifdef __cplusplus
}
#endif

#endif
