/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend made of cpu backends, one for each copy: it keeps copies apart, and it records steps by
 * running them and plays what came out. It can be told to go wrong at one place.
 */
#ifndef RA_TESTS_SUPPORT_COPIES_H
#define RA_TESTS_SUPPORT_COPIES_H

#include <stdbool.h>

#include "kernels/backend.h"

enum copies_wrong {
    COPIES_RIGHT,
    COPIES_OUTPUT, /* off by more than rounding */
    COPIES_BIT,    /* off by the last bit */
    COPIES_SELECT,
    COPIES_REFRESH,
    COPIES_EVICT,
    COPIES_COSINE,
    COPIES_PLAYED,    /* the last bit of what is played */
    COPIES_PLAYED_OFF /* what is played, by more than rounding */
};

/* What goes wrong, at which layer of the backend's and which copy, after which reset, or in which
 * play, from 0; -1: any. */
struct copies_fault {
    enum copies_wrong what;
    int layer, copy, run;
};
extern struct copies_fault copies_fault;

/* The first rows that were appended: (layer, copy) in the order of the calls. */
enum { COPIES_SEEN = 64 };
struct copies_seen {
    int n, layer[COPIES_SEEN], copy[COPIES_SEEN];
};
extern struct copies_seen copies_seen;

/* Forgets the fault and what was seen. With `plays`, steps are recorded, and copies may be apart.
 */
const struct ra_backend_ops *copies_backend(bool plays);

#endif
