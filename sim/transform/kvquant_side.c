/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/transform/kvquant_side.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/rope.h"

static char *row_at(const struct ra_side *side, int head, int32_t pos)
{
    size_t row = (size_t)head * (size_t)side->rows->n + (size_t)pos;
    return side->stored + row * (size_t)side->width * ra_dtype_bytes(side->rows->model->dtype);
}

/* A head's row at a position, un-rotated. */
static void load_row(const struct ra_side *side, int head, int32_t pos, double *out)
{
    float narrow[256];
    ra_widen(side->rows->model->dtype, row_at(side, head, pos), (size_t)side->width, narrow);
    for (int d = 0; d < side->width; d++)
        out[d] = (double)narrow[d];
    if (side->frequencies)
        ra_rope_turn_back(side->frequencies, side->width, pos, out);
}

void ra_side_load_token(const struct ra_side *side, int32_t pos)
{
    for (int h = 0; h < side->rows->model->Hkv; h++)
        load_row(side, h, pos, side->token + (size_t)h * (size_t)side->width);
}

void ra_side_store_token(const struct ra_side *side, int32_t pos)
{
    float narrow[256];
    for (int h = 0; h < side->rows->model->Hkv; h++) {
        double *row = side->token + (size_t)h * (size_t)side->width;
        if (side->frequencies)
            ra_rope_turn(side->frequencies, side->width, pos, row);
        for (int d = 0; d < side->width; d++)
            narrow[d] = (float)row[d];
        ra_narrow(side->rows->model->dtype, narrow, (size_t)side->width, row_at(side, h, pos));
    }
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double percentile(const double *ordered, size_t n, double q)
{
    double place = q * (double)(n - 1);
    size_t low = (size_t)floor(place), high = low + 1 < n ? low + 1 : n - 1;
    return ordered[low] + (place - (double)low) * (ordered[high] - ordered[low]);
}

/* Sorts the values. */
static struct ra_range range_of(const struct ra_side *side, double *values, size_t n)
{
    double share = side->params->outliers / 2;
    enum ra_dtype dtype = side->rows->model->dtype;
    qsort(values, n, sizeof *values, by_value);
    return (struct ra_range){ra_transform_stored(dtype, percentile(values, n, share)),
                             ra_transform_stored(dtype, percentile(values, n, 1 - share))};
}

void ra_side_load_columns(const struct ra_side *side, int head)
{
    size_t n = (size_t)(side->rows->P - side->first), W = (size_t)side->width;
    double row[256];
    for (size_t j = 0; j < n; j++) {
        load_row(side, head, side->first + (int32_t)j, row);
        for (size_t d = 0; d < W; d++)
            side->column[d * n + j] = row[d];
    }
}

static void find_channel_limits(struct ra_side *side)
{
    size_t n = (size_t)(side->rows->P - side->first), W = (size_t)side->width;
    for (int h = 0; h < side->rows->model->Hkv; h++) {
        ra_side_load_columns(side, h);
        for (size_t d = 0; d < W; d++)
            side->limits[(size_t)h * W + d] = range_of(side, side->column + d * n, n);
    }
}

static void find_scales(struct ra_side *side)
{
    enum ra_dtype dtype = side->rows->model->dtype;
    bool is_scaled = side->per != RA_PER_CHANNEL && side->params->scale == 0;
    for (int i = 0; i < side->n; i++)
        side->scales[i] = is_scaled ? 0 : 1;
    for (int32_t pos = side->first; is_scaled && pos < side->rows->P; pos++) {
        ra_side_load_token(side, pos);
        for (int i = 0; i < side->n; i++)
            side->scales[i] += side->token[i] * side->token[i];
    }
    for (int i = 0; is_scaled && i < side->n; i++) {
        double mean = side->scales[i] / (double)(side->rows->P - side->first);
        double scale = ra_transform_stored(dtype, sqrt(mean));
        side->scales[i] = scale > 0 ? scale : 1;
    }
}

bool ra_side_is_outside(const struct ra_side *side, int32_t pos, int i, double value)
{
    struct ra_range limits = side->limits[side->per == RA_PER_CHANNEL ? i : pos];
    return side->params->outliers > 0 && (value < limits.lower || value > limits.upper);
}

/* Of what is no outlier in a head of the token at hand. */
static struct ra_range head_range(const struct ra_side *side, int32_t pos, int head)
{
    enum ra_dtype dtype = side->rows->model->dtype;
    struct ra_range range = {INFINITY, -INFINITY};
    for (int i = head * side->width; i < (head + 1) * side->width; i++) {
        double value = side->token[i] / side->scales[i];
        if (ra_side_is_outside(side, pos, i, value))
            continue;
        range.lower = fmin(range.lower, value);
        range.upper = fmax(range.upper, value);
    }
    if (range.lower > range.upper)
        return (struct ra_range){0, 0};
    return (struct ra_range){ra_transform_stored(dtype, range.lower),
                             ra_transform_stored(dtype, range.upper)};
}

static void find_token_ranges(struct ra_side *side)
{
    int n = side->n, Hkv = side->rows->model->Hkv;
    for (int32_t pos = 0; pos < side->rows->n; pos++) {
        ra_side_load_token(side, pos);
        for (int i = 0; i < n; i++)
            side->column[i] = side->token[i] / side->scales[i];
        side->limits[pos] = range_of(side, side->column, (size_t)n);
        for (int h = 0; side->per == RA_PER_HEAD && h < Hkv; h++)
            side->ranges[(size_t)pos * (size_t)Hkv + (size_t)h] = head_range(side, pos, h);
    }
}

struct ra_range ra_side_range(const struct ra_side *side, int32_t pos, int i)
{
    if (side->per != RA_PER_HEAD)
        return side->ranges[side->per == RA_PER_CHANNEL ? i : pos];
    size_t heads = (size_t)side->rows->model->Hkv;
    return side->ranges[(size_t)pos * heads + (size_t)(i / side->width)];
}

double ra_range_normalise(struct ra_range range, double value)
{
    double middle = (range.upper + range.lower) / 2, half = (range.upper - range.lower) / 2;
    return half > 0 ? (value - middle) / half : 0;
}

void ra_side_find_ranges(struct ra_side *side)
{
    find_scales(side);
    if (side->per == RA_PER_CHANNEL)
        find_channel_limits(side);
    else
        find_token_ranges(side);
}
