/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each instruction set of the cpu backend against sums in f64 written here, and against each other.
 * Would catch a lane that is lost or counted twice, a tile whose tail is wrong, a conversion that
 * drops subnormals or signs, kept logits of less than double precision, and selections that depend
 * on the instruction set.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/simd.h"
#include "sim/base/half.h"
#include "tests/support/backend_case.h"
#include "tests/support/ra_test.h"

enum { HEADS = RA_CPU_MAX_HEADS, DIM = RA_CPU_MAX_DIM };

/* Rows of random finite bits, so that subnormals and both signs occur; and what comes of them. */
struct block {
    uint16_t half[RA_CPU_BLOCK][DIM];
    float wide[RA_CPU_BLOCK][DIM];
    double q[HEADS][DIM];
    float q32[HEADS][DIM];
    float weight[HEADS][RA_CPU_BLOCK];
    struct ra_cpu_rows rows;
    double dot[HEADS][RA_CPU_BLOCK], dot_size[HEADS][RA_CPU_BLOCK]; /* size: of absolute values */
    double sum[HEADS][DIM], sum_size[HEADS][DIM];
};

static void make_rows(struct block *b, uint64_t *seed)
{
    enum ra_dtype dtype = b->rows.dtype;
    for (int i = 0; i < b->rows.n; i++) {
        for (int d = 0; d < b->rows.dim; d++) {
            float x = ldexpf(ra_case_normal(seed), -(int)(ra_case_random(seed) % 20));
            b->half[i][d] = dtype == RA_BF16 ? ra_f32_to_bf16(x) : ra_f32_to_f16(x);
            b->wide[i][d] = dtype == RA_F32    ? x
                            : dtype == RA_BF16 ? ra_bf16_to_f32(b->half[i][d])
                                               : ra_f16_to_f32(b->half[i][d]);
        }
        b->rows.ahead[i] = b->rows.row[i] =
            dtype == RA_F32 ? (const char *)b->wide[i] : (const char *)b->half[i];
    }
}

static void make_block(struct block *b, enum ra_dtype dtype, int dim, int n, uint64_t *seed)
{
    memset(b, 0, sizeof *b);
    b->rows = (struct ra_cpu_rows){.dtype = dtype, .dim = dim, .n = n};
    make_rows(b, seed);
    for (int h = 0; h < HEADS; h++) {
        for (int d = 0; d < dim; d++) {
            b->q32[h][d] = ra_case_normal(seed);
            b->q[h][d] = (double)b->q32[h][d];
        }
        for (int i = 0; i < n; i++)
            b->weight[h][i] = fabsf(ra_case_normal(seed));
        for (int i = 0; i < n; i++)
            for (int d = 0; d < dim; d++) {
                double key = b->q[h][d] * (double)b->wide[i][d];
                double value = (double)b->weight[h][i] * (double)b->wide[i][d];
                b->dot[h][i] += key;
                b->dot_size[h][i] += fabs(key);
                b->sum[h][d] += value;
                b->sum_size[h][d] += fabs(value);
            }
    }
}

/* In double, and in f32, whose sums run over at most a quarter of the dimensions a lane. */
static void check_dots(const struct ra_cpu_kernels *kernels, const struct block *b, int n_heads)
{
    double logit[HEADS][RA_CPU_BLOCK], rough[HEADS][RA_CPU_BLOCK];
    kernels->dots(&b->rows, b->q[0], n_heads, 0.125, logit[0], RA_CPU_BLOCK);
    kernels->dots_f32(&b->rows, b->q32[0], n_heads, 0.125, rough[0], RA_CPU_BLOCK);
    for (int h = 0; h < n_heads; h++)
        for (int i = 0; i < b->rows.n; i++) {
            double exact = 0.125 * b->dot[h][i], size = b->dot_size[h][i];
            assert_true(fabs(logit[h][i] - exact) <= 1e-14 * size);
            assert_true(fabs(rough[h][i] - exact) <= (b->rows.dim / 4 + 4) * 0x1p-24 * size);
        }
}

