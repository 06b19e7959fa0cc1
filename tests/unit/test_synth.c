/* SPDX-License-Identifier: Apache-2.0 */
/* Generated traces: their spelling, their sameness, and the stated property of each case. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/ra_test.h"
#include "traces/synth.h"

#define SAMPLE "traces/data/smollm2-135m.safetensors"

static struct ra_error err;

static struct ra_trace *open_trace(const char *name)
{
    struct ra_trace *trace;
    ra_assert_ok(ra_trace_open(&trace, name, &err));
    return trace;
}

/* Rows of a head as f32; caller frees. */
static float *rows_of(const struct ra_trace *trace, int layer, enum ra_trace_part part, int head,
                      int32_t first, int32_t n)
{
    const struct ra_model *model = &ra_trace_info(trace)->model;
    size_t width = (size_t)(part == RA_TRACE_V ? model->Dv : model->D);
    void *stored = malloc((size_t)n * width * ra_dtype_bytes(model->dtype));
    float *rows = malloc((size_t)n * width * sizeof *rows);
    assert_non_null(stored);
    assert_non_null(rows);
    ra_assert_ok(ra_trace_read(trace, &(struct ra_trace_slice){0, layer, part, head, first, n},
                               stored, &err));
    ra_widen(model->dtype, stored, (size_t)n * width, rows);
    free(stored);
    return rows;
}

/* Softmax of one head at step t, in plain f64, two passes; caller frees. L = P + t + 1. */
static double *softmax(const struct ra_trace *trace, int layer, int head, int32_t t)
{
    const struct ra_trace_info *info = ra_trace_info(trace);
    int32_t L = info->seqs[0].P + t + 1;
    int D = info->model.D;
    float *k = rows_of(trace, layer, RA_TRACE_K, head / info->model.G, 0, L);
    float *q = rows_of(trace, layer, RA_TRACE_Q, head, info->seqs[0].W + t, 1);
    double *p = calloc((size_t)L, sizeof *p), sum = 0;
    assert_non_null(p);
    for (int32_t j = 0; j < L; j++) {
        double logit = 0;
        for (int d = 0; d < D; d++)
            logit += (double)q[d] * (double)k[j * D + d];
        p[j] = exp(logit * info->model.attn_scale);
        sum += p[j];
    }
    for (int32_t j = 0; j < L; j++)
        p[j] /= sum;
    free(k);
    free(q);
    return p;
}

/* --- spelling -----------------------------------------------------------------------------------
 */

static void test_defaults(void **state)
{
    (void)state;
    struct ra_trace *trace = open_trace("synth:case=sink");
    const struct ra_trace_info *info = ra_trace_info(trace);
    assert_int_equal(info->n_layers, 2);
    assert_int_equal(info->seqs[0].P, 256);
    assert_int_equal(info->seqs[0].N, 32);
    assert_int_equal(info->seqs[0].W, 32);
    assert_int_equal(info->model.G, 2);
    assert_int_equal(info->model.Dv, 32);
    assert_int_equal(info->model.rope.type, RA_ROPE_NONE);
    assert_string_equal(info->synthetic, "synthetic (case=sink)");
    assert_string_equal(ra_trace_metadata(trace, "synth.spelling"),
                        "synth:case=sink,P=256,N=32,W=32,layers=2,Hq=4,Hkv=2,D=32,Dv=32,dtype=f16,"
                        "seed=1,window=none");
    assert_null(ra_trace_metadata(trace, "model.id"));
    ra_trace_close(trace);
}

static void test_window_layers(void **state)
{
    (void)state;
    struct ra_trace *trace = open_trace("synth:case=flat,layers=4,window=16,P=20");
    for (int i = 0; i < 4; i++)
        assert_int_equal(ra_trace_info(trace)->layers[i].window, i % 2 ? 16 : 0);
    assert_int_equal(ra_trace_info(trace)->seqs[0].W, 20);
    ra_trace_close(trace);
}

/* Each refusal is a usage error that names the word and what was expected; nothing is allocated by
 * the size of a number in the name. */
