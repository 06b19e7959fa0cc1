/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend interface: names, memory announced and taken, refusals, cosine, reset, and the
 * backend that does nothing. Would catch an allocation inside a timed operation, a memory figure
 * that lies, state that survives a reset, and a null backend that claims to be exact.
 */
#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/approx.h"
#include "tests/support/backend_case.h"
#include "tests/support/ra_test.h"

static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; ra_backends[i]; i++) {
        const struct ra_backend_ops *ops = ra_backends[i];
        struct ra_error err = {0};
        char device[128] = "";
        assert_ptr_equal(ra_backend_find(ops->name), ops);
        assert_true(strlen(ops->summary) > 0 && strlen(ops->summary) <= 72);
        ra_assert_ok(ops->probe(&err));
        ops->device(device, sizeof device);
        assert_true(strlen(device) > 0);
        ops->close(NULL);
    }
    assert_ptr_equal(ra_backends[0], ra_backend_find("cpu"));
    assert_true(ra_backend_find("cpu")->caps == RA_CAP_EXACT);
    assert_null(ra_backend_find("CPU"));
    assert_null(ra_backend_find(""));
}

/* 1e-5 alone for vanishing logits; 2^21 of them make the second term exactly 1. */
static void test_error_bound(void **state)
{
    (void)state;
    double got[] = {ra_kernel_err_bound(0), ra_kernel_err_bound(2097152)};
    double expected[] = {1e-5, 1 + 1e-5};
    ra_assert_close("bound", got, expected, 2, 0, 1e-15);
}

