/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a kernel may call. The default arguments `file` and `line` take the place of the call, so
 * that reports name it.
 */
#ifndef RA_TESTS_EMU_EMU_DEVICE_H
#define RA_TESTS_EMU_EMU_DEVICE_H

#include "tests/emu/emu_types.h"

#define RA_EMU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* The running thread. Whoever switches fibers sets it first. */
struct ra_emu_self {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
};
extern struct ra_emu_self *ra_emu_self;
#define threadIdx (ra_emu_self->thread)
#define blockIdx (ra_emu_self->block)
#define blockDim (ra_emu_self->block_dim)
#define gridDim (ra_emu_self->grid_dim)
constexpr int warpSize = 32;

enum ra_emu_kind { RA_EMU_LOAD, RA_EMU_STORE, RA_EMU_ATOMIC };

/* Aborts the program: kernel, block and thread, then the text. */
[[noreturn]] void ra_emu_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Array `key` of the block, made at its first mention and filled with 0xFF. */
void *ra_emu_shared(const void *key, size_t bytes, const char *name);
void *ra_emu_dynamic();

/* A global access: inside one allocation, aligned to its size, counted. May let others run. */
void ra_emu_access(const void *p, size_t bytes, enum ra_emu_kind kind, const char *file, int line);

void ra_emu_cp_async(void *shared, const void *global, bool valid, const char *file, int line);
void ra_emu_cp_commit();
void ra_emu_cp_wait(int pending);

/* An atomic on shared or global memory is about to happen; may let others run. */
void ra_emu_atomic(const void *p, size_t bytes, const char *file, int line);

void ra_emu_fence();

/* All earlier launches of the stream are over. */
void ra_emu_after_earlier();

/* Meet at the block's barrier; the sum over threads of `value`. */
unsigned ra_emu_barrier(unsigned value, const char *file, int line);

/* Meet the lanes of `mask` in `op`. Returns what each of the 32 put in, good until the next call;
 * all ones for lanes that were not there. *there: who was. */
const uint64_t *ra_emu_meet(const char *op, unsigned mask, uint64_t value, unsigned *there,
                            const char *file, int line);
unsigned ra_emu_lane();

/* --- barriers --------------------------------------------------------------------------------- */

inline void __syncthreads(RA_EMU_HERE)
{
    ra_emu_barrier(0, file, line);
}
inline int __syncthreads_count(int predicate, RA_EMU_HERE)
{
    return (int)ra_emu_barrier(predicate != 0, file, line);
}
inline int __syncthreads_or(int predicate, RA_EMU_HERE)
{
    return ra_emu_barrier(predicate != 0, file, line) != 0;
}
inline int __syncthreads_and(int predicate, RA_EMU_HERE)
{
    return ra_emu_barrier(predicate == 0, file, line) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, RA_EMU_HERE)
{
    unsigned there;
    ra_emu_meet("__syncwarp", mask, 0, &there, file, line);
}
/* Memory is sequentially consistent here; only the order of arrival is shuffled. But a load of what
 * another block wrote asks for the fences. */
inline void __threadfence()
{
    ra_emu_fence();
}
inline void __threadfence_block()
{
}
inline void __threadfence_system()
{
    ra_emu_fence();
}
#define __trap() ra_emu_fault("__trap at %s:%d", __FILE__, __LINE__)

/* --- warps ------------------------------------------------------------------------------------ */

