/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statistics of a layer against closed forms and a brute-force count, and the promise itself:
 * traces drawn like the embedded sample measure like it.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/ra_test.h"
#include "tests/support/tiny_trace.h"
#include "tests/support/tmp_dir.h"
#include "traces/synth_fit.h"
#include "traces/synth_math.h"

#define SAMPLE "traces/data/smollm2-135m.safetensors"

static struct ra_error err;

static struct ra_trace *open_trace(const char *name)
{
    struct ra_trace *trace;
    ra_assert_ok(ra_trace_open(&trace, name, &err));
    return trace;
}

static struct ra_fit_stats measure(const char *name)
{
    struct ra_trace *trace = open_trace(name);
    struct ra_fit_stats stats;
    ra_assert_ok(ra_fit_measure(trace, 0, 0, &stats, &err));
    ra_trace_close(trace);
    return stats;
}

static void assert_near(double got, double expected, double tolerance)
{
    if (!(fabs(got - expected) <= tolerance))
        fail_msg("got %.15g, expected %.15g", got, expected);
}

/* exp and log against the C library over their whole range: a wrong constant or a short series. */
static void test_math(void **state)
{
    (void)state;
    for (double x = 0; x > -700; x -= 0.37)
        assert_near(ra_synth_exp(x) / exp(x), 1, 1e-14);
    assert_true(ra_synth_exp(-800) == 0 && ra_synth_exp(0) == 1);
    for (double x = 1e-300; x < 1e300; x *= 3.7)
        assert_near(ra_synth_log(x), log(x), 1e-14 * (1 + fabs(log(x))));
    assert_near(ra_synth_logit(0.8), log(4), 1e-14);
    assert_near(ra_synth_logit(0), log(1e-5 / (1 - 1e-5)), 1e-9);
}

/* All logits equal, so every rank is a tie and goes to the lower position: the cache of P/8 = 32 is
 * 0..31; 16 steps later 15 of it, 31 to 17, have been evicted, and 0..16 of the new one were there.
 * P = 256, N = 17 gives the steps 0 and 16, L = 257 and 273. */
static void test_flat_closed_form(void **state)
{
    (void)state;
    struct ra_fit_stats stats = measure("synth:case=flat,P=256,N=17");
    double mean = (1.0 / 257 + 1.0 / 273) / 2;
    assert_near(stats.value[RA_FIT_SINK], 4 * mean, 1e-12);
    assert_near(stats.value[RA_FIT_TOP_64], 4 * mean, 1e-12);
    assert_near(stats.value[RA_FIT_TOP_16], 16 * mean, 1e-12);
    assert_near(stats.value[RA_FIT_TOP_8], 32 * mean, 1e-12);
    assert_near(stats.value[RA_FIT_TOP_4], 64 * mean, 1e-12);
    assert_near(stats.value[RA_FIT_RECENT], 4 * mean, 1e-12);
    assert_near(stats.value[RA_FIT_RUN], 32, 0);
    assert_near(stats.value[RA_FIT_OVERLAP], 17.0 / 32, 1e-15);
    assert_true(isnan(stats.value[RA_FIT_COSINE_64]));
}

/* Short runs and shorter prompts than any budget. */
static void test_edges(void **state)
{
    (void)state;
    struct ra_fit_stats stats = measure("synth:case=flat,P=1,N=1");
    assert_near(stats.value[RA_FIT_SINK], 1, 1e-15);
    assert_near(stats.value[RA_FIT_TOP_4], 0.5, 1e-15);
    assert_near(stats.value[RA_FIT_RUN], 1, 0);
    assert_true(isnan(stats.value[RA_FIT_OVERLAP]) && isnan(stats.value[RA_FIT_COSINE_1]));
    /* K = 1 and 15 tokens appended: all that was chosen is gone, the cache holds the newest. */
    assert_near(measure("synth:case=flat,P=8,N=17").value[RA_FIT_OVERLAP], 0, 0);
    struct ra_trace *trace = open_trace("synth:case=flat,window=4");
    ra_assert_fails(ra_fit_measure(trace, 0, 1, &stats, &err), RA_EUSAGE, "window of 4");
    ra_trace_close(trace);
}

/* --- brute force --------------------------------------------------------------------------------
 */

