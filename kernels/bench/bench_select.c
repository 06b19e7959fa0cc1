/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a refresh costs: choosing K of L from kept logits against one copy of those logits, and
 * moving the rows that changed against a copy of as many rows that lie side by side.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/bench/bed.h"

enum { ROTATE = 256 << 20, POOL = 7 };

/* Logits of one layer, and what is chosen from them again and again. */
struct selection {
    struct ra_bed bed;
    double *logits;
    struct ra_positions *order; /* [Hkv] */
};

static void restore(void *context)
{
    struct selection *s = context;
    memcpy(s->bed.cpu->scores, s->logits,
           (size_t)s->bed.model.Hq * s->bed.cpu->score_stride * sizeof *s->logits);
    s->bed.cpu->softmaxed = false;
}

static void restore_and_select(void *context)
{
    struct selection *s = context;
    struct ra_error err;
    const struct ra_select_rule rule = {.K = s->bed.K, .pool = POOL};
    restore(s);
    if (ra_cpu_op_select(s->bed.cpu, 0, &rule, s->order, &err))
        ra_bench_stop("selection", err.msg);
}

/* Probabilities of a head's group, largest over the group and over the pool, written plainly. */
static void rank_plainly(const struct selection *s, int head, double *pooled)
{
    int32_t L = s->bed.L;
    double *most = calloc((size_t)L, sizeof *most);
    for (int g = 0; most && g < s->bed.model.G; g++) {
        const double *logit =
            s->logits + (size_t)(head * s->bed.model.G + g) * s->bed.cpu->score_stride;
        double largest = logit[0], sum = 0;
        for (int32_t p = 1; p < L; p++)
            largest = fmax(largest, logit[p]);
        for (int32_t p = 0; p < L; p++)
            sum += exp(logit[p] - largest);
        for (int32_t p = 0; p < L; p++)
            most[p] = fmax(most[p], exp(logit[p] - largest) / sum);
    }
    for (int32_t p = 0; most && p < L; p++) {
        pooled[p] = 0;
        for (int32_t i = p - POOL / 2; i <= p + POOL / 2; i++)
            if (i >= 0 && i < L)
                pooled[p] = fmax(pooled[p], most[i]);
    }
    free(most);
}

/* Chosen positions must rise in rank, and no other may stand above the first of them, up to the
 * rounding of two ways to form a probability. */
static void check_order(const struct selection *s, int head)
{
    int32_t L = s->bed.L, n = s->order[head].n;
    const int32_t *pos = s->order[head].pos;
    double *pooled = calloc((size_t)L, sizeof *pooled);
    bool *chosen = calloc((size_t)L, sizeof *chosen), wrong = !pooled || !chosen || n != s->bed.K;
    if (pooled && chosen)
        rank_plainly(s, head, pooled);
    for (int32_t i = 0; !wrong && i < n; i++) {
        wrong = chosen[pos[i]] || (i > 0 && pooled[pos[i - 1]] > pooled[pos[i]] * (1 + 1e-12));
        chosen[pos[i]] = true;
    }
    for (int32_t p = 0; !wrong && p < L; p++)
        wrong = !chosen[p] && pooled[p] > pooled[pos[0]] * (1 + 1e-12);
    if (wrong)
        ra_bench_stop("selection", "the order differs from a plain ranking");
    free(pooled);
    free(chosen);
}

