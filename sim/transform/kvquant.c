/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KVQuant: non-uniform codes of few bits, with what is out of range kept beside them. Keys are
 * rounded as they were before RoPE, each channel in a range that the prompt set; values, each token
 * in its own. Levels come from the prompt.
 *
 * The paper leaves open, or asks for what a trace does not have:
 *   weights   of the k-means are Fisher information in the paper. Here an entry's comes from what
 *             its row received of the prompt's attention (acc), summed over its group: the root of
 *             that, so that a channel's levels are not those of a few rows; 1 without acc.
 *   vector    of a token: all KV heads together, as a projection gives them.
 *   range     the percentiles outliers/2 and 1 - outliers/2, interpolated; of the paper's Q-Norm
 *             there is nothing.
 *   sparse    an outlier takes a number of the stored type and an index into its token (16 bits, 32
 *             beyond 65536 channels), each token a pointer of 32 bits.
 * And it is left where that is far from what 4 bits can give; these are the paper's own:
 *   values=token    as here; head: a token's outliers as before, then a range for each head, which
 *                   costs bits.
 *   scale=none      Channels differ that share a range. channel: each is divided by its root mean
 *                   square over the prompt.
 *   levels=layer    channel: a set of levels for each, and no two channels of one shape.
 *   sweeps=0        The nearest codes. Else those that the prompt's last queries notice least,
 *                   where they may come again (settle.h).
 *
 * Sums run over tokens, heads, channels: the same bits everywhere.
 */
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "sim/rope.h"
#include "sim/transform/kvquant_side.h"
#include "sim/transform/settle.h"

static const struct ra_param table[] = {
    {.name = "bits",
     .type = RA_PARAM_INT,
     .offset = offsetof(struct ra_kvquant_params, bits),
     .min = 2,
     .max = 4,
     .fallback = "2",
     .help = "of a code"},
    {.name = "outliers",
     .type = RA_PARAM_REAL,
     .offset = offsetof(struct ra_kvquant_params, outliers),
     .min = 0,
     .max = 0.5,
     .fallback = "0.01",
     .help = "share of a vector that is kept as it is, half of it at each end"},
    {.name = "keys",
     .type = RA_PARAM_CHOICE,
     .offset = offsetof(struct ra_kvquant_params, keys),
     .fallback = "channel",
     .choices = "channel|token|head",
     .help = "what has a range of its own, of keys before RoPE"},
    {.name = "values",
     .type = RA_PARAM_CHOICE,
     .offset = offsetof(struct ra_kvquant_params, values),
     .fallback = "token",
     .choices = "channel|token|head",
     .help = "what has a range of its own, of values; token: as in the paper"},
    {.name = "nuq",
     .type = RA_PARAM_INT,
     .offset = offsetof(struct ra_kvquant_params, nuq),
     .min = 0,
     .max = 1,
     .fallback = "1",
     .help = "1: levels by k-means over the prompt; 0: evenly spaced"},
    {.name = "levels",
     .type = RA_PARAM_CHOICE,
     .offset = offsetof(struct ra_kvquant_params, levels),
     .fallback = "channel",
     .choices = "channel|layer",
     .help = "what has levels of its own, with nuq=1; layer: as in the paper"},
    {.name = "weights",
     .type = RA_PARAM_CHOICE,
     .offset = offsetof(struct ra_kvquant_params, weights),
     .fallback = "root",
     .choices = "root|acc|one",
     .help = "in k-means: attention received in the prompt, or its root"},
    {.name = "scale",
     .type = RA_PARAM_CHOICE,
     .offset = offsetof(struct ra_kvquant_params, scale),
     .fallback = "channel",
     .choices = "channel|none",
     .help = "what is scaled before a token's or head's range; none: as in the paper"},
    {.name = "sweeps",
     .type = RA_PARAM_INT,
     .offset = offsetof(struct ra_kvquant_params, sweeps),
     .min = 0,
     .max = 100,
     .fallback = "3",
     .help = "over a key's codes by what queries notice; 0: the nearest, as in the paper"},
    {.name = "ahead",
     .type = RA_PARAM_INT,
     .offset = offsetof(struct ra_kvquant_params, ahead),
     .min = 1,
     .max = 65536,
     .fallback = "256",
     .help = "positions after the prompt where its last queries may come again"},
    {.name = "damp",
     .type = RA_PARAM_REAL,
     .offset = offsetof(struct ra_kvquant_params, damp),
     .min = 0,
     .max = 1000,
     .fallback = "0.5",
     .help = "trust in nearness beside queries: share of their mean square"},
    {.name = NULL},
};

static void count_entry(const struct ra_side *side, int32_t pos, int i, double entry)
{
    double value = entry / side->scales[i],
           normal = ra_range_normalise(ra_side_range(side, pos, i), value);
    int heads = side->rows->model->Hkv;
    double weight = side->weights[(size_t)pos * (size_t)heads + (size_t)(i / side->width)];
    if (!ra_side_is_outside(side, pos, i, value))
        ra_levels_add(side->histogram, normal < -1 ? -1 : fmin(normal, 1), weight);
}

