/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integers per token and KV head: equal steps from the row's least entry to its largest, as serving
 * engines quantise a cache online. Keys as they are stored, after RoPE.
 */
#include <math.h>

#include "sim/transform/each_row.h"

static void round_row(const void *how, enum ra_dtype dtype, int n, double *row)
{
    double most = *(const int *)how, least = row[0], largest = row[0];
    for (int d = 1; d < n; d++) {
        least = row[d] < least ? row[d] : least;
        largest = row[d] > largest ? row[d] : largest;
    }
    double step = ra_transform_stored(dtype, (largest - least) / most);
    for (int d = 0; d < n; d++) {
        double code = step > 0 ? rint((row[d] - least) / step) : 0;
        row[d] = least + (code > most ? most : code) * step;
    }
}

static enum ra_status apply(const struct ra_transform_rows *rows, int bits,
                            struct ra_transform_bits *taken)
{
    int most = (1 << bits) - 1;
    ra_transform_each_row(rows, round_row, &most);
    *taken = ra_transform_row_bits(rows, bits, 2);
    return RA_OK;
}

static enum ra_status apply_int8(const void *params, const struct ra_transform_rows *rows,
                                 struct ra_transform_bits *bits, struct ra_error *err)
{
    (void)params;
    (void)err;
    return apply(rows, 8, bits);
}

static enum ra_status apply_int4(const void *params, const struct ra_transform_rows *rows,
                                 struct ra_transform_bits *bits, struct ra_error *err)
{
    (void)params;
    (void)err;
    return apply(rows, 4, bits);
}

const struct ra_transform_ops ra_transform_int8 = {
    .name = "int8",
    .summary = "8-bit steps between a row's least and largest, per token and head",
    .source = "baseline: asymmetric, a step and a least entry beside the codes",
    .apply = apply_int8,
};

const struct ra_transform_ops ra_transform_int4 = {
    .name = "int4",
    .summary = "4-bit steps between a row's least and largest, per token and head",
    .source = "baseline: asymmetric, a step and a least entry beside the codes",
    .apply = apply_int4,
};
