/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces fitted to a recording of another shape: how statistics are spread over other heads, what
 * such a trace says of itself, that it is the same bytes every time. That it measures like the
 * recording is in test_synth_fit.c.
 */
#include <math.h>
#include <string.h>

#include "tests/support/ra_test.h"
#include "traces/synth_measure.h"

#define SAMPLE "traces/data/smollm2-135m.safetensors"

static struct ra_error err;

static struct ra_trace *open_trace(const char *name)
{
    struct ra_trace *trace;
    ra_assert_ok(ra_trace_open(&trace, name, &err));
    return trace;
}

static void assert_near(double got, double expected, double tolerance)
{
    if (!(fabs(got - expected) <= tolerance))
        fail_msg("got %.15g, expected %.15g", got, expected);
}

/* Three KV heads with groups of two onto four with groups of three, with weights by hand. */
static void test_reshape(void **state)
{
    (void)state;
    const struct ra_model three = {.Hq = 6, .Hkv = 3, .G = 2}, four = {.Hq = 12, .Hkv = 4, .G = 3};
    /* A head of four covers 3/4 of one of three, a member of three 2/3 of one of two. */
    static const double weights[4][3] = {
        {1, 0, 0}, {1. / 3, 2. / 3, 0}, {0, 2. / 3, 1. / 3}, {0, 0, 1}};
    static const double members[3][2] = {{1, 0}, {0.5, 0.5}, {0, 1}};
    struct ra_measure from = {0}, to = {0}, same = {0};
    struct ra_fit_stats before, after;
    ra_assert_ok(ra_measure_open(&from, &three, &err));
    ra_assert_ok(ra_measure_open(&same, &three, &err));
    ra_assert_ok(ra_measure_open(&to, &four, &err));
    for (int i = 0; i < (2 + RA_FIT_BUDGETS) * 6 + 2 * 3; i++)
        from.block[i] = 1. / (3 + i * i % 17);
    from.cosine[2] = 0.7;
    ra_measure_reshape(&from, &three, &same, &three);
    assert_memory_equal(same.block, from.block,
                        ((2 + RA_FIT_BUDGETS) * 6 + 2 * 3) * sizeof(double));
    ra_measure_reshape(&from, &three, &to, &four);
    for (int h = 0; h < 4; h++) {
        double run = 0, overlap = 0;
        for (int i = 0; i < 3; i++) {
            run += weights[h][i] * from.run[i];
            overlap += weights[h][i] * from.overlap[i];
        }
        assert_near(to.run[h], run, 1e-15);
        assert_near(to.overlap[h], overlap, 1e-15);
        for (int g = 0; g < 3; g++) {
            double sink = 0, top = 0;
            for (int i = 0; i < 6; i++) {
                double weight = weights[h][i / 2] * members[g][i % 2];
                sink += weight * from.sink[i];
                top += weight * from.top[i * RA_FIT_BUDGETS + 3];
            }
            assert_near(to.sink[3 * h + g], sink, 1e-15);
            assert_near(to.top[(3 * h + g) * RA_FIT_BUDGETS + 3], top, 1e-15);
        }
    }
    ra_measure_stats(&from, &three, &before);
    ra_measure_stats(&to, &four, &after);
    for (int s = 0; s < RA_FIT_N; s++)
        assert_near(after.value[s], before.value[s], 1e-14);
    ra_measure_close(&from);
    ra_measure_close(&same);
    ra_measure_close(&to);
}

static void test_shape_is_said(void **state)
{
    (void)state;
    struct ra_trace *trace =
        open_trace("synth:like=" SAMPLE ",dtype=bf16,Hq=32,L=64,Hkv=8,N=9,D=256");
    const struct ra_trace_info *info = ra_trace_info(trace);
    assert_string_equal(info->synthetic,
                        "synthetic (fitted to HuggingFaceTB/SmolLM2-135M-Instruct, "
                        "smollm2-135m.safetensors, drawn with Hq=32, Hkv=8, D=256)");
    assert_string_equal(ra_trace_metadata(trace, "synth.spelling"),
                        "synth:like=" SAMPLE
                        ",layers=4,L=64,N=9,seed=1,Hq=32,Hkv=8,D=256,dtype=bf16");
    assert_int_equal(info->model.Hq, 32);
    assert_int_equal(info->model.Hkv, 8);
    assert_int_equal(info->model.G, 4);
    assert_int_equal(info->model.D, 256);
    assert_int_equal(info->model.Dv, 256);
    assert_int_equal(info->model.dtype, RA_BF16);
    assert_near(info->model.attn_scale, 1. / 16, 0); /* 1/8 at D = 64 */
    ra_trace_close(trace);
}

