/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Radix select on the bits of doubles, most significant digit first. The first digit is the sign
 * and the exponent, which leaves the values of one binade; the second seldom leaves more than a
 * few, and those are sorted by insertion.
 */
#include "sim/base/kth.h"

#include <string.h>

enum { DIGIT = 12, BUCKETS = 1 << DIGIT, FEW = 24 };

/* Order of the integers is the order of the numbers. Adding 0 makes -0 equal 0. */
static uint64_t key_of(double value)
{
    double number = value + 0.0;
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}

static double value_of(uint64_t key)
{
    uint64_t bits = key >> 63 ? key ^ (uint64_t)1 << 63 : ~key;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static unsigned digit_of(uint64_t key, int shift)
{
    return (unsigned)(key >> shift) & (BUCKETS - 1);
}

/* Keep those keys whose digit is that of the k-th largest; returns how many. *k counts in them. */
static int32_t narrow(uint64_t *keys, int32_t n, int shift, int32_t *k)
{
    int32_t count[BUCKETS] = {0}, kept = 0;
    unsigned digit = 0;
    for (int32_t i = 0; i < n; i++) {
        unsigned d = digit_of(keys[i], shift);
        count[d]++;
        digit = d > digit ? d : digit;
    }
    while (count[digit] < *k)
        *k -= count[digit--];
    for (int32_t i = 0; i < n; i++) {
        uint64_t key = keys[i];
        keys[kept] = key;
        kept += digit_of(key, shift) == digit;
    }
    return kept;
}

static void sort_descending(uint64_t *keys, int32_t n)
{
    for (int32_t i = 1; i < n; i++) {
        uint64_t key = keys[i];
        int32_t j = i;
        for (; j > 0 && keys[j - 1] < key; j--)
            keys[j] = keys[j - 1];
        keys[j] = key;
    }
}

double ra_kth_largest(const double *values, int32_t n, int32_t k, uint64_t *scratch)
{
    for (int32_t i = 0; i < n; i++)
        scratch[i] = key_of(values[i]);
    for (int shift = 64 - DIGIT; n > FEW && shift > 0; shift -= DIGIT)
        n = narrow(scratch, n, shift, &k);
    if (n > FEW)
        n = narrow(scratch, n, 0, &k); /* the last four bits, and eight again */
    if (n <= FEW)
        sort_descending(scratch, n);
    return value_of(scratch[n <= FEW ? k - 1 : 0]);
}
