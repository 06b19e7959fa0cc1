/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of keys told apart by what is kept of each. Digests are doubles, so they hold what was
 * stored exactly, and sums of up to a page of keys nearly so; they grow with the rows.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "sim/base/wide.h"

int32_t ra_cpu_page_count(int32_t rows, const struct ra_page_rule *rule)
{
    return rows / rule->page + (rows % rule->page != 0);
}

int32_t ra_cpu_page_most(int32_t rows, const struct ra_page_rule *rule)
{
    int64_t least = (int64_t)rule->least * rule->page, most = rule->K > least ? rule->K : least;
    return most < rows ? (int32_t)most : rows;
}

/* Digest of a page: least then largest of each dimension, or sums. */
static double *digest_of(const struct ra_cpu *cpu, const struct ra_cpu_layer *layer, int head,
                         int32_t page)
{
    size_t pages = (size_t)ra_cpu_page_count(cpu->config.max_rows, &layer->pages);
    size_t width = RA_CPU_DIGESTS * (size_t)cpu->model.D;
    return layer->digest + ((size_t)head * pages + (size_t)page) * width;
}

static void take_key(const struct ra_page_rule *rule, const float *key, bool opens, int D,
                     double *digest)
{
    double *least = digest, *most = digest + D;
    bool sums = rule->digest == RA_PAGE_MEAN;
    for (int d = 0; d < D; d++) {
        double x = (double)key[d];
        if (opens || (!sums && x < least[d]))
            least[d] = x;
        else if (sums)
            least[d] += x;
        most[d] = opens || x > most[d] ? x : most[d];
    }
}

/* Keys that lie in pages. */
static int32_t paged_rows(const struct ra_cpu_layer *layer)
{
    int32_t most = layer->pages.rows;
    return most > 0 && most < layer->rows ? most : layer->rows;
}

void ra_cpu_extend_pages(const struct ra_cpu *cpu, int number, int32_t from)
{
    const struct ra_cpu_layer *layer = &cpu->layers[number];
    float key[RA_CPU_MAX_DIM];
    if (layer->pages.page == 0)
        return;
    for (int head = 0; head < cpu->model.Hkv; head++)
        for (int32_t row = from; row < paged_rows(layer); row++) {
            const char *stored =
                ra_cpu_rows_k(cpu, number, head) + (size_t)row * ra_cpu_k_bytes(cpu);
            ra_widen(cpu->model.dtype, stored, (size_t)cpu->model.D, key);
            take_key(&layer->pages, key, row % layer->pages.page == 0, cpu->model.D,
                     digest_of(cpu, layer, head, row / layer->pages.page));
        }
}

struct call {
    struct ra_cpu *cpu;
    struct ra_cpu_layer *layer;
    const float *q;
    const struct ra_page_rule *rule;
    struct ra_positions *order;
};

enum { LANES = 8 }; /* divides D */

RA_WIDE static double bound_of(const float *q, const double *least, const double *most, int D)
{
    double lane[LANES] = {0}, sum = 0;
    for (int d = 0; d < D; d += LANES)
        for (int j = 0; j < LANES; j++) {
            double low = (double)q[d + j] * least[d + j], high = (double)q[d + j] * most[d + j];
            lane[j] += low > high ? low : high;
        }
    for (int j = 0; j < LANES; j++)
        sum += lane[j];
    return sum;
}

RA_WIDE static double product_of(const float *q, const double *sums, int D)
{
    double lane[LANES] = {0}, sum = 0;
    for (int d = 0; d < D; d += LANES)
        for (int j = 0; j < LANES; j++)
            lane[j] += (double)q[d + j] * sums[d + j];
    for (int j = 0; j < LANES; j++)
        sum += lane[j];
    return sum;
}

static double page_score(const struct call *call, const float *q, int head, int32_t page)
{
    int D = call->cpu->model.D;
    const double *least = digest_of(call->cpu, call->layer, head, page);
    int32_t left = paged_rows(call->layer) - page * call->rule->page;
    int32_t n = left < call->rule->page ? left : call->rule->page;
    if (call->rule->digest == RA_PAGE_BOUNDS)
        return bound_of(q, least, least + D, D);
    return call->cpu->model.attn_scale * product_of(q, least, D) / n;
}

/* Best first; pages of equal score by number. */
static int by_rank(const void *a, const void *b)
{
    const struct ra_cpu_page *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return x->number < y->number ? -1 : 1;
}

static int32_t put_page(const struct call *call, int32_t number, int32_t *out)
{
    int32_t first = number * call->rule->page, left = paged_rows(call->layer) - first;
    int32_t n = left < call->rule->page ? left : call->rule->page;
    for (int32_t i = 0; i < n; i++)
        out[i] = first + n - 1 - i;
    return n;
}

/* Task: one KV head. */
static void choose_head(void *context, size_t head, int worker)
{
    (void)worker;
    const struct call *call = context;
    struct ra_cpu *cpu = call->cpu;
    struct ra_page_rule own = ra_page_rule_of(call->rule, (int)head);
    const struct ra_page_rule *rule = &own;
    int G = cpu->model.G;
    int32_t n = ra_cpu_page_count(paged_rows(call->layer), rule), used = 0;
    int32_t want = rule->K / rule->page;
    double *scores = cpu->page_scores + head * (size_t)G * (size_t)cpu->max_pages;
    struct ra_cpu_page *ranks = cpu->page_ranks + head * (size_t)cpu->max_pages;
    int32_t most = ra_cpu_page_most(cpu->config.max_rows, &call->layer->pages);
    int32_t *order = call->layer->page_order + head * (size_t)most;
    for (int g = 0; g < G; g++) {
        const float *q = call->q + (head * (size_t)G + (size_t)g) * (size_t)cpu->model.D;
        double *row = scores + g * cpu->max_pages;
        for (int32_t i = 0; i < n; i++)
            row[i] = page_score(call, q, (int)head, i);
        if (rule->digest == RA_PAGE_MEAN)
            ra_cpu_softmax(row, n);
    }
    for (int32_t i = 0; i < n; i++)
        ranks[i] = (struct ra_cpu_page){
            ra_cpu_aggregate(scores + i, (size_t)cpu->max_pages, G, rule->agg), i};
    want = want < rule->least ? rule->least : want;
    want = want > n ? n : want;
    int32_t others = n - rule->takes_newest; /* the newest is chosen anyway */
    if (rule->takes_first && want > rule->takes_newest)
        ranks[0].score = INFINITY;
    qsort(ranks, (size_t)others, sizeof *ranks, by_rank);
    for (int32_t i = want - rule->takes_newest - 1; i >= 0; i--)
        used += put_page(call, ranks[i].number, order + used);
    if (rule->takes_newest)
        used += put_page(call, n - 1, order + used);
    call->order[head] = (struct ra_positions){.pos = order, .n = used};
}

enum ra_status ra_cpu_op_select_pages(void *self, int number, const float *q,
                                      const struct ra_page_rule *rule, struct ra_positions *order,
                                      struct ra_error *err)
{
    (void)err;
    struct ra_cpu *cpu = self;
    struct ra_cpu_layer *layer = &cpu->layers[number];
    RA_BUG_ON(layer->pages.page != rule->page || layer->pages.digest != rule->digest);
    struct call call = {.cpu = cpu, .layer = layer, .q = q, .rule = rule, .order = order};
    ra_pool_run(cpu->pool, (size_t)cpu->model.Hkv, choose_head, &call);
    return RA_OK;
}