/* The recording's own shape needs no words. */
static void test_own_shape_is_not_said(void **state)
{
    (void)state;
    struct ra_trace *trace = open_trace("synth:like=" SAMPLE ",Hq=9,Hkv=3,D=64,dtype=f16,L=300");
    const struct ra_trace_info *info = ra_trace_info(trace);
    assert_string_equal(ra_trace_metadata(trace, "synth.spelling"),
                        "synth:like=" SAMPLE ",layers=4,L=300,N=192,seed=1");
    assert_null(strstr(info->synthetic, "drawn with"));
    assert_near(info->model.attn_scale, 0.125, 0);
    ra_trace_close(trace);
}

/* Mean length of a head's keys; dtype=f32. */
static double mean_length(const char *name, int width)
{
    struct ra_trace *trace = open_trace(name);
    float row[256];
    double sum = 0;
    for (int32_t i = 0; i < 64; i++) {
        double square = 0;
        ra_assert_ok(ra_trace_read(trace, &(struct ra_trace_slice){0, 1, RA_TRACE_K, 0, 150 + i, 1},
                                   row, &err));
        for (int d = 0; d < width; d++)
            square += (double)row[d] * (double)row[d];
        sum += sqrt(square) / 64;
    }
    ra_trace_close(trace);
    return sum;
}

/* Four times as wide: twice as long. */
static void test_width_keeps_the_size_of_components(void **state)
{
    (void)state;
    double narrow = mean_length("synth:like=" SAMPLE ",L=256,N=4,layers=2,dtype=f32", 64);
    double wide = mean_length("synth:like=" SAMPLE ",L=256,N=4,layers=2,D=256,dtype=f32", 256);
    assert_near(wide / narrow, 2, 0.2);
}

/* The bytes do not depend on which layer is fitted first, on how rows are cut, nor on the order of
 * words. */
static void test_order_does_not_matter(void **state)
{
    (void)state;
    enum { ROWS = 40, ROW = 128 * 2 };
    static unsigned char a[3][ROWS * ROW], b[3][ROWS * ROW];
    static const struct ra_trace_slice slices[] = {{0, 4, RA_TRACE_K, 3, 200, ROWS},
                                                   {0, 0, RA_TRACE_Q, 15, 0, ROWS},
                                                   {0, 1, RA_TRACE_V, 2, 0, ROWS}};
    struct ra_trace *trace =
        open_trace("synth:like=" SAMPLE ",layers=5,L=256,N=24,Hq=16,Hkv=4,D=128,dtype=bf16");
    for (int i = 0; i < 3; i++)
        ra_assert_ok(ra_trace_read(trace, &slices[i], a[i], &err));
    ra_trace_close(trace);
    trace = open_trace("synth:like=" SAMPLE ",D=128,dtype=bf16,Hkv=4,Hq=16,N=24,L=256,layers=5");
    for (int i = 2; i >= 0; i--)
        for (int32_t row = ROWS - 1; row >= 0; row--) {
            struct ra_trace_slice one = slices[i];
            one.first += row;
            one.n = 1;
            ra_assert_ok(ra_trace_read(trace, &one, b[i] + row * ROW, &err));
        }
    ra_trace_close(trace);
    assert_memory_equal(a, b, sizeof a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reshape),
        cmocka_unit_test(test_shape_is_said),
        cmocka_unit_test(test_own_shape_is_not_said),
        cmocka_unit_test(test_width_keeps_the_size_of_components),
        cmocka_unit_test(test_order_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
