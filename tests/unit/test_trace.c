/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a trace gives back: values at their places for every dtype and window, what is stated and
 * what is assumed, and refusals of what is absent or no number. Malformed files: test_corpus.c.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/ra_test.h"
#include "tests/support/tiny_trace.h"
#include "tests/support/tmp_dir.h"
#include "traces/safetensors.h"

static const char sample_path[] = "traces/data/smollm2-135m.safetensors";

static struct ra_trace *opened(const char *path)
{
    struct ra_trace *trace;
    struct ra_error err;
    ra_assert_ok(ra_trace_open(&trace, path, &err));
    return trace;
}

static struct ra_trace *written(const struct tiny_trace *t)
{
    const char *path = tmp_path(tmp_dir, "trace");
    tiny_trace_write(path, t);
    return opened(path);
}

/* Rows [first, first + n) of a part against the generator. */
static void compare_rows(const struct ra_trace *trace, enum ra_trace_part part, int layer, int head,
                         int32_t first, int32_t n)
{
    const struct ra_model *m = &ra_trace_info(trace)->model;
    int width = part == RA_TRACE_V ? m->Dv : m->D;
    size_t count = (size_t)n * (size_t)width;
    uint8_t *stored = malloc(count * 4 + 1);
    float *values = malloc(count * sizeof *values + 1);
    struct ra_error err;
    assert_true(stored && values);
    ra_assert_ok(ra_trace_read(trace, &(struct ra_trace_slice){0, layer, part, head, first, n},
                               stored, &err));
    ra_widen(m->dtype, stored, count, values);
    for (size_t i = 0; i < count; i++) {
        int32_t row = first + (int32_t)(i / (size_t)width);
        assert_true(values[i] == tiny_trace_value(part, layer, head, row, (int)i % width));
    }
    free(stored);
    free(values);
}

/* Catches a stride, head or dtype mixed up, and rows of a cut window layer shifted. */
static void test_values(void **unused)
{
    (void)unused;
    for (int dtype = RA_F16; dtype <= RA_F32; dtype++) {
        struct tiny_trace t = tiny_trace_default();
        t.dtype = (enum ra_dtype)dtype;
        t.P = 40;
        t.Dv = 16;
        t.n_layers = 3;
        t.window = 5;
        t.first = t.P - t.W + 1 - t.window;
        struct ra_trace *trace = written(&t);
        const struct ra_trace_info *info = ra_trace_info(trace);
        assert_int_equal(info->model.dtype, dtype);
        assert_int_equal(info->n_layers, 3);
        for (int layer = 0; layer < 3; layer++) {
            const struct ra_trace_layer *l = &info->layers[layer];
            assert_int_equal(l->id, 2 * layer);
            assert_int_equal(l->window, layer == 1 ? 5 : 0);
            assert_int_equal(l->first, layer == 1 ? t.first : 0);
            for (int head = 0; head < t.Hq; head++) {
                compare_rows(trace, RA_TRACE_Q, layer, head, 0, t.W + t.N);
                compare_rows(trace, RA_TRACE_Q, layer, head, t.W, 1);
            }
            for (int head = 0; head < t.Hkv; head++) {
                compare_rows(trace, RA_TRACE_K, layer, head, l->first, t.P + t.N - l->first);
                compare_rows(trace, RA_TRACE_V, layer, head, l->first, t.P + t.N - l->first);
                compare_rows(trace, RA_TRACE_K, layer, head, t.P + t.N - 1, 1);
                compare_rows(trace, RA_TRACE_V, layer, head, t.P - 1, 3);
                compare_rows(trace, RA_TRACE_V, layer, head, t.P, 0);
            }
        }
        ra_trace_close(trace);
    }
    ra_trace_close(NULL);
}

