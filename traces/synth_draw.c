/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dimensions before the common rotation: sink | worth | tail | local ... | change ... | free ...
 * Keys are zero in the free ones, so that queries can be as alike from step to step as wanted
 * without a logit knowing. Reflections then spread everything over all dimensions; products stay.
 * Slow processes are noise at the knots of a grid, interpolated: any row can be made alone.
 */
#include "traces/synth_draw.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/rng.h"

enum {
    SINK,
    WORTH,
    TAIL,
    LOCAL,             /* first of n_local */
    CLUSTER_REACH = 32 /* positions between knots of clustered keys */
};

/* Streams of random numbers within a layer. */
enum stream {
    MIRRORS,
    KEY_WHITE,
    KEY_SMOOTH,
    KEY_LOCAL,
    VALUE,
    CHANGE_GROUP,
    CHANGE_SLOW,
    CHANGE_HEAD,
    FREE
};

/* Keys carry sink and locality this much, queries this much less: keeps queries' length, and with
 * it their likeness, free of them. */
static const double lever = 4;
static const double free_energy = 160;
static const double tail_from = 1.15; /* normal quantile of 1 - 1/8 */
/* Steps as places on the grids of slow processes: positive for every prompt row. */
static const int32_t step_origin = 1 << 26;

static int n_local(int D)
{
    return 3 * D / 8;
}

static int n_change(int D)
{
    return 3 * D / 16;
}

enum ra_status ra_synth_knobs_open(struct ra_synth_knobs *knobs, const struct ra_model *model,
                                   struct ra_error *err)
{
    size_t Hq = (size_t)model->Hq, Hkv = (size_t)model->Hkv;
    knobs->block = calloc(4 * Hq + 2 * Hkv, sizeof *knobs->block);
    if (!knobs->block)
        return ra_fail(err, RA_ENOMEM, "generator: no memory for %zu heads", Hq);
    knobs->sink = knobs->block;
    knobs->spread = knobs->sink + Hq;
    knobs->tail = knobs->spread + Hq;
    knobs->local = knobs->tail + Hq;
    knobs->change = knobs->local + Hq;
    knobs->cluster = knobs->change + Hkv;
    for (size_t h = 0; h < Hq; h++) {
        knobs->sink[h] = 2;
        knobs->spread[h] = 1.5;
        knobs->local[h] = 1;
    }
    for (size_t h = 0; h < Hkv; h++)
        knobs->change[h] = knobs->cluster[h] = 0.5;
    static const double pace[RA_SYNTH_PACES] = {0.1, 0.05, 0.05, 0.05, 0.75};
    memcpy(knobs->pace, pace, sizeof pace);
    return RA_OK;
}

void ra_synth_knobs_copy(struct ra_synth_knobs *to, const struct ra_synth_knobs *from,
                         const struct ra_model *model)
{
    size_t n = 4 * (size_t)model->Hq + 2 * (size_t)model->Hkv;
    memcpy(to->block, from->block, n * sizeof *to->block);
    memcpy(to->pace, from->pace, sizeof to->pace);
}

void ra_synth_knobs_close(struct ra_synth_knobs *knobs)
{
    free(knobs->block);
    memset(knobs, 0, sizeof *knobs);
}

void ra_synth_layer_init(struct ra_synth_layer *layer, const struct ra_model *model, int32_t P,
                         int32_t N, uint64_t key, double key_norm)
{
    int D = model->D;
    RA_BUG_ON(D > RA_SYNTH_MAX_D);
    layer->model = model;
    layer->P = P;
    layer->N = N;
    layer->key = key;
    layer->sink_shift = 0;
    layer->key_scale = key_norm / sqrt(1 + lever * lever + n_change(D));
    /* Very short keys would need queries that overflow f16. */
    if (layer->key_scale * model->attn_scale < 0.01)
        layer->key_scale = 0.01 / model->attn_scale;
    for (int m = 0; m < RA_SYNTH_MIRRORS; m++) {
        double *v = layer->mirror[m], square = 0;
        for (int d = 0; d < D; d++) {
            v[d] = ra_rng_normal(ra_rng_key(key, MIRRORS), (uint64_t)(m * D + d));
            square += v[d] * v[d];
        }
        for (int d = 0; d < D; d++)
            v[d] /= sqrt(square);
    }
}

static void rotate(const struct ra_synth_layer *layer, double *z)
{
    int D = layer->model->D;
    for (int m = 0; m < RA_SYNTH_MIRRORS; m++) {
        const double *v = layer->mirror[m];
        double dot = 0;
        for (int d = 0; d < D; d++)
            dot += v[d] * z[d];
        for (int d = 0; d < D; d++)
            z[d] -= 2 * dot * v[d];
    }
}

static uint64_t stream(const struct ra_synth_layer *layer, enum stream which, int head)
{
    return ra_rng_key(ra_rng_key(layer->key, which), (uint64_t)head);
}

/* Component i of n of white noise at place `at`. */
static double white(uint64_t key, int32_t at, int n, int i)
{
    return ra_rng_normal(key, (uint64_t)at * (uint64_t)n + (uint64_t)i);
}

/* The same, between knots `reach` places apart; variance 1 everywhere. */
static double smooth(uint64_t key, int32_t at, int32_t reach, int n, int i)
{
    int32_t knot = at / reach;
    double b = (double)(at % reach) / reach, a = 1 - b;
    double first = white(key, knot, n, i);
    if (at % reach == 0)
        return first;
    return (a * first + b * white(key, knot + 1, n, i)) / sqrt(a * a + b * b);
}

