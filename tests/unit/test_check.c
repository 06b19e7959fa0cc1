/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The check against rows computed another way: right ones pass with nothing but rounding between,
 * a single wrong value is found at its place. Blocks and batches are crossed on purpose.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/ra_test.h"
#include "tests/support/tiny_trace.h"
#include "tests/support/tmp_dir.h"
#include "traces/check.h"

/* More rows than a block, more check steps than a batch, Dv other than D, a window layer cut at
 * its first visible row. */
static struct tiny_trace large(void)
{
    struct tiny_trace t = tiny_trace_default();
    t.P = 600;
    t.N = 150;
    t.W = 2;
    t.Dv = 16;
    t.n_layers = 2;
    t.window = 70;
    t.first = t.P - t.W + 1 - t.window;
    t.n_check = 140;
    t.has_acc = true;
    return t;
}

static enum ra_status check(const char *path, struct ra_trace_check_result *result,
                            struct ra_error *err)
{
    struct ra_trace *trace;
    enum ra_status st = ra_trace_open(&trace, path, err);
    if (st != RA_OK)
        fail_msg("%s", err->msg);
    st = ra_trace_check(trace, result, NULL, NULL, err);
    ra_trace_close(trace);
    return st;
}

static void test_right_rows(void **unused)
{
    (void)unused;
    for (int dtype = RA_F16; dtype <= RA_F32; dtype++) {
        struct ra_trace_check_result r;
        struct ra_error err;
        struct tiny_trace t = large();
        t.dtype = (enum ra_dtype)dtype;
        const char *path = tmp_path(tmp_dir, "right");
        tiny_trace_write(path, &t);
        ra_assert_ok(check(path, &r, &err));
        assert_true(r.has_digest && r.digest_matches);
        assert_int_equal(r.n_rows, 2 * 4 * 140);
        /* o and lse are rounded to f32 once, which is 2^-24 relative; nothing else differs */
        assert_true(r.o.error > 0 && r.o.error < 1.2e-7);
        assert_true(r.lse.error > 0 && r.lse.error < 1.2e-7);
        assert_true(r.acc.layer_id == 0 && r.acc.error == 0);
        uint64_t kv = (uint64_t)2 * (750 + 750 - (uint64_t)t.first) * (8 + 16);
        uint64_t q = (uint64_t)2 * 4 * (2 + 150) * 8;
        uint64_t rows = (uint64_t)2 * 4 * 140 * (16 + 1), acc = 4 * 600; /* full layer only */
        assert_int_equal(r.n_values, kv + q + rows + acc);
    }
}

static void test_wrong_row_is_found(void **unused)
{
    (void)unused;
    const struct {
        const char *tensor;
        int layer_id, head;
        int32_t row; /* of the check steps */
    } cases[] = {{"s0.l0.o", 0, 0, 0},  {"s0.l0.o", 0, 3, 139},  {"s0.l2.o", 2, 1, 63},
                 {"s0.l2.o", 2, 2, 64}, {"s0.l0.lse", 0, 1, 70}, {"s0.l2.lse", 2, 3, 128}};
    struct tiny_trace t = large();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ra_trace_check_result r;
        struct ra_error err;
        const char *path = tmp_path(tmp_dir, "wrong");
        const float wrong = 9;
        bool is_o = strstr(cases[i].tensor, ".o") != NULL;
        size_t row = (size_t)(cases[i].head * 140 + cases[i].row);
        tiny_trace_write(path, &t);
        tiny_trace_patch(path, cases[i].tensor, 4 * row * (is_o ? 16 : 1), &wrong, 4);
        /* the digest differs too and would be told first */
        assert_int_equal(check(path, &r, &err), RA_EDIVERGED);
        assert_non_null(strstr(err.msg, "content.sha256: expected"));
        assert_true(r.has_digest && !r.digest_matches);
        const struct ra_trace_check_place *place = is_o ? &r.o : &r.lse;
        assert_int_equal(place->layer_id, cases[i].layer_id);
        assert_int_equal(place->head, cases[i].head);
        assert_int_equal(place->step, tiny_trace_check_step(&t, cases[i].row));
        assert_true(place->error > 0.1);
        assert_int_equal(r.n_rows, 2 * 4 * 140);
    }
}

/* One value changed just inside and just outside of what the only check step, t = 0, attends to.
 * Catches a window or causal edge that is off by one. */
