/* SPDX-License-Identifier: Apache-2.0 */
/* The worst element is the one farthest beyond its bound, or nearest to it. */
#include "tests/support/approx.h"

#include <math.h>

#include "tests/support/ra_test.h"

void ra_assert_close(const char *what, const double *got, const double *expected, size_t n,
                     double atol, double rtol)
{
    size_t worst = 0;
    double worst_excess = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        double excess = fabs(got[i] - expected[i]) - (atol + rtol * fabs(expected[i]));
        if (excess > worst_excess || isnan(excess)) {
            worst = i;
            worst_excess = excess;
        }
        if (isnan(excess))
            break;
    }
    if (n > 0 && !(worst_excess <= 0))
        fail_msg("%s[%zu of %zu]: got %.17g, expected %.17g, bound %.3g", what, worst, n,
                 got[worst], expected[worst], atol + rtol * fabs(expected[worst]));
}

double ra_relative_error(const float *got, const double *expected, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double gap = (double)got[i] - expected[i];
        difference += gap * gap;
        norm += expected[i] * expected[i];
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}