static void test_refused_spellings(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
    } bad[] = {
        {"synth:", "case=NAME or like=TRACE"},
        {"synth:P=3,case=flat", "case=NAME or like=TRACE"},
        {"synth:case", "case=NAME or like=TRACE"},
        {"synth:case=neddle", "nearest is 'needle'"},
        {"synth:case=flat,PP=3", "no parameter named 'PP'; nearest is 'P'"},
        {"synth:case=flat,dtipe=f16", "nearest is 'dtype'"},
        {"synth:case=flat,dtype=f64", "expected f16, bf16 or f32, got 'f64'"},
        {"synth:case=flat,P=0", "P: expected a whole number from 1 to 16777216, got '0'"},
        {"synth:case=flat,P=1e3", "got '1e3'"},
        {"synth:case=flat,P=99999999999999999999", "P: expected"},
        {"synth:case=flat,P=", "P: expected"},
        {"synth:case=flat,P", "expected key=value, got 'P'"},
        {"synth:case=flat,", "expected key=value, got ''"},
        {"synth:case=flat,P=4,P=4", "P: expected once"},
        {"synth:case=flat,P=16777216,N=1", "at most 16777216 positions"},
        {"synth:case=flat,P=4,W=5", "W: expected at most P = 4, got 5"},
        {"synth:case=flat,Hq=3,Hkv=2", "divisor"},
        {"synth:case=flat,Hq=1,Hkv=2", "divisor"},
        {"synth:case=flat,D=12", "multiple of 8"},
        {"synth:case=drift,P=7", "P: expected at least 8"},
        {"synth:case=drift,P=4096,D=8", "D: expected at least 13"},
        {"synth:like=", "expected the name of a recorded trace"},
        {"synth:like=synth:case=flat", "expected the name of a recorded trace"},
        {"synth:like=/nowhere/x.safetensors,case=flat", "no parameter named 'case'"},
        {"synth:like=/nowhere/x.safetensors,layers=0", "layers: expected"},
        {"synth:like=/nowhere/x.safetensors,D=264", "D: expected a whole number from 8 to 256"},
        {"synth:like=/nowhere/x.safetensors,Hq=0", "Hq: expected a whole number from 1 to 4096"},
        {"synth:like=/nowhere/x.safetensors,dtype=f64", "expected none, f16, bf16 or f32, got"},
        {"synth:like=" SAMPLE ",Hq=32", "expected a divisor of n_q_heads 32, got 3"},
        {"synth:like=" SAMPLE ",Hkv=2", "expected a divisor of n_q_heads 9, got 2"},
        {"synth:like=" SAMPLE ",D=36", "expected a multiple of 8 up to 256, got 36"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct ra_trace *trace = NULL;
        ra_assert_fails(ra_trace_open(&trace, bad[i].name, &err), RA_EUSAGE, bad[i].text);
        assert_null(trace);
    }
    struct ra_trace *trace = NULL;
    ra_assert_fails(ra_trace_open(&trace, "synth:like=/nowhere/x.safetensors", &err), RA_EIO,
                    "/nowhere/x.safetensors");
}

/* --- sameness -----------------------------------------------------------------------------------
 */

/* A row depends on its place only: read alone or among others, first or last. */
static void test_random_access(void **state)
{
    (void)state;
    static const enum ra_trace_part parts[] = {RA_TRACE_K, RA_TRACE_V, RA_TRACE_Q};
    struct ra_trace *a = open_trace("synth:case=integer,P=150,N=20,W=3,Dv=16,dtype=f32");
    struct ra_trace *b = open_trace("synth:case=integer,P=150,N=20,W=3,Dv=16,dtype=f32");
    for (int p = 0; p < 3; p++) {
        int32_t n = parts[p] == RA_TRACE_Q ? 23 : 170;
        size_t width = parts[p] == RA_TRACE_V ? 16 : 32;
        float *all = rows_of(a, 1, parts[p], 1, 0, n);
        for (int32_t row = n - 1; row >= 0; row -= 7) {
            float *one = rows_of(b, 1, parts[p], 1, row, 1);
            assert_memory_equal(one, all + (size_t)row * width, width * sizeof *one);
            free(one);
        }
        free(all);
    }
    ra_trace_close(a);
    ra_trace_close(b);
}

/* Seed, layer, head and part each give other rows. */
static void test_what_changes_rows(void **state)
{
    (void)state;
    struct ra_trace *a = open_trace("synth:case=integer,seed=1");
    struct ra_trace *b = open_trace("synth:case=integer,seed=2");
    float *rows[] = {rows_of(a, 0, RA_TRACE_K, 0, 0, 8), rows_of(b, 0, RA_TRACE_K, 0, 0, 8),
                     rows_of(a, 1, RA_TRACE_K, 0, 0, 8), rows_of(a, 0, RA_TRACE_K, 1, 0, 8),
                     rows_of(a, 0, RA_TRACE_V, 0, 0, 8), rows_of(a, 0, RA_TRACE_Q, 0, 0, 8)};
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(rows[i], rows[j], 256 * sizeof(float));
    for (int i = 0; i < 6; i++)
        free(rows[i]);
    ra_trace_close(a);
    ra_trace_close(b);
}

/* --- properties ---------------------------------------------------------------------------------
 */

static const char *const shapes[] = {",P=256,N=20", ",P=37,N=9,D=16,Hq=6,Hkv=2,dtype=bf16",
                                     ",P=1000,N=16,D=64,Hq=1,Hkv=1,dtype=f32,seed=9"};

static void for_each_softmax(const char *which,
                             void (*check)(const struct ra_trace_info *info, int32_t t,
                                           const double *p, int32_t L))
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        char name[128];
        snprintf(name, sizeof name, "synth:case=%s%s", which, shapes[i]);
        struct ra_trace *trace = open_trace(name);
        const struct ra_trace_info *info = ra_trace_info(trace);
        for (int32_t t = -1; t < info->seqs[0].N; t++)
            for (int h = 0; h < info->model.Hq; h++) {
                double *p = softmax(trace, h % 2, h, t);
                check(info, t, p, info->seqs[0].P + t + 1);
                free(p);
            }
        ra_trace_close(trace);
    }
}

