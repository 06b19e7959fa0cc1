/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pieces of a transformer block against f64, formula by formula. Bounds are a few roundings to
 * f32 (6e-8 each); where terms cancel, of the size of the terms.
 */
#include "tests/support/ra_test.h"

#include <math.h>
#include <string.h>

#include "sim/base/rng.h"
#include "sim/rope.h"
#include "tests/support/approx.h"
#include "traces/model/layers.h"

enum { MOST = 600 };

static const int lengths[] = {1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 48, 64, 577};
enum { N_LENGTHS = sizeof lengths / sizeof lengths[0] };

static void draw(uint64_t key, double scale, float *values, int n)
{
    for (int i = 0; i < n; i++)
        values[i] = (float)(scale * ra_rng_normal(key, (uint64_t)i));
}

static void widen(const float *values, int n, double *out)
{
    for (int i = 0; i < n; i++)
        out[i] = (double)values[i];
}

/* Zeros, small ones, where eps is what counts, and large ones. */
static void test_rms_norm(void **unused)
{
    (void)unused;
    static const double scales[] = {0, 1e-6, 1, 1e4, 1e18}, epsilons[] = {1e-5, 1e-6, 0.25};
    static float x[MOST], weight[MOST], out[MOST];
    static double got[MOST], expected[MOST];
    for (int i = 0; i < N_LENGTHS; i++)
        for (int j = 0; j < 15; j++) {
            int n = lengths[i];
            double eps = epsilons[j % 3], sum = 0;
            draw(1, scales[j / 3], x, n);
            draw(2, 1, weight, n);
            for (int d = 0; d < n; d++)
                sum += pow((double)x[d], 2);
            for (int d = 0; d < n; d++)
                expected[d] = (double)x[d] / sqrt(sum / n + eps) * (double)weight[d];
            ra_lm_rms_norm(x, weight, n, eps, out);
            widen(out, n, got);
            ra_assert_close("rms norm", got, expected, (size_t)n, 0, 1e-6);
            ra_lm_rms_norm(x, weight, n, eps, x);
            assert_memory_equal(x, out, (size_t)n * sizeof *out);
        }
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

/* tanhl keeps 1 + tanh from cancelling where it is small. */
static double gelu(double x)
{
    long double y = sqrtl(2 / M_PIl) * ((long double)x + 0.044715L * (long double)(x * x * x));
    return (double)(0.5L * (long double)x * (1 + tanhl(y)));
}

static const float edges[] = {0.0f,   -0.0f, 1e-30f,  -1e-30f, 0.5f,  -0.5f,  10,    -10,
                              20,     -20,   86.9f,   -86.9f,  87,    -87,    87.5f, -87.5f,
                              88,     -88,   88.5f,   -88.5f,  89,    -89,    100,   -100,
                              103.9f, -104,  1000.0f, -1000,   3e10f, -3e10f, 1e38f, -1e38f};
enum { N_EDGES = sizeof edges / sizeof edges[0] };

/* x^3 of GELU overflows for the largest, which must come out as x, and as 0. */
static void check_gate(enum ra_lm_activation activation, double (*formula)(double), const float *x,
                       int n, double atol)
{
    static float gate[MOST], up[MOST];
    static double got[MOST], expected[MOST];
    draw(3, 1, up, n);
    for (int i = 0; i < n; i++)
        expected[i] = formula((double)x[i]) * (double)up[i];
    memcpy(gate, x, (size_t)n * sizeof *gate);
    ra_lm_gate(activation, up, n, gate);
    widen(gate, n, got);
    ra_assert_close(activation == RA_LM_SILU ? "SiLU" : "GELU", got, expected, (size_t)n, atol,
                    1e-6);
}

static void test_gates(void **unused)
{
    (void)unused;
    static float x[MOST];
    static const double scales[] = {1e-3, 1, 5, 30};
    for (int i = 0; i < N_LENGTHS; i++)
        for (int j = 0; j < 4; j++) {
            draw(4 + (uint64_t)j, scales[j], x, lengths[i]);
            check_gate(RA_LM_SILU, silu, x, lengths[i], 1e-34);
            /* -2y is rounded to f32 before it is an exponent: 6e-8 * 2y of the result, which is
             * below e^-2y; 1e-6 at most where the result is above 1e-7. */
            check_gate(RA_LM_GELU_TANH, gelu, x, lengths[i], 3e-7);
        }
    check_gate(RA_LM_SILU, silu, edges, N_EDGES, 1e-34);
    check_gate(RA_LM_GELU_TANH, gelu, edges, N_EDGES - 2, 3e-7);
}

/* Where x^3 is no number of f32's, and where x is none. */
static void test_gate_ends(void **unused)
{
    (void)unused;
    float up[2] = {1, 1}, gate[2] = {1e38f, -1e38f};
    ra_lm_gate(RA_LM_GELU_TANH, up, 2, gate);
    assert_true(gate[0] == 1e38f);
    assert_true(fabsf(gate[1]) < 1e-34f);
    for (int activation = 0; activation < 2; activation++) {
        gate[0] = NAN; /* is not made a number */
        ra_lm_gate((enum ra_lm_activation)activation, up, 1, gate);
        assert_true(isnan(gate[0]));
    }
}

static void test_rope_table(void **unused)
{
    (void)unused;
    static const int32_t places[] = {0, 1, 2, 255, 4097, 8191, 131071, 1 << 24};
    const struct ra_rope rope = {.type = RA_ROPE_DEFAULT, .theta = 1e5};
    for (int D = 2; D <= 128; D += 2)
        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
            float frequencies[64], cosines[64], sines[64];
            double got[128], expected[128];
            ra_rope_frequencies(&rope, D, frequencies);
            ra_lm_rope_table(frequencies, D, places[i], cosines, sines);
            for (int d = 0; d < D / 2; d++) {
                float angle = (float)places[i] * frequencies[d];
                got[d] = (double)cosines[d];
                got[d + D / 2] = (double)sines[d];
                expected[d] = cos((double)angle);
                expected[d + D / 2] = sin((double)angle);
            }
            ra_assert_close("table", got, expected, (size_t)D, 1e-7, 0);
        }
}

