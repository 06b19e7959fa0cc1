/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the emulation say to each other. One lock, held by every runtime call, makes
 * them one thread.
 */
#ifndef RA_TESTS_EMU_INTERNAL_H
#define RA_TESTS_EMU_INTERNAL_H

#include "tests/emu/control.h"
#include "tests/emu/emu.h"

#include <functional>
#include <mutex>
#include <string>

extern std::recursive_mutex ra_emu_lock;

/* --- chance ----------------------------------------------------------------------------------- */

/* With seed 0 there is none: below(n) is 0. */
bool ra_emu_shuffled();
uint64_t ra_emu_seed_now();
uint64_t ra_emu_below(uint64_t n);

/* --- blocks ----------------------------------------------------------------------------------- */

enum { RA_EMU_STATIC_LIMIT = 48 * 1024, RA_EMU_SHARED_LIMIT = 227 * 1024, RA_EMU_PAST = 64 };

/* Run all blocks, to the end. */
void ra_emu_run(const struct ra_emu_launch &launch, const std::function<void()> &body);
/* Name of the kernel as in control.h. */
std::string ra_emu_kernel_name(const char *text);

/* Warp of the running thread within its block, and how often its lane met others so far: accesses
 * of one instruction share both. */
unsigned ra_emu_warp();
unsigned ra_emu_epoch();

/* --- memory ----------------------------------------------------------------------------------- */

/* Where ASan does not watch, RA_EMU_PAST bytes behind an allocation say whether they were hit. */
void *ra_emu_guarded(size_t bytes);
bool ra_emu_intact(const void *p, size_t bytes);
void ra_emu_release(void *p);

/* Is [p, p + bytes) inside one allocation; of the card alone, or of pinned memory too. */
enum ra_emu_place { RA_EMU_PAGEABLE, RA_EMU_DEVICE, RA_EMU_PINNED, RA_EMU_ASTRIDE };
enum ra_emu_place ra_emu_locate(const void *p, size_t bytes);
/* Faults where a kernel may not be. */
void ra_emu_must_hold(const void *p, size_t bytes, const char *what, const char *file, int line);
/* After a launch: has any allocation been written past its end? */
void ra_emu_check_memory();

/* --- runtime calls ---------------------------------------------------------------------------- */

/* Everything that any stream was asked to do. */
void ra_emu_drain();
bool ra_emu_capturing();
/* What a runtime call returns, kept for cudaGetLastError. */
cudaError_t ra_emu_result(cudaError_t error);
/* Does ra_emu_fail_call let this call through? */
bool ra_emu_refused(cudaError_t *error);
size_t ra_emu_card_memory();
int ra_emu_card_sms();
/* Hand work to a stream, in its order. */
cudaError_t ra_emu_submit(cudaStream_t stream, std::function<void()> work);

#define RA_EMU_ENTER()                                                                             \
    std::lock_guard<std::recursive_mutex> guard(ra_emu_lock);                                      \
    cudaError_t refusal;                                                                           \
    if (ra_emu_refused(&refusal))                                                                  \
    return ra_emu_result(refusal)

/* --- who watches ------------------------------------------------------------------------------ */

/* Of what runs: the call of the runtime that it comes from, and the node of a graph, or none. */
struct ra_emu_origin {
    uint32_t call, graph;
    const void *node;
};
/* A call of the runtime: its number, 0 where nobody watches. */
uint32_t ra_emu_call(const char *name);
/* What runs from here on comes from there. */
void ra_emu_from(const struct ra_emu_origin &from);
void ra_emu_cloned(const void *node, const void *copy);
void ra_emu_instantiated();
void ra_emu_run_kernel(const struct ra_emu_launch &launch, const std::function<void()> &body,
                       uint32_t call);
/* The same work, and told when it is done. */
std::function<void()> ra_emu_watched_copy(std::function<void()> work, size_t bytes, int kind,
                                          bool is_set, cudaStream_t stream);

/* --- traffic ---------------------------------------------------------------------------------- */

void ra_emu_count_launch(const char *text);
void ra_emu_count_access(const void *p, size_t bytes, enum ra_emu_kind kind, const char *file,
                         int line);
void ra_emu_count_block_end();
void ra_emu_count_launch_end();

#endif