/* Columns past dim must stay as they were. */
static void check_add(const struct ra_cpu_kernels *kernels, const struct block *b, int n_heads)
{
    double out[HEADS][DIM + 16];
    for (int h = 0; h < HEADS; h++)
        for (int d = 0; d < DIM + 16; d++)
            out[h][d] = 7;
    kernels->add(&b->rows, b->weight[0], RA_CPU_BLOCK, n_heads, out[0], DIM + 16);
    for (int h = 0; h < HEADS; h++)
        for (int d = 0; d < DIM + 16; d++) {
            bool is_added = h < n_heads && d < b->rows.dim;
            double sum = is_added ? b->sum[h][d] : 0, size = is_added ? b->sum_size[h][d] : 0;
            assert_true(fabs(out[h][d] - (7 + sum)) <= 1e-14 + 32 * 0x1p-24 * size);
        }
}

/* Every dimension and number of heads; every number of rows comes with each number of heads. */
static void check_blocks(const struct ra_cpu_kernels *kernels)
{
    static struct block b;
    uint64_t seed = 5;
    for (int dtype = RA_F16; dtype <= RA_F32; dtype++)
        for (int dim = 8; dim <= DIM; dim += 8) {
            make_block(&b, (enum ra_dtype)dtype, dim, 4 * (1 + dim / 8 % 8), &seed);
            for (int n_heads = 1; n_heads <= HEADS; n_heads++) {
                check_dots(kernels, &b, n_heads);
                check_add(kernels, &b, n_heads);
            }
        }
}

/* Against exp of the C library; -inf, far, and all -inf besides. */
static void check_weigh(const struct ra_cpu_kernels *kernels)
{
    uint64_t seed = 9;
    double logit[512], sum, expected = 0;
    float weight[512];
    for (int i = 0; i < 512; i++)
        logit[i] = 1e4 - fabs((double)ra_case_normal(&seed)) * 30;
    logit[17] = -INFINITY;
    logit[18] = -1e4;
    logit[300] = 1e4 + 1;
    double largest = kernels->weigh(logit, 512, weight, &sum);
    assert_true(largest == 1e4 + 1);
    for (int i = 0; i < 512; i++) {
        double exact = exp(logit[i] - largest);
        assert_true(fabs((double)weight[i] - exact) <= 3e-7 * exact + 1e-29);
        expected += (double)weight[i];
    }
    assert_true(fabs(sum - expected) <= 1e-14 * expected);
    assert_true(weight[17] == 0 && weight[18] == 0 && weight[300] == 1);
    for (int i = 0; i < 16; i++)
        logit[i] = -INFINITY;
    largest = kernels->weigh(logit, 16, weight, &sum);
    assert_true(isinf(largest) && largest < 0 && sum == 0);
}

/* Small integers: logits are exact, and most of them tie with others. */
static void make_integer(struct ra_case *c, uint64_t seed)
{
    size_t n_keys = (size_t)(c->model.Hkv * c->config.max_rows * c->model.D);
    for (size_t i = 0; i < n_keys; i++)
        c->kf[i] = (float)(ra_case_below(&seed, 5) - 2);
    ra_narrow(c->model.dtype, c->kf, n_keys, c->k);
    for (int i = 0; i < c->model.Hq * c->model.D; i++)
        c->q[i] = (float)(ra_case_below(&seed, 5) - 2);
}

enum { HKV = 2, K = 300, N_CASES = 18 };

