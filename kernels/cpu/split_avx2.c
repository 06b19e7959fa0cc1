/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AVX2 with FMA and F16C: four doubles or eight floats a vector. Products of two f32 are exact in
 * double, so that FMA there rounds no differently from a product and a sum.
 */
#include "kernels/cpu/simd.h"

#include <string.h>

#ifdef __x86_64__

#include <immintrin.h>

#define RA_SIMD __attribute__((target("avx2,fma,f16c")))
#define RA_OP RA_SIMD __attribute__((always_inline)) static inline

enum { DOT_KEYS_4 = 2, DOT_KEYS_F32_4 = 3, ADD_VECTORS_4 = 3 };

typedef __m256d vd, v4d;
typedef __m256 vf;

RA_OP vd fma_d(vd a, vd b, vd c)
{
    return _mm256_fmadd_pd(a, b, c);
}
RA_OP vd max_d(vd a, vd b)
{
    return _mm256_max_pd(a, b);
} /* b where a is NaN */
RA_OP vf fma_f(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
RA_OP vd low_d(vf x)
{
    return _mm256_cvtps_pd(_mm256_castps256_ps128(x));
}
RA_OP vd high_d(vf x)
{
    return _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
}

RA_OP double sum_d(vd x)
{
    __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));
}

RA_OP double max_of_d(vd x)
{
    __m128d pair = _mm_max_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));
    return _mm_cvtsd_f64(_mm_max_sd(pair, _mm_unpackhi_pd(pair, pair)));
}

RA_OP vf narrow(vd low, vd high)
{
    return _mm256_set_m128(_mm256_cvtpd_ps(high), _mm256_cvtpd_ps(low));
}

/* x * 2^n for n > -100, else 0. */
RA_OP vf scale_or_zero(vf x, vf n)
{
    __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    vf scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), exponent));
    return _mm256_and_ps(scaled, _mm256_cmp_ps(n, _mm256_set1_ps(-100), _CMP_GT_OQ));
}

RA_OP vf load_row(enum ra_dtype dtype, const char *p, bool half)
{
    (void)half;
    if (dtype == RA_F32)
        return _mm256_loadu_ps((const float *)(const void *)p);
    __m128i bits = _mm_loadu_si128((const __m128i *)(const void *)p);
    if (dtype == RA_F16)
        return _mm256_cvtph_ps(bits);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

RA_OP void widen_chunk(enum ra_dtype dtype, const char *p, vd *to)
{
    vf x = load_row(dtype, p, false);
    to[0] = low_d(x);
    to[1] = high_d(x);
}

/* The sum of each. */
RA_OP v4d sum_each(vf a, vf b, vf c, vf d)
{
    vf ac = _mm256_add_ps(_mm256_unpacklo_ps(a, c), _mm256_unpackhi_ps(a, c));
    vf bd = _mm256_add_ps(_mm256_unpacklo_ps(b, d), _mm256_unpackhi_ps(b, d));
    vf abcd = _mm256_add_ps(_mm256_unpacklo_ps(ac, bd), _mm256_unpackhi_ps(ac, bd));
    return _mm256_cvtps_pd(
        _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
}

#include "kernels/cpu/simd_body.inc"

/* F16C came before AVX2 and is not asked for: not every compiler has a name for it here. */
static bool runs_here(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#define TABLE .runs_here = runs_here, .dots = dots, .dots_f32 = dots_f32, .weigh = weigh, .add = add

#else

#define TABLE .runs_here = NULL

#endif

const struct ra_cpu_kernels ra_cpu_avx2 = {
    .name = "avx2",
    .needs = "x86-64 with AVX2, FMA and F16C",
    TABLE,
};
