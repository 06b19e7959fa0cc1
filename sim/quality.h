/* SPDX-License-Identifier: Apache-2.0 */
/* Figures of merit of one attended set, in f64. NaN stands for "null": nothing to measure. */
#ifndef RA_SIM_QUALITY_H
#define RA_SIM_QUALITY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ||got - want|| / ||want|| in the 2-norm over n values; NaN when ||want|| is 0. */
double ra_rel_err(const double *got, const double *want, int n);

/*
 * Share of a set that is among the n best positions before self, n being the set's size.
 *
 *   score    [L] of every position before self
 *   set      n ascending positions, each below L
 *   scratch  [L]
 *
 * Ties go to the lower position. NaN when n = 0.
 */
double ra_topk_recall(const double *score, int32_t L, const int32_t *set, int32_t n,
                      uint64_t *scratch);

#ifdef __cplusplus
}
#endif

#endif
