/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/transform/each_row.h"

enum { MAX_D = 256 };

static void round_rows(enum ra_dtype dtype, char *stored, size_t n_rows, int width,
                       ra_row_rounding rounding, const void *how)
{
    size_t n = (size_t)width, bytes = n * ra_dtype_bytes(dtype);
    float narrow[MAX_D];
    double row[MAX_D];
    RA_BUG_ON(width > MAX_D);
    for (size_t i = 0; i < n_rows; i++) {
        ra_widen(dtype, stored + i * bytes, n, narrow);
        for (size_t d = 0; d < n; d++)
            row[d] = (double)narrow[d];
        rounding(how, dtype, width, row);
        for (size_t d = 0; d < n; d++)
            narrow[d] = (float)row[d];
        ra_narrow(dtype, narrow, n, stored + i * bytes);
    }
}

void ra_transform_each_row(const struct ra_transform_rows *rows, ra_row_rounding rounding,
                           const void *how)
{
    const struct ra_model *m = rows->model;
    size_t n = (size_t)m->Hkv * (size_t)rows->n;
    round_rows(m->dtype, rows->k, n, m->D, rounding, how);
    round_rows(m->dtype, rows->v, n, m->Dv, rounding, how);
}

struct ra_transform_bits ra_transform_row_bits(const struct ra_transform_rows *rows, int bits,
                                               int beside)
{
    const struct ra_model *m = rows->model;
    int64_t n = (int64_t)m->Hkv * rows->n, tables = beside * 8 * (int64_t)ra_dtype_bytes(m->dtype);
    return (struct ra_transform_bits){.k = n * (m->D * (int64_t)bits + tables),
                                      .v = n * (m->Dv * (int64_t)bits + tables)};
}