/* What a set of instructions chooses of one cache, of random numbers or, from case 9, integers. */
static void choose(const char *name, int i, int32_t order[HKV][K])
{
    static const int dims[] = {64, 72, 128};
    struct ra_case c;
    struct ra_error err = {0};
    struct ra_positions chosen[HKV];
    struct ra_select_rule rule = {.K = K, .pool = 1 + i % 2 * 4};
    setenv("RATTN_SIMD", name, 1);
    ra_case_init(&c, (enum ra_dtype)(i % 3), HKV, 1 + i % 9 / 2, dims[i / 3 % 3], 8, 1100, 77);
    if (i >= 9)
        make_integer(&c, 78);
    else
        rule.agg = (enum ra_agg)(i % 4);
    c.config.max_retained = K;
    ra_case_open(&c, 1100);
    ra_assert_ok(c.ops->attend_full(c.self, 0, c.q, true, c.out, &err));
    ra_assert_ok(c.ops->select(c.self, 0, &rule, chosen, &err));
    for (int h = 0; h < HKV; h++) {
        assert_int_equal(chosen[h].n, K);
        memcpy(order[h], chosen[h].pos, sizeof order[h]);
    }
    ra_case_fini(&c);
    unsetenv("RATTN_SIMD");
}

/* As the plain twin chooses; the hash (FNV-1a) is the same on every machine. */
static void check_orders(const struct ra_cpu_kernels *kernels)
{
    static int32_t plain[N_CASES][HKV][K];
    static bool has_plain;
    uint64_t hash = 0xcbf29ce484222325;
    for (int i = 0; i < N_CASES; i++) {
        int32_t got[HKV][K];
        if (!has_plain)
            choose("portable", i, plain[i]);
        choose(kernels->name, i, got);
        assert_memory_equal(got, plain[i], sizeof got);
        for (int j = 0; j < HKV * K; j++)
            hash = (hash ^ (uint64_t)got[j / K][j % K]) * 0x100000001b3;
    }
    has_plain = true;
    print_message("orders of %d caches by %s: %016" PRIx64 "\n", N_CASES, kernels->name, hash);
}

static void check(const struct ra_cpu_kernels *kernels)
{
    if (!kernels->runs_here || !kernels->runs_here())
        skip();
    check_blocks(kernels);
    check_weigh(kernels);
    check_orders(kernels);
}

static void test_avx512(void **state)
{
    (void)state;
    check(&ra_cpu_avx512);
}

static void test_avx2(void **state)
{
    (void)state;
    check(&ra_cpu_avx2);
}

static void test_neon(void **state)
{
    (void)state;
    check(&ra_cpu_neon);
}

static void test_portable(void **state)
{
    (void)state;
    check(&ra_cpu_portable);
}

/* What cannot run is refused by probe and open alike; what can is named by `device`. */
static void test_choice(void **state)
{
    (void)state;
    struct ra_error err = {0};
    const struct ra_backend_ops *cpu = ra_backend_find("cpu");
    struct ra_case c;
    ra_case_init(&c, RA_F16, 1, 1, 8, 8, 4, 1);
    c.config.model = &c.model;
    c.config.window = c.window;
    setenv("RATTN_SIMD", "sse9", 1);
    ra_assert_fails(cpu->probe(&err), RA_EUSAGE, "avx512 or neon, got 'sse9'");
    ra_assert_fails(cpu->open(&c.self, &c.config, &err), RA_EUSAGE, "RATTN_SIMD");
    for (size_t i = 0; ra_cpu_kernels[i]; i++) {
        const struct ra_cpu_kernels *kernels = ra_cpu_kernels[i];
        char device[256];
        setenv("RATTN_SIMD", kernels->name, 1);
        cpu->device(device, sizeof device);
        if (kernels->runs_here && kernels->runs_here()) {
            ra_assert_ok(cpu->probe(&err));
            assert_string_equal(strrchr(device, ' ') + 1, kernels->name);
        } else {
            ra_assert_fails(cpu->probe(&err), RA_ENODEV, kernels->needs);
            ra_assert_fails(cpu->open(&c.self, &c.config, &err), RA_ENODEV, kernels->name);
        }
    }
    unsetenv("RATTN_SIMD");
    ra_case_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_portable), cmocka_unit_test(test_avx2),
        cmocka_unit_test(test_avx512),   cmocka_unit_test(test_neon),
        cmocka_unit_test(test_choice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
