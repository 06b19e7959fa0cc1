/* SPDX-License-Identifier: Apache-2.0 */
/* The k-th largest of many numbers, without sorting them. */
#ifndef RA_SIM_BASE_KTH_H
#define RA_SIM_BASE_KTH_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The k-th largest of n values, 1 <= k <= n; equal values count each. Values are not NaN; -0 equals
 * 0. scratch [n]. A radix select: time n plus that of the few digits it looks at, whatever the
 * values are.
 */
double ra_kth_largest(const double *values, int32_t n, int32_t k, uint64_t *scratch);

#ifdef __cplusplus
}
#endif

#endif
