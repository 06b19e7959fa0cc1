/* SPDX-License-Identifier: Apache-2.0 */
/*
 * f64 attention over blocks of keys. A block is widened and transposed once for all queries of a
 * group and a few steps, so that the inner loops run over keys (logits) and over dimensions
 * (output) without reassociating any sum: vector code and scalar code give the same bits.
 */
#include "sim/reference.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 32, MAX_D = 256 };

/* One source, several instruction sets, chosen when the program starts; contraction is off, so all
 * give the same bits. Sanitizers do not survive the resolvers. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define WIDE __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define WIDE
#endif

static void load_rows(enum ra_dtype dtype, const void *rows, int32_t first, int32_t n, int width,
                      float *out)
{
    const char *start = (const char *)rows + (size_t)first * (size_t)width * ra_dtype_bytes(dtype);
    ra_widen(dtype, start, (size_t)n * (size_t)width, out);
}

/* kt [D][BLOCK] of doubles; unused columns repeat zero. */
static void transpose(const float *rows, int32_t n, int D, double *kt)
{
    memset(kt, 0, (size_t)D * BLOCK * sizeof *kt);
    for (int32_t j = 0; j < n; j++)
        for (int d = 0; d < D; d++)
            kt[d * BLOCK + j] = rows[j * D + d];
}

/* dot[j] = sum over d of q[d] * k[j][d]; mag[j] the same of absolute values. */
WIDE static void dot_block(const double *kt, const float *q, int D, double *restrict dot,
                           double *restrict mag)
{
    for (int j = 0; j < BLOCK; j++)
        dot[j] = mag[j] = 0;
    for (int d = 0; d < D; d++) {
        double x = q[d];
        const double *k = kt + d * BLOCK;
        for (int j = 0; j < BLOCK; j++) {
            double product = x * k[j];
            dot[j] += product;
            mag[j] += fabs(product);
        }
    }
}

WIDE static void add_rows(const float *rows, const double *weight, int32_t n, int Dv,
                          double *restrict out)
{
    for (int32_t j = 0; j < n; j++)
        for (int d = 0; d < Dv; d++)
            out[d] += weight[j] * (double)rows[j * Dv + d];
}

static void softmax(double *logit, int32_t n)
{
    double top = logit[0], sum = 0;
    for (int32_t j = 1; j < n; j++)
        top = logit[j] > top ? logit[j] : top;
    for (int32_t j = 0; j < n; j++) {
        logit[j] = exp(logit[j] - top);
        sum += logit[j];
    }
    for (int32_t j = 0; j < n; j++)
        logit[j] /= sum;
}

/* Where the probabilities of one query begin. */
static double *row_of(const struct ra_reference *call, int s, int g)
{
    size_t L = (size_t)(call->first_L + s);
    return call->prob + (size_t)s * call->step_stride + (size_t)(call->first_head + g) * L;
}

static void logits(const struct ra_reference *call, double *max_abs)
{
    const struct ra_model *m = call->model;
    int32_t longest = call->first_L + call->n_steps - 1;
    float rows[BLOCK * MAX_D];
    double kt[BLOCK * MAX_D], dot[BLOCK], mag[BLOCK];
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
            for (int32_t j = 0; j < visible; j++) {
                out[j] = m->attn_scale * dot[j];
                *max_abs = mag[j] > *max_abs ? mag[j] : *max_abs;
            }
        }
    }
    *max_abs *= m->attn_scale;
}

static void outputs(const struct ra_reference *call)
{
    const struct ra_model *m = call->model;
    int32_t longest = call->first_L + call->n_steps - 1;
    float rows[BLOCK * MAX_D];
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
static void attend_far_set(const struct ra_model *model, const void *k, const void *v,
                           const float *q, const int32_t *pos, int32_t n, double *out)
{
    float row[MAX_D];
    double top = -INFINITY, sum = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t i = 0; i < n; i++) {
            double logit = 0;
            load_rows(model->dtype, k, pos[i], 1, model->D, row);
            for (int d = 0; d < model->D; d++)
                logit += (double)q[d] * (double)row[d];
            logit *= model->attn_scale;
            if (pass == 0) {
                top = logit > top ? logit : top;
                continue;
            }
            double weight = exp(logit - top);
            sum += weight;
            load_rows(model->dtype, v, pos[i], 1, model->Dv, row);
            add_rows(row, &weight, 1, model->Dv, out);
        }
    }
    for (int d = 0; d < model->Dv; d++)
        out[d] /= sum;
}

double ra_reference_attend_set(const struct ra_model *model, const void *k, const void *v,
                               const float *q, const double *prob, const struct ra_positions *set,
                               double *out)
{
    const int32_t *pos = set->pos;
    int32_t n = set->n;
    RA_BUG_ON(n < 1);
    double mass = 0;
    float row[MAX_D];
    memset(out, 0, (size_t)model->Dv * sizeof *out);
    for (int32_t i = 0; i < n; i++)
        mass += prob[pos[i]];
    if (mass < 1e-280) {
        attend_far_set(model, k, v, q, pos, n, out);
        return mass;
    }
    for (int32_t i = 0; i < n; i++) {
        load_rows(model->dtype, v, pos[i], 1, model->Dv, row);
        add_rows(row, &prob[pos[i]], 1, model->Dv, out);
    }
    for (int d = 0; d < model->Dv; d++)
        out[d] /= mass;
    return mass;
}