enum { P = 96, N = 40, HQ = 4, D = 32, MAX_L = P + N };

static void stored_row(const struct ra_trace *trace, enum ra_trace_part part, int head, int32_t row,
                       float *out)
{
    ra_assert_ok(ra_trace_read(trace, &(struct ra_trace_slice){0, 0, part, head, row, 1}, out,
                               &err)); /* dtype=f32 */
}

static void probabilities(const struct ra_trace *trace, int head, int t, double *p)
{
    float q[D], k[D];
    double sum = 0;
    int W = ra_trace_info(trace)->seqs[0].W;
    stored_row(trace, RA_TRACE_Q, head, W + t, q);
    for (int j = 0; j <= P + t; j++) {
        double logit = 0;
        stored_row(trace, RA_TRACE_K, head / 2, j, k);
        for (int d = 0; d < D; d++)
            logit += (double)q[d] * (double)k[d];
        p[j] = exp(logit / 8);
        sum += p[j];
    }
    for (int j = 0; j <= P + t; j++)
        p[j] /= sum;
}

/* rank[j]: how many positions stand before j by score, ties by position. */
static void ranks(const double *score, int L, int *rank)
{
    for (int j = 0; j < L; j++) {
        rank[j] = 0;
        for (int i = 0; i < L; i++)
            rank[j] += score[i] > score[j] || (score[i] == score[j] && i < j);
    }
}

struct counted {
    double sink, recent, top4, run, overlap;
};

/* Cache of P/8 = 12 entries by pooled scores: place[j] is 0 for the best, -1 if not chosen. */
static void choose(const double *best, int L, int *place)
{
    double pooled[MAX_L];
    for (int j = 0; j < L; j++) {
        pooled[j] = 0;
        for (int i = j - 3; i <= j + 3; i++)
            if (i >= 0 && i < L && best[i] > pooled[j])
                pooled[j] = best[i];
    }
    ranks(pooled, L, place);
    for (int j = 0; j < L; j++)
        place[j] = place[j] < P / 8 ? place[j] : -1;
}

static struct counted count_head_pair(const struct ra_trace *trace, int kv_head, int t, int *place)
{
    static double p[2][MAX_L], best[MAX_L];
    int L = P + t + 1, rank[MAX_L], runs = 0;
    struct counted c = {0};
    for (int g = 0; g < 2; g++)
        probabilities(trace, kv_head * 2 + g, t, p[g]);
    for (int j = 0; j < L; j++)
        best[j] = p[0][j] > p[1][j] ? p[0][j] : p[1][j];
    ranks(best, L, rank);
    choose(best, L, place);
    for (int j = 0; j < L; j++) {
        double both = (p[0][j] + p[1][j]) / 2;
        c.sink += j < 4 ? both : 0;
        c.recent += j == L - 1 ? both : 0; /* P/64 = 1 */
        c.top4 += rank[j] < P / 4 ? both : 0;
        runs += place[j] >= 0 && (j == 0 || place[j - 1] < 0);
    }
    c.run = (double)(P / 8) / runs;
    return c;
}

/* A cache of 12 as the schedule keeps it: 15 times drop the worst, then the oldest token. */
static double count_overlap(const int *older, const int *place, int t0)
{
    int queue[P / 8 + 15], n = P / 8, shared = 0;
    for (int j = 0; j <= P + t0; j++)
        if (older[j] >= 0)
            queue[P / 8 - 1 - older[j]] = j;
    for (int i = 1; i <= 15; i++)
        queue[n++] = P + t0 + i;
    for (int i = 15; i < n; i++)
        shared += place[queue[i]] >= 0;
    return (double)shared / (P / 8);
}

