/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Qualifiers, vector types and 16-bit floats of CUDA for a host compiler. Those floats can be
 * loaded, stored and converted, nothing else: arithmetic on them does not compile.
 */
#ifndef RA_TESTS_EMU_EMU_TYPES_H
#define RA_TESTS_EMU_EMU_TYPES_H

#include "sim/base/half.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

/* Vectors are aligned to their size, up to 16 bytes. */
#define RA_EMU_VECTOR(T, name)                                                                     \
    struct alignas(2 * sizeof(T)) name##2                                                          \
    {                                                                                              \
        T x, y;                                                                                    \
    };                                                                                             \
    struct name##3                                                                                 \
    {                                                                                              \
        T x, y, z;                                                                                 \
    };                                                                                             \
    struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4                                \
    {                                                                                              \
        T x, y, z, w;                                                                              \
    };                                                                                             \
    inline name##2 make_##name##2(T x, T y)                                                        \
    {                                                                                              \
        return {x, y};                                                                             \
    }                                                                                              \
    inline name##3 make_##name##3(T x, T y, T z)                                                   \
    {                                                                                              \
        return {x, y, z};                                                                          \
    }                                                                                              \
    inline name##4 make_##name##4(T x, T y, T z, T w)                                              \
    {                                                                                              \
        return {x, y, z, w};                                                                       \
    }

RA_EMU_VECTOR(unsigned char, uchar)
RA_EMU_VECTOR(unsigned short, ushort)
RA_EMU_VECTOR(int, int)
RA_EMU_VECTOR(unsigned, uint)
RA_EMU_VECTOR(float, float)
RA_EMU_VECTOR(double, double)
RA_EMU_VECTOR(long long, longlong)
RA_EMU_VECTOR(unsigned long long, ulonglong)
#undef RA_EMU_VECTOR

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

struct __half {
    uint16_t bits;
};
struct alignas(4) __half2 {
    __half x, y;
};
struct __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

/* The file's own conversions are for finite values; kernels may meet the others. */
inline float __half2float(__half h)
{
    if (ra_f16_is_finite(h.bits))
        return ra_f16_to_f32(h.bits);
    return ra_bits_to_f32((uint32_t)(h.bits & 0x8000) << 16 | 0x7f800000 |
                          (uint32_t)(h.bits & 0x3ff) << 13);
}
inline __half __float2half_rn(float f)
{
    return {ra_f32_to_f16(f)};
}
inline __half __float2half(float f)
{
    return __float2half_rn(f);
}
inline float2 __half22float2(__half2 h)
{
    return {__half2float(h.x), __half2float(h.y)};
}
inline __half2 __floats2half2_rn(float x, float y)
{
    return {__float2half_rn(x), __float2half_rn(y)};
}
inline float __bfloat162float(__nv_bfloat16 h)
{
    return ra_bf16_to_f32(h.bits);
}
inline __nv_bfloat16 __float2bfloat16_rn(float f)
{
    return {ra_f32_to_bf16(f)};
}
inline __nv_bfloat16 __float2bfloat16(float f)
{
    return __float2bfloat16_rn(f);
}
inline float2 __bfloat1622float2(__nv_bfloat162 h)
{
    return {__bfloat162float(h.x), __bfloat162float(h.y)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline __half __ushort_as_half(unsigned short bits)
{
    return {bits};
}
inline unsigned short __half_as_ushort(__half h)
{
    return h.bits;
}
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits)
{
    return {bits};
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 h)
{
    return h.bits;
}

#endif
