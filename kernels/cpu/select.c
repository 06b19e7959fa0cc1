/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Selection without sorting the context: a radix select finds the K-th largest score, one scan
 * takes what is above it and the lowest positions among its equals, and a stable merge sort puts
 * those K in order.
 */
#include "kernels/cpu/select.h"

#include <math.h>
#include <string.h>

#include "sim/base/exp.h"
#include "sim/base/kth.h"
#include "sim/base/wide.h"

enum { LANES = 8 };

/* Lanes, because a maximum has no order and one chain of comparisons is slow. */
RA_WIDE static double largest_of(const double *values, int32_t n)
{
    double lane[LANES], largest = -INFINITY;
    int32_t i = 0;
    for (int j = 0; j < LANES; j++)
        lane[j] = -INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] = values[i + j] > lane[j] ? values[i + j] : lane[j];
    for (; i < n; i++)
        largest = values[i] > largest ? values[i] : largest;
    for (int j = 0; j < LANES; j++)
        largest = lane[j] > largest ? lane[j] : largest;
    return largest;
}

RA_WIDE static double sum_of(const double *values, int32_t n)
{
    double lane[LANES] = {0}, sum = 0;
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += values[i + j];
    for (int j = 0; j < LANES; j++)
        sum += lane[j];
    for (; i < n; i++)
        sum += values[i];
    return sum;
}

RA_WIDE void ra_cpu_softmax(double *logits, int32_t n)
{
    ra_exp_below(logits, n, largest_of(logits, n));
    double sum = sum_of(logits, n);
    for (int32_t i = 0; i < n; i++)
        logits[i] /= sum;
}

double ra_cpu_aggregate(const double *prob, size_t stride, int G, enum ra_agg agg)
{
    double value = prob[0];
    if (agg == RA_AGG_FIRST)
        return value;
    for (int g = 1; g < G; g++) {
        double other = prob[(size_t)g * stride];
        if (agg != RA_AGG_MAX)
            value += other;
        else if (other > value)
            value = other;
    }
    return agg == RA_AGG_MEAN ? value / G : value;
}

/* The same of n columns side by side. */
RA_WIDE static void aggregate(const double *prob, size_t stride, int G, enum ra_agg agg, int32_t n,
                              double *restrict out)
{
    memcpy(out, prob, (size_t)n * sizeof *out);
    for (int g = 1; g < G && agg != RA_AGG_FIRST; g++) {
        const double *row = prob + (size_t)g * stride;
        if (agg == RA_AGG_MAX)
            for (int32_t i = 0; i < n; i++)
                out[i] = row[i] > out[i] ? row[i] : out[i];
        else
            for (int32_t i = 0; i < n; i++)
                out[i] += row[i];
    }
    for (int32_t i = 0; i < n && agg == RA_AGG_MEAN; i++)
        out[i] /= G;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/*
 * out[j] = max of in[j-h..j+h] cut to 0..L-1, pool = 2h+1. `window` grows to maxima of p entries,
 * p the largest power of two within pool; two of those, overlapping, cover any window of pool.
 */
static void max_pool(const double *in, int32_t L, int pool, double *window, double *out)
{
    int32_t half = pool / 2, p = 1;
    if (half >= L)
        half = L - 1;
    int32_t length = 2 * half + 1;
    memcpy(window, in, (size_t)L * sizeof *window);
    for (; 2 * p <= length; p *= 2)
        for (int32_t i = 0; i + p < L; i++)
            window[i] = larger(window[i], window[i + p]);
    double prefix = in[0];
    int32_t seen = 0;
    for (int32_t j = 0; j < half; j++) {
        for (; seen < L && seen <= j + half; seen++)
            prefix = larger(prefix, in[seen]);
        out[j] = prefix;
    }
    int32_t shift = length - p;
    for (int32_t j = half; j < L; j++) {
        int32_t first = j - half;
        out[j] = first + shift < L ? larger(window[first], window[first + shift]) : window[first];
    }
}

/* Order of the integers is the order of the numbers. Adding 0 makes -0 equal 0. */
static uint64_t key_of(double value)
{
    double number = value + 0.0;
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}

/* Stable, by key descending, in runs that double; `ranks` has room for 2n. Returns the result. */
static struct ra_cpu_rank *sort(struct ra_cpu_rank *ranks, int32_t n)
{
    struct ra_cpu_rank *from = ranks, *to = ranks + n;
    for (int32_t run = 1; run < n; run *= 2) {
        for (int32_t low = 0; low < n; low += 2 * run) {
            int32_t middle = low + run < n ? low + run : n;
            int32_t high = low + 2 * run < n ? low + 2 * run : n;
            int32_t a = low, b = middle;
            for (int32_t i = low; i < high; i++)
                to[i] =
                    b >= high || (a < middle && from[a].key >= from[b].key) ? from[a++] : from[b++];
        }
        struct ra_cpu_rank *swap = from;
        from = to;
        to = swap;
    }
    return from;
}

/* The n best of positions 0..m-1, ascending, with the key that orders their eviction. */
static void take_best(const struct ra_cpu_select *scratch, int32_t m, int32_t n,
                      const double *evict_score)
{
    double least = ra_kth_largest(scratch->pooled, m, n, scratch->keys);
    int32_t equals = n, taken = 0;
    for (int32_t i = 0; i < m; i++)
        equals -= scratch->pooled[i] > least;
    for (int32_t i = 0; i < m && taken < n; i++)
        if (scratch->pooled[i] > least || (scratch->pooled[i] == least && equals-- > 0))
            scratch->ranks[taken++] = (struct ra_cpu_rank){key_of(evict_score[i]), i};
}

int32_t ra_cpu_choose(const struct ra_select_rule *rule, const double *prob, size_t stride, int G,
                      int32_t L, const struct ra_cpu_select *scratch, int32_t *order)
{
    aggregate(prob, stride, G, rule->agg, L, scratch->raw);
    max_pool(scratch->raw, L, rule->pool, scratch->window, scratch->pooled);
    bool protects = rule->current == RA_CURRENT_SNAPKV;
    int32_t m = rule->current == RA_CURRENT_PSEUDO ? L : L - 1;
    int32_t n = rule->K - protects < m ? rule->K - protects : m;
    if (n > 0) {
        take_best(scratch, m, n, rule->evict == RA_EVICT_RAW ? scratch->raw : scratch->pooled);
        const struct ra_cpu_rank *ranked = sort(scratch->ranks, n);
        for (int32_t i = 0; i < n; i++)
            order[i] = ranked[n - 1 - i].pos;
    }
    if (protects)
        order[n++] = L - 1;
    return n;
}