/* Against a count that ranks by comparing all pairs. N = 40: pairs start at 0, 3, 6, .. 23. */
static void test_brute_force(void **state)
{
    (void)state;
    const char *name = "synth:case=integer,P=96,N=40,Hq=4,Hkv=2,D=32,dtype=f32";
    struct ra_fit_stats stats = measure(name);
    struct ra_trace *trace = open_trace(name);
    struct counted sum = {0};
    for (int i = 0; i < 8; i++)
        for (int h = 0; h < 2; h++) {
            int older[MAX_L], place[MAX_L], t0 = 23 * i / 7;
            struct counted a = count_head_pair(trace, h, t0, older);
            struct counted b = count_head_pair(trace, h, t0 + 16, place);
            sum.sink += (a.sink + b.sink) / 32;
            sum.recent += (a.recent + b.recent) / 32;
            sum.top4 += (a.top4 + b.top4) / 32;
            sum.run += (a.run + b.run) / 32;
            sum.overlap += count_overlap(older, place, t0) / 16;
        }
    ra_trace_close(trace);
    assert_near(stats.value[RA_FIT_SINK], sum.sink, 1e-12);
    assert_near(stats.value[RA_FIT_RECENT], sum.recent, 1e-12);
    assert_near(stats.value[RA_FIT_TOP_4], sum.top4, 1e-12);
    assert_near(stats.value[RA_FIT_RUN], sum.run, 1e-12);
    assert_near(stats.value[RA_FIT_OVERLAP], sum.overlap, 1e-12);
}

/* Mean over heads first, then the cosine; pairs l steps apart. */
static void test_cosines(void **state)
{
    (void)state;
    const char *name = "synth:case=integer,P=96,N=40,Hq=4,Hkv=2,D=32,dtype=f32";
    static const int lags[] = {1, 4, 16};
    static double mean[N][D];
    struct ra_fit_stats stats = measure(name);
    struct ra_trace *trace = open_trace(name);
    memset(mean, 0, sizeof mean);
    for (int t = 0; t < N; t++)
        for (int h = 0; h < HQ; h++) {
            float q[D];
            stored_row(trace, RA_TRACE_Q, h, ra_trace_info(trace)->seqs[0].W + t, q);
            for (int d = 0; d < D; d++)
                mean[t][d] += (double)q[d] / HQ;
        }
    for (int l = 0; l < 3; l++) {
        double sum = 0;
        for (int t = 0; t + lags[l] < N; t++) {
            double ab = 0, aa = 0, bb = 0;
            for (int d = 0; d < D; d++) {
                ab += mean[t][d] * mean[t + lags[l]][d];
                aa += mean[t][d] * mean[t][d];
                bb += mean[t + lags[l]][d] * mean[t + lags[l]][d];
            }
            sum += ab / sqrt(aa) / sqrt(bb);
        }
        assert_near(stats.value[RA_FIT_COSINE_1 + l], sum / (N - lags[l]), 1e-12);
    }
    ra_trace_close(trace);
}

/* --- traces like a recorded one -----------------------------------------------------------------
 */

static void assert_reproduced(const char *name, int n_rows)
{
    struct ra_fit_report report;
    ra_assert_ok(ra_fit_report_open(&report, name, NULL, NULL, &err));
    assert_int_equal(report.n_rows, n_rows);
    for (int i = 0; i < n_rows; i++)
        for (int s = 0; s < RA_FIT_N; s++) {
            const struct ra_fit_definition *definition = &ra_fit_definitions[s];
            double target = report.rows[i].target.value[s];
            double got = report.rows[i].obtained.value[s];
            double allowed = definition->is_relative ? 0.05 * target : 0.05;
            if (definition->is_promised && !(fabs(got - target) <= allowed))
                fail_msg("layer %d: %s: target %.4f, obtained %.4f", report.rows[i].layer_id,
                         definition->name, target, got);
        }
    ra_fit_report_close(&report);
}

static void test_sample_is_reproduced(void **state)
{
    (void)state;
    assert_reproduced(SAMPLE, 4);
}

/* Another length and seed, and layers that reuse a recorded one. */
static void test_other_length(void **state)
{
    (void)state;
    assert_reproduced("synth:like=" SAMPLE ",L=1024,layers=5,seed=3", 5);
}

/* More heads, larger groups and wider rows than the recording has, and fewer and narrower ones. */
static void test_other_shape(void **state)
{
    (void)state;
    assert_reproduced("synth:like=" SAMPLE ",L=1024,N=80,layers=2,Hq=32,Hkv=8,D=128,dtype=bf16", 2);
    assert_reproduced("synth:like=" SAMPLE ",Hq=4,Hkv=2,D=32", 4);
}

