/* SPDX-License-Identifier: Apache-2.0 */
/* Summaries of a list of f64 values: mean in index order, percentile by rank, extremes. */
#ifndef RA_SIM_BASE_STATS_H
#define RA_SIM_BASE_STATS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* NaN when n = 0, for all of them; NaN stands for "null" in results. */
double ra_mean(const double *values, size_t n);
double ra_min(const double *values, size_t n);
double ra_max(const double *values, size_t n);

/* Sort ascending, in place. Values must not be NaN. */
void ra_sort(double *values, size_t n);

/* The value at index ceil(percent * n / 100) - 1 of an ascending list; percent in 1..100. In
 * integers, because 0.05 * n in floating point can land on either side of a whole number. */
double ra_percentile(const double *sorted, size_t n, unsigned percent);

#ifdef __cplusplus
}
#endif

#endif