static void bench_selection(const struct ra_bed_shape *shape)
{
    struct selection s;
    struct ra_error err;
    ra_bed_open(&s.bed, shape);
    size_t n = (size_t)s.bed.model.Hq * s.bed.cpu->score_stride;
    s.logits = malloc(n * sizeof *s.logits);
    s.order = calloc((size_t)s.bed.model.Hkv, sizeof *s.order);
    if (!s.logits || !s.order || ra_cpu_score(s.bed.cpu, 0, ra_bed_query(&s.bed, 0), &err))
        ra_bench_stop("selection", "out of memory");
    memcpy(s.logits, s.bed.cpu->scores, n * sizeof *s.logits);
    restore_and_select(&s);
    for (int head = 0; head < s.bed.model.Hkv; head++)
        check_order(&s, head);
    size_t rest = strlen(s.bed.shape);
    snprintf(s.bed.shape + rest, sizeof s.bed.shape - rest, " K=%d", (int)s.bed.K);
    double scores = (double)s.bed.model.Hq * s.bed.L;
    struct ra_bench bench = {
        .name = "top-K",
        .shape = s.bed.shape,
        .unit = "M scores/s",
        .scale = 1e6,
        .a = {"copy and select", restore_and_select, &s, scores},
        .b = {"copy of the logits", restore, &s, scores},
        .target = NAN,
        .limit = "1: each logit has to be read and written once",
        .checked = "order of every KV head against a plain ranking",
        .threads = ra_pool_threads(s.bed.cpu->pool),
        .working_set = 2 * n * sizeof *s.logits,
    };
    ra_bench_run(&bench);
    free(s.logits);
    free(s.order);
    ra_bed_close(&s.bed);
}

/* As many bytes as a refresh moves, from rows side by side to rows side by side. */
struct copy {
    struct ra_bed *bed;
    char *to;
    size_t bytes;
};

static void copy_rows(void *context)
{
    struct copy *copy = context;
    size_t each = copy->bytes / (size_t)copy->bed->config.n_layers / 2;
    for (int layer = 0; layer < copy->bed->config.n_layers; layer++) {
        char *to = copy->to + 2 * (size_t)layer * each;
        memcpy(to, ra_cpu_rows_k(copy->bed->cpu, layer, 0), each);
        memcpy(to + each, ra_cpu_rows_v(copy->bed->cpu, layer, 0), each);
    }
}

static void refresh(void *bed)
{
    ra_bed_refresh(bed);
}

static void bench_refresh(const struct ra_bed_shape *shape)
{
    struct ra_bed bed;
    char checked[128];
    ra_bed_open(&bed, shape);
    int64_t changes = ra_bed_changes(&bed), moved = ra_bed_refresh(&bed);
    if (moved != changes)
        ra_bench_stop("refresh", "rows moved are not the rows that changed");
    snprintf(checked, sizeof checked,
             "moved rows counted; attention over C_r against f64: worst relative error %.1e",
             ra_bed_check(&bed, true));
    struct copy copy = {&bed, NULL, (size_t)moved * ra_model_row_bytes(&bed.model)};
    copy.to = malloc(copy.bytes);
    if (!copy.to)
        ra_bench_stop("refresh", "out of memory");
    memset(copy.to, 0, copy.bytes);
    size_t rest = strlen(bed.shape);
    snprintf(bed.shape + rest, sizeof bed.shape - rest, " K=%d, a quarter new", (int)bed.K);
    struct ra_bench bench = {
        .name = "refresh",
        .shape = bed.shape,
        .unit = "GB/s",
        .scale = 1e9,
        .a = {"refresh", refresh, &bed, (double)copy.bytes},
        .b = {"copy of as many rows", copy_rows, &copy, (double)copy.bytes},
        .target = NAN,
        .limit = "1: each new row has to be read and written once",
        .checked = checked,
        .threads = ra_pool_threads(bed.cpu->pool),
        .working_set = 2 * copy.bytes,
    };
    ra_bench_run(&bench);
    free(copy.to);
    ra_bed_close(&bed);
}

int main(void)
{
    static const struct ra_bed_shape shapes[] = {
        {.Hq = 9, .Hkv = 3, .D = 64, .L = 8192, .K = 1024, .bytes = ROTATE},
        {.Hq = 32, .Hkv = 8, .D = 128, .L = 8192, .K = 1024, .bytes = ROTATE},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        bench_selection(&shapes[i]);
        bench_refresh(&shapes[i]);
    }
    return 0;
}
