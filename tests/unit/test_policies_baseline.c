/* SPDX-License-Identifier: Apache-2.0 */
/* `full`, `streaming` and `oracle` against closed forms and an exhaustive search. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/drive.h"
#include "tests/support/ra_test.h"

struct streaming_case {
    int32_t K, sinks, stride;
};

/* A = the sinks, the K - sinks newest before self, and self; at full steps everything. */
static void check_streaming(struct drive *d, void *context)
{
    const struct streaming_case *c = context;
    int32_t self = d->step.self, n = 0;
    bool is_full = c->stride && (d->step.t + 1 + c->stride * d->phase / d->of) % c->stride == 0;
    assert_int_equal(d->plan.is_full, is_full);
    assert_int_equal(d->plan.scores, RA_SCORES_NONE);
    for (int32_t pos = 0; pos <= self; pos++) {
        if (!is_full && pos >= c->sinks && pos < self - (c->K - c->sinks))
            continue;
        for (int h = 0; h < d->n_sets; h++)
            assert_int_equal(d->attended[h][n], pos);
        n++;
    }
    assert_int_equal(d->n_attended[0], n);
    assert_int_equal(d->n_attended[1], n);
    struct ra_retained view; /* after the step: the same of the next one, sinks pinned */
    ra_policy_view(d->policy, d->step.layer, 0, &view);
    assert_int_equal(view.n_pinned, c->sinks);
    for (int32_t i = 0; i < view.evict.n; i++) {
        int32_t pos = view.evict.pos[i], recent = view.evict.n - c->sinks;
        assert_int_equal(pos, i < recent ? self - recent + 1 + i : i - recent);
    }
    assert_int_equal(view.evict.n, self + 1 < c->K ? self + 1 : c->K);
}

static void test_streaming(void **unused)
{
    (void)unused;
    static struct drive d;
    struct ra_error err;
    for (uint64_t i = 0; i < 500; i++) {
        uint64_t state = i;
        struct streaming_case c;
        char text[80];
        drive_init(&d, i);
        d.P = 1 + (int32_t)drive_random(&state, 20);
        d.N = 1 + (int32_t)drive_random(&state, 30);
        c.sinks = (int32_t)drive_random(&state, (uint32_t)d.P + 1);
        c.K = c.sinks + 1 + (int32_t)drive_random(&state, 20);
        c.stride = (int32_t)drive_random(&state, 9);
        d.of = 1 + (int)drive_random(&state, 9);
        d.phase = (int)drive_random(&state, (uint32_t)d.of);
        int n = snprintf(text, sizeof text, "streaming:k=%d,sinks=%d", c.K, c.sinks);
        if (c.stride)
            snprintf(text + n, sizeof text - (size_t)n, ",stride=%d", c.stride);
        ra_assert_ok(drive_open(&d, text, &err));
        drive_all(&d, check_streaming, &c);
        drive_close(&d);
    }
    drive_init(&d, 0);
    d.P = 3;
    ra_assert_fails(drive_open(&d, "streaming:k=9", &err), RA_EUSAGE,
                    "streaming: sinks: expected at most the prompt's 3, got 4");
    drive_close(&d);
    d.P = 40;
    ra_assert_fails(drive_open(&d, "streaming:k=1/10", &err), RA_EUSAGE,
                    "streaming: k: expected more than sinks=4, got 1/10 of 40");
    drive_close(&d);
}

static void check_full(struct drive *d, void *context)
{
    (void)context;
    struct ra_retained view;
    assert_true(d->plan.is_full && d->plan.attend == RA_ATTEND_ALL);
    assert_true(d->plan.scores == RA_SCORES_NONE && !d->plan.rebuilds);
    assert_int_equal(d->n_attended[0], d->step.self + 1);
    assert_false(ra_policy_view(d->policy, d->step.layer, 0, &view));
    assert_int_equal(view.set.n, 0);
}

