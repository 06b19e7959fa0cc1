/* SPDX-License-Identifier: Apache-2.0 */
/* Relative error and recall. */
#include "sim/quality.h"

#include <math.h>
#include <string.h>

double ra_rel_err(const double *got, const double *want, int n)
{
    double difference = 0, norm = 0;
    for (int i = 0; i < n; i++) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        norm += want[i] * want[i];
    }
    return norm > 0 ? sqrt(difference / norm) : NAN;
}

/* The n-th largest of values (n from 1), which are reordered. Three-way quickselect: plateaus of
 * equal scores are the normal case. */
static double nth_largest(double *values, int32_t count, int32_t n)
{
    int32_t low = 0, high = count;
    for (;;) {
        double a = values[low], b = values[low + (high - low) / 2], c = values[high - 1];
        double pivot = a > b ? (b > c ? b : (a > c ? c : a)) : (a > c ? a : (b > c ? c : b));
        int32_t above = low, i = low, below = high;
        while (i < below) {
            double x = values[i];
            if (x > pivot) {
                values[i++] = values[above];
                values[above++] = x;
            } else if (x < pivot) {
                values[i] = values[--below];
                values[below] = x;
            } else {
                i++;
            }
        }
        if (n <= above)
            high = above;
        else if (n <= below)
            return pivot;
        else
            low = below;
    }
}

double ra_topk_recall(const double *score, int32_t L, const int32_t *set, int32_t n,
                      double *scratch)
{
    if (n == 0)
        return NAN;
    memcpy(scratch, score, (size_t)L * sizeof *scratch);
    double least = nth_largest(scratch, L, n);
    int32_t above = 0, last_tied = -1;
    for (int32_t j = 0; j < L; j++)
        above += score[j] > least;
    for (int32_t j = 0, tied = 0; tied < n - above; j++)
        if (score[j] == least) {
            tied++;
            last_tied = j;
        }
    int32_t hits = 0;
    for (int32_t i = 0; i < n; i++) {
        double x = score[set[i]];
        hits += x > least || (x == least && set[i] <= last_tied);
    }
    return (double)hits / n;
}