static void test_what_is_assumed(void **unused)
{
    (void)unused;
    struct tiny_trace t = tiny_trace_default();
    t.no_checksum = true;
    struct ra_trace *trace = written(&t);
    const struct ra_trace_info *info = ra_trace_info(trace);
    const struct ra_trace_seq *s = &info->seqs[0];
    assert_string_equal(info->model_id, "unknown");
    assert_null(info->synthetic);
    assert_string_equal(info->sha256, "");
    assert_true(info->model.attn_scale == 0.3 && info->check_tolerance == 1e-5);
    assert_int_equal(info->model.rope.type, RA_ROPE_UNKNOWN);
    assert_int_equal(info->model.G, 2);
    assert_string_equal(s->mode, "unknown");
    assert_string_equal(s->schedule, "full");
    assert_true(s->P == 6 && s->N == 4 && s->W == 3 && s->n_check == 0);
    assert_false(s->has_tokens || s->has_logprob || s->has_acc || s->has_check ||
                 s->has_token_type);
    assert_null(ra_trace_metadata(trace, "model.id"));
    ra_trace_close(trace);
}

static void test_what_is_stated(void **unused)
{
    (void)unused;
    static const char *const extra[] = {"model.id",
                                        "m",
                                        "synthetic",
                                        "synthetic (fitted to x)",
                                        "s0.mode",
                                        "greedy",
                                        "s0.policy",
                                        "recycled:k=8,stride=4",
                                        "capture.rounded",
                                        "0",
                                        "rope.type",
                                        "llama3",
                                        "rope.theta",
                                        "500000",
                                        "rope.factor",
                                        "8",
                                        "rope.low_freq_factor",
                                        "1",
                                        "rope.high_freq_factor",
                                        "4",
                                        "rope.original_max_position",
                                        "8192",
                                        NULL};
    struct tiny_trace t = tiny_trace_default();
    t.extra = extra;
    struct ra_trace *trace = written(&t);
    const struct ra_trace_info *info = ra_trace_info(trace);
    const struct ra_rope *rope = &info->model.rope;
    assert_string_equal(info->model_id, "m");
    assert_string_equal(info->synthetic, "synthetic (fitted to x)");
    assert_string_equal(info->seqs[0].mode, "greedy");
    assert_string_equal(info->seqs[0].schedule, "recycled:k=8,stride=4");
    assert_true(info->check_tolerance == 5e-3);
    assert_int_equal(rope->type, RA_ROPE_LLAMA3);
    assert_true(rope->theta == 5e5 && rope->factor == 8 && rope->low_freq_factor == 1 &&
                rope->high_freq_factor == 4 && rope->original_max_position == 8192);
    assert_int_equal(strlen(info->sha256), 64);
    ra_trace_close(trace);
}

static void test_rope_types(void **unused)
{
    (void)unused;
    const struct {
        const char *text;
        enum ra_rope_type type;
    } cases[] = {{"none", RA_ROPE_NONE},       {"default", RA_ROPE_DEFAULT},
                 {"linear", RA_ROPE_LINEAR},   {"yarn", RA_ROPE_UNKNOWN},
                 {"dynamic", RA_ROPE_UNKNOWN}, {"longrope", RA_ROPE_UNKNOWN}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const extra[] = {"rope.type",   cases[i].text, "rope.theta", "1e4",
                                     "rope.factor", "2.5",         NULL};
        struct tiny_trace t = tiny_trace_default();
        t.extra = extra;
        struct ra_trace *trace = written(&t);
        const struct ra_rope *rope = &ra_trace_info(trace)->model.rope;
        assert_int_equal(rope->type, cases[i].type);
        if (rope->type == RA_ROPE_DEFAULT || rope->type == RA_ROPE_LINEAR)
            assert_true(rope->theta == 1e4);
        if (rope->type == RA_ROPE_LINEAR)
            assert_true(rope->factor == 2.5);
        ra_trace_close(trace);
    }
}

