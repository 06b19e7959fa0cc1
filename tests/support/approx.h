/* SPDX-License-Identifier: Apache-2.0 */
/* Comparison of arrays of numbers by atol + rtol * |expected|, with the worst place reported. */
#ifndef RA_TESTS_SUPPORT_APPROX_H
#define RA_TESTS_SUPPORT_APPROX_H

#include <stddef.h>

/* Fail the running test, naming the worst index, both values and the bound, unless every
 * |got[i] - expected[i]| <= atol + rtol * |expected[i]|. NaN never passes. `what` names the array.
 */
void ra_assert_close(const char *what, const double *got, const double *expected, size_t n,
                     double atol, double rtol);

/* ||got - expected|| / ||expected||, or the numerator alone when the denominator is 0. */
double ra_relative_error(const float *got, const double *expected, size_t n);

#endif
