/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 8-bit floats per token and KV head: a row is scaled so that its largest entry is the form's
 * largest number. Keys as they are stored, after RoPE.
 */
#include <math.h>
#include <stddef.h>

#include "sim/transform/each_row.h"

struct fp8_params {
    int32_t format;
};

static const struct ra_param table[] = {
    {.name = "format",
     .type = RA_PARAM_CHOICE,
     .offset = offsetof(struct fp8_params, format),
     .fallback = "e4m3",
     .choices = "e4m3|e5m2",
     .help = "bits of exponent and of fraction"},
    {.name = NULL},
};

/* Bits of the fraction, exponent of the smallest normal number, largest number. */
struct form {
    int fraction, smallest;
    double largest;
};
static const struct form forms[] = {{3, -6, 448}, {2, -14, 57344}};

/* Ties to even; beyond the largest: the largest, as hardware saturates. */
static double nearest(const struct form *form, double value)
{
    int exponent;
    frexp(value, &exponent);
    exponent = exponent - 1 < form->smallest ? form->smallest : exponent - 1;
    double unit = ldexp(1, exponent - form->fraction);
    double rounded = rint(value / unit) * unit;
    return rounded > form->largest ? form->largest : fmax(rounded, -form->largest);
}

static void round_row(const void *how, enum ra_dtype dtype, int n, double *row)
{
    const struct form *form = how;
    double largest = 0;
    for (int d = 0; d < n; d++)
        largest = fmax(largest, fabs(row[d]));
    double scale = ra_transform_stored(dtype, largest / form->largest);
    for (int d = 0; d < n; d++)
        row[d] = scale > 0 ? nearest(form, row[d] / scale) * scale : 0;
}

static enum ra_status apply(const void *params, const struct ra_transform_rows *rows,
                            struct ra_transform_bits *bits, struct ra_error *err)
{
    const struct fp8_params *p = params;
    (void)err;
    ra_transform_each_row(rows, round_row, &forms[p->format]);
    *bits = ra_transform_row_bits(rows, 8, 1);
    return RA_OK;
}

const struct ra_transform_ops ra_transform_fp8 = {
    .name = "fp8",
    .summary = "8-bit floats with a scale per token and head",
    .source = "baseline: Micikevicius et al. 2022, arXiv:2209.05433 (the forms)",
    .params = table,
    .params_size = sizeof(struct fp8_params),
    .apply = apply,
};