static size_t in_use(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* Sanitizers bring their own allocator, which mallinfo2 does not see. */
static void need_counting(void)
{
    size_t before = in_use();
    void *volatile memory = malloc(1 << 20);
    size_t after = in_use();
    free(memory);
    if (after < before + (1 << 20))
        skip();
}

static void test_memory_is_what_is_taken(void **state)
{
    (void)state;
    need_counting();
    for (int i = 0; i < 8; i++) {
        struct ra_case c;
        ra_case_init(&c, i & 1 ? RA_F32 : RA_F16, 2, 3, 64, 72, 700 + i, 1);
        c.config.n_layers = 3;
        c.window[1] = 64;
        c.config.max_retained = i & 2 ? 0 : 300;
        c.config.cache = i & 4 ? RA_CACHE_GATHER : RA_CACHE_COMPACT;
        c.config.model = &c.model;
        c.config.window = c.window;
        size_t announced = c.ops->memory(&c.config), before = in_use();
        ra_case_open(&c, 0);
        size_t taken = in_use() - before;
        assert_in_range(taken, announced, announced + 8192); /* the allocator's own rounding */
        ra_case_close(&c);
        assert_in_range(in_use(), before, before + 1024);
        ra_case_fini(&c);
    }
}

/* KV of the caches is most of it, and known exactly. */
static void test_memory_contains_the_caches(void **state)
{
    (void)state;
    struct ra_case c;
    ra_case_init(&c, RA_F16, 2, 1, 64, 64, 4000, 1);
    c.config.max_retained = 0;
    c.config.model = &c.model;
    c.config.window = c.window;
    size_t one = c.ops->memory(&c.config);
    c.config.n_layers = 2;
    size_t two = c.ops->memory(&c.config), layer = (size_t)2 * 4000 * (64 + 64) * 2;
    assert_in_range(two - one, layer, layer + 1024);
    ra_case_fini(&c);
}

static void every_operation(struct ra_case *c, int32_t row)
{
    struct ra_error err = {0};
    struct ra_select_rule rule = {.K = 50, .pool = 7};
    struct ra_positions order[2];
    const float *scores[2];
    int64_t moved;
    double cosine;
    int32_t set[60], n = row < 60 ? row : 60;
    for (int32_t p = 0; p < n; p++)
        set[p] = p;
    struct ra_positions sets[2] = {{set, n}, {set, n / 2}};
    ra_assert_ok(c->ops->attend_full(c->self, 0, c->q, true, c->out, &err));
    ra_assert_ok(c->ops->select(c->self, 0, &rule, order, &err));
    for (int h = 0; h < 2; h++) {
        struct ra_retained retained = {.set = sets[h], .evict = sets[h]};
        c->ops->adopt(c->self, 0, h, &retained);
    }
    ra_assert_ok(c->ops->refresh(c->self, 0, &moved, &err));
    ra_assert_ok(c->ops->attend_sets(c->self, 0, c->q, sets, 2, c->out, &err));
    ra_assert_ok(c->ops->attend_recycled(c->self, 0, c->q, true, c->out, &err));
    ra_assert_ok(c->ops->accumulate(c->self, 0, RA_AGG_SUM, true, scores, &err));
    ra_assert_ok(c->ops->insert_evict(c->self, 0, ra_case_each(30), NULL, &err));
    ra_assert_ok(c->ops->score(c->self, 0, c->q, &err));
    ra_assert_ok(c->ops->set_reference(c->self, 0, c->q, &err));
    ra_assert_ok(c->ops->cosine(c->self, 0, c->q, &cosine, &err));
}

static void test_operations_allocate_nothing(void **state)
{
    (void)state;
    need_counting();
    struct ra_case c;
    ra_case_init(&c, RA_F16, 2, 2, 64, 64, 800, 1);
    ra_case_open(&c, 700);
    size_t before = in_use();
    every_operation(&c, 699);
    assert_int_equal(in_use(), before);
    ra_case_fini(&c);
}

static void test_refusals(void **state)
{
    (void)state;
    struct ra_error err = {0};
    struct ra_case c;
    ra_case_init(&c, RA_F16, 1, 1, 8, 8, 4, 1);
    ra_case_open(&c, 4);
    ra_assert_fails(c.ops->append(c.self, 0, c.k, c.v, &err), RA_ERANGE,
                    "cpu: layer 0: expected at most 4 rows");
    ra_assert_fails(
        c.ops->load(c.self, 0, &(struct ra_prompt_rows){.k = c.k, .v = c.v, .P = 5}, &err),
        RA_ERANGE, "got 5");
    ra_case_close(&c);

    /* 2^12 layers and heads of 2^31 rows of 2^11 bytes: more than a size_t can count. */
    int32_t *window = calloc(4096, sizeof *window);
    c.config.window = window;
    c.config.n_layers = c.model.Hq = c.model.Hkv = 4096;
    c.config.max_rows = INT32_MAX;
    c.config.max_retained = 0;
    c.model.D = c.model.Dv = 256;
    c.model.dtype = RA_F32;
    assert_true(c.ops->memory(&c.config) == SIZE_MAX);
    ra_assert_fails(c.ops->open(&c.self, &c.config, &err), RA_ENOMEM, "cpu: no memory");
    assert_null(c.self);
    c.model.D = 12;
    ra_assert_fails(c.ops->open(&c.self, &c.config, &err), RA_EFORMAT, "head_dim");
    free(window);
    ra_case_fini(&c);
}

static double naive_cosine(const struct ra_case *c, const float *a, const float *b)
{
    double dot = 0, norm_a = 0, norm_b = 0;
    for (int d = 0; d < c->model.D; d++) {
        double x = 0, y = 0;
        for (int h = 0; h < c->model.Hq; h++) {
            x += (double)a[h * c->model.D + d];
            y += (double)b[h * c->model.D + d];
        }
        dot += x * y;
        norm_a += x * x;
        norm_b += y * y;
    }
    return dot / sqrt(norm_a * norm_b);
}

static void test_cosine(void **state)
{
    (void)state;
    struct ra_error err = {0};
    struct ra_case c;
    double got, opposite;
    ra_case_init(&c, RA_F32, 3, 3, 64, 64, 4, 1);
    size_t n = (size_t)(9 * 64);
    float *reference = malloc(n * sizeof *reference);
    c.config.n_layers = 2;
    ra_case_open(&c, 4);
    ra_assert_ok(c.ops->cosine(c.self, 1, c.q, &got, &err));
    assert_true(isnan(got) != 0); /* no reference yet */
    memcpy(reference, c.q, n * sizeof *reference);
    ra_assert_ok(c.ops->set_reference(c.self, 1, c.q, &err));
    ra_assert_ok(c.ops->cosine(c.self, 1, c.q, &got, &err));
    assert_true(got > 1 - 1e-12 && got <= 1);
    for (int i = 0; i < 100; i++) {
        ra_case_query(&c, 1);
        double expected = naive_cosine(&c, reference, c.q);
        ra_assert_ok(c.ops->cosine(c.self, 1, c.q, &got, &err));
        ra_assert_close("cosine", &got, &expected, 1, 1e-13, 0);
    }
    for (size_t i = 0; i < n; i++)
        c.q[i] = -3 * reference[i];
    ra_assert_ok(c.ops->cosine(c.self, 1, c.q, &opposite, &err));
    assert_true(opposite >= -1 && opposite < -1 + 1e-12);
    ra_assert_ok(c.ops->cosine(c.self, 0, c.q, &got, &err));
    assert_true(isnan(got) != 0); /* references belong to a layer */
    memset(c.q, 0, n * sizeof *c.q);
    ra_assert_ok(c.ops->cosine(c.self, 1, c.q, &got, &err));
    assert_true(isnan(got) != 0); /* zero norm */
    free(reference);
    ra_case_fini(&c);
}

/* After a reset everything is as after open: no rows, an empty C_r, no reference. */
static void test_reset(void **state)
{
    (void)state;
    struct ra_error err = {0};
    struct ra_case c;
    double cosine;
    int64_t moved;
    int32_t self[] = {4};
    ra_case_init(&c, RA_F16, 2, 2, 64, 64, 800, 1);
    ra_case_open(&c, 700);
    every_operation(&c, 699);
    c.ops->reset(c.self);
    ra_assert_ok(c.ops->cosine(c.self, 0, c.q, &cosine, &err));
    assert_true(isnan(cosine) != 0);
    for (int32_t row = 0; row < 5; row++)
        ra_case_append(&c, 0, row);
    ra_assert_ok(c.ops->refresh(c.self, 0, &moved, &err));
    assert_int_equal(moved, 0);
    struct ra_positions list = {.pos = self, .n = 1};
    ra_assert_ok(c.ops->attend_recycled(c.self, 0, c.q, false, c.out, &err));
    assert_true(ra_case_error(&c, &list, 1) <= 1e-6);
    ra_case_fini(&c);
}

static void test_null_does_nothing(void **state)
{
    (void)state;
    struct ra_error err = {0};
    struct ra_case c;
    struct ra_select_rule rule = {.K = 5, .pool = 1};
    struct ra_positions order[2] = {{NULL, 3}, {NULL, 3}};
    int64_t moved = 7;
    int32_t evicted[2] = {7, 7};
    double cosine = 0;
    ra_case_init(&c, RA_F16, 2, 2, 64, 64, 8, 1);
    c.ops = ra_backend_find("null");
    assert_int_equal(c.ops->caps, 0);
    ra_case_open(&c, 6);
    ra_case_append(&c, 0, 6);
    memset(c.out, 0xff, 4 * 64 * sizeof *c.out);
    ra_assert_ok(c.ops->attend_full(c.self, 0, c.q, true, c.out, &err));
    for (int i = 0; i < 4 * 64; i++)
        assert_true(c.out[i] == 0);
    ra_assert_ok(c.ops->select(c.self, 0, &rule, order, &err));
    assert_int_equal(order[0].n + order[1].n, 0);
    ra_assert_ok(c.ops->refresh(c.self, 0, &moved, &err));
    assert_int_equal(moved, 0);
    ra_assert_ok(c.ops->insert_evict(c.self, 0, ra_case_each(1), evicted, &err));
    assert_true(evicted[0] == -1 && evicted[1] == -1);
    ra_assert_ok(c.ops->cosine(c.self, 0, c.q, &cosine, &err));
    assert_true(isnan(cosine) != 0);
    ra_case_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_error_bound),
        cmocka_unit_test(test_memory_is_what_is_taken),
        cmocka_unit_test(test_memory_contains_the_caches),
        cmocka_unit_test(test_operations_allocate_nothing),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_cosine),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_null_does_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
