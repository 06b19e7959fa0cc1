/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVQuant: non-uniform codes of few bits, with what is out of range kept beside them. Keys are
 * rounded as they were before RoPE, each channel in a range that the prompt set; values, each token
 * in its own. The levels of a layer, one set for keys and one for values, come from the prompt.
 *
 * The paper leaves open, or asks for what a trace does not have:
 *   weights   of the k-means are Fisher information in the paper. Here an entry weighs what its row
 *             received of the prompt's attention (acc), summed over its group; 1 without acc.
 *   vector    of a token: all KV heads together, as a projection gives them.
 *   range     the percentiles outliers/2 and 1 - outliers/2, interpolated; of the paper's Q-Norm
 *             there is nothing.
 *   sparse    an outlier takes a number of the stored type and an index into its token (16 bits, 32
 *             beyond 65536 channels), each token a pointer of 32 bits.
 * Sums run over tokens, heads, channels: the same bits everywhere.
 */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "sim/rope.h"
#include "sim/transform.h"
#include "sim/transform/levels.h"

enum per { PER_CHANNEL, PER_TOKEN };

struct kvquant_params {
    int32_t bits, keys, values, nuq;
    double outliers;
};

static const struct ra_param table[] = {
    {.name = "bits",
     .type = RA_PARAM_INT,
     .offset = offsetof(struct kvquant_params, bits),
     .min = 2,
     .max = 4,
     .fallback = "2",
     .help = "of a code"},
    {.name = "outliers",
     .type = RA_PARAM_REAL,
     .offset = offsetof(struct kvquant_params, outliers),
     .min = 0,
     .max = 0.5,
     .fallback = "0.01",
     .help = "share of a vector that is kept as it is, half of it at each end"},
    {.name = "keys",
     .type = RA_PARAM_CHOICE,
     .offset = offsetof(struct kvquant_params, keys),
     .fallback = "channel",
     .choices = "channel|token",
     .help = "what has a range of its own, of keys before RoPE"},
    {.name = "values",
     .type = RA_PARAM_CHOICE,
     .offset = offsetof(struct kvquant_params, values),
     .fallback = "token",
     .choices = "channel|token",
     .help = "what has a range of its own, of values"},
    {.name = "nuq",
     .type = RA_PARAM_INT,
     .offset = offsetof(struct kvquant_params, nuq),
     .min = 0,
     .max = 1,
     .fallback = "1",
     .help = "1: levels by k-means over the prompt; 0: evenly spaced"},
    {.name = NULL},
};

struct range {
    double lower, upper;
};

/* Keys, or values. */
struct side {
    const struct ra_transform_rows *rows;
    const struct kvquant_params *params;
    char *stored;
    int width, n;             /* of a head's row, of a token: Hkv * width */
    const float *frequencies; /* [width / 2]; NULL: not rotated */
    enum per per;
    int32_t first;         /* rows first..P-1 calibrate */
    const double *weights; /* [P][Hkv] */
    struct range *ranges;  /* [n] of channels, or [rows->n] of tokens */
    double *token;         /* [n] */
    double *column;        /* what is sorted: [n], or [width][P] */
    struct ra_level_histogram *histogram;
    int n_levels;
    double levels[RA_LEVELS_MAX], borders[RA_LEVELS_MAX];
};

static char *row_at(const struct side *side, int head, int32_t pos)
{
    size_t row = (size_t)head * (size_t)side->rows->n + (size_t)pos;
    return side->stored + row * (size_t)side->width * ra_dtype_bytes(side->rows->model->dtype);
}

/* A head's row at a position, un-rotated. */
static void load_row(const struct side *side, int head, int32_t pos, double *out)
{
    float narrow[256];
    ra_widen(side->rows->model->dtype, row_at(side, head, pos), (size_t)side->width, narrow);
    for (int d = 0; d < side->width; d++)
        out[d] = (double)narrow[d];
    if (side->frequencies)
        ra_rope_turn_back(side->frequencies, side->width, pos, out);
}

