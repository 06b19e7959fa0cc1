/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Top-K with one fixed tie rule. A radix select finds the K-th score, so the cost is that of a few
 * scans whatever the scores are; a merge sort then puts the few survivors in order.
 */
#include "sim/select.h"

#include <stdlib.h>
#include <string.h>

#include "sim/base/kth.h"

void ra_aggregate(const double *prob, size_t stride, int G, int32_t L, enum ra_agg agg, double *out)
{
    memcpy(out, prob, (size_t)L * sizeof *out);
    if (agg == RA_AGG_FIRST)
        return;
    for (int g = 1; g < G; g++) {
        const double *row = prob + (size_t)g * stride;
        if (agg == RA_AGG_MAX)
            for (int32_t j = 0; j < L; j++)
                out[j] = row[j] > out[j] ? row[j] : out[j];
        else
            for (int32_t j = 0; j < L; j++)
                out[j] += row[j];
    }
    if (agg == RA_AGG_MEAN)
        for (int32_t j = 0; j < L; j++)
            out[j] /= G;
}

void ra_max_pool(const double *in, int32_t L, int pool, double *out)
{
    RA_BUG_ON(pool < 1 || pool % 2 == 0);
    int32_t half = pool / 2, best = -1; /* index of the window's maximum, the last of equals */
    for (int32_t j = 0; j < L; j++) {
        int32_t first = j > half ? j - half : 0;
        int32_t last = half < L - 1 - j ? j + half : L - 1;
        if (best < first) {
            best = first;
            for (int32_t i = first + 1; i <= last; i++)
                best = in[i] >= in[best] ? i : best;
        } else if (in[last] >= in[best]) {
            best = last;
        }
        out[j] = in[best];
    }
}

/* True if a ranks behind b: a smaller score, or the same and a higher position. */
static inline bool behind(const double *score, int32_t a, int32_t b)
{
    if (score[a] < score[b])
        return true;
    return a > b && score[a] == score[b];
}

/* The n best of positions 0..L-1, ascending: all above the n-th score, and the first of its equals.
 */
static int32_t keep_best(const double *score, int32_t L, int32_t n, int32_t *best,
                         uint64_t *scratch)
{
    n = n < L ? n : L;
    if (n <= 0)
        return 0;
    double least = ra_kth_largest(score, L, n, scratch);
    int32_t equals = n, taken = 0;
    for (int32_t j = 0; j < L; j++)
        equals -= score[j] > least;
    for (int32_t j = 0; j < L && taken < n; j++)
        if (score[j] > least || (score[j] == least && equals-- > 0))
            best[taken++] = j;
    return n;
}

static void merge(const double *score, const int32_t *from, int32_t middle, int32_t n, int32_t *to)
{
    int32_t a = 0, b = middle;
    for (int32_t i = 0; i < n; i++) {
        bool take_second = a == middle || (b < n && behind(score, from[b], from[a]));
        to[i] = take_second ? from[b++] : from[a++];
    }
}

/* Sort so that what ranks last comes first. */
static void sort_weakest_first(const double *score, int32_t *list, int32_t n, int32_t *scratch)
{
    for (int64_t width = 1; width < n; width *= 2) {
        for (int64_t i = 0; i < n; i += 2 * width) {
            int64_t left = n - i;
            merge(score, list + i, (int32_t)(width < left ? width : left),
                  (int32_t)(2 * width < left ? 2 * width : left), scratch + i);
        }
        memcpy(list, scratch, (size_t)n * sizeof *list);
    }
}

void ra_pool_along(const double *in, int32_t L, int pool, enum ra_pooling pooling, double *out)
{
    if (pooling == RA_POOLING_MAX) {
        ra_max_pool(in, L, pool, out);
        return;
    }
    for (int32_t j = 0; j < L; j++) {
        int32_t first = j - pool / 2 > 0 ? j - pool / 2 : 0;
        int32_t last = j + pool / 2 < L - 1 ? j + pool / 2 : L - 1;
        double sum = 0;
        for (int32_t i = first; i <= last; i++)
            sum += in[i];
        out[j] = sum / pool;
    }
}

int32_t ra_select(const struct ra_select_rule *rule, const double *raw, const double *pooled,
                  int32_t L, int32_t *order, uint64_t *scratch)
{
    if (L < 1)
        return 0;
    bool all = rule->current == RA_CURRENT_PSEUDO;
    bool is_protected = rule->current == RA_CURRENT_SNAPKV;
    int32_t n =
        keep_best(pooled, all ? L : L - 1, is_protected ? rule->K - 1 : rule->K, order, scratch);
    sort_weakest_first(rule->evict == RA_EVICT_RAW ? raw : pooled, order, n,
                       (int32_t *)(void *)scratch);
    if (is_protected)
        order[n++] = L - 1;
    return n;
}

struct ra_selector {
    double *raw, *pooled; /* [max_L] */
    int32_t *order;       /* [max_L] */
    uint64_t *scratch;    /* [max_L] */
    int32_t max_L;
};

enum ra_status ra_selector_open(struct ra_selector **selector, int32_t max_L, struct ra_error *err)
{
    size_t n = (size_t)max_L;
    struct ra_selector *s = calloc(1, sizeof *s);
    *selector = s;
    if (s) {
        s->max_L = max_L;
        s->raw = calloc(n, sizeof *s->raw);
        s->pooled = calloc(n, sizeof *s->pooled);
        s->order = calloc(n, sizeof *s->order);
        s->scratch = calloc(n, sizeof *s->scratch);
    }
    if (s && s->raw && s->pooled && s->order && s->scratch)
        return RA_OK;
    ra_selector_close(s);
    *selector = NULL;
    return ra_fail(err, RA_ENOMEM, "no memory to choose among %d positions", max_L);
}

void ra_selector_close(struct ra_selector *selector)
{
    if (!selector)
        return;
    free(selector->raw);
    free(selector->pooled);
    free(selector->order);
    free(selector->scratch);
    free(selector);
}

struct ra_positions ra_selector_choose(struct ra_selector *selector,
                                       const struct ra_select_rule *rule, const double *prob, int G,
                                       int32_t L)
{
    RA_BUG_ON(L > selector->max_L);
    ra_aggregate(prob, (size_t)L, G, L, rule->agg, selector->raw);
    ra_max_pool(selector->raw, L, rule->pool, selector->pooled);
    int32_t n =
        ra_select(rule, selector->raw, selector->pooled, L, selector->order, selector->scratch);
    return (struct ra_positions){selector->order, n};
}

int32_t ra_top(const double *scores, int32_t L, int32_t n, int32_t *out, uint64_t *scratch)
{
    return keep_best(scores, L, n, out, scratch);
}
