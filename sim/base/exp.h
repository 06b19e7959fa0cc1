/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exp for softmax: of numbers that are not positive, four at a time. Plain double operations in one
 * order: the same bits on every machine, which the C library's exp does not promise.
 */
#ifndef RA_SIM_BASE_EXP_H
#define RA_SIM_BASE_EXP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * values[i] = exp(values[i] - top), none of which is above top: to 1.5 units in the last place
 * where the result is normal; 0 below the smallest number, for -Inf as well.
 */
void ra_exp_below(double *values, int32_t n, double top);

#ifdef __cplusplus
}
#endif

#endif