/* What a policy may ask for and not find is refused by name. */
static void test_absent(void **unused)
{
    (void)unused;
    struct tiny_trace t = tiny_trace_default();
    struct ra_trace *trace = written(&t);
    struct ra_error err;
    float values[64];
    int32_t numbers[64];
    uint8_t types[64];
    const char *names;
    ra_assert_fails(ra_trace_acc(trace, 0, 0, values, &err), RA_EUSAGE,
                    "trace: s0.l*.acc: not in this trace");
    ra_assert_fails(ra_trace_tokens(trace, 0, numbers, &err), RA_EUSAGE, "s0.tokens: not in");
    ra_assert_fails(ra_trace_logprob(trace, 0, values, &err), RA_EUSAGE, "s0.logprob: not in");
    ra_assert_fails(ra_trace_check_steps(trace, 0, numbers, &err), RA_EUSAGE, "s0.check_steps");
    ra_assert_fails(ra_trace_check_rows(trace, 0, 0, values, NULL, &err), RA_EUSAGE,
                    "s0.check_steps");
    ra_assert_fails(ra_trace_token_types(trace, 0, types, &names, &err), RA_EUSAGE,
                    "s0.token_type");
    ra_trace_close(trace);
}

static void test_not_a_number(void **unused)
{
    (void)unused;
    const struct {
        enum ra_dtype dtype;
        uint8_t bytes[4];
    } cases[] = {{RA_F16, {0x00, 0x7c}},              /* +Inf */
                 {RA_F16, {0x01, 0xfc}},              /* NaN */
                 {RA_BF16, {0x80, 0xff}},             /* -Inf */
                 {RA_BF16, {0xc0, 0x7f}},             /* NaN */
                 {RA_F32, {0x00, 0x00, 0x80, 0x7f}},  /* +Inf */
                 {RA_F32, {0x01, 0x00, 0x80, 0xff}}}; /* NaN */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tiny_trace t = tiny_trace_default();
        t.dtype = cases[i].dtype;
        const char *path = tmp_path(tmp_dir, "trace");
        uint8_t out[8 * 4 * 10];
        struct ra_error err;
        tiny_trace_write(path, &t);
        size_t element = ra_dtype_bytes(t.dtype), row = 1 * 10 + 7; /* head 1, position 7 */
        tiny_trace_patch(path, "s0.l0.v", (row * 8 + 3) * element, cases[i].bytes, element);
        struct ra_trace *trace = opened(path);
        ra_assert_ok(
            ra_trace_read(trace, &(struct ra_trace_slice){0, 0, RA_TRACE_V, 0, 0, 10}, out, &err));
        ra_assert_ok(
            ra_trace_read(trace, &(struct ra_trace_slice){0, 0, RA_TRACE_V, 1, 0, 7}, out, &err));
        ra_assert_ok(
            ra_trace_read(trace, &(struct ra_trace_slice){0, 0, RA_TRACE_V, 1, 8, 2}, out, &err));
        ra_assert_fails(
            ra_trace_read(trace, &(struct ra_trace_slice){0, 0, RA_TRACE_V, 1, 6, 3}, out, &err),
            RA_EFORMAT, "trace: s0.l0.v: head 1, row 7, element 3: expected a number");
        ra_trace_close(trace);
    }
}

static void test_cut_while_open(void **unused)
{
    (void)unused;
    struct tiny_trace t = tiny_trace_default();
    struct ra_trace *trace = written(&t);
    struct ra_error err;
    float out[8 * 10];
    assert_int_equal(truncate(tmp_path(tmp_dir, "trace"), 4096), 0);
    ra_assert_fails(
        ra_trace_read(trace, &(struct ra_trace_slice){0, 0, RA_TRACE_K, 1, 0, 10}, out, &err),
        RA_EIO, "trace: s0.l0.k: the file became shorter while open");
    ra_assert_fails(ra_trace_verify_digest(trace, &err), RA_EIO, "became shorter");
    ra_trace_close(trace);
}

