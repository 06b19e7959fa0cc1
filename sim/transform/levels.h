/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Levels for numbers in [-1, 1]: evenly spaced ones, or those of a weighted k-means. k-means sees a
 * histogram, so that its memory is fixed; a bin stands at the weighted mean of what fell into it.
 */
#ifndef RA_SIM_TRANSFORM_LEVELS_H
#define RA_SIM_TRANSFORM_LEVELS_H

#ifdef __cplusplus
extern "C" {
#endif

enum { RA_LEVELS_MAX = 16, RA_LEVEL_BINS = 4096 };

struct ra_level_histogram {
    double mass[RA_LEVEL_BINS], moment[RA_LEVEL_BINS]; /* sums of weights, and of weighted values */
};

/* value in [-1, 1], weight >= 0. Sums depend on the order of calls. */
void ra_levels_add(struct ra_level_histogram *histogram, double value, double weight);

/*
 * Lloyd's iteration on the histogram, started at the middles of n even cells; n <= RA_LEVELS_MAX
 * levels that ascend. At most 100 rounds. An empty histogram, or one without weight, gives even
 * ones. The histogram is empty afterwards.
 */
void ra_levels_find(struct ra_level_histogram *histogram, int n, double *levels);

void ra_levels_even(int n, double *levels);

/* The nearest level; the lower one where two are. Borders [n - 1] are their midpoints. */
void ra_levels_borders(const double *levels, int n, double *borders);
int ra_levels_nearest(const double *borders, int n, double value);

#ifdef __cplusplus
}
#endif

#endif
