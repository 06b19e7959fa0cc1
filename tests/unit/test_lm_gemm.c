/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Matrix products against sums in f64, of odd shapes, rows apart by more than their length, and
 * what lies between rows left alone. Plain C must be right to the last rounding; OpenBLAS, where it
 * can be loaded, to what its sums in f32 allow.
 */
#include "tests/support/ra_test.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "sim/base/rng.h"
#include "traces/model/gemm.h"

enum { MOST = 70, ROOM = MOST * (MOST + 9) };

static float a[ROOM], b[ROOM], c[ROOM];

static void draw(uint64_t key, float *values)
{
    for (int i = 0; i < ROOM; i++)
        values[i] = (float)ra_rng_normal(key, (uint64_t)i);
}

struct shape {
    int m, n, k, more[3]; /* floats between the rows of a, b, c */
};

/* `bound`: roundings of size FLT_EPSILON / 2, of the sum of the terms' magnitudes. */
static void check(const struct shape *s, bool transposed, double bound)
{
    struct ra_matrix x = {a, s->k + s->more[0]}, z = {c, s->n + s->more[2]};
    struct ra_matrix y = {b, (transposed ? s->k : s->n) + s->more[1]};
    for (int i = 0; i < ROOM; i++)
        c[i] = i / z.stride < s->m && i % z.stride < s->n ? NAN : -777;
    if (transposed)
        ra_gemm_nt(s->m, s->n, s->k, x, y, z);
    else
        ra_gemm_nn(s->m, s->n, s->k, x, y, z);
    for (int at = 0; at < ROOM; at++) {
        int i = at / z.stride, j = at % z.stride;
        if (i >= s->m || j >= s->n) {
            assert_true(c[at] == -777);
            continue;
        }
        double sum = 0, size = 0;
        for (int d = 0; d < s->k; d++) {
            float other = transposed ? b[j * y.stride + d] : b[d * y.stride + j];
            sum += (double)a[i * x.stride + d] * (double)other;
            size += fabs((double)a[i * x.stride + d] * (double)other);
        }
        double allowed = (double)FLT_EPSILON / 2 * (fabs(sum) + bound * size);
        if (!(fabs((double)c[at] - sum) <= allowed))
            fail_msg("%d x %d x %d%s, [%d][%d]: got %.9g, expected %.17g", s->m, s->n, s->k,
                     transposed ? " transposed" : "", i, j, (double)c[at], sum);
    }
}

static void check_shapes(double bound_per_term)
{
    static const int sizes[] = {1, 2, 3, 5, 8, 15, 16, 17, 33, 64, 67};
    enum { N = sizeof sizes / sizeof sizes[0] };
    draw(1, a);
    draw(2, b);
    for (int i = 0; i < N * N * N; i++) {
        struct shape s = {sizes[i / N / N], sizes[i / N % N], sizes[i % N], {0, 0, 0}};
        for (int more = 0; more < 2; more++) {
            for (int j = 0; j < 3; j++)
                s.more[j] = more ? ra_rng_int(3, (uint64_t)(3 * i + j), 0, 9) : 0;
            check(&s, true, bound_per_term * s.k);
            check(&s, false, bound_per_term * s.k);
        }
    }
}

static void test_plain(void **unused)
{
    (void)unused;
    struct ra_error err;
    ra_assert_ok(ra_gemm_open(RA_GEMM_PLAIN, 0, &err));
    assert_string_equal(ra_gemm_name(), "plain C");
    ra_gemm_threads(2); /* of BLAS only: nothing to do */
    check_shapes(1e-9);
}

static void test_blas(void **unused)
{
    (void)unused;
    struct ra_error err = {.msg = ""};
    enum ra_status st = ra_gemm_open(RA_GEMM_BLAS, 1, &err);
    if (st == RA_ENODEV) {
        assert_non_null(strstr(err.msg, "libopenblas"));
        skip();
    }
    ra_assert_ok(st);
    assert_non_null(strstr(ra_gemm_name(), "OpenBLAS"));
    for (int threads = 1; threads <= 3; threads++) {
        ra_gemm_threads(threads);
        check_shapes(1);
    }
    ra_assert_ok(ra_gemm_open(RA_GEMM_PLAIN, 0, &err));
    assert_string_equal(ra_gemm_name(), "plain C");
    check(&(struct shape){5, 7, 9, {1, 2, 3}}, true, 1e-8);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_blas),
    };
    return cmocka_run_group_tests_name("lm_gemm", tests, NULL, NULL);
}