static void find_set(const struct ra_side *side, struct ra_level_set *set)
{
    ra_levels_find(side->histogram, side->n_levels, set->levels);
    for (int i = 0; i < side->n_levels; i++)
        set->levels[i] = ra_transform_stored(side->rows->model->dtype, set->levels[i]);
    ra_levels_borders(set->levels, side->n_levels, set->borders);
}

static bool has_sets(const struct ra_side *side)
{
    return side->params->nuq && side->params->levels == 0;
}

static void find_levels(struct ra_side *side)
{
    int32_t first = side->first, P = side->rows->P;
    size_t n = (size_t)(P - first);
    if (!side->params->nuq) {
        ra_levels_even(side->n_levels, side->sets->levels);
        ra_levels_borders(side->sets->levels, side->n_levels, side->sets->borders);
    } else if (has_sets(side)) {
        for (int i = 0; i < side->n; i++) {
            size_t d = (size_t)(i % side->width);
            if (d == 0)
                ra_side_load_columns(side, i / side->width);
            for (size_t j = 0; j < n; j++)
                count_entry(side, first + (int32_t)j, i, side->column[d * n + j]);
            find_set(side, &side->sets[i]);
        }
    } else {
        for (int32_t pos = first; pos < P; pos++) {
            ra_side_load_token(side, pos);
            for (int i = 0; i < side->n; i++)
                count_entry(side, pos, i, side->token[i]);
        }
        find_set(side, side->sets);
    }
}

struct place {
    const struct ra_side *side;
    int32_t pos;
    int head;
};

/* The nearest of what an entry can be read as. */
static double choose(void *context, int d, double wanted)
{
    const struct place *at = context;
    const struct ra_side *side = at->side;
    int i = at->head * side->width + d;
    const struct ra_level_set *set = &side->sets[has_sets(side) ? i : 0];
    struct ra_range range = ra_side_range(side, at->pos, i);
    int code = ra_levels_nearest(set->borders, side->n_levels,
                                 ra_range_normalise(range, wanted / side->scales[i]));
    return ((range.upper + range.lower) / 2 + (range.upper - range.lower) / 2 * set->levels[code]) *
           side->scales[i];
}

/* All rows but the first; returns how many entries are outliers. */
static int64_t quantise(struct ra_side *side)
{
    int64_t outliers = 0;
    struct ra_settling settling = {.D = side->width,
                                   .frequencies = side->frequencies,
                                   .damp = side->params->damp,
                                   .sweeps = side->params->sweeps};
    size_t W = (size_t)side->width;
    for (int32_t pos = 1; pos < side->rows->n; pos++) {
        ra_side_load_token(side, pos);
        for (int i = 0; i < side->n; i++) {
            struct place place = {side, pos, i / side->width};
            double value = side->token[i];
            side->fixed[i] = ra_side_is_outside(side, pos, i, value / side->scales[i]);
            outliers += side->fixed[i];
            side->read[i] = side->fixed[i] ? ra_transform_stored(side->rows->model->dtype, value)
                                           : choose(&place, i % side->width, value);
        }
        for (int h = 0; side->products && h < side->rows->model->Hkv; h++) {
            struct place place = {side, pos, h};
            size_t own = (size_t)h * W;
            settling.H = side->products + own * W;
            ra_settling_row(&settling, pos, side->token + own, side->fixed + own, choose, &place,
                            side->read + own);
        }
        memcpy(side->token, side->read, (size_t)side->n * sizeof *side->token);
        ra_side_store_token(side, pos);
    }
    return outliers;
}

static int64_t bits_taken(const struct ra_side *side, int64_t outliers)
{
    int64_t number = 8 * (int64_t)ra_dtype_bytes(side->rows->model->dtype);
    int64_t n = side->n, coded = side->rows->n - 1, index = n <= 65536 ? 16 : 32;
    int64_t n_ranges = side->per == RA_PER_CHANNEL ? n : coded;
    int64_t bits = n * number + coded * n * side->params->bits;
    n_ranges *= side->per == RA_PER_HEAD ? side->rows->model->Hkv : 1;
    bits += 2 * number * n_ranges;
    bits += side->per != RA_PER_CHANNEL && side->params->scale == 0 ? number * n : 0;
    bits += side->params->nuq ? number * side->n_levels * (has_sets(side) ? n : 1) : 0;
    if (side->params->outliers > 0)
        bits += outliers * (number + index) + 32 * (int64_t)side->rows->n;
    return bits;
}

static enum ra_status open_side(struct ra_side *side, struct ra_error *err)
{
    size_t n = (size_t)side->n, rows = (size_t)side->rows->n;
    size_t block = (size_t)side->width * (size_t)side->rows->P, heads = n / (size_t)side->width;
    side->limits = malloc((side->per == RA_PER_CHANNEL ? n : rows) * sizeof *side->limits);
    side->ranges = side->limits;
    if (side->per == RA_PER_HEAD)
        side->ranges = malloc(rows * heads * sizeof *side->ranges);
    side->scales = malloc(n * sizeof *side->scales);
    side->token = malloc(n * sizeof *side->token);
    side->read = malloc(n * sizeof *side->read);
    side->fixed = malloc(n * sizeof *side->fixed);
    side->column = malloc((block > n ? block : n) * sizeof *side->column);
    side->sets = calloc(has_sets(side) ? n : 1, sizeof *side->sets);
    side->histogram = calloc(1, sizeof *side->histogram);
    if (side->limits && side->ranges && side->scales && side->token && side->read && side->fixed &&
        side->column && side->sets && side->histogram)
        return RA_OK;
    return ra_fail(err, RA_ENOMEM, "kvquant: no memory for a layer of %zu rows", rows);
}

