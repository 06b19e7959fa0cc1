/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The f64 reference against a textbook loop in long double, over shapes, dtypes, several steps at
 * once and sets far below the maximum. Everything else in the project is measured by this code.
 */
#include "tests/support/ra_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/half.h"
#include "sim/reference.h"

enum { ROWS = 150, MAX_WIDTH = 256, MAX_G = 4, STEPS = 5 };

static uint64_t seed = 99;

static float draw(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(seed >> 33) / 0x1p30 - 1);
}

struct rows {
    float value[ROWS * MAX_WIDTH];
    unsigned char stored[ROWS * MAX_WIDTH * 4];
};
static struct rows k, v;
static float q[STEPS * MAX_G * MAX_WIDTH];

static void fill(struct rows *rows, enum ra_dtype dtype, int width, float scale)
{
    size_t n = (size_t)(ROWS * width);
    for (size_t i = 0; i < n; i++)
        rows->value[i] = draw() * scale;
    ra_narrow(dtype, rows->value, n, rows->stored);
    ra_widen(dtype, rows->stored, n, rows->value); /* what was stored is the truth */
}

/* Textbook attention of one query over listed positions; probabilities over all L. */
static void naive(const struct ra_model *m, const float *query, int32_t L, const int32_t *set,
                  int32_t n, double *prob, double *out)
{
    long double logit[ROWS], top = -INFINITY, sum = 0, part = 0, acc[MAX_WIDTH] = {0};
    for (int32_t j = 0; j < L; j++) {
        logit[j] = 0;
        for (int d = 0; d < m->D; d++)
            logit[j] += (long double)query[d] * k.value[j * m->D + d];
        logit[j] *= m->attn_scale;
        top = logit[j] > top ? logit[j] : top;
    }
    for (int32_t j = 0; j < L; j++)
        sum += expl(logit[j] - top);
    for (int32_t j = 0; j < L; j++)
        prob[j] = (double)(expl(logit[j] - top) / sum);
    long double set_top = -INFINITY;
    for (int32_t i = 0; i < n; i++)
        set_top = logit[set[i]] > set_top ? logit[set[i]] : set_top;
    for (int32_t i = 0; i < n; i++) {
        long double weight = expl(logit[set[i]] - set_top);
        part += weight;
        for (int d = 0; d < m->Dv; d++)
            acc[d] += weight * v.value[set[i] * m->Dv + d];
    }
    for (int d = 0; d < m->Dv; d++)
        out[d] = (double)(acc[d] / part);
}

static void near(double got, double want, const char *what)
{
    if (!(fabs(got - want) <= 1e-13 + 1e-12 * fabs(want)))
        fail_msg("%s: got %.17g, expected %.17g", what, got, want);
}

/* A few positions, and more than fit in one block; the queries of a group together. */
static void check_sets(const struct ra_model *m, const float *queries, int32_t L,
                       const double *prob)
{
    int32_t few[] = {0, 7, 31, 32, 100}, many[ROWS / 2];
    for (int32_t i = 0; i < ROWS / 2; i++)
        many[i] = (ROWS - 6) * i / (ROWS / 2);
    const struct ra_positions sets[] = {{few, 5}, {many, ROWS / 2}};
    for (int i = 0; i < 2; i++) {
        double out[MAX_G * MAX_WIDTH], mass[MAX_G], want[ROWS], want_out[MAX_WIDTH];
        ra_reference_attend_set(&(struct ra_reference_set){m, k.stored, v.stored, queries, prob,
                                                           (size_t)L, m->G, &sets[i], out, mass});
        for (int g = 0; g < m->G; g++) {
            double want_mass = 0;
            naive(m, queries + g * m->D, L, sets[i].pos, sets[i].n, want, want_out);
            for (int32_t j = 0; j < sets[i].n; j++)
                want_mass += want[sets[i].pos[j]];
            near(mass[g], want_mass, "mass");
            for (int d = 0; d < m->Dv; d++)
                near(out[g * m->Dv + d], want_out[d], "output over a set");
        }
    }
}

static void check_shape(enum ra_dtype dtype, int G, int D, int Dv, float scale)
{
    struct ra_model m = {.n_layers = 1,
                         .Hq = 2 * G,
                         .Hkv = 2,
                         .G = G,
                         .D = D,
                         .Dv = Dv,
                         .dtype = dtype,
                         .attn_scale = 1 / sqrt(D)};
    fill(&k, dtype, D, scale);
    fill(&v, dtype, Dv, 1);
    for (int i = 0; i < STEPS * G * D; i++)
        q[i] = draw() * scale;
    int32_t first_L = ROWS - STEPS + 1, all[ROWS];
    size_t step_stride = (size_t)(2 * G * ROWS);
    double *prob = malloc(STEPS * step_stride * sizeof *prob), max_abs = 0, top_abs = 0;
    double *out = malloc((size_t)(STEPS * G * Dv) * sizeof *out);
    for (int32_t j = 0; j < ROWS; j++)
        all[j] = j;
    struct ra_reference call = {.model = &m,
                                .k = k.stored,
                                .v = v.stored,
                                .q = q,
                                .q_step = (size_t)(G * D),
                                .n_steps = STEPS,
                                .first_L = first_L,
                                .prob = prob,
                                .step_stride = step_stride,
                                .first_head = G,
                                .out = out,
                                .out_step = (size_t)(G * Dv),
                                .max_abs = &max_abs};
    ra_reference_attend(&call);
    for (int s = 0; s < STEPS; s++)
        check_sets(&m, q + s * G * D, first_L + s,
                   prob + (size_t)s * step_stride + (size_t)(G * (first_L + s)));
    for (int s = 0; s < STEPS; s++)
        for (int g = 0; g < G; g++) {
            int32_t L = first_L + s;
            const float *query = q + (s * G + g) * D;
            const double *row = prob + (size_t)s * step_stride + (size_t)((G + g) * L);
            double want[ROWS], want_out[MAX_WIDTH];
            naive(&m, query, L, all, L, want, want_out);
            for (int32_t j = 0; j < L; j++)
                near(row[j], want[j], "probability");
            for (int d = 0; d < Dv; d++)
                near(out[(s * G + g) * Dv + d], want_out[d], "output");
            for (int32_t j = 0; j < L; j++) {
                double sum = 0;
                for (int d = 0; d < D; d++)
                    sum += fabs((double)query[d] * (double)k.value[j * D + d]);
                top_abs = fmax(top_abs, sum * m.attn_scale);
            }
        }
    near(max_abs, top_abs, "largest sum of magnitudes");
    max_abs = top_abs * 0.999; /* what was met before matters only where it is larger */
    ra_reference_attend(&call);
    near(max_abs, top_abs, "largest sum of magnitudes, after a smaller one");
    max_abs = top_abs * 2;
    ra_reference_attend(&call);
    near(max_abs, top_abs * 2, "largest sum of magnitudes, after a larger one");
    free(prob);
    free(out);
}

static void shapes_and_dtypes(void **state)
{
    (void)state;
    check_shape(RA_F16, 3, 64, 64, 2);
    check_shape(RA_BF16, 1, 8, 16, 2);
    check_shape(RA_F32, 4, 72, 256, 1);
    check_shape(RA_F16, 2, 256, 8, 1);
}

/* Logits hundreds apart: probabilities underflow, outputs over a set must not. */
static void a_set_far_below_the_maximum(void **state)
{
    (void)state;
    check_shape(RA_F32, 1, 8, 8, 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_and_dtypes),
        cmocka_unit_test(a_set_far_below_the_maximum),
    };
    return cmocka_run_group_tests_name("reference", tests, NULL, NULL);
}
