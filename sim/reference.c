/* SPDX-License-Identifier: Apache-2.0 */
/*
 * f64 attention over blocks of keys. A block is widened and transposed once for all queries of a
 * group and a few steps, so that the inner loops run over keys (logits) and over dimensions
 * (output) without reassociating any sum: vector code and scalar code give the same bits.
 */
#include "sim/reference.h"

#include <math.h>
#include <string.h>

#include "sim/base/exp.h"
#include "sim/base/wide.h"

enum { BLOCK = 32, MAX_D = 256 };

RA_WIDE static void to_double(const float *from, size_t n, double *restrict to)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (double)from[i];
}

/* Rows first..first+n-1, n <= BLOCK. */
static void load_rows(enum ra_dtype dtype, const void *rows, int32_t first, int32_t n, int width,
                      double *out)
{
    const char *start = (const char *)rows + (size_t)first * (size_t)width * ra_dtype_bytes(dtype);
    float narrow[BLOCK * MAX_D];
    ra_widen(dtype, start, (size_t)n * (size_t)width, narrow);
    to_double(narrow, (size_t)n * (size_t)width, out);
}

/* kt [D][BLOCK] of doubles; unused columns repeat zero. */
static void transpose(const double *rows, int32_t n, int D, double *kt)
{
    memset(kt, 0, (size_t)D * BLOCK * sizeof *kt);
    for (int32_t j = 0; j < n; j++)
        for (int d = 0; d < D; d++)
            kt[d * BLOCK + j] = rows[j * D + d];
}

/* Four lanes whatever the instruction set; sums in an array of these stay in registers. */
typedef double quad __attribute__((vector_size(32)));
enum { LANES = 4 };
#define RA_TILE static inline __attribute__((always_inline))

RA_TILE void load_quad(const double *from, quad *to)
{
    memcpy(to, from, sizeof *to);
}

RA_TILE void magnitude(const quad *x, quad *to)
{
    typedef int64_t bits __attribute__((vector_size(32)));
    *to = (quad)((bits)*x & INT64_MAX);
}

/* dot[j] = sum over d of q[d] * k[j][d]; mag[j] the same of absolute values. */
RA_WIDE static void dot_block(const double *kt, const float *q, int D, double *dot, double *mag)
{
    enum { QUADS = 4 };
    for (int first = 0; first < BLOCK; first += QUADS * LANES) {
        quad sum[QUADS] = {0}, size[QUADS] = {0};
        for (int d = 0; d < D; d++)
            for (int j = 0; j < QUADS; j++) {
                quad k, product;
                load_quad(kt + d * BLOCK + first + j * LANES, &k);
                k *= (double)q[d];
                magnitude(&k, &product);
                sum[j] += k;
                size[j] += product;
            }
        memcpy(dot + first, sum, sizeof sum);
        memcpy(mag + first, size, sizeof size);
    }
}

/* n_quads * LANES columns from `first` on of out += weight[j] * row j, j ascending. */
RA_TILE void add_columns(const double *rows, const double *weight, int32_t n, int Dv, int first,
                         int n_quads, double *out)
{
    quad sum[8];
    memcpy(sum, out + first, (size_t)n_quads * sizeof *sum);
    for (int32_t j = 0; j < n; j++)
        for (int i = 0; i < n_quads; i++) {
            quad value;
            load_quad(rows + j * Dv + first + i * LANES, &value);
            sum[i] += weight[j] * value;
        }
    memcpy(out + first, sum, (size_t)n_quads * sizeof *sum);
}

/* Dv is a multiple of 8. */
RA_WIDE static void add_rows(const double *rows, const double *weight, int32_t n, int Dv,
                             double *out)
{
    int first = 0;
    for (; first + 8 * LANES <= Dv; first += 8 * LANES)
        add_columns(rows, weight, n, Dv, first, 8, out);
    for (; first + 2 * LANES <= Dv; first += 2 * LANES)
        add_columns(rows, weight, n, Dv, first, 2, out);
}

RA_WIDE static void softmax(double *logit, int32_t n)
{
    double top = logit[0], sum = 0;
    for (int32_t j = 1; j < n; j++)
        top = logit[j] > top ? logit[j] : top;
    for (int32_t j = 0; j < n; j++)
        logit[j] = ra_exp_below(logit[j] - top);
    for (int32_t j = 0; j < n; j++)
        sum += logit[j];
    for (int32_t j = 0; j < n; j++)
        logit[j] /= sum;
}

/* Where the probabilities of one query begin. */
static double *row_of(const struct ra_reference *call, int s, int g)
{
    size_t L = (size_t)(call->first_L + s);
    return call->prob + (size_t)s * call->step_stride + (size_t)(call->first_head + g) * L;
}

/* Scaled logits of a block; returns the largest of `largest` and the n magnitudes. */
static double take_block(const double *dot, const double *mag, int32_t n, double scale,
                         double *restrict out, double largest)
{
    for (int32_t j = 0; j < n; j++)
        out[j] = scale * dot[j];
    for (int32_t j = 0; j < n; j++)
        largest = mag[j] > largest ? mag[j] : largest;
    return largest;
}

