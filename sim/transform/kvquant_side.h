/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVQuant's view of a layer's keys, or of its values: rows before RoPE, and what they have ranges
 * by. Internal to kvquant; kvquant.c says where this departs from the paper.
 */
#ifndef RA_SIM_TRANSFORM_KVQUANT_SIDE_H
#define RA_SIM_TRANSFORM_KVQUANT_SIDE_H

#include "sim/transform.h"
#include "sim/transform/levels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* In the order of the choices that the option table names. */
enum ra_per { RA_PER_CHANNEL, RA_PER_TOKEN, RA_PER_HEAD };
enum ra_weights { RA_WEIGHTS_ROOT, RA_WEIGHTS_ACC, RA_WEIGHTS_ONE };

struct ra_kvquant_params {
    int32_t bits, keys, values, nuq, levels, weights, scale, sweeps, ahead;
    double outliers, damp;
};

struct ra_range {
    double lower, upper;
};

struct ra_level_set {
    double levels[RA_LEVELS_MAX], borders[RA_LEVELS_MAX];
};

/* Keys, or values. */
struct ra_side {
    const struct ra_transform_rows *rows;
    const struct ra_kvquant_params *params;
    char *stored;
    int width, n;             /* of a head's row, of a token: Hkv * width */
    const float *frequencies; /* [width / 2]; NULL: not rotated */
    enum ra_per per;
    int32_t first;             /* rows first..P-1 calibrate */
    const double *weights;     /* [P][Hkv] */
    double *scales;            /* [n] of channels */
    struct ra_range *limits;   /* [n] of channels, or [rows->n] of tokens: outliers are beyond */
    struct ra_range *ranges;   /* limits, or [rows->n][Hkv] of heads */
    double *token, *read;      /* [n] */
    bool *fixed;               /* [n] */
    double *column;            /* what is sorted: [n], or [width][P] */
    struct ra_level_set *sets; /* [n] of channels, or one */
    struct ra_level_histogram *histogram;
    int n_levels;
    double *products; /* [Hkv][width][width] of queries; NULL: the nearest codes */
};

/* A token's entries into side->token, un-rotated; and side->token into the rows, rotated. */
void ra_side_load_token(const struct ra_side *side, int32_t pos);
void ra_side_store_token(const struct ra_side *side, int32_t pos);

/* A head's rows that calibrate, channel by channel, into side->column. */
void ra_side_load_columns(const struct ra_side *side, int head);

/* Scales, limits and ranges. */
void ra_side_find_ranges(struct ra_side *side);

/* Of entry i of a token; value is scaled. */
bool ra_side_is_outside(const struct ra_side *side, int32_t pos, int i, double value);
struct ra_range ra_side_range(const struct ra_side *side, int32_t pos, int i);

/* To [-1, 1]; 0 in a range that is one number. */
double ra_range_normalise(struct ra_range range, double value);

#ifdef __cplusplus
}
#endif

#endif
