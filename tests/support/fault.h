/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the system fail on demand. The linker sends the product's calls of malloc, pread, rename
 * and so on here (--wrap, see the Makefile); SQLite and jansson are given the same functions
 * through their own hooks. Calls made while nothing is armed go straight through.
 */
#ifndef RA_TESTS_SUPPORT_FAULT_H
#define RA_TESTS_SUPPORT_FAULT_H

#include <stdbool.h>
#include <stddef.h>

enum fault_op {
    FAULT_MEMORY, /* malloc and its kin, strings that libc makes, SQLite's and jansson's memory */
    FAULT_OPEN,
    FAULT_STAT, /* fstat */
    FAULT_READ,
    FAULT_WRITE,
    FAULT_SYNC,
    FAULT_RENAME,
    FAULT_ROOM, /* fallocate, ftruncate */
    FAULT_TEMP, /* mkstemp, tmpfile */
    FAULT_MAP,
    FAULT_THREAD,
    FAULT_OPS
};

enum {
    FAULT_SHORT = -1, /* the call moves one byte instead of many, and succeeds */
    FAULT_SIGNAL = -2 /* SIGINT arrives; the call fails with EINTR */
};

struct fault {
    enum fault_op op;
    long at;    /* the n-th call from now on, counted from 1; 0: none */
    int error;  /* errno it gives, FAULT_SHORT or FAULT_SIGNAL */
    bool lasts; /* and every later call of that kind, too */
};

/* Hooks into SQLite and jansson; before either is used. */
void fault_init(void);

/* SQLite keeps the memory it asks for, or not: one sweep of its paths is enough for a program. */
void fault_spare_sqlite(bool is_spared);

/* Between the two, calls are counted and the armed one fails. */
void fault_arm(const struct fault *fault);
void fault_disarm(void);

/* Since the last arming: whether the fault came, and what was allocated and is not freed. */
bool fault_fired(void);
size_t fault_leaked(void);
/* Where the fault struck and where what leaked was allocated, on stderr. */
void fault_explain(void);

/*
 * Numbers of those calls of `op` since the last arming that are worth failing: of the calls with
 * the same stack the first and the last. Returns how many; at most `room`.
 */
size_t fault_picks(enum fault_op op, long *picks, size_t room);
long fault_calls(enum fault_op op);

#endif
