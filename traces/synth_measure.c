/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Full attention at a few steps. Probabilities come from an exp that is the same everywhere, sums
 * have a fixed order: a fit that is steered by them ends in the same place on every machine.
 */
#include "traces/synth_measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/rope.h"
#include "sim/select.h"
#include "traces/synth_math.h"

enum { PAIRS = 8, LANES = 8, POOL = 7 };
static const int32_t shares[RA_FIT_BUDGETS] = {64, 16, 8, 4};
static const int32_t lags[RA_FIT_COSINES] = {1, 4, 16, 64};

static int32_t share_of(int32_t P, int32_t n)
{
    return P / n > 1 ? P / n : 1;
}

enum ra_status ra_measure_open(struct ra_measure *measure, const struct ra_model *model,
                               struct ra_error *err)
{
    size_t Hq = (size_t)model->Hq, Hkv = (size_t)model->Hkv;
    measure->block = calloc((2 + RA_FIT_BUDGETS) * Hq + 2 * Hkv, sizeof *measure->block);
    if (!measure->block)
        return ra_fail(err, RA_ENOMEM, "statistics: no memory for %zu heads", Hq);
    measure->sink = measure->block;
    measure->recent = measure->sink + Hq;
    measure->top = measure->recent + Hq;
    measure->run = measure->top + RA_FIT_BUDGETS * Hq;
    measure->overlap = measure->run + Hkv;
    return RA_OK;
}

void ra_measure_close(struct ra_measure *measure)
{
    free(measure->block);
    memset(measure, 0, sizeof *measure);
}

/* Working memory for one KV head. */
struct work {
    const struct ra_measure_source *source;
    struct ra_measure *out;
    int32_t capacity;       /* P + N */
    float *keys, *query;    /* [capacity][D], [D] */
    double *prob, *best;    /* [G][capacity], [capacity] largest of the group */
    double *pooled;         /* [capacity] */
    int32_t *order, *older; /* [capacity]: cache chosen at this step, and at the pair's first */
    uint64_t *scratch;
    unsigned char *mark;
    double *mean; /* [N][D] mean query of each step */
};

static void work_close(struct work *work)
{
    free(work->keys);
    free(work->query);
    free(work->prob);
    free(work->best);
    free(work->pooled);
    free(work->order);
    free(work->older);
    free(work->scratch);
    free(work->mark);
    free(work->mean);
}

static enum ra_status work_open(struct work *work, const struct ra_measure_source *source,
                                struct ra_measure *out, struct ra_error *err)
{
    size_t D = (size_t)source->model->D, G = (size_t)source->model->G;
    size_t n = (size_t)source->P + (size_t)source->N;
    *work = (struct work){.source = source, .out = out, .capacity = (int32_t)n};
    work->keys = calloc(n * D, sizeof *work->keys);
    work->query = calloc(D, sizeof *work->query);
    work->prob = calloc(n * G, sizeof *work->prob);
    work->best = calloc(n, sizeof *work->best);
    work->pooled = calloc(n, sizeof *work->pooled);
    work->order = calloc(n, sizeof *work->order);
    work->older = calloc(n, sizeof *work->older);
    work->scratch = calloc(n, sizeof *work->scratch);
    work->mark = calloc(n, 1);
    work->mean = calloc((size_t)source->N * D, sizeof *work->mean);
    if (work->keys && work->query && work->prob && work->best && work->pooled && work->order &&
        work->older && work->scratch && work->mark && work->mean)
        return RA_OK;
    return ra_fail(err, RA_ENOMEM, "statistics: no memory for %zu keys of %zu dimensions", n, D);
}

