/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Widening of stored 16-bit floats, and rounding back. Branch-free widening, so that compilers
 * vectorise loops over rows; NaN and Inf are recognised by ra_*_is_finite before any arithmetic.
 */
#ifndef RA_SIM_BASE_HALF_H
#define RA_SIM_BASE_HALF_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

static inline float ra_bits_to_f32(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t ra_f32_to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Exact for every finite f16, subnormals included: moving the exponent field to f32's place leaves
 * a number 2^112 too small, and the product by a power of two is exact. Not for Inf or NaN. */
static inline float ra_f16_to_f32(uint16_t half)
{
    float magnitude = ra_bits_to_f32((uint32_t)(half & 0x7fff) << 13) * 0x1p112f;
    return ra_bits_to_f32(ra_f32_to_bits(magnitude) | ((uint32_t)(half & 0x8000) << 16));
}

/* Exact for every bf16. */
static inline float ra_bf16_to_f32(uint16_t half)
{
    return ra_bits_to_f32((uint32_t)half << 16);
}

static inline bool ra_f16_is_finite(uint16_t half)
{
    return (half & 0x7c00) != 0x7c00;
}

static inline bool ra_bf16_is_finite(uint16_t half)
{
    return (half & 0x7f80) != 0x7f80;
}

/* Round to nearest even. Overflow gives Inf; NaN stays NaN. */
uint16_t ra_f32_to_f16(float value);
uint16_t ra_f32_to_bf16(float value);

#ifdef __cplusplus
}
#endif

#endif