/* What keys of a head are worth: component 0 to everybody, the others to a query that asks. */
struct content {
    uint64_t white, smooth;
    double own, common; /* weights, squares add up to 1 */
    int n;
};

static struct content content_of(const struct ra_synth_layer *layer, int head)
{
    double c = layer->knobs.cluster[head];
    return (struct content){stream(layer, KEY_WHITE, head), stream(layer, KEY_SMOOTH, head),
                            sqrt(1 - c * c), c, n_change(layer->model->D) + 1};
}

static double content_at(const struct content *content, int32_t pos, int i)
{
    return content->own * white(content->white, pos, content->n, i) +
           content->common * smooth(content->smooth, pos, CLUSTER_REACH, content->n, i);
}

/* A code of where position `pos` is, alike for near positions; squares add up to size^2. */
static void fill_place(const struct ra_synth_layer *layer, int head, int32_t pos, double size,
                       double *z)
{
    int32_t reach = layer->P / 32 > 2 ? layer->P / 32 : 2;
    uint64_t key = stream(layer, KEY_LOCAL, head);
    int n = n_local(layer->model->D);
    for (int i = 0; i < n; i++)
        z[i] = smooth(key, pos, reach, n, i) * size / sqrt(n);
}

static void key_row(const struct ra_synth_layer *layer, int head, int32_t pos, double *z)
{
    int D = layer->model->D, local = n_local(D), change = n_change(D);
    struct content content = content_of(layer, head);
    memset(z, 0, (size_t)D * sizeof *z);
    if (pos == 0) {
        z[SINK] = lever;
    } else {
        z[WORTH] = content_at(&content, pos, 0);
        z[TAIL] = z[WORTH] > tail_from ? z[WORTH] - tail_from : 0;
        fill_place(layer, head, pos, lever, z + LOCAL);
        for (int i = 0; i < change; i++)
            z[LOCAL + local + i] = content_at(&content, pos, i + 1);
    }
    for (int d = 0; d < D; d++)
        z[d] *= layer->key_scale;
    rotate(layer, z);
}

/* What is asked for at this step; squares of the weights add up to 1. Most of it is new at each
 * step, half of that common to the group, and a little stays for tens of steps. */
static void fill_wish(const struct ra_synth_layer *layer, int head, int32_t t, double size,
                      double *z)
{
    int n = n_change(layer->model->D), group = head / layer->model->G;
    uint64_t common = stream(layer, CHANGE_GROUP, group), own = stream(layer, CHANGE_HEAD, head);
    uint64_t slow = stream(layer, CHANGE_SLOW, group);
    int32_t at = step_origin + t;
    for (int i = 0; i < n; i++) {
        double sum = 0.65 * white(common, at, n, i) + 0.65 * white(own, at, n, i) +
                     0.39 * smooth(slow, at, 64, n, i);
        z[i] = sum * size / sqrt(n);
    }
}

static void fill_free(const struct ra_synth_layer *layer, int32_t t, int n, double *z)
{
    static const int32_t paces[RA_SYNTH_PACES - 1] = {1, 4, 16, 64};
    for (int s = 0; s < RA_SYNTH_PACES; s++) {
        uint64_t key = stream(layer, FREE, s);
        double size = sqrt(layer->knobs.pace[s] * free_energy / n);
        for (int i = 0; i < n; i++)
            z[i] += size * (s == RA_SYNTH_PACES - 1 ? white(key, 0, n, i)
                                                    : smooth(key, step_origin + t, paces[s], n, i));
    }
}

static void query_row(const struct ra_synth_layer *layer, int head, int32_t t, double *z)
{
    const struct ra_synth_knobs *knobs = &layer->knobs;
    int D = layer->model->D, asked = LOCAL + n_local(D), first_free = asked + n_change(D);
    int kv_head = head / layer->model->G;
    double share = knobs->change[kv_head];
    memset(z, 0, (size_t)D * sizeof *z);
    z[SINK] = (knobs->sink[head] + layer->sink_shift) / lever;
    z[WORTH] = knobs->spread[head] * sqrt(1 - share * share);
    z[TAIL] = knobs->tail[head];
    fill_place(layer, kv_head, layer->P + t, knobs->local[head] / lever, z + LOCAL);
    fill_wish(layer, head, t, knobs->spread[head] * share, z + asked);
    fill_free(layer, t, D - first_free, z + first_free);
    for (int d = 0; d < D; d++)
        z[d] /= layer->key_scale * layer->model->attn_scale;
    rotate(layer, z);
}

/* Values follow the content of their keys by half; the sink's is small, as models leave it. */
static void value_row(const struct ra_synth_layer *layer, int head, int32_t pos, float *out)
{
    int Dv = layer->model->Dv, n = n_change(layer->model->D);
    struct content content = content_of(layer, head);
    uint64_t key = stream(layer, VALUE, head);
    for (int i = 0; i < n && i < Dv; i++) {
        double carried = 0.5 * content_at(&content, pos, i + 1);
        for (int d = i; d < Dv; d += n) {
            double v = carried + 0.87 * white(key, pos, Dv, d);
            out[d] = (float)(pos == 0 ? 0.05 * v : v);
        }
    }
}

void ra_synth_layer_row(const struct ra_synth_layer *layer, enum ra_trace_part part, int head,
                        int32_t at, float *out)
{
    double z[RA_SYNTH_MAX_D];
    if (part == RA_TRACE_V) {
        value_row(layer, head, at, out);
        return;
    }
    if (part == RA_TRACE_K)
        key_row(layer, head, at, z);
    else
        query_row(layer, head, at, z);
    for (int d = 0; d < layer->model->D; d++)
        out[d] = (float)z[d];
}
