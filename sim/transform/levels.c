/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/transform/levels.h"

#include <stdbool.h>
#include <string.h>

enum { ROUNDS = 100 };

void ra_levels_add(struct ra_level_histogram *histogram, double value, double weight)
{
    int bin = (int)((value + 1) * 0.5 * RA_LEVEL_BINS);
    bin = bin < RA_LEVEL_BINS ? bin : RA_LEVEL_BINS - 1;
    histogram->mass[bin] += weight;
    histogram->moment[bin] += weight * value;
}

void ra_levels_even(int n, double *levels)
{
    for (int i = 0; i < n; i++)
        levels[i] = -1 + 2.0 * i / (n - 1);
}

void ra_levels_borders(const double *levels, int n, double *borders)
{
    for (int i = 0; i + 1 < n; i++)
        borders[i] = (levels[i] + levels[i + 1]) / 2;
}

int ra_levels_nearest(const double *borders, int n, double value)
{
    int i = 0;
    while (i < n - 1 && borders[i] < value)
        i++;
    return i;
}

/* The bins that are used, to the front: how many. Their points ascend. */
static int gather(struct ra_level_histogram *histogram)
{
    int used = 0;
    for (int bin = 0; bin < RA_LEVEL_BINS; bin++) {
        if (!(histogram->mass[bin] > 0))
            continue;
        histogram->mass[used] = histogram->mass[bin];
        histogram->moment[used++] = histogram->moment[bin];
    }
    return used;
}

/* One round; whether any level moved. */
static bool move(const struct ra_level_histogram *histogram, int used, int n, double *levels)
{
    double borders[RA_LEVELS_MAX] = {0}, mass[RA_LEVELS_MAX] = {0}, moment[RA_LEVELS_MAX] = {0};
    bool moved = false;
    int own = 0;
    ra_levels_borders(levels, n, borders);
    for (int i = 0; i < used; i++) {
        while (own < n - 1 && borders[own] < histogram->moment[i] / histogram->mass[i])
            own++;
        mass[own] += histogram->mass[i];
        moment[own] += histogram->moment[i];
    }
    for (int i = 0; i < n; i++) {
        double level = mass[i] > 0 ? moment[i] / mass[i] : levels[i];
        moved |= level != levels[i];
        levels[i] = level;
    }
    return moved;
}

void ra_levels_find(struct ra_level_histogram *histogram, int n, double *levels)
{
    int used = gather(histogram);
    for (int i = 0; i < n; i++)
        levels[i] = (2.0 * i + 1) / n - 1;
    if (used == 0)
        ra_levels_even(n, levels);
    for (int round = 0; used > 0 && round < ROUNDS && move(histogram, used, n, levels); round++)
        continue;
    memset(histogram, 0, sizeof *histogram);
}
