/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The running block, as its scheduler and its memory know it.
 */
#ifndef RA_TESTS_EMU_BLOCK_H
#define RA_TESTS_EMU_BLOCK_H

#include "tests/emu/fiber.h"
#include "tests/emu/internal.h"

#include <deque>
#include <vector>

/* A cp.async under way. */
struct ra_emu_copy {
    void *shared;
    const void *global;
    bool valid;
};

struct ra_emu_lane_state {
    struct ra_fiber fiber;
    struct ra_emu_self self;
    unsigned warp, index, epoch;
    bool at_barrier;
    bool after_earlier; /* it waited for the launches before */
    std::vector<ra_emu_copy> open_group;
    std::deque<std::vector<ra_emu_copy>> groups;
};

extern struct ra_emu_lane_state *ra_emu_now;       /* NULL between fibers */
extern const struct ra_emu_launch *ra_emu_current; /* NULL between launches */

/* Fault unless a kernel runs. */
void ra_emu_must_run(const char *file, int line);
/* A place where another thread may come first. */
void ra_emu_let_others_run();

/* Barriers that the block has passed. */
unsigned ra_emu_barriers();

/* Between blocks of a launch: what is written, made visible and read. A load faults that a card
 * might do too early. */
void ra_emu_publish_launch(const struct ra_emu_launch &launch);
void ra_emu_publish_store(const void *p, size_t bytes);
void ra_emu_publish_fence();
void ra_emu_publish_atomic();
void ra_emu_publish_load(const void *p, size_t bytes, const char *file, int line);

/* Launches that start before the one ahead has ended: what a thread touches, and how it ends. */
void ra_emu_early_launch(const struct ra_emu_launch &launch);
void ra_emu_early_access(const void *p, size_t bytes, enum ra_emu_kind kind, const char *file,
                         int line);
void ra_emu_early_leave();

/* At the end of a thread, and of a block. */
void ra_emu_cp_leave();
void ra_emu_free_shared();

#endif