static void test_like_says_what_it_is(void **state)
{
    (void)state;
    struct ra_trace *trace = open_trace("synth:like=" SAMPLE ",layers=6,L=300");
    const struct ra_trace_info *info = ra_trace_info(trace);
    assert_string_equal(info->synthetic,
                        "synthetic (fitted to HuggingFaceTB/SmolLM2-135M-Instruct, "
                        "smollm2-135m.safetensors)");
    assert_string_equal(ra_trace_metadata(trace, "synth.spelling"),
                        "synth:like=" SAMPLE ",layers=6,L=300,N=192,seed=1");
    assert_int_equal(info->model.Hq, 9);
    assert_int_equal(info->seqs[0].P, 300);
    assert_int_equal(info->seqs[0].W, 64);
    ra_trace_close(trace);
    ra_assert_fails(
        ra_fit_report_open(&(struct ra_fit_report){0}, "synth:case=flat", NULL, NULL, &err),
        RA_EUSAGE, "fitted to nothing");
    ra_assert_fails(ra_fit_report_open(&(struct ra_fit_report){0}, "a,b", NULL, NULL, &err),
                    RA_EUSAGE, "without commas");
}

/* A recording of the smallest shape there is room for, too short for most statistics. */
static void test_like_a_tiny_trace(void **state)
{
    (void)state;
    struct tiny_trace tiny = tiny_trace_default();
    const char *folder = tmp_dir_make(), *path = tmp_path(folder, "tiny.safetensors");
    char name[512];
    unsigned char rows[8 * 4];
    tiny_trace_write(path, &tiny);
    snprintf(name, sizeof name, "synth:like=%s,layers=3", path);
    struct ra_trace *trace = open_trace(name);
    for (int layer = 0; layer < 3; layer++) {
        ra_assert_ok(ra_trace_read(trace, &(struct ra_trace_slice){0, layer, RA_TRACE_Q, 3, 6, 1},
                                   rows, &err));
        ra_assert_ok(ra_trace_read(trace, &(struct ra_trace_slice){0, layer, RA_TRACE_K, 1, 9, 1},
                                   rows, &err));
        ra_assert_ok(ra_trace_read(trace, &(struct ra_trace_slice){0, layer, RA_TRACE_V, 1, 0, 1},
                                   rows, &err));
    }
    ra_trace_close(trace);
    tmp_dir_remove(folder);
}

/* The bytes do not depend on which layer is fitted first, nor on how rows are cut. */
static void test_order_does_not_matter(void **state)
{
    (void)state;
    static unsigned char a[2][96 * 64 * 2], b[2][96 * 64 * 2], c[96 * 64 * 2];
    const char *name = "synth:like=" SAMPLE ",layers=5,L=256,N=24";
    struct ra_trace *trace = open_trace(name);
    ra_assert_ok(
        ra_trace_read(trace, &(struct ra_trace_slice){0, 0, RA_TRACE_K, 1, 200, 70}, a[0], &err));
    ra_assert_ok(
        ra_trace_read(trace, &(struct ra_trace_slice){0, 4, RA_TRACE_Q, 8, 0, 88}, a[1], &err));
    ra_trace_close(trace);
    trace = open_trace(name);
    for (int32_t row = 87; row >= 0; row--)
        ra_assert_ok(ra_trace_read(trace, &(struct ra_trace_slice){0, 4, RA_TRACE_Q, 8, row, 1},
                                   b[1] + row * 128, &err));
    ra_assert_ok(
        ra_trace_read(trace, &(struct ra_trace_slice){0, 0, RA_TRACE_K, 1, 200, 70}, b[0], &err));
    ra_trace_close(trace);
    assert_memory_equal(a, b, sizeof a);
    trace = open_trace("synth:like=" SAMPLE ",layers=5,L=256,N=24,seed=2");
    ra_assert_ok(
        ra_trace_read(trace, &(struct ra_trace_slice){0, 0, RA_TRACE_K, 1, 200, 70}, c, &err));
    assert_memory_not_equal(a[0], c, 70 * 128);
    ra_trace_close(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_math),
        cmocka_unit_test(test_flat_closed_form),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_brute_force),
        cmocka_unit_test(test_cosines),
        cmocka_unit_test(test_sample_is_reproduced),
        cmocka_unit_test(test_other_length),
        cmocka_unit_test(test_other_shape),
        cmocka_unit_test(test_like_says_what_it_is),
        cmocka_unit_test(test_like_a_tiny_trace),
        cmocka_unit_test(test_order_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
