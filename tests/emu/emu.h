/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a .cu file sees on a host compiler instead of the toolkit: qualifiers, types, the functions
 * of kernels and the runtime calls, declared as nvcc spells them. Blocks run one after another,
 * each thread of a block on a fiber; RA_EMU_SEED shuffles the order of everything that has no
 * order. Not modelled: time, caches, bank conflicts, weak memory order between blocks.
 */
#ifndef RA_TESTS_EMU_EMU_H
#define RA_TESTS_EMU_EMU_H

#include "tests/emu/control.h"
#include "tests/emu/emu_device.h"
#include "tests/emu/emu_launch.h"
#include "tests/emu/emu_runtime.h"
#include "tests/emu/emu_types.h"

/* On the host a pointer; each array is a heap allocation of its own, so that ASan sees its ends.
 * The key is unique to this array of this instantiation. */
#define RA_SHARED(T, name, N)                                                                      \
    static char name##_key;                                                                        \
    T *const name = static_cast<T *>(ra_emu_shared(&name##_key, sizeof(T) * (N), #name))
#define RA_DYN(T, name) T *const name = static_cast<T *>(ra_emu_dynamic())

template <typename T>
inline T ra_ld(const T *p, const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    ra_emu_access(p, sizeof(T), RA_EMU_LOAD, file, line);
    return *p;
}
template <typename T>
inline T __ldg(const T *p, const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    return ra_ld(p, file, line);
}
template <typename T>
inline void ra_st(T *p, T value, const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    ra_emu_access(p, sizeof(T), RA_EMU_STORE, file, line);
    *p = value;
}
template <typename T>
inline T ra_ld_l2(const T *p, const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    return ra_ld(p, file, line);
}
inline uint4 ra_ld16(const void *p, const char *file = __builtin_FILE(),
                     int line = __builtin_LINE())
{
    return ra_ld(static_cast<const uint4 *>(p), file, line);
}
inline void ra_st16(void *p, uint4 value, const char *file = __builtin_FILE(),
                    int line = __builtin_LINE())
{
    ra_st(static_cast<uint4 *>(p), value, file, line);
}
inline uint4 ra_ld16_stream(const void *p, const char *file = __builtin_FILE(),
                            int line = __builtin_LINE())
{
    return ra_ld16(p, file, line);
}
inline void ra_st16_stream(void *p, uint4 value, const char *file = __builtin_FILE(),
                           int line = __builtin_LINE())
{
    ra_st16(p, value, file, line);
}

inline void ra_after_earlier()
{
    ra_emu_after_earlier();
}

inline void ra_cp_async16(void *shared, const void *global, const char *file = __builtin_FILE(),
                          int line = __builtin_LINE())
{
    ra_emu_cp_async(shared, global, true, file, line);
}
inline void ra_cp_async16_zfill(void *shared, const void *global, bool valid,
                                const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    ra_emu_cp_async(shared, global, valid, file, line);
}
inline void ra_cp_async_commit()
{
    ra_emu_cp_commit();
}
template <int N> inline void ra_cp_async_wait()
{
    static_assert(N >= 0, "groups that may be pending");
    ra_emu_cp_wait(N);
}

#endif
