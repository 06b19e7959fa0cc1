/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NEON of AArch64, which every such processor has: two doubles or four floats a vector, so that the
 * tiles are as many registers as elsewhere and half as wide.
 */
#include "kernels/cpu/simd.h"

#include <string.h>

#ifdef __aarch64__

#include <arm_neon.h>

#define RA_SIMD
#define RA_OP __attribute__((always_inline)) static inline

enum { DOT_KEYS_4 = 4, DOT_KEYS_F32_4 = 4, ADD_VECTORS_4 = 4 };

typedef double v4d __attribute__((vector_size(32)));
typedef float64x2_t vd;
typedef float32x4_t vf;

RA_OP vd fma_d(vd a, vd b, vd c)
{
    return vfmaq_f64(c, a, b);
}
RA_OP vd max_d(vd a, vd b)
{
    return vmaxnmq_f64(a, b);
} /* the number, where one is NaN */
RA_OP double sum_d(vd x)
{
    return vaddvq_f64(x);
}
RA_OP double max_of_d(vd x)
{
    return vmaxvq_f64(x);
}
RA_OP vf fma_f(vf a, vf b, vf c)
{
    return vfmaq_f32(c, a, b);
}
RA_OP vd low_d(vf x)
{
    return vcvt_f64_f32(vget_low_f32(x));
}
RA_OP vd high_d(vf x)
{
    return vcvt_high_f64_f32(x);
}
RA_OP vf narrow(vd low, vd high)
{
    return vcvt_high_f32_f64(vcvt_f32_f64(low), high);
}

/* x * 2^n for n > -100, else 0. */
RA_OP vf scale_or_zero(vf x, vf n)
{
    uint32x4_t exponent = vreinterpretq_u32_s32(vshlq_n_s32(vcvtq_s32_f32(n), 23));
    uint32x4_t scaled = vaddq_u32(vreinterpretq_u32_f32(x), exponent);
    return vreinterpretq_f32_u32(vandq_u32(scaled, vcgtq_f32(n, vdupq_n_f32(-100))));
}

RA_OP vf load_row(enum ra_dtype dtype, const char *p, bool half)
{
    (void)half;
    if (dtype == RA_F32)
        return vld1q_f32((const float *)(const void *)p);
    uint16x4_t bits = vld1_u16((const uint16_t *)(const void *)p);
    if (dtype == RA_F16)
        return vcvt_f32_f16(vreinterpret_f16_u16(bits));
    return vreinterpretq_f32_u32(vshll_n_u16(bits, 16));
}

RA_OP void widen_chunk(enum ra_dtype dtype, const char *p, vd *to)
{
    size_t half = dtype == RA_F32 ? 4 * sizeof(float) : 4 * sizeof(uint16_t);
    vf first = load_row(dtype, p, false), second = load_row(dtype, p + half, false);
    to[0] = low_d(first);
    to[1] = high_d(first);
    to[2] = low_d(second);
    to[3] = high_d(second);
}

/* The sum of each. */
RA_OP v4d sum_each(vf a, vf b, vf c, vf d)
{
    vf abcd = vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
    return __builtin_convertvector(abcd, v4d);
}

#include "kernels/cpu/simd_body.inc"

static bool runs_here(void)
{
    return true;
}

#define TABLE .runs_here = runs_here, .dots = dots, .dots_f32 = dots_f32, .weigh = weigh, .add = add

#else

#define TABLE .runs_here = NULL

#endif

const struct ra_cpu_kernels ra_cpu_neon = {
    .name = "neon",
    .needs = "an AArch64 processor",
    TABLE,
};
