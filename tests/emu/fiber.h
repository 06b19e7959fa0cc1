/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stacks to switch between, in ten instructions: swapcontext makes a system call, a hundred times
 * the cost. The sanitizers are told of each switch.
 */
#ifndef RA_TESTS_EMU_FIBER_H
#define RA_TESTS_EMU_FIBER_H

#include <stddef.h>

struct ra_fiber {
    void *sp;    /* where it stopped */
    char *stack; /* lowest byte; NULL for the thread's own stack */
    size_t size; /* bytes of stack above a page that faults */
    void *fake;  /* ASan's */
    void *tsan;  /* TSan's */
    void (*entry)();
};

/* The fiber runs `entry`, which never returns, at the first switch to it. */
void ra_fiber_open(struct ra_fiber *fiber, void (*entry)());
/* What the calling thread runs on; to switch from. */
void ra_fiber_adopt(struct ra_fiber *fiber);
void ra_fiber_switch(struct ra_fiber *from, struct ra_fiber *to);

/* Does TSan watch? */
#ifdef RA_EMU_TSAN
#define RA_FIBER_WATCHED true
#else
#define RA_FIBER_WATCHED false
#endif

/* For TSan: what happened before release(x) is known after acquire(x). */
void ra_fiber_acquire(void *x);
void ra_fiber_release(void *x);
/* This fiber reads, or writes, 16 bytes here, though not in code that TSan watches. */
void ra_fiber_read16(const void *p);
void ra_fiber_write16(void *p);

/* For its scope TSan takes no notice: the emulation's own books. */
struct ra_fiber_unwatched {
    ra_fiber_unwatched();
    ~ra_fiber_unwatched();
};

#endif
