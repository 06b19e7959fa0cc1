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

/* Each level at the first bin by which its share of the whole weight is reached. */
static void start(const struct ra_level_histogram *histogram, int n, double *levels)
{
    double whole = 0, below = 0, point = 0;
    int i = 0;
    for (int bin = 0; bin < RA_LEVEL_BINS; bin++)
        whole += histogram->mass[bin];
    for (int bin = 0; bin < RA_LEVEL_BINS; bin++) {
        if (!(histogram->mass[bin] > 0))
            continue;
        below += histogram->mass[bin];
        point = histogram->moment[bin] / histogram->mass[bin];
        for (; i < n && (2.0 * i + 1) / (2 * n) * whole <= below; i++)
            levels[i] = point;
    }
    for (; i < n; i++)
        levels[i] = point;
}

/* One round; whether any level moved. */
static bool move(const struct ra_level_histogram *histogram, int n, double *levels)
{
    double borders[RA_LEVELS_MAX] = {0}, mass[RA_LEVELS_MAX] = {0}, moment[RA_LEVELS_MAX] = {0};
    bool moved = false;
    ra_levels_borders(levels, n, borders);
    for (int bin = 0; bin < RA_LEVEL_BINS; bin++) {
        if (!(histogram->mass[bin] > 0))
            continue;
        int own = ra_levels_nearest(borders, n, histogram->moment[bin] / histogram->mass[bin]);
        mass[own] += histogram->mass[bin];
        moment[own] += histogram->moment[bin];
    }
    for (int i = 0; i < n; i++) {
        double level = mass[i] > 0 ? moment[i] / mass[i] : levels[i];
        moved |= level != levels[i];
        levels[i] = level;
    }
    return moved;
}

void ra_levels_find(const struct ra_level_histogram *histogram, int n, double *levels)
{
    bool used = false;
    for (int bin = 0; bin < RA_LEVEL_BINS; bin++)
        used |= histogram->mass[bin] > 0;
    if (!used) {
        ra_levels_even(n, levels);
        return;
    }
    start(histogram, n, levels);
    for (int round = 0; round < ROUNDS && move(histogram, n, levels); round++)
        continue;
}