static int binary_digits(int32_t n)
{
    int bits = 0;
    for (; n > 0; n /= 2)
        bits++;
    return bits;
}

static void check_needle(const struct ra_trace_info *info, int32_t t, const double *p, int32_t L)
{
    int32_t P = info->seqs[0].P;
    double e = exp(binary_digits(P + info->seqs[0].N) + 5);
    bool looks = t == -1 || t % 4 == 3;
    assert_int_equal(ra_synth_needle_step(t), looks);
    assert_true(fabs(p[P / 3] - (looks ? e / (e + L - 1) : 1.0 / L)) < 1e-12);
    assert_true(!looks || p[P / 3] >= 0.99);
    assert_true(fabs(p[0] - (looks ? 1 / (e + L - 1) : 1.0 / L)) < 1e-12);
}

static void test_needle(void **state)
{
    (void)state;
    for_each_softmax("needle", check_needle);
}

static void check_drift(const struct ra_trace_info *info, int32_t t, const double *p, int32_t L)
{
    int32_t P = info->seqs[0].P, first = ra_synth_drift(P, t), end = P / 4 * 4;
    double mass = 0;
    assert_in_range(first, 0, end - 4);
    assert_int_equal(ra_synth_drift(P, t + 1), first + 4 < end ? first + 4 : 0);
    for (int i = 0; i < 4; i++) {
        mass += p[first + i];
        assert_true(p[first + i] == p[first]);
    }
    assert_true(mass >= 0.99);
    assert_true(L > first + 3);
}

static void test_drift(void **state)
{
    (void)state;
    for_each_softmax("drift", check_drift);
}

static void check_sink(const struct ra_trace_info *info, int32_t t, const double *p, int32_t L)
{
    (void)t;
    int bits = binary_digits(info->seqs[0].P + info->seqs[0].N);
    assert_true(fabs(p[0] - exp(bits) / (exp(bits) + L - 1)) < 1e-12);
    assert_true(p[0] >= 0.5);
}

static void test_sink(void **state)
{
    (void)state;
    for_each_softmax("sink", check_sink);
}

static void check_flat(const struct ra_trace_info *info, int32_t t, const double *p, int32_t L)
{
    (void)info;
    (void)t;
    for (int32_t j = 0; j < L; j++)
        assert_true(p[j] == 1.0 / L);
}

/* Rows must not be flat themselves, or a reader that mixed them up would pass unseen. */
static void test_flat(void **state)
{
    (void)state;
    for_each_softmax("flat", check_flat);
    struct ra_trace *trace = open_trace("synth:case=flat");
    float *k = rows_of(trace, 0, RA_TRACE_K, 0, 0, 2), *q = rows_of(trace, 0, RA_TRACE_Q, 0, 0, 2);
    assert_memory_not_equal(k, k + 32, 32 * sizeof *k);
    assert_memory_not_equal(q, q + 32, 32 * sizeof *q);
    free(k);
    free(q);
    ra_trace_close(trace);
}

/* f32 sums upwards, downwards and the whole-number product agree; ties are common and exact. */
static void test_integer(void **state)
{
    (void)state;
    static const char *const dtypes[] = {"f16", "bf16", "f32"};
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "synth:case=integer,D=64,dtype=%s", dtypes[i]);
        struct ra_trace *trace = open_trace(name);
        float *k = rows_of(trace, 0, RA_TRACE_K, 0, 0, 288);
        float *q = rows_of(trace, 0, RA_TRACE_Q, 0, 40, 1);
        float *v = rows_of(trace, 0, RA_TRACE_V, 0, 0, 288);
        int seen[2 * 8 * 64 + 1] = {0}, ties = 0;
        for (int j = 0; j < 288; j++) {
            float up = 0, down = 0;
            int32_t exact = 0;
            for (int d = 0; d < 64; d++) {
                assert_true(fabsf(k[j * 64 + d]) <= 1 && fabsf(q[d]) <= 8 &&
                            fabsf(v[j * 64 + d]) <= 4);
                assert_true(v[j * 64 + d] == (float)(int)v[j * 64 + d]);
                exact += (int32_t)k[j * 64 + d] * (int32_t)q[d];
                up += 0.125f * k[j * 64 + d] * q[d];
                down += 0.125f * k[j * 64 + 63 - d] * q[63 - d];
            }
            assert_true(up == down && up * 8 == (float)exact);
            ties += seen[exact + 512]++ > 0;
        }
        assert_true(ties > 100 && ties < 280);
        free(k);
        free(q);
        free(v);
        ra_trace_close(trace);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_window_layers),
        cmocka_unit_test(test_refused_spellings),
        cmocka_unit_test(test_random_access),
        cmocka_unit_test(test_what_changes_rows),
        cmocka_unit_test(test_needle),
        cmocka_unit_test(test_drift),
        cmocka_unit_test(test_sink),
        cmocka_unit_test(test_flat),
        cmocka_unit_test(test_integer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
