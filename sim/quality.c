/* SPDX-License-Identifier: Apache-2.0 */
/* Relative error and recall. */
#include "sim/quality.h"

#include <math.h>

#include "sim/base/kth.h"

double ra_rel_err(const double *got, const double *want, int n)
{
    double difference = 0, norm = 0;
    for (int i = 0; i < n; i++) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        norm += want[i] * want[i];
    }
    return norm > 0 ? sqrt(difference / norm) : NAN;
}

double ra_topk_recall(const double *score, int32_t L, const int32_t *set, int32_t n,
                      uint64_t *scratch)
{
    if (n == 0)
        return NAN;
    double least = ra_kth_largest(score, L, n, scratch);
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