static void test_edges(void **unused)
{
    (void)unused;
    struct tiny_trace t = large();
    t.n_check = 1;
    t.no_checksum = true;
    const struct {
        int layer;
        int32_t position;
        bool is_seen;
    } cases[] = {{0, 0, true},
                 {0, t.P, true},
                 {0, t.P + 1, false},
                 {1, t.P, true},
                 {1, t.P + 1, false},
                 {1, t.P - t.window + 1, true},
                 {1, t.P - t.window, false}};
    const char *path = tmp_path(tmp_dir, "edges");
    const float changed = 2;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[16];
        struct ra_trace_check_result r;
        struct ra_error err;
        int32_t row = cases[i].position - (cases[i].layer ? t.first : 0);
        snprintf(name, sizeof name, "s0.l%d.v", 2 * cases[i].layer);
        tiny_trace_write(path, &t);
        tiny_trace_patch(path, name, (size_t)row * 16 * 4, &changed, 4);
        if (!cases[i].is_seen) {
            ra_assert_ok(check(path, &r, &err));
            continue;
        }
        char wanted[80];
        assert_int_equal(check(path, &r, &err), RA_EDIVERGED);
        snprintf(wanted, sizeof wanted, "s0.l%d.o: head %d, step 0: expected within 1e-05",
                 2 * cases[i].layer, r.o.head);
        assert_non_null(strstr(err.msg, wanted));
        assert_true(r.o.head == 0 || r.o.head == 1); /* the heads that share KV head 0 */
    }
}

/* Off by 1e-3: too much for a recorder that rounds first, within what a hook can promise. */
static void test_tolerance_of_hooks(void **unused)
{
    (void)unused;
    static const char *const hooked[] = {"capture.rounded", "0", NULL};
    for (int is_hooked = 0; is_hooked < 2; is_hooked++) {
        struct ra_trace *trace;
        struct ra_trace_check_result r;
        struct ra_error err;
        struct tiny_trace t = tiny_trace_default();
        t.n_check = 2;
        t.no_checksum = true;
        t.extra = is_hooked ? hooked : NULL;
        const char *path = tmp_path(tmp_dir, "hooked");
        float o[64], lse[8];
        tiny_trace_write(path, &t);
        ra_assert_ok(ra_trace_open(&trace, path, &err));
        ra_assert_ok(ra_trace_check_rows(trace, 0, 0, o, lse, &err));
        ra_trace_close(trace);
        float moved = lse[3] + 1e-3f * fmaxf(1, fabsf(lse[3]));
        tiny_trace_patch(path, "s0.l0.lse", 12, &moved, 4);
        if (is_hooked)
            ra_assert_ok(check(path, &r, &err));
        else
            assert_int_equal(check(path, &r, &err), RA_EDIVERGED);
        assert_false(r.has_digest);
        assert_true(fabs(r.lse.error - 1e-3) < 1e-5);
    }
}

static bool count_calls(void *context, double share)
{
    double *last = context;
    assert_true(share > *last && share <= 1);
    *last = share;
    return share < 0.5;
}

static bool go_on(void *context, double share)
{
    *(double *)context = share;
    return true;
}

static void test_progress(void **unused)
{
    (void)unused;
    struct ra_error err;
    struct ra_trace *trace;
    struct ra_trace_check_result r;
    struct tiny_trace t = large();
    double last = 0;
    const char *path = tmp_path(tmp_dir, "progress");
    tiny_trace_write(path, &t);
    ra_assert_ok(ra_trace_open(&trace, path, &err));
    ra_assert_ok(ra_trace_check(trace, &r, go_on, &last, &err));
    assert_true(last == 1);
    last = 0;
    ra_assert_fails(ra_trace_check(trace, &r, count_calls, &last, &err), RA_EINTERRUPTED,
                    "interrupted");
    assert_true(last >= 0.5 && r.n_rows < 2 * 4 * 140);
    ra_trace_close(trace);
}

/* The real recording: what a numpy f32 forward noted, recomputed. */
static void test_sample(void **unused)
{
    (void)unused;
    struct ra_trace_check_result r;
    struct ra_error err;
    ra_assert_ok(check("traces/data/smollm2-135m.safetensors", &r, &err));
    assert_true(r.has_digest && r.digest_matches);
    assert_int_equal(r.n_rows, 4 * 9 * 16);
    assert_true(r.o.error < 1e-6 && r.lse.error < 1e-6 && r.acc.error < 1e-5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_rows), cmocka_unit_test(test_wrong_row_is_found),
        cmocka_unit_test(test_edges),      cmocka_unit_test(test_tolerance_of_hooks),
        cmocka_unit_test(test_progress),   cmocka_unit_test(test_sample),
    };
    return cmocka_run_group_tests(tests, tmp_dir_setup, tmp_dir_teardown);
}
