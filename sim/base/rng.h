/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers by place, not by turn: the i-th word of a stream is a function of the stream's key
 * and of i, so any part of a sequence can be made alone and in any order. The words of a stream are
 * those of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) seeded with the key. Integer arithmetic and
 * exact or correctly rounded floating point only: the same bits on every machine.
 */
#ifndef RA_SIM_BASE_RNG_H
#define RA_SIM_BASE_RNG_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Word i (from 0) of the stream `key`. */
uint64_t ra_rng_word(uint64_t key, uint64_t i);

/* Key of a stream of its own, derived from another key and a number. */
uint64_t ra_rng_key(uint64_t key, uint64_t number);

/* Number i of a stream, uniform over the whole numbers low..high. Bias below 2^-32. */
int32_t ra_rng_int(uint64_t key, uint64_t i, int32_t low, int32_t high);

/*
 * Number i of a stream, mean 0 and variance 1, close to normal: a sum of eight uniform 16-bit
 * fields of words 2i and 2i + 1. Symmetric, never beyond 4.9, excess kurtosis -0.15.
 */
double ra_rng_normal(uint64_t key, uint64_t i);

#ifdef __cplusplus
}
#endif

#endif
