/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AVX-512 F: eight doubles or sixteen floats a vector. Rows of an odd number of eights end in half
 * a vector.
 */
#include "kernels/cpu/simd.h"

#include <string.h>

#ifdef __x86_64__

#include <immintrin.h>

#define RA_SIMD __attribute__((target("avx512f,avx2,fma,f16c")))
#define RA_OP RA_SIMD __attribute__((always_inline)) static inline

enum { DOT_KEYS_4 = 4, DOT_KEYS_F32_4 = 4, ADD_VECTORS_4 = 4 };

typedef __m256d v4d;
typedef __m512d vd;
typedef __m512 vf;

RA_OP vd fma_d(vd a, vd b, vd c)
{
    return _mm512_fmadd_pd(a, b, c);
}
RA_OP vd max_d(vd a, vd b)
{
    return _mm512_max_pd(a, b);
} /* b where a is NaN */
RA_OP double sum_d(vd x)
{
    return _mm512_reduce_add_pd(x);
}
RA_OP double max_of_d(vd x)
{
    return _mm512_reduce_max_pd(x);
}
RA_OP vf fma_f(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
RA_OP vd low_d(vf x)
{
    return _mm512_cvtps_pd(_mm512_castps512_ps256(x));
}

RA_OP vd high_d(vf x)
{
    __m256d upper = _mm512_extractf64x4_pd(_mm512_castps_pd(x), 1);
    return _mm512_cvtps_pd(_mm256_castpd_ps(upper));
}

RA_OP vf narrow(vd low, vd high)
{
    __m512d lower = _mm512_castpd256_pd512(_mm256_castps_pd(_mm512_cvtpd_ps(low)));
    return _mm512_castpd_ps(_mm512_insertf64x4(lower, _mm256_castps_pd(_mm512_cvtpd_ps(high)), 1));
}

/* x * 2^n for n > -100, else 0. */
RA_OP vf scale_or_zero(vf x, vf n)
{
    __m512i exponent = _mm512_slli_epi32(_mm512_cvtps_epi32(n), 23);
    vf scaled = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), exponent));
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(n, _mm512_set1_ps(-100), _CMP_GT_OQ), scaled);
}

/* Eight elements. */
RA_OP __m256 load_eight(enum ra_dtype dtype, const char *p)
{
    if (dtype == RA_F32)
        return _mm256_loadu_ps((const float *)(const void *)p);
    __m128i bits = _mm_loadu_si128((const __m128i *)(const void *)p);
    if (dtype == RA_F16)
        return _mm256_cvtph_ps(bits);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

RA_OP vf load_row(enum ra_dtype dtype, const char *p, bool half)
{
    if (half) {
        __m512d lower = _mm512_castpd256_pd512(_mm256_castps_pd(load_eight(dtype, p)));
        return _mm512_castpd_ps(_mm512_maskz_mov_pd(0x0f, lower));
    }
    if (dtype == RA_F32)
        return _mm512_loadu_ps(p);
    __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)p);
    if (dtype == RA_F16)
        return _mm512_cvtph_ps(bits);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

RA_OP void widen_chunk(enum ra_dtype dtype, const char *p, vd *to)
{
    to[0] = _mm512_cvtps_pd(load_eight(dtype, p));
}

/* The sum of each. */
RA_OP v4d sum_each(vf a, vf b, vf c, vf d)
{
    vf ac = _mm512_add_ps(_mm512_unpacklo_ps(a, c), _mm512_unpackhi_ps(a, c));
    vf bd = _mm512_add_ps(_mm512_unpacklo_ps(b, d), _mm512_unpackhi_ps(b, d));
    vf abcd = _mm512_add_ps(_mm512_unpacklo_ps(ac, bd), _mm512_unpackhi_ps(ac, bd));
    __m256 upper = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(abcd), 1));
    __m256 halves = _mm256_add_ps(_mm512_castps512_ps256(abcd), upper);
    return _mm256_cvtps_pd(
        _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1)));
}

#include "kernels/cpu/simd_body.inc"

static bool runs_here(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx2") &&
           __builtin_cpu_supports("fma");
}

#define TABLE .runs_here = runs_here, .dots = dots, .dots_f32 = dots_f32, .weigh = weigh, .add = add

#else

#define TABLE .runs_here = NULL

#endif

const struct ra_cpu_kernels ra_cpu_avx512 = {
    .name = "avx512",
    .needs = "x86-64 with AVX-512 F",
    TABLE,
};