static void close_side(struct ra_side *side)
{
    if (side->ranges != side->limits)
        free(side->ranges);
    free(side->limits);
    free(side->scales);
    free(side->token);
    free(side->read);
    free(side->fixed);
    free(side->column);
    free(side->sets);
    free(side->histogram);
    free(side->products);
}

/* Of each head's queries. An odd width has no pairs. */
static enum ra_status form_products(struct ra_side *side, struct ra_error *err)
{
    const struct ra_transform_rows *rows = side->rows;
    size_t D = (size_t)side->width, square = D * D, Hkv = (size_t)rows->model->Hkv;
    size_t group = (size_t)rows->model->G * (size_t)rows->W * D;
    struct ra_settling settling = {.D = side->width, .frequencies = side->frequencies};
    if (!rows->q || side->params->sweeps == 0 || D % 2)
        return RA_OK;
    double *room = malloc(3 * square * sizeof *room);
    side->products = malloc(Hkv * square * sizeof *side->products);
    enum ra_status st = RA_OK;
    if (!room || !side->products)
        st = ra_fail(err, RA_ENOMEM, "kvquant: no memory for queries of %zu channels", D);
    for (size_t h = 0; st == RA_OK && h < Hkv; h++) {
        struct ra_settling_queries queries = {rows->q + h * group, rows->model->G, rows->W, rows->P,
                                              side->params->ahead};
        ra_settling_form(&settling, &queries, room, side->products + h * square);
    }
    free(room);
    return st;
}

static enum ra_status apply_side(struct ra_side *side, bool is_keys, int64_t *bits,
                                 struct ra_error *err)
{
    enum ra_status st = open_side(side, err);
    if (st == RA_OK && is_keys)
        st = form_products(side, err);
    if (st == RA_OK) {
        ra_side_find_ranges(side);
        find_levels(side);
        *bits = bits_taken(side, quantise(side));
    }
    close_side(side);
    return st;
}

/* [P][Hkv] */
static double *form_weights(const struct ra_transform_rows *rows, int32_t kind)
{
    const struct ra_model *m = rows->model;
    size_t P = (size_t)rows->P, Hkv = (size_t)m->Hkv, G = (size_t)m->G;
    double *weights = malloc(P * Hkv * sizeof *weights);
    for (size_t i = 0; weights && i < P * Hkv; i++) {
        bool is_known = rows->acc && kind != RA_WEIGHTS_ONE;
        weights[i] = is_known ? 0 : 1;
        for (size_t g = 0; is_known && g < G; g++)
            weights[i] += (double)rows->acc[(i % Hkv * G + g) * P + i / Hkv];
        weights[i] = kind == RA_WEIGHTS_ROOT ? sqrt(weights[i]) : weights[i];
    }
    return weights;
}

static enum ra_status apply(const void *params, const struct ra_transform_rows *rows,
                            struct ra_transform_bits *bits, struct ra_error *err)
{
    const struct ra_kvquant_params *p = params;
    const struct ra_model *m = rows->model;
    float frequencies[128];
    double *weights = form_weights(rows, p->weights);
    if (!weights)
        return ra_fail(err, RA_ENOMEM, "kvquant: no memory for a prompt of %d tokens", rows->P);
    struct ra_side keys = {.rows = rows,
                           .params = p,
                           .weights = weights,
                           .first = rows->P > 1 ? 1 : 0,
                           .n_levels = 1 << p->bits};
    struct ra_side values = keys;
    ra_rope_frequencies(&m->rope, m->D, frequencies);
    keys.stored = rows->k;
    keys.width = m->D;
    keys.n = m->Hkv * m->D;
    keys.frequencies = frequencies;
    keys.per = (enum ra_per)p->keys;
    values.stored = rows->v;
    values.width = m->Dv;
    values.n = m->Hkv * m->Dv;
    values.per = (enum ra_per)p->values;
    enum ra_status st = apply_side(&keys, true, &bits->k, err);
    if (st == RA_OK)
        st = apply_side(&values, false, &bits->v, err);
    free(weights);
    return st;
}

const struct ra_transform_ops ra_transform_kvquant = {
    .name = "kvquant",
    .summary = "non-uniform codes of 2 to 4 bits, outliers and first token kept",
    .source = "Hooper et al. 2024, arXiv:2401.18079, sec. 3",
    .deviations = "paper: values=token, levels=layer by Fisher information, scale=none, sweeps=0 "
                  "(nearest codes), Q-Norm; here: levels by acc, no Q-Norm",
    .params = table,
    .params_size = sizeof(struct ra_kvquant_params),
    .unrotates = true,
    .apply = apply,
};