static void test_full(void **unused)
{
    (void)unused;
    static struct drive d;
    struct ra_error err;
    drive_init(&d, 1);
    ra_assert_ok(drive_open(&d, "full", &err));
    drive_all(&d, check_full, NULL);
    drive_close(&d);
}

/* Rank of j among positions before self, by the sum over the group. */
static int rank_of(const double *prob, int G, int32_t L, int32_t j)
{
    int rank = 0;
    double sum[2] = {0, 0};
    for (int g = 0; g < G; g++)
        sum[0] += prob[g * L + j];
    for (int32_t i = 0; i < L - 1; i++) {
        sum[1] = 0;
        for (int g = 0; g < G; g++)
            sum[1] += prob[g * L + i];
        rank += sum[1] > sum[0] || (sum[1] == sum[0] && i < j);
    }
    return rank;
}

static void check_oracle(struct drive *d, void *context)
{
    int32_t K = *(int32_t *)context, L = d->step.self + 1;
    int G = d->model.G;
    assert_true(d->plan.scores == RA_SCORES_BEFORE && d->plan.scores_are_free);
    assert_true(!d->plan.is_full && d->plan.attend == RA_ATTEND_SETS && !d->plan.per_query_head);
    const double *prob = drive_scores(d, d->step.layer, d->step.t);
    for (int h = 0; h < d->model.Hkv; h++) {
        int32_t n = 0;
        for (int32_t j = 0; j < L; j++)
            if (j == L - 1 || rank_of(prob + h * G * L, G, L, j) < K)
                assert_int_equal(d->attended[h][n++], j);
        assert_int_equal(d->n_attended[h], n);
    }
}

static void test_oracle(void **unused)
{
    (void)unused;
    static struct drive d;
    struct ra_error err;
    for (uint64_t i = 0; i < 200; i++) {
        uint64_t state = i;
        char text[64];
        drive_init(&d, i);
        d.P = 1 + (int32_t)drive_random(&state, 12);
        d.levels = i % 4 ? 1 + (int)drive_random(&state, 6) : 0;
        d.model.G = 1 + (int)drive_random(&state, 3);
        d.model.Hq = 2 * d.model.G;
        int32_t K = 1 + (int32_t)drive_random(&state, 40);
        snprintf(text, sizeof text, "oracle:k=%d", K);
        ra_assert_ok(drive_open(&d, text, &err));
        drive_all(&d, check_oracle, &K);
        drive_close(&d);
    }
}

/* No set of the same size holds more mass, group mean: oracle bounds `recycled` at every step. */
static double mass(const struct drive *d, const double *prob, int h)
{
    double sum = 0;
    int32_t L = d->step.self + 1;
    for (int g = 0; g < d->model.G; g++)
        for (int32_t i = 0; i < d->n_attended[h]; i++)
            sum += prob[(h * d->model.G + g) * L + d->attended[h][i]];
    return sum;
}

static void test_bound(void **unused)
{
    (void)unused;
    static struct drive best, other;
    static const char *const spellings[] = {"recycled:k=7,stride=3", "streaming:k=7",
                                            "recycled:k=7,stride=2,attend=after,pool=1,agg=mean"};
    struct ra_error err;
    for (int i = 0; i < 3; i++) {
        drive_init(&best, 9);
        best.levels = 0;
        other = best;
        ra_assert_ok(drive_open(&best, "oracle:k=7", &err));
        ra_assert_ok(drive_open(&other, spellings[i], &err));
        for (int32_t t = -1; t < best.N; t++) {
            drive_step(&best, 0, t);
            drive_step(&other, 0, t);
            const double *prob = drive_scores(&best, 0, t);
            for (int h = 0; t >= 0 && h < 2; h++)
                if (other.plan.attend != RA_ATTEND_ALL)
                    assert_true(mass(&best, prob, h) >= mass(&other, prob, h) - 1e-12);
        }
        drive_close(&best);
        drive_close(&other);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_streaming),
        cmocka_unit_test(test_oracle),
        cmocka_unit_test(test_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
