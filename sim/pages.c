/* SPDX-License-Identifier: Apache-2.0 */
/* Digests grow row by row, so a step costs what it adds and what it scores. */
#include "sim/pages.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/half.h"
#include "sim/select.h"

struct ra_pages {
    const struct ra_model *model;
    int32_t page, max_pages;
    enum ra_page_digest digest;
    int32_t *rows; /* [Hkv] taken in */
    double *least; /* [Hkv][max_pages][D]; of means: sums */
    double *most;  /* the same; NULL for means */
    float *row;    /* [D] */
};

int32_t ra_pages_count(int32_t L, int32_t page)
{
    return L / page + (L % page != 0);
}

enum ra_status ra_pages_open(struct ra_pages **pages, const struct ra_model *model, int32_t page,
                             enum ra_page_digest digest, int32_t max_rows, struct ra_error *err)
{
    RA_BUG_ON(page < 1 || max_rows < 1);
    int32_t n = ra_pages_count(max_rows, page);
    size_t size = (size_t)model->Hkv * (size_t)n * (size_t)model->D;
    struct ra_pages *p = calloc(1, sizeof *p);
    *pages = p;
    if (!p)
        return ra_fail(err, RA_ENOMEM, "pages: no memory");
    *p = (struct ra_pages){.model = model, .page = page, .max_pages = n, .digest = digest};
    p->rows = calloc((size_t)model->Hkv, sizeof *p->rows);
    p->least = malloc(size * sizeof *p->least);
    p->most = digest == RA_PAGE_BOUNDS ? malloc(size * sizeof *p->most) : NULL;
    p->row = malloc((size_t)model->D * sizeof *p->row);
    if (!p->rows || !p->least || !p->row || (digest == RA_PAGE_BOUNDS && !p->most))
        return ra_fail(err, RA_ENOMEM, "pages: no memory for %d pages of %d keys", n, page);
    return RA_OK;
}

void ra_pages_close(struct ra_pages *pages)
{
    if (!pages)
        return;
    free(pages->rows);
    free(pages->least);
    free(pages->most);
    free(pages->row);
    free(pages);
}

bool ra_pages_are(const struct ra_pages *pages, int32_t page, enum ra_page_digest digest)
{
    return pages && pages->page == page && pages->digest == digest;
}

void ra_pages_restart(struct ra_pages *pages)
{
    memset(pages->rows, 0, (size_t)pages->model->Hkv * sizeof *pages->rows);
}

void ra_pages_extend(struct ra_pages *pages, int kv, const void *k, int32_t L)
{
    const struct ra_model *m = pages->model;
    size_t D = (size_t)m->D, bytes = D * ra_dtype_bytes(m->dtype);
    RA_BUG_ON(ra_pages_count(L, pages->page) > pages->max_pages);
    for (; pages->rows[kv] < L; pages->rows[kv]++) {
        size_t row = (size_t)pages->rows[kv], number = row / (size_t)pages->page;
        bool opens = row % (size_t)pages->page == 0;
        size_t at = ((size_t)kv * (size_t)pages->max_pages + number) * D;
        double *least = pages->least + at, *most = pages->most ? pages->most + at : NULL;
        ra_widen(m->dtype, (const char *)k + row * bytes, D, pages->row);
        for (size_t d = 0; d < D; d++) {
            double x = (double)pages->row[d];
            if (!most) {
                least[d] = opens ? x : least[d] + x;
                continue;
            }
            least[d] = opens || x < least[d] ? x : least[d];
            most[d] = opens || x > most[d] ? x : most[d];
        }
    }
}

static double bound_of(const float *q, const double *least, const double *most, int D)
{
    double sum = 0;
    for (int d = 0; d < D; d++)
        sum += fmax((double)q[d] * least[d], (double)q[d] * most[d]);
    return sum;
}

static double mean_product(const float *q, const double *sum, int32_t n, int D)
{
    double dot = 0;
    for (int d = 0; d < D; d++)
        dot += (double)q[d] * (sum[d] / n);
    return dot;
}

static void softmax(double *score, int32_t n)
{
    double top = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++)
        top = fmax(top, score[i]);
    for (int32_t i = 0; i < n; i++) {
        score[i] = exp(score[i] - top);
        sum += score[i];
    }
    for (int32_t i = 0; i < n; i++)
        score[i] /= sum;
}

void ra_pages_score(const struct ra_pages *pages, int kv, const float *q, double *out)
{
    const struct ra_model *m = pages->model;
    int32_t rows = pages->rows[kv], n = ra_pages_count(rows, pages->page);
    size_t D = (size_t)m->D, first = (size_t)kv * (size_t)pages->max_pages * D;
    for (int g = 0; g < m->G; g++, out += n, q += D) {
        for (int32_t i = 0; i < n; i++) {
            size_t at = first + (size_t)i * D;
            int32_t left = rows - i * pages->page, held = left < pages->page ? left : pages->page;
            out[i] = pages->most ? bound_of(q, pages->least + at, pages->most + at, m->D)
                                 : m->attn_scale * mean_product(q, pages->least + at, held, m->D);
        }
        if (!pages->most)
            softmax(out, n);
    }
}

/* Positions of a page, highest first. */
static int32_t put_page(const struct ra_page_rule *rule, int32_t number, int32_t L, int32_t *out)
{
    int32_t first = number * rule->page, left = L - first;
    int32_t n = left < rule->page ? left : rule->page;
    for (int32_t i = 0; i < n; i++)
        out[i] = first + n - 1 - i;
    return n;
}

int32_t ra_pages_rows(const struct ra_page_rule *rule, int32_t L)
{
    return rule->rows > 0 && rule->rows < L ? rule->rows : L;
}

int32_t ra_pages_wanted(const struct ra_page_rule *rule, int32_t n)
{
    int32_t want = rule->K / rule->page;
    want = want < rule->least ? rule->least : want;
    return want < n ? want : n;
}

/* The lowest-ranked page that is not marked with NaN, which it then is: score least, page highest.
 */
static int32_t take_lowest(double *score, int32_t n)
{
    int32_t lowest = -1;
    for (int32_t i = 0; i < n; i++)
        if (!isnan(score[i]) && (lowest < 0 || score[i] <= score[lowest]))
            lowest = i;
    score[lowest] = NAN;
    return lowest;
}

int32_t ra_pages_choose(const struct ra_page_rule *rule, const double *scores, int G, int32_t L,
                        int32_t *order, double *scratch)
{
    int32_t n = ra_pages_count(L, rule->page), want = ra_pages_wanted(rule, n), used = 0;
    bool newest = rule->takes_newest, first = rule->takes_first && want > newest;
    double *score = scratch, *chosen = scratch + n;
    ra_aggregate(scores, (size_t)n, G, n, rule->agg, score);
    /* Free places go to the best of the pages that are not chosen anyway. */
    first = first && n > newest;
    int32_t from = first, end = n - newest, places = want - newest - first;
    int32_t taken =
        places > 0 ? ra_top(score + from, end - from, places, order, (uint64_t *)(void *)chosen)
                   : 0;
    for (int32_t i = 0; i < n; i++)
        chosen[i] = NAN;
    for (int32_t i = 0; i < taken; i++)
        chosen[order[i] + from] = score[order[i] + from];
    for (int32_t i = 0; i < taken; i++)
        used += put_page(rule, take_lowest(chosen, n), L, order + used);
    if (first)
        used += put_page(rule, 0, L, order + used);
    return newest ? used + put_page(rule, n - 1, L, order + used) : used;
}
