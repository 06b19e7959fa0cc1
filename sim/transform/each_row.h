/* SPDX-License-Identifier: Apache-2.0 */
/* What the formats per token and KV head have in common: each row is rounded by itself. */
#ifndef RA_SIM_TRANSFORM_EACH_ROW_H
#define RA_SIM_TRANSFORM_EACH_ROW_H

#include "sim/transform.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Of one row of n <= 256 numbers: what is read back in their place. */
typedef void (*ra_row_rounding)(const void *how, enum ra_dtype dtype, int n, double *row);

/* Round each row of K and of V. Rows stay as stored, after RoPE. */
void ra_transform_each_row(const struct ra_transform_rows *rows, ra_row_rounding rounding,
                           const void *how);

/* Bits of all rows whose entries take `bits` and whose tables are `beside` numbers of the stored
 * type. */
struct ra_transform_bits ra_transform_row_bits(const struct ra_transform_rows *rows, int bits,
                                               int beside);

#ifdef __cplusplus
}
#endif

#endif