/* The value lane `source` of this lane's section put in; this lane's own if `inside` is false. */
template <typename T>
inline T ra_emu_shuffle(const char *op, unsigned mask, T value, int source, bool inside,
                        const char *file, int line)
{
    static_assert(sizeof(T) <= 8, "shuffles move up to 8 bytes");
    uint64_t bits = 0;
    unsigned there;
    memcpy(&bits, &value, sizeof value);
    const uint64_t *all = ra_emu_meet(op, mask, bits, &there, file, line);
    if (inside)
        memcpy(&value, &all[source], sizeof value);
    return value;
}
template <typename T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, RA_EMU_HERE)
{
    int first = (int)ra_emu_lane() & ~(width - 1);
    return ra_emu_shuffle("__shfl_sync", mask, value, first + (source & (width - 1)), true, file,
                          line);
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, RA_EMU_HERE)
{
    int lane = (int)ra_emu_lane(), source = lane ^ bits;
    bool inside = source < 32 && source < (lane & ~(width - 1)) + width;
    return ra_emu_shuffle("__shfl_xor_sync", mask, value, source, inside, file, line);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, RA_EMU_HERE)
{
    int lane = (int)ra_emu_lane(), source = lane - (int)delta;
    bool inside = source >= (lane & ~(width - 1));
    return ra_emu_shuffle("__shfl_up_sync", mask, value, source, inside, file, line);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, RA_EMU_HERE)
{
    int lane = (int)ra_emu_lane(), source = lane + (int)delta;
    bool inside = source < (lane & ~(width - 1)) + width;
    return ra_emu_shuffle("__shfl_down_sync", mask, value, source, inside, file, line);
}
inline unsigned ra_emu_ballot(const char *op, unsigned mask, bool yes, unsigned *there,
                              const char *file, int line)
{
    const uint64_t *all = ra_emu_meet(op, mask, yes, there, file, line);
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        votes |= (*there >> lane & 1 & (unsigned)all[lane]) << lane;
    return votes;
}
inline unsigned __ballot_sync(unsigned mask, int predicate, RA_EMU_HERE)
{
    unsigned there;
    return ra_emu_ballot("__ballot_sync", mask, predicate != 0, &there, file, line);
}
inline int __any_sync(unsigned mask, int predicate, RA_EMU_HERE)
{
    unsigned there;
    return ra_emu_ballot("__any_sync", mask, predicate != 0, &there, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, RA_EMU_HERE)
{
    unsigned there, votes = ra_emu_ballot("__all_sync", mask, predicate != 0, &there, file, line);
    return votes == there;
}
template <typename T> inline unsigned __match_any_sync(unsigned mask, T value, RA_EMU_HERE)
{
    uint64_t bits = 0;
    unsigned there, same = 0;
    memcpy(&bits, &value, sizeof value);
    const uint64_t *all = ra_emu_meet("__match_any_sync", mask, bits, &there, file, line);
    for (unsigned lane = 0; lane < 32; lane++)
        same |= (there >> lane & 1 & (all[lane] == bits)) << lane;
    return same;
}
/* int and unsigned, as on sm_80. */
#define RA_EMU_REDUCE(name, combine)                                                               \
    template <typename T> inline T name(unsigned mask, T value, RA_EMU_HERE)                       \
    {                                                                                              \
        static_assert(sizeof(T) == 4, "a 32-bit integer");                                         \
        unsigned there;                                                                            \
        uint64_t bits = 0;                                                                         \
        memcpy(&bits, &value, sizeof value);                                                       \
        const uint64_t *all = ra_emu_meet(#name, mask, bits, &there, file, line);                  \
        for (unsigned lane = 0; lane < 32; lane++) {                                               \
            if (!(there >> lane & 1) || lane == ra_emu_lane())                                     \
                continue;                                                                          \
            T other;                                                                               \
            memcpy(&other, &all[lane], sizeof other);                                              \
            value = combine;                                                                       \
        }                                                                                          \
        return value;                                                                              \
    }
RA_EMU_REDUCE(__reduce_add_sync, (T)((unsigned)value + (unsigned)other))
RA_EMU_REDUCE(__reduce_min_sync, value < other ? value : other)
RA_EMU_REDUCE(__reduce_max_sync, value > other ? value : other)
RA_EMU_REDUCE(__reduce_or_sync, value | other)
RA_EMU_REDUCE(__reduce_and_sync, value &other)
#undef RA_EMU_REDUCE

#include "tests/emu/emu_math.h"

#endif