static void test_digest(void **unused)
{
    (void)unused;
    struct tiny_trace t = tiny_trace_default();
    struct ra_error err;
    struct ra_trace *trace = written(&t);
    ra_assert_ok(ra_trace_verify_digest(trace, &err));
    ra_trace_close(trace);
    const uint8_t one = 1;
    tiny_trace_patch(tmp_path(tmp_dir, "trace"), "s0.l0.q", 0, &one, 1);
    trace = opened(tmp_path(tmp_dir, "trace"));
    ra_assert_fails(ra_trace_verify_digest(trace, &err), RA_EDIVERGED, "content.sha256: expected");
    ra_trace_close(trace);
    t.no_checksum = true;
    trace = written(&t);
    ra_assert_fails(ra_trace_verify_digest(trace, &err), RA_EDIVERGED, "content.sha256: missing");
    ra_trace_close(trace);
}

/* The recording that is shipped, with its bytes found by hand: offsets of s0.l9.k and s0.l29.q as
 * its header spells them. */
static void test_sample(void **unused)
{
    (void)unused;
    struct ra_error err;
    struct ra_trace *trace = opened(sample_path);
    const struct ra_trace_info *info = ra_trace_info(trace);
    const struct ra_trace_seq *s = &info->seqs[0];
    assert_string_equal(info->model_id, "HuggingFaceTB/SmolLM2-135M-Instruct");
    assert_true(info->model.n_layers == 30 && info->model.Hq == 9 && info->model.Hkv == 3);
    assert_true(info->model.D == 64 && info->model.Dv == 64 && info->model.dtype == RA_F16);
    assert_true(info->model.attn_scale == 0.125 && info->model.rope.theta == 100000);
    assert_true(s->P == 1536 && s->N == 192 && s->W == 64 && s->n_check == 16);
    assert_true(s->has_tokens && s->has_logprob && s->has_acc && s->has_check);
    assert_string_equal(s->mode, "teacher_forced");
    static const int ids[] = {0, 9, 19, 29};
    assert_int_equal(info->n_layers, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(info->layers[i].id, ids[i]);

    size_t n;
    uint8_t *file = tmp_read(sample_path, &n);
    uint64_t header;
    memcpy(&header, file, 8);
    const struct {
        const char *name;
        enum ra_trace_part part;
        int layer, head, rows;
        int32_t row;
    } cases[] = {{"\"s0.l9.k\":", RA_TRACE_K, 1, 2, 1728, 1727},
                 {"\"s0.l29.q\":", RA_TRACE_Q, 3, 8, 256, 100}};
    for (int i = 0; i < 2; i++) {
        const char *at = memmem(file + 8, header, cases[i].name, strlen(cases[i].name));
        assert_non_null(at);
        const char *offsets = strstr(at, "\"data_offsets\":[");
        size_t begin = strtoul(offsets + strlen("\"data_offsets\":["), NULL, 10);
        size_t row = (size_t)(cases[i].head * cases[i].rows + cases[i].row);
        uint8_t out[128];
        ra_assert_ok(ra_trace_read(trace,
                                   &(struct ra_trace_slice){0, cases[i].layer, cases[i].part,
                                                            cases[i].head, cases[i].row, 1},
                                   out, &err));
        assert_memory_equal(out, file + 8 + header + begin + row * 128, 128);
    }
    free(file);

    int32_t tokens[1729], steps[16];
    float logprob[192];
    ra_assert_ok(ra_trace_tokens(trace, 0, tokens, &err));
    ra_assert_ok(ra_trace_logprob(trace, 0, logprob, &err));
    ra_assert_ok(ra_trace_check_steps(trace, 0, steps, &err));
    assert_true(steps[0] == 0 && steps[15] == 191);
    double nll = 0;
    for (int i = 0; i < 192; i++)
        nll -= (double)logprob[i] / 192;
    assert_true(exp(nll) > 2 && exp(nll) < 100); /* English through a language model */
    ra_trace_close(trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),         cmocka_unit_test(test_what_is_assumed),
        cmocka_unit_test(test_what_is_stated), cmocka_unit_test(test_rope_types),
        cmocka_unit_test(test_absent),         cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_cut_while_open), cmocka_unit_test(test_digest),
        cmocka_unit_test(test_sample),
    };
    return cmocka_run_group_tests(tests, tmp_dir_setup, tmp_dir_teardown);
}