/* As the replay's own rotation in f64 has it, and back again. */
static void test_rotate(void **unused)
{
    (void)unused;
    const struct ra_rope rope = {.type = RA_ROPE_DEFAULT, .theta = 5e3};
    for (int D = 2; D <= 66; D += 2)
        for (int32_t pos = 0; pos < 3000; pos += 371) {
            float frequencies[33], cosines[33], sines[33], vec[66];
            double got[66], expected[66], before[66];
            draw(8, 3, vec, D);
            widen(vec, D, before);
            widen(vec, D, expected);
            ra_rope_frequencies(&rope, D, frequencies);
            ra_rope_turn(frequencies, D, pos, expected);
            ra_lm_rope_table(frequencies, D, pos, cosines, sines);
            ra_lm_rotate(cosines, sines, D, vec);
            widen(vec, D, got);
            ra_assert_close("rotated", got, expected, (size_t)D, 5e-6, 0);
            ra_rope_turn_back(frequencies, D, pos, got);
            ra_assert_close("and back", got, before, (size_t)D, 5e-6, 0);
        }
}

static void check_exp(const float *values, int n, float top)
{
    static float out[MOST];
    static double got[MOST], expected[MOST];
    double sum = 0, total;
    memcpy(out, values, (size_t)n * sizeof *out);
    total = (double)ra_lm_exp_below(out, n, top);
    for (int i = 0; i < n; i++) {
        float x = values[i] - top;
        expected[i] = x < -87.0f ? 0 : exp((double)x);
        sum += expected[i];
    }
    widen(out, n, got);
    ra_assert_close("exp", got, expected, (size_t)n, 0, 4e-7);
    ra_assert_close("sum of exp", &total, &sum, 1, 0, 2e-6);
}

/* To 3e-7 as the header says, and the rounding of what is expected. */
static void test_exp_below(void **unused)
{
    (void)unused;
    static float values[MOST];
    static const float spans[] = {1e-6f, 1, 20, 80, 200, 1e30f};
    for (int i = 0; i < N_LENGTHS; i++)
        for (int j = 0; j < 6; j++) {
            int n = lengths[i];
            float top = -INFINITY;
            draw(20 + (uint64_t)j, (double)spans[j], values, n);
            for (int d = 0; d < n; d++)
                top = fmaxf(top, values[d]);
            check_exp(values, n, top);
        }
    static const float low[] = {0, -87, -86.99999f, -87.00001f, -88, -1e38f, -1e-7f, -0.34657f};
    for (int n = 1; n <= 40; n++) {
        for (int d = 0; d < n; d++)
            values[d] = low[d % 8];
        check_exp(values, n, 0);
    }
    for (int i = 0; i < 435; i++) /* every interval of the reduction, its ends too */
        values[i] = (float)i * -0.2f;
    check_exp(values, 435, 0);
}

/* Neither the largest nor the smallest logits lose what f64 holds; shifting all changes nothing. */
static void test_logprob(void **unused)
{
    (void)unused;
    static float logits[MOST];
    static const double scales[] = {0, 1e-3, 3, 100, 3e4, 1e37};
    for (int i = 0; i < N_LENGTHS; i++)
        for (int j = 0; j < 6; j++) {
            int n = lengths[i];
            long double sum = 0;
            draw(40 + (uint64_t)j, scales[j], logits, n);
            for (int32_t index = 0; index<n; index += n> 8 ? n / 8 : 1) {
                sum = 0;
                for (int d = 0; d < n; d++)
                    sum += expl((long double)logits[d] - (long double)logits[index]);
                double expected = (double)-logl(sum), got = ra_lm_logprob(logits, n, index);
                if (isfinite(expected))
                    ra_assert_close("logprob", &got, &expected, 1, 1e-12, 1e-12);
                else
                    assert_true(got < -1e4);
            }
        }
    float two[2] = {88, -88};
    double got = ra_lm_logprob(two, 2, 1), expected = -176;
    ra_assert_close("logprob", &got, &expected, 1, 1e-12, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rms_norm),  cmocka_unit_test(test_gates),
        cmocka_unit_test(test_gate_ends), cmocka_unit_test(test_rope_table),
        cmocka_unit_test(test_rotate),    cmocka_unit_test(test_exp_below),
        cmocka_unit_test(test_logprob),
    };
    return cmocka_run_group_tests_name("lm_layers", tests, NULL, NULL);
}