static float dot(const float *a, const float *b, int D)
{
    float lane[LANES] = {0}; /* D is a multiple of 8 */
    for (int d = 0; d < D; d += LANES)
        for (int i = 0; i < LANES; i++)
            lane[i] += a[d + i] * b[d + i];
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
           ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

static void attend(const struct work *work, int32_t L, double *prob)
{
    const struct ra_model *model = work->source->model;
    double top = -INFINITY, sum = 0;
    for (int32_t j = 0; j < L; j++) {
        const float *key = work->keys + (size_t)j * (size_t)model->D;
        prob[j] = model->attn_scale * (double)dot(work->query, key, model->D);
        top = prob[j] > top ? prob[j] : top;
    }
    for (int32_t j = 0; j < L; j++) {
        prob[j] = ra_synth_exp(prob[j] - top);
        sum += prob[j];
    }
    for (int32_t j = 0; j < L; j++)
        prob[j] /= sum;
}

/* Probabilities of the group at step t, and their maximum. */
static enum ra_status attend_group(struct work *work, int kv_head, int32_t t, struct ra_error *err)
{
    const struct ra_measure_source *source = work->source;
    int32_t L = source->P + t + 1;
    int G = source->model->G;
    for (int g = 0; g < G; g++) {
        RA_TRY(source->read(source->context, RA_TRACE_Q, kv_head * G + g, t, 1, work->query, err));
        attend(work, L, work->prob + (size_t)g * (size_t)L);
    }
    ra_aggregate(work->prob, (size_t)L, G, L, RA_AGG_MAX, work->best);
    return RA_OK;
}

static void add_masses(struct work *work, int kv_head, int32_t t)
{
    const struct ra_model *model = work->source->model;
    int32_t P = work->source->P, L = P + t + 1, recent = share_of(P, 64);
    struct ra_select_rule rule = {.K = share_of(P, shares[RA_FIT_BUDGETS - 1]), .pool = 1};
    int32_t n = ra_select(&rule, work->best, work->best, L, work->order, work->scratch);
    for (int g = 0; g < model->G; g++) {
        const double *prob = work->prob + (size_t)g * (size_t)L;
        int head = kv_head * model->G + g;
        double mass = 0;
        for (int32_t i = 1, b = 0; i <= n; i++) {
            mass += prob[work->order[n - i]];
            for (; b < RA_FIT_BUDGETS && i == share_of(P, shares[b]); b++)
                work->out->top[head * RA_FIT_BUDGETS + b] += mass;
        }
        for (int32_t j = 0; j < 4 && j < L; j++)
            work->out->sink[head] += prob[j];
        for (int32_t j = L - recent; j < L; j++)
            work->out->recent[head] += prob[j];
    }
}

/* The cache chosen at step t, weakest first, into work->order. Returns its size. */
static int32_t choose(struct work *work, int32_t t)
{
    int32_t P = work->source->P, L = P + t + 1;
    struct ra_select_rule rule = {.K = share_of(P, 8),
                                  .pool = POOL,
                                  .agg = RA_AGG_MAX,
                                  .current = RA_CURRENT_PSEUDO,
                                  .evict = RA_EVICT_POOLED};
    ra_max_pool(work->best, L, POOL, work->pooled);
    return ra_select(&rule, work->best, work->pooled, L, work->order, work->scratch);
}

static double mean_run(struct work *work, int32_t n)
{
    memset(work->mark, 0, (size_t)work->capacity);
    int32_t runs = 0;
    for (int32_t i = 0; i < n; i++)
        work->mark[work->order[i]] = 1;
    for (int32_t j = 0; j < work->capacity; j++)
        runs += work->mark[j] && (j == 0 || !work->mark[j - 1]);
    return (double)n / runs;
}

/* Share of work->order that was there just before: of the n chosen at step t0 and the 15 tokens
 * that followed, the last n in the order of eviction. */
static double overlap(struct work *work, int32_t n, int32_t t0)
{
    memset(work->mark, 0, (size_t)work->capacity);
    int32_t appended = RA_FIT_LAG - 1, first = work->source->P + t0 + 1, shared = 0;
    for (int32_t i = appended; i < n; i++)
        work->mark[work->older[i]] = 1;
    for (int32_t i = appended > n ? appended - n : 0; i < appended; i++)
        work->mark[first + i] = 1;
    for (int32_t i = 0; i < n; i++)
        shared += work->mark[work->order[i]];
    return (double)shared / n;
}

static void average(const struct work *work, int kv_head, int n_steps, int n_pairs)
{
    int G = work->source->model->G;
    for (int h = kv_head * G; h < (kv_head + 1) * G; h++) {
        work->out->sink[h] /= n_steps;
        work->out->recent[h] /= n_steps;
        for (int b = 0; b < RA_FIT_BUDGETS; b++)
            work->out->top[h * RA_FIT_BUDGETS + b] /= n_steps;
    }
    work->out->run[kv_head] /= n_steps;
    work->out->overlap[kv_head] = n_pairs ? work->out->overlap[kv_head] / n_pairs : NAN;
}

static enum ra_status measure_head(struct work *work, int kv_head, struct ra_error *err)
{
    const struct ra_measure_source *source = work->source;
    bool paired = source->N > RA_FIT_LAG;
    int32_t last = source->N - 1 - (paired ? RA_FIT_LAG : 0);
    int32_t n = last + 1 < PAIRS ? last + 1 : PAIRS;
    RA_TRY(source->read(source->context, RA_TRACE_K, kv_head, 0, work->capacity, work->keys, err));
    for (int32_t i = 0; i < n; i++) {
        int32_t t0 = n > 1 ? (int32_t)((int64_t)last * i / (n - 1)) : 0;
        for (int32_t t = t0; t <= t0 + (paired ? RA_FIT_LAG : 0); t += RA_FIT_LAG) {
            RA_TRY(attend_group(work, kv_head, t, err));
            add_masses(work, kv_head, t);
            int32_t chosen = choose(work, t);
            work->out->run[kv_head] += mean_run(work, chosen);
            if (t > t0)
                work->out->overlap[kv_head] += overlap(work, chosen, t0);
            else
                memcpy(work->older, work->order, (size_t)chosen * sizeof *work->older);
        }
    }
    average(work, kv_head, paired ? 2 * n : n, paired ? n : 0);
    return RA_OK;
}

static enum ra_status mean_queries(struct work *work, struct ra_error *err)
{
    const struct ra_measure_source *source = work->source;
    const struct ra_model *model = source->model;
    bool turned = model->rope.type != RA_ROPE_UNKNOWN;
    for (int32_t t = 0; t < source->N; t++) {
        double *mean = work->mean + (size_t)t * (size_t)model->D;
        for (int h = 0; h < model->Hq; h++) {
            RA_TRY(source->read(source->context, RA_TRACE_Q, h, t, 1, work->query, err));
            for (int d = 0; d < model->D; d++)
                mean[d] += (double)work->query[d];
        }
        if (turned)
            ra_rope_unrotate(&model->rope, model->D, source->P + t, mean);
    }
    return RA_OK;
}

static double cosine(const double *a, const double *b, int D)
{
    double ab = 0, aa = 0, bb = 0;
    for (int d = 0; d < D; d++) {
        ab += a[d] * b[d];
        aa += a[d] * a[d];
        bb += b[d] * b[d];
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0;
}

static void measure_cosines(struct work *work)
{
    int D = work->source->model->D;
    for (int l = 0; l < RA_FIT_COSINES; l++) {
        int32_t n = work->source->N - lags[l];
        double sum = 0;
        for (int32_t t = 0; t < n; t++)
            sum += cosine(work->mean + (size_t)t * (size_t)D,
                          work->mean + (size_t)(t + lags[l]) * (size_t)D, D);
        work->out->cosine[l] = n > 0 ? sum / n : NAN;
    }
}

static void clear(struct ra_measure *measure, const struct ra_model *model)
{
    size_t n = (2 + RA_FIT_BUDGETS) * (size_t)model->Hq + 2 * (size_t)model->Hkv;
    memset(measure->block, 0, n * sizeof *measure->block);
}

enum ra_status ra_measure_run(struct ra_measure *measure, const struct ra_measure_source *source,
                              struct ra_error *err)
{
    const struct ra_model *model = source->model;
    clear(measure, model);
    struct work work;
    enum ra_status st = work_open(&work, source, measure, err);
    for (int h = 0; h < model->Hkv && st == RA_OK; h++)
        st = measure_head(&work, h, err);
    if (st == RA_OK)
        st = mean_queries(&work, err);
    if (st == RA_OK)
        measure_cosines(&work);
    work_close(&work);
    return st;
}

/* Share of piece i, of n equal ones, that lies within piece j of m. */
static double share_within(int i, int n, int j, int m)
{
    int64_t low = (int64_t)i * m, high = low + m, first = (int64_t)j * n, end = first + n;
    low = first > low ? first : low;
    high = end < high ? end : high;
    return high > low ? (double)(high - low) / m : 0;
}

static void add_query_head(const struct ra_measure *from, int i, double share,
                           struct ra_measure *to, int h)
{
    to->sink[h] += share * from->sink[i];
    to->recent[h] += share * from->recent[i];
    for (int b = 0; b < RA_FIT_BUDGETS; b++)
        to->top[h * RA_FIT_BUDGETS + b] += share * from->top[i * RA_FIT_BUDGETS + b];
}

/* Add a share of KV head i and its group to KV head h and its. */
static void add_kv_head(const struct ra_measure *from, int i, int from_G, double share,
                        struct ra_measure *to, int h, int to_G)
{
    to->run[h] += share * from->run[i];
    to->overlap[h] += share * from->overlap[i];
    for (int g = 0; g < to_G; g++)
        for (int f = 0; f < from_G; f++) {
            double part = share_within(g, to_G, f, from_G);
            if (part > 0)
                add_query_head(from, i * from_G + f, share * part, to, h * to_G + g);
        }
}

void ra_measure_reshape(const struct ra_measure *from, const struct ra_model *from_model,
                        struct ra_measure *to, const struct ra_model *to_model)
{
    clear(to, to_model);
    for (int h = 0; h < to_model->Hkv; h++)
        for (int i = 0; i < from_model->Hkv; i++) {
            double share = share_within(h, to_model->Hkv, i, from_model->Hkv);
            if (share > 0)
                add_kv_head(from, i, from_model->G, share, to, h, to_model->G);
        }
    memcpy(to->cosine, from->cosine, sizeof to->cosine);
}

void ra_measure_stats(const struct ra_measure *measure, const struct ra_model *model,
                      struct ra_fit_stats *stats)
{
    memset(stats, 0, sizeof *stats);
    for (int h = 0; h < model->Hq; h++) {
        stats->value[RA_FIT_SINK] += measure->sink[h] / model->Hq;
        stats->value[RA_FIT_RECENT] += measure->recent[h] / model->Hq;
        for (int b = 0; b < RA_FIT_BUDGETS; b++)
            stats->value[RA_FIT_TOP_64 + b] += measure->top[h * RA_FIT_BUDGETS + b] / model->Hq;
    }
    for (int h = 0; h < model->Hkv; h++) {
        stats->value[RA_FIT_RUN] += measure->run[h] / model->Hkv;
        stats->value[RA_FIT_OVERLAP] += measure->overlap[h] / model->Hkv;
    }
    for (int l = 0; l < RA_FIT_COSINES; l++)
        stats->value[RA_FIT_COSINE_1 + l] = measure->cosine[l];
}