static void load_token(const struct side *side, int32_t pos)
{
    for (int h = 0; h < side->rows->model->Hkv; h++)
        load_row(side, h, pos, side->token + (size_t)h * (size_t)side->width);
}

static void store_token(const struct side *side, int32_t pos)
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
static struct range range_of(const struct side *side, double *values, size_t n)
{
    double share = side->params->outliers / 2;
    enum ra_dtype dtype = side->rows->model->dtype;
    qsort(values, n, sizeof *values, by_value);
    return (struct range){ra_transform_stored(dtype, percentile(values, n, share)),
                          ra_transform_stored(dtype, percentile(values, n, 1 - share))};
}

static void find_channel_ranges(struct side *side)
{
    size_t n = (size_t)(side->rows->P - side->first), W = (size_t)side->width;
    double row[256];
    for (int h = 0; h < side->rows->model->Hkv; h++) {
        for (size_t j = 0; j < n; j++) {
            load_row(side, h, side->first + (int32_t)j, row);
            for (size_t d = 0; d < W; d++)
                side->column[d * n + j] = row[d];
        }
        for (size_t d = 0; d < W; d++)
            side->ranges[(size_t)h * W + d] = range_of(side, side->column + d * n, n);
    }
}

static void find_token_ranges(struct side *side)
{
    size_t n = (size_t)side->n;
    for (int32_t pos = 0; pos < side->rows->n; pos++) {
        load_token(side, pos);
        memcpy(side->column, side->token, n * sizeof *side->column);
        side->ranges[pos] = range_of(side, side->column, n);
    }
}

static struct range range_at(const struct side *side, int32_t pos, int i)
{
    return side->ranges[side->per == PER_CHANNEL ? i : pos];
}

static bool is_outside(const struct side *side, struct range range, double value)
{
    return side->params->outliers > 0 && (value < range.lower || value > range.upper);
}

static double normalise(struct range range, double value)
{
    double middle = (range.upper + range.lower) / 2, half = (range.upper - range.lower) / 2;
    return half > 0 ? (value - middle) / half : 0;
}

static void find_levels(struct side *side)
{
    int n = side->n_levels;
    ra_levels_even(n, side->levels);
    for (int32_t pos = side->first; side->params->nuq && pos < side->rows->P; pos++) {
        const double *weights = side->weights + (size_t)pos * (size_t)side->rows->model->Hkv;
        load_token(side, pos);
        for (int i = 0; i < side->n; i++) {
            struct range range = range_at(side, pos, i);
            double value = normalise(range, side->token[i]);
            if (!is_outside(side, range, side->token[i]))
                ra_levels_add(side->histogram, value < -1 ? -1 : fmin(value, 1),
                              weights[i / side->width]);
        }
    }
    if (side->params->nuq) {
        ra_levels_find(side->histogram, n, side->levels);
        for (int i = 0; i < n; i++)
            side->levels[i] = ra_transform_stored(side->rows->model->dtype, side->levels[i]);
    }
    ra_levels_borders(side->levels, n, side->borders);
}

/* All rows but the first; returns how many entries are outliers. */
static int64_t quantise(struct side *side)
{
    int64_t outliers = 0;
    for (int32_t pos = 1; pos < side->rows->n; pos++) {
        load_token(side, pos);
        for (int i = 0; i < side->n; i++) {
            struct range range = range_at(side, pos, i);
            double value = side->token[i];
            if (is_outside(side, range, value)) {
                outliers++;
                side->token[i] = ra_transform_stored(side->rows->model->dtype, value);
                continue;
            }
            int code = ra_levels_nearest(side->borders, side->n_levels, normalise(range, value));
            side->token[i] = (range.upper + range.lower) / 2 +
                             (range.upper - range.lower) / 2 * side->levels[code];
        }
        store_token(side, pos);
    }
    return outliers;
}