static void logits(const struct ra_reference *call, double *max_abs)
{
    const struct ra_model *m = call->model;
    int32_t longest = call->first_L + call->n_steps - 1;
    double rows[BLOCK * MAX_D];
    double kt[BLOCK * MAX_D], dot[BLOCK], mag[BLOCK], largest = 0;
    for (int32_t first = 0; first < longest; first += BLOCK) {
        int32_t n = longest - first < BLOCK ? longest - first : BLOCK;
        load_rows(m->dtype, call->k, first, n, m->D, rows);
        transpose(rows, n, m->D, kt);
        for (int query = 0; query < call->n_steps * m->G; query++) {
            int s = query / m->G, g = query % m->G;
            int32_t visible = call->first_L + s - first;
            visible = visible < n ? visible : n;
            dot_block(kt, call->q + (size_t)s * call->q_step + (size_t)(g * m->D), m->D, dot, mag);
            double *out = row_of(call, s, g) + first;
            largest = take_block(dot, mag, visible, m->attn_scale, out, largest);
        }
    }
    *max_abs = largest * m->attn_scale;
}

static void outputs(const struct ra_reference *call)
{
    const struct ra_model *m = call->model;
    int32_t longest = call->first_L + call->n_steps - 1;
    double rows[BLOCK * MAX_D];
    for (int s = 0; s < call->n_steps; s++)
        memset(call->out + (size_t)s * call->out_step, 0,
               (size_t)(m->G * m->Dv) * sizeof *call->out);
    for (int32_t first = 0; first < longest; first += BLOCK) {
        int32_t n = longest - first < BLOCK ? longest - first : BLOCK;
        load_rows(m->dtype, call->v, first, n, m->Dv, rows);
        for (int query = 0; query < call->n_steps * m->G; query++) {
            int s = query / m->G, g = query % m->G;
            int32_t visible = call->first_L + s - first;
            visible = visible < n ? visible : n;
            const double *weight = row_of(call, s, g) + first;
            add_rows(rows, weight, visible, m->Dv,
                     call->out + (size_t)s * call->out_step + (size_t)(g * m->Dv));
        }
    }
}

void ra_reference_attend(const struct ra_reference *call)
{
    const struct ra_model *m = call->model;
    RA_BUG_ON(m->D > MAX_D || m->Dv > MAX_D || call->first_L < 1 || call->n_steps < 1);
    double max_abs = 0;
    logits(call, &max_abs);
    for (int s = 0; s < call->n_steps; s++)
        for (int g = 0; g < m->G; g++)
            softmax(row_of(call, s, g), call->first_L + s);
    if (call->out)
        outputs(call);
    if (call->max_abs)
        *call->max_abs = max_abs;
}

/* Sum of exp(logit - largest) over the set, weights times value rows: for sets so far below the
 * maximum of the whole softmax that their probabilities are zero in f64. */
static void attend_far_set(const struct ra_reference_set *call, const float *q, double *out)
{
    const struct ra_model *model = call->model;
    const int32_t *pos = call->set->pos;
    int32_t n = call->set->n;
    double row[MAX_D];
    double top = -INFINITY, sum = 0;
    memset(out, 0, (size_t)model->Dv * sizeof *out);
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t i = 0; i < n; i++) {
            double logit = 0;
            load_rows(model->dtype, call->k, pos[i], 1, model->D, row);
            for (int d = 0; d < model->D; d++)
                logit += (double)q[d] * row[d];
            logit *= model->attn_scale;
            if (pass == 0) {
                top = logit > top ? logit : top;
                continue;
            }
            double weight = ra_exp_below(logit - top);
            sum += weight;
            load_rows(model->dtype, call->v, pos[i], 1, model->Dv, row);
            add_rows(row, &weight, 1, model->Dv, out);
        }
    }
    for (int d = 0; d < model->Dv; d++)
        out[d] /= sum;
}

/* out [n_heads][Dv] += the rows at n <= BLOCK positions, each times its probability. */
static void add_listed(const struct ra_reference_set *call, const int32_t *pos, int32_t n)
{
    const struct ra_model *m = call->model;
    size_t bytes = (size_t)m->Dv * ra_dtype_bytes(m->dtype);
    char stored[BLOCK * MAX_D * sizeof(float)];
    double rows[BLOCK * MAX_D], weight[BLOCK];
    for (int32_t i = 0; i < n; i++)
        memcpy(stored + (size_t)i * bytes, (const char *)call->v + (size_t)pos[i] * bytes, bytes);
    load_rows(m->dtype, stored, 0, n, m->Dv, rows);
    for (int h = 0; h < call->n_heads; h++) {
        const double *prob = call->prob + (size_t)h * call->prob_stride;
        for (int32_t i = 0; i < n; i++)
            weight[i] = prob[pos[i]];
        add_rows(rows, weight, n, m->Dv, call->out + (size_t)h * (size_t)m->Dv);
    }
}

void ra_reference_attend_set(const struct ra_reference_set *call)
{
    const struct ra_model *m = call->model;
    const int32_t *pos = call->set->pos;
    int32_t n = call->set->n;
    RA_BUG_ON(n < 1);
    memset(call->out, 0, (size_t)(call->n_heads * m->Dv) * sizeof *call->out);
    for (int32_t first = 0; first < n; first += BLOCK)
        add_listed(call, pos + first, n - first < BLOCK ? n - first : BLOCK);
    for (int h = 0; h < call->n_heads; h++) {
        const double *prob = call->prob + (size_t)h * call->prob_stride;
        double *out = call->out + (size_t)h * (size_t)m->Dv, mass = 0;
        for (int32_t i = 0; i < n; i++)
            mass += prob[pos[i]];
        call->mass[h] = mass;
        if (mass < 1e-280)
            attend_far_set(call, call->q + (size_t)h * (size_t)m->D, out);
        for (int d = 0; d < m->Dv && mass >= 1e-280; d++)
            out[d] /= mass;
    }
}
