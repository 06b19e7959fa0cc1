/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests may set and ask of the emulation, beside the runtime calls.
 */
#ifndef RA_TESTS_EMU_CONTROL_H
#define RA_TESTS_EMU_CONTROL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Order of blocks, warps, lanes, copies and streams from here on; 0: in order, streams at once.
 * RA_EMU_SEED is what it starts from. */
void ra_emu_seed(uint64_t seed);

/* The fake card: memory in bytes, number of SMs; at first RA_EMU_MEMORY and RA_EMU_SMS. */
void ra_emu_set_card(size_t memory_bytes, int n_sms);

/* How far the host is ahead of the card, whose work takes no time here: a letter each time it asks
 * before a step, over and over. '.': the card is busy; 'd': it has run dry; 'c': it catches up
 * while the step is launched. NULL: always busy.
 * Borrowed. At first RA_EMU_LATE. */
void ra_emu_set_late(const char *letters);

/* The n-th runtime call from now on (1: the next) fails with `error` and does nothing; 0: none. */
void ra_emu_fail_call(long n, int error);

/* Memory of the card that takes room only where it is touched, and holds zeros; whatever the card
 * has. NULL where the host cannot. */
void *ra_emu_map(size_t bytes);
void ra_emu_unmap(void *memory);

/* Bytes of device and pinned memory now allocated: 0 when all was freed. */
size_t ra_emu_allocated(void);

/* Global accesses of one kernel through ra_ld*, ra_st* and cp.async, summed over its launches. */
struct ra_emu_traffic {
    uint64_t launches;
    uint64_t load_bytes, store_bytes; /* as asked for by threads */
    uint64_t instructions;            /* of a warp: its lanes at one place, between two meetings */
    uint64_t sectors;                 /* of 32 bytes, distinct within an instruction */
    uint64_t min_sectors; /* that the distinct bytes of each instruction would fill if packed */
    uint64_t lines;       /* of 128 bytes, distinct within a launch */
    uint64_t atomics;     /* by threads, on global memory */
};

/* Counting is off at first, since it costs time. */
void ra_emu_count_traffic(int on);
void ra_emu_reset_traffic(void);

/* Of the kernel as written in its launch, without template arguments. False: never launched while
 * counting; *out is zero then. */
int ra_emu_get_traffic(const char *kernel, struct ra_emu_traffic *out);

/* Of all kernels together. */
void ra_emu_total_traffic(struct ra_emu_traffic *out);

#ifdef __cplusplus
}
#endif

#endif