static int64_t bits_taken(const struct side *side, int64_t outliers)
{
    int64_t number = 8 * (int64_t)ra_dtype_bytes(side->rows->model->dtype);
    int64_t n = side->n, coded = side->rows->n - 1, index = n <= 65536 ? 16 : 32;
    int64_t bits = n * number + coded * n * side->params->bits;
    bits += 2 * number * (side->per == PER_CHANNEL ? n : coded);
    bits += side->params->nuq ? number * side->n_levels : 0;
    if (side->params->outliers > 0)
        bits += outliers * (number + index) + 32 * (int64_t)side->rows->n;
    return bits;
}

static enum ra_status apply_side(struct side *side, int64_t *bits, struct ra_error *err)
{
    size_t n = (size_t)side->n, rows = (size_t)side->rows->n;
    size_t block = (size_t)side->width * (size_t)side->rows->P;
    bool by_channel = side->per == PER_CHANNEL;
    side->ranges = malloc((by_channel ? n : rows) * sizeof *side->ranges);
    side->token = malloc(n * sizeof *side->token);
    side->column = malloc((by_channel ? block : n) * sizeof *side->column);
    side->histogram = calloc(1, sizeof *side->histogram);
    enum ra_status st = RA_OK;
    if (side->ranges && side->token && side->column && side->histogram) {
        if (by_channel)
            find_channel_ranges(side);
        else
            find_token_ranges(side);
        find_levels(side);
        *bits = bits_taken(side, quantise(side));
    } else {
        st = ra_fail(err, RA_ENOMEM, "kvquant: no memory for a layer of %zu rows", rows);
    }
    free(side->ranges);
    free(side->token);
    free(side->column);
    free(side->histogram);
    return st;
}

/* [P][Hkv] */
static double *form_weights(const struct ra_transform_rows *rows)
{
    const struct ra_model *m = rows->model;
    size_t P = (size_t)rows->P, Hkv = (size_t)m->Hkv, G = (size_t)m->G;
    double *weights = malloc(P * Hkv * sizeof *weights);
    for (size_t i = 0; weights && i < P * Hkv; i++) {
        weights[i] = rows->acc ? 0 : 1;
        for (size_t g = 0; rows->acc && g < G; g++)
            weights[i] += (double)rows->acc[(i % Hkv * G + g) * P + i / Hkv];
    }
    return weights;
}

static enum ra_status apply(const void *params, const struct ra_transform_rows *rows,
                            struct ra_transform_bits *bits, struct ra_error *err)
{
    const struct kvquant_params *p = params;
    const struct ra_model *m = rows->model;
    float frequencies[128];
    double *weights = form_weights(rows);
    if (!weights)
        return ra_fail(err, RA_ENOMEM, "kvquant: no memory for a prompt of %d tokens", rows->P);
    struct side keys = {.rows = rows,
                        .params = p,
                        .weights = weights,
                        .first = rows->P > 1 ? 1 : 0,
                        .n_levels = 1 << p->bits};
    struct side values = keys;
    ra_rope_frequencies(&m->rope, m->D, frequencies);
    keys.stored = rows->k;
    keys.width = m->D;
    keys.n = m->Hkv * m->D;
    keys.frequencies = m->rope.type == RA_ROPE_NONE ? NULL : frequencies;
    keys.per = (enum per)p->keys;
    values.stored = rows->v;
    values.width = m->Dv;
    values.n = m->Hkv * m->Dv;
    values.per = (enum per)p->values;
    enum ra_status st = apply_side(&keys, &bits->k, err);
    if (st == RA_OK)
        st = apply_side(&values, &bits->v, err);
    free(weights);
    return st;
}

const struct ra_transform_ops ra_transform_kvquant = {
    .name = "kvquant",
    .summary = "non-uniform codes of 2 to 4 bits, outliers and first token kept",
    .source = "Hooper et al. 2024, arXiv:2401.18079, sec. 3",
    .deviations = "paper: levels weighted by Fisher information, Q-Norm at 2 bits; "
                  "here: by acc, or not; no Q-Norm",
    .params = table,
    .params_size = sizeof(struct kvquant_params),
    .unrotates = true,
    .apply = apply,
};
