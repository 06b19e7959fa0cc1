/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Atomics and the arithmetic that CUDA adds to C. Fast functions are the exact ones here.
 */
#ifndef RA_TESTS_EMU_EMU_MATH_H
#define RA_TESTS_EMU_EMU_MATH_H

#include "tests/emu/emu_device.h"

/* Each returns what was there before. Overflow wraps, which is why sums go through `unsigned`.
 * Nothing comes between load and store, which only TSan wants to be atomic. */
#define RA_EMU_ATOMIC_FN(name, T, expression)                                                      \
    inline T name(T *p, T value, RA_EMU_HERE)                                                      \
    {                                                                                              \
        ra_emu_atomic(p, sizeof(T), file, line);                                                   \
        T old, next;                                                                               \
        __atomic_load(p, &old, __ATOMIC_RELAXED);                                                  \
        next = expression;                                                                         \
        __atomic_store(p, &next, __ATOMIC_RELAXED);                                                \
        return old;                                                                                \
    }
typedef unsigned long long ra_emu_u64;
RA_EMU_ATOMIC_FN(atomicAdd, int, (int)((unsigned)old + (unsigned)value))
RA_EMU_ATOMIC_FN(atomicAdd, unsigned, old + value)
RA_EMU_ATOMIC_FN(atomicAdd, ra_emu_u64, old + value)
RA_EMU_ATOMIC_FN(atomicAdd, float, old + value)
RA_EMU_ATOMIC_FN(atomicAdd, double, old + value)
RA_EMU_ATOMIC_FN(atomicSub, int, (int)((unsigned)old - (unsigned)value))
RA_EMU_ATOMIC_FN(atomicSub, unsigned, old - value)
RA_EMU_ATOMIC_FN(atomicMax, int, old > value ? old : value)
RA_EMU_ATOMIC_FN(atomicMax, unsigned, old > value ? old : value)
RA_EMU_ATOMIC_FN(atomicMax, ra_emu_u64, old > value ? old : value)
RA_EMU_ATOMIC_FN(atomicMin, int, old < value ? old : value)
RA_EMU_ATOMIC_FN(atomicMin, unsigned, old < value ? old : value)
RA_EMU_ATOMIC_FN(atomicMin, ra_emu_u64, old < value ? old : value)
RA_EMU_ATOMIC_FN(atomicOr, int, old | value)
RA_EMU_ATOMIC_FN(atomicOr, unsigned, old | value)
RA_EMU_ATOMIC_FN(atomicAnd, int, old &value)
RA_EMU_ATOMIC_FN(atomicAnd, unsigned, old &value)
RA_EMU_ATOMIC_FN(atomicExch, int, value)
RA_EMU_ATOMIC_FN(atomicExch, unsigned, value)
RA_EMU_ATOMIC_FN(atomicExch, ra_emu_u64, value)
RA_EMU_ATOMIC_FN(atomicExch, float, value)
RA_EMU_ATOMIC_FN(atomicInc, unsigned, old >= value ? 0 : old + 1)
#undef RA_EMU_ATOMIC_FN

#define RA_EMU_CAS(T)                                                                              \
    inline T atomicCAS(T *p, T expected, T value, RA_EMU_HERE)                                     \
    {                                                                                              \
        ra_emu_atomic(p, sizeof(T), file, line);                                                   \
        T old, next;                                                                               \
        __atomic_load(p, &old, __ATOMIC_RELAXED);                                                  \
        next = old == expected ? value : old;                                                      \
        __atomic_store(p, &next, __ATOMIC_RELAXED);                                                \
        return old;                                                                                \
    }
RA_EMU_CAS(int)
RA_EMU_CAS(unsigned)
RA_EMU_CAS(ra_emu_u64)
#undef RA_EMU_CAS

inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}
inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
inline int __clzll(long long x)
{
    return x ? __builtin_clzll((unsigned long long)x) : 64;
}
inline unsigned __brev(unsigned x)
{
    unsigned y = 0;
    for (int i = 0; i < 32; i++)
        y |= (x >> i & 1) << (31 - i);
    return y;
}
inline unsigned __float_as_uint(float f)
{
    return ra_f32_to_bits(f);
}
inline int __float_as_int(float f)
{
    return (int)ra_f32_to_bits(f);
}
inline float __uint_as_float(unsigned bits)
{
    return ra_bits_to_f32(bits);
}
inline float __int_as_float(int bits)
{
    return ra_bits_to_f32((uint32_t)bits);
}
inline float __fmaf_rn(float x, float y, float z)
{
    return fmaf(x, y, z);
}
inline float __fadd_rn(float x, float y)
{
    return x + y;
}
inline float __fmul_rn(float x, float y)
{
    return x * y;
}
inline float __fdividef(float x, float y)
{
    return x / y;
}
inline float __fdiv_rn(float x, float y)
{
    return x / y;
}
inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}
inline float __frcp_rn(float x)
{
    return 1 / x;
}
inline float rsqrtf(float x)
{
    return 1 / sqrtf(x);
}
inline float __expf(float x)
{
    return expf(x);
}
inline float __logf(float x)
{
    return logf(x);
}

/* Mixed signs do not compile, where CUDA has an opinion. */
template <typename T> inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <typename T> inline T max(T a, T b)
{
    return a < b ? b : a;
}
inline float min(float a, float b)
{
    return fminf(a, b);
}
inline float max(float a, float b)
{
    return fmaxf(a, b);
}

#endif
