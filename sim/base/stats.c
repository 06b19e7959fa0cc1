/* SPDX-License-Identifier: Apache-2.0 */
/* Summaries of values, summed in index order so that the result does not depend on threads. */
#include "sim/base/stats.h"

#include "sim/base/error.h"

#include <math.h>
#include <stdlib.h>

double ra_mean(const double *values, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    return n ? sum / (double)n : NAN;
}

double ra_min(const double *values, size_t n)
{
    double best = n ? values[0] : NAN;
    for (size_t i = 1; i < n; i++)
        best = values[i] < best ? values[i] : best;
    return best;
}

double ra_max(const double *values, size_t n)
{
    double best = n ? values[0] : NAN;
    for (size_t i = 1; i < n; i++)
        best = values[i] > best ? values[i] : best;
    return best;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void ra_sort(double *values, size_t n)
{
    if (n > 1)
        qsort(values, n, sizeof *values, by_value);
}

double ra_percentile(const double *sorted, size_t n, unsigned percent)
{
    RA_BUG_ON(percent < 1 || percent > 100);
    return n ? sorted[(n * percent + 99) / 100 - 1] : NAN;
}
