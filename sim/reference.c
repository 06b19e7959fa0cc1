/* SPDX-License-Identifier: Apache-2.0 */
/*
 * f64 attention over blocks of keys. A block is widened and transposed once for all queries of a
 * group and a few steps, so that the inner loops run over keys (logits) and over dimensions
 * (output) without reassociating any sum: vector code and scalar code give the same bits.
 */
#include "sim/reference.h"

#include <math.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

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

/* dot[j] = sum over d of q[d] * k[j][d]. */
RA_WIDE static void dot_plain(const double *kt, const float *q, int D, double *dot)
{
    quad sum[BLOCK / LANES] = {0};
    for (int d = 0; d < D; d++)
        for (int j = 0; j < BLOCK / LANES; j++) {
            quad k;
            load_quad(kt + d * BLOCK + j * LANES, &k);
            sum[j] += k * (double)q[d];
        }
    memcpy(dot, sum, sizeof sum);
}

#ifdef __x86_64__
/* Products of two f32 are exact in double, so these are the bits of dot_plain. */
__attribute__((target("avx2,fma"))) static void dot_fused(const double *kt, const float *q, int D,
                                                          double *dot)
{
    __m256d sum[BLOCK / LANES];
    for (int j = 0; j < BLOCK / LANES; j++)
        sum[j] = _mm256_setzero_pd();
    for (int d = 0; d < D; d++) {
        __m256d x = _mm256_set1_pd((double)q[d]);
        for (int j = 0; j < BLOCK / LANES; j++)
            sum[j] = _mm256_fmadd_pd(_mm256_loadu_pd(kt + d * BLOCK + j * LANES), x, sum[j]);
    }
    for (int j = 0; j < BLOCK / LANES; j++)
        _mm256_storeu_pd(dot + j * LANES, sum[j]);
}
#endif

static void dot_block(const double *kt, const float *q, int D, double *dot)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        dot_fused(kt, q, D, dot);
        return;
    }
#endif
    dot_plain(kt, q, D, dot);
}

/* The largest of `largest` and, over n keys, of sum_d |q_d k_d|. */
RA_WIDE static double largest_size(const double *kt, const float *q, int D, int32_t n,
                                   double largest)
{
    double size[BLOCK] = {0};
    for (int d = 0; d < D; d++)
        for (int j = 0; j < BLOCK; j++)
            size[j] += fabs((double)q[d] * kt[d * BLOCK + j]);
    for (int32_t j = 0; j < n; j++)
        largest = size[j] > largest ? size[j] : largest;
    return largest;
}

/* Upper bounds, to the last bits: of the length of q, and of the lengths of a block's keys. */
RA_WIDE static double length_of(const float *q, int D)
{
    double lane[8] = {0}, sum = 0;
    for (int d = 0; d < D; d += 8)
        for (int j = 0; j < 8; j++)
            lane[j] += (double)q[d + j] * (double)q[d + j];
    for (int j = 0; j < 8; j++)
        sum += lane[j];
    return sqrt(sum) * (1 + 1e-12);
}

RA_WIDE static double longest_of(const double *kt, int D)
{
    double sum[BLOCK] = {0}, longest = 0;
    for (int d = 0; d < D; d++)
        for (int j = 0; j < BLOCK; j++)
            sum[j] += kt[d * BLOCK + j] * kt[d * BLOCK + j];
    for (int j = 0; j < BLOCK; j++)
        longest = sum[j] > longest ? sum[j] : longest;
    return sqrt(longest) * (1 + 1e-12);
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

static void softmax(double *logit, int32_t n)
{
    double top = logit[0], sum = 0;
    for (int32_t j = 1; j < n; j++)
        top = logit[j] > top ? logit[j] : top;
    ra_exp_below(logit, n, top);
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

/* Fills logits; *max_abs rises to the largest attn_scale * sum_d |q_d k_d| if that is above it. */
static void logits(const struct ra_reference *call, double *max_abs)
{
    const struct ra_model *m = call->model;
    int32_t last = call->first_L + call->n_steps - 1;
    double rows[BLOCK * MAX_D], kt[BLOCK * MAX_D], dot[BLOCK];
    double largest = 0, known = *max_abs / m->attn_scale;
    for (int32_t first = 0; first < last; first += BLOCK) {
        int32_t n = last - first < BLOCK ? last - first : BLOCK;
        load_rows(m->dtype, call->k, first, n, m->D, rows);
        transpose(rows, n, m->D, kt);
        double longest = longest_of(kt, m->D);
        for (int query = 0; query < call->n_steps * m->G; query++) {
            int s = query / m->G, g = query % m->G;
            const float *q = call->q + (size_t)s * call->q_step + (size_t)(g * m->D);
            double *out = row_of(call, s, g) + first;
            int32_t visible = call->first_L + s - first < n ? call->first_L + s - first : n;
            dot_block(kt, q, m->D, dot);
            for (int32_t j = 0; j < visible; j++)
                out[j] = m->attn_scale * dot[j];
            /* No sum of magnitudes exceeds the product of the lengths: most blocks are spared. */
            double bound = length_of(q, m->D) * longest;
            if (bound > largest && bound > known)
                largest = largest_size(kt, q, m->D, visible, largest);
        }
    }
    *max_abs = fmax(*max_abs, largest * m->attn_scale);
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
    double max_abs = call->max_abs ? *call->max_abs : INFINITY;
    logits(call, &max_abs);
    for (int s = 0; s < call->n_steps; s++)
        for (int g = 0; g < m->G; g++)
            softmax(row_of(call, s, g), call->first_L + s);
    if (call->out)
        outputs(call);
    if (call->max_abs)
        *call->max_abs = max_abs;
}

void ra_reference_weigh_set(const struct ra_model *model, const void *k, const float *q,
                            const struct ra_positions *set, double *out)
{
    double row[MAX_D], top = -INFINITY, sum = 0;
    for (int32_t i = 0; i < set->n; i++) {
        double *logit = &out[set->pos[i]];
        load_rows(model->dtype, k, set->pos[i], 1, model->D, row);
        *logit = 0;
        for (int d = 0; d < model->D; d++)
            *logit += (double)q[d] * row[d];
        *logit *= model->attn_scale;
        top = fmax(top, *logit);
    }
    for (int32_t i = 0; i < set->n; i++) {
        ra_exp_below(&out[set->pos[i]], 1, top);
        sum += out[set->pos[i]];
    }
    for (int32_t i = 0; i < set->n; i++)
        out[set->pos[i]] /= sum;
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
            ra_exp_below(&logit, 1, top);
            sum += logit;
            load_rows(model->dtype, call->v, pos[i], 1, model->Dv, row);
            add_rows(row, &logit, 1, model->Dv, out);
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
