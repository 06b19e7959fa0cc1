/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a recording holds: rows as they were attended to, check rows as f64 has them from those
 * rows, the likeliest tokens in their order, and nothing at all until it is whole.
 */
#include "tests/support/ra_test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/approx.h"
#include "tests/support/lm_case.h"
#include "tests/support/tmp_dir.h"
#include "traces/model/recorder.h"
#include "traces/safetensors.h"
#include "traces/trace.h"

enum { P = 37, N = 13, W = 9, ROWS = P + N, TOP = 9, CHECKS = 4 };

static int32_t tokens[ROWS + 1];
static const int32_t check_steps[CHECKS] = {0, 1, 7, 12};
static struct ra_lm_origin origin = {"id", "1", "0", "none", "none", ""};
static struct ra_ids ids = {NULL, 0, "text", "0", "none", ""};
static float step_logits[N][LM_VOCAB];
static const char *path;

/* One recording of a case under a policy, up to its commit. */
struct session {
    struct lm_case *c;
    struct ra_lm_recording recording;
    struct ra_lm_recorder *recorder;
    struct ra_policy_spec *spec;
    struct ra_lm_prompt *prompt;
    struct ra_lm_loop *loop;
};

static enum ra_status on_rows(void *context, const struct ra_lm_rows *rows, struct ra_error *err)
{
    return ra_lm_recorder_row(context, rows, err);
}

static void begin(struct session *s, struct lm_case *c, const char *policy, const int *layers,
                  int n_layers, int top_k)
{
    struct ra_error err;
    *s = (struct session){.c = c};
    ra_assert_ok(ra_policy_parse(&s->spec, policy, &err));
    s->recording = (struct ra_lm_recording){.lm = &c->lm,
                                            .path = path,
                                            .P = P,
                                            .N = N,
                                            .W = W,
                                            .layers = layers,
                                            .n_layers = n_layers,
                                            .check_steps = check_steps,
                                            .n_check = CHECKS,
                                            .top_k = top_k,
                                            .is_full = strcmp(policy, "full") == 0,
                                            .policy = ra_policy_spec_canonical(s->spec),
                                            .attention = "cpu",
                                            .origin = &origin,
                                            .ids = &ids};
    ra_assert_ok(ra_lm_recorder_open(&s->recorder, &s->recording, &err));
    s->prompt = lm_prompt(c, tokens, P, W, true, NULL);
    ra_assert_ok(ra_lm_recorder_prompt(s->recorder, s->prompt, &err));
    const struct ra_policy_spec *spec = s->spec;
    static const struct ra_policy_spec *specs[1];
    specs[0] = spec;
    struct ra_lm_loop_config config = {.lm = &c->lm,
                                       .prompt = s->prompt,
                                       .n = 1,
                                       .specs = specs,
                                       .backend = ra_backend_find("cpu"),
                                       .N = N,
                                       .observe = on_rows,
                                       .context = s->recorder};
    ra_assert_ok(ra_lm_loop_open(&s->loop, &config, &err));
}

static void decode(struct session *s, int32_t n)
{
    struct ra_error err;
    for (int32_t t = 0; t < n; t++) {
        const float *hidden;
        double logprob;
        ra_assert_ok(ra_lm_loop_step(s->loop, &tokens[P + t], &hidden, &err));
        ra_lm_logits(&s->c->lm, 1, hidden, step_logits[t]);
        ra_assert_ok(
            ra_lm_recorder_step(s->recorder, t, step_logits[t], tokens[P + t + 1], &logprob, &err));
    }
}

static void end(struct session *s)
{
    ra_lm_loop_close(s->loop);
    ra_lm_recorder_close(s->recorder);
    ra_lm_prompt_close(s->prompt);
    ra_policy_spec_close(s->spec);
}

static void record(struct lm_case *c, const char *policy, const int *layers, int n_layers,
                   int top_k)
{
    struct session s;
    struct ra_error err;
    begin(&s, c, policy, layers, n_layers, top_k);
    assert_int_not_equal(access(path, F_OK), 0);
    decode(&s, N);
    ra_assert_ok(ra_lm_recorder_commit(s.recorder, tokens, &err));
    end(&s);
}

/* A whole tensor; the caller frees. Fails where it has another size. */
static void *tensor(const struct ra_st_file *file, const char *name, size_t bytes)
{
    struct ra_error err;
    const struct ra_st_tensor *t = ra_st_find(file, name);
    if (!t || t->bytes != bytes)
        fail_msg("%s: expected %zu bytes, got %llu", name, bytes,
                 t ? (unsigned long long)t->bytes : 0);
    void *out = malloc(bytes);
    assert_non_null(out);
    ra_assert_ok(ra_st_read(file, t, 0, out, bytes, &err));
    return out;
}

static void *layer_tensor(const struct ra_st_file *file, int layer, const char *part, size_t bytes)
{
    char name[32];
    snprintf(name, sizeof name, "s0.l%d.%s", layer, part);
    return tensor(file, name, bytes);
}

/* o and lse of every check step, from the file's own rows and nothing else. */
static void check_rows(const struct lm_case *c, const struct ra_st_file *file, int layer)
{
    const struct ra_model *m = &c->lm.shape;
    size_t D = (size_t)m->D, e = ra_dtype_bytes(m->dtype), Hq = (size_t)m->Hq;
    size_t n_kv = (size_t)m->Hkv * ROWS * D, n_q = Hq * (W + N) * D;
    float *k = malloc(n_kv * sizeof *k), *v = malloc(n_kv * sizeof *v);
    float *q = malloc(n_q * sizeof *q);
    void *raw[] = {layer_tensor(file, layer, "k", n_kv * e),
                   layer_tensor(file, layer, "v", n_kv * e),
                   layer_tensor(file, layer, "q", n_q * e)};
    float *o = layer_tensor(file, layer, "o", Hq * CHECKS * D * sizeof *o);
    float *lse = layer_tensor(file, layer, "lse", Hq * CHECKS * sizeof *lse);
    ra_widen(m->dtype, raw[0], n_kv, k);
    ra_widen(m->dtype, raw[1], n_kv, v);
    ra_widen(m->dtype, raw[2], n_q, q);
    for (size_t h = 0; h < Hq; h++)
        for (size_t i = 0; i < CHECKS; i++) {
            int32_t self = P + check_steps[i], first = 0;
            const float *query = q + (h * (W + N) + (size_t)(W + check_steps[i])) * D;
            size_t head = h / (size_t)m->G * ROWS;
            double sum = 0, out[64] = {0}, got[64], weight[ROWS];
            if (c->config.window && c->slides[layer])
                first = self - c->config.window + 1;
            for (int32_t j = first; j <= self; j++) {
                double logit = 0;
                for (size_t d = 0; d < D; d++)
                    logit += (double)query[d] * (double)k[(head + (size_t)j) * D + d];
                weight[j] = exp(m->attn_scale * logit);
                sum += weight[j];
            }
            for (int32_t j = first; j <= self; j++)
                for (size_t d = 0; d < D; d++)
                    out[d] += weight[j] / sum * (double)v[(head + (size_t)j) * D + d];
            for (size_t d = 0; d < D; d++)
                got[d] = (double)o[(h * CHECKS + i) * D + d];
            ra_assert_close("o", got, out, D, 2e-5, 0);
            double got_lse = (double)lse[h * CHECKS + i], expected = log(sum);
            ra_assert_close("lse", &got_lse, &expected, 1, 1e-6, 1e-6);
        }
    for (int i = 0; i < 3; i++)
        free(raw[i]);
    free(k);
    free(v);
    free(q);
    free(o);
    free(lse);
}

/* The likeliest first, of equals the lower id first, each with its own log-probability. */
static void check_likeliest(const struct ra_st_file *file, size_t top)
{
    float *logprob = tensor(file, "s0.logprob", N * sizeof *logprob);
    int32_t *id = tensor(file, "s0.topk_id", N * top * sizeof *id);
    float *best = tensor(file, "s0.topk_logprob", N * top * sizeof *best);
    for (size_t t = 0; t < N; t++) {
        double sum = 0, expected[LM_VOCAB], got;
        bool is_taken[LM_VOCAB] = {false};
        for (int i = 0; i < LM_VOCAB; i++)
            sum += exp((double)step_logits[t][i]);
        for (int i = 0; i < LM_VOCAB; i++)
            expected[i] = (double)step_logits[t][i] - log(sum);
        got = (double)logprob[t];
        ra_assert_close("logprob", &got, &expected[tokens[P + (int)t + 1]], 1, 1e-5, 1e-6);
        for (size_t i = 0; i < top; i++) {
            int next = -1;
            for (int j = 0; j < LM_VOCAB; j++)
                if (!is_taken[j] && (next < 0 || step_logits[t][j] > step_logits[t][next]))
                    next = j;
            is_taken[next] = true;
            assert_int_equal(id[t * top + i], next);
            got = (double)best[t * top + i];
            ra_assert_close("of the likeliest", &got, &expected[next], 1, 1e-5, 1e-6);
        }
    }
    free(logprob);
    free(id);
    free(best);
}

/* Tokens that the model cannot tell apart: ties in every step. */
static void make_ties(struct lm_case *c)
{
    size_t width = (size_t)c->config.hidden * sizeof(float);
    float *head = (float *)c->weights.head;
    for (int i = 0; i < LM_VOCAB; i += 3)
        memcpy(head + (size_t)i * (size_t)c->config.hidden, head + c->config.hidden, width);
    for (int i = 2; i < LM_VOCAB; i += 6)
        memcpy(head + (size_t)i * (size_t)c->config.hidden,
               head + (size_t)2 * (size_t)c->config.hidden, width);
}

static void check_recording(struct lm_case *c, const char *policy, const int *layers, int n_layers,
                            int top_k)
{
    struct ra_st_file *file;
    struct ra_trace *trace;
    struct ra_error err;
    record(c, policy, layers, n_layers, top_k);
    assert_int_equal(tmp_dir_count(tmp_dir), 1);
    ra_assert_ok(ra_trace_open(&trace, path, &err)); /* as what reads traces wants it */
    ra_trace_close(trace);
    ra_assert_ok(ra_st_open(&file, path, &err));
    for (int i = 0; i < n_layers; i++)
        check_rows(c, file, layers[i]);
    if (top_k)
        check_likeliest(file, (size_t)top_k);
    else
        assert_null(ra_st_find(file, "s0.topk_id"));
    int32_t *kept = tensor(file, "s0.tokens", sizeof tokens);
    assert_memory_equal(kept, tokens, sizeof tokens);
    free(kept);
    ra_st_close(file);
    assert_int_equal(unlink(path), 0);
}

static const int all[] = {0, 1, 2, 3}, some[] = {1, 3};

static void test_recordings(void **unused)
{
    (void)unused;
    static const enum ra_dtype dtypes[] = {RA_F32, RA_F16, RA_BF16};
    struct lm_case c;
    for (int i = 0; i < LM_FAMILIES * 3; i++) {
        lm_case_open(&c, (enum lm_family)(i / 3), dtypes[i % 3]);
        lm_tokens(30, tokens, ROWS + 1);
        check_recording(&c, "full", all, 4, TOP);
        check_recording(&c, "recycled:k=6,stride=4", all, 4, TOP);
        make_ties(&c);
        check_recording(&c, "full", some, 2, TOP);
        check_recording(&c, "streaming:k=6", some, 2, 1);
        check_recording(&c, "full", some + 0, 1, LM_VOCAB);
        check_recording(&c, "full", all, 4, 0);
        lm_case_close(&c);
    }
}

/* The prompt's queries, and sums of what its positions received. */
static void test_prompt_rows(void **unused)
{
    (void)unused;
    struct lm_case c;
    struct ra_st_file *file;
    struct ra_error err;
    lm_case_open(&c, LM_GEMMA, RA_F32);
    lm_tokens(31, tokens, ROWS + 1);
    record(&c, "full", all, 4, 1);
    struct ra_lm_prompt *whole = lm_prompt(&c, tokens, ROWS, ROWS, true, NULL);
    struct ra_lm_prompt *prompt = lm_prompt(&c, tokens, P, W, true, NULL);
    ra_assert_ok(ra_st_open(&file, path, &err));
    size_t D = (size_t)c.config.D, Hq = (size_t)c.config.Hq, row = D * sizeof(float);
    for (size_t l = 0; l < LM_LAYERS; l++) {
        float *q = layer_tensor(file, (int)l, "q", Hq * (W + N) * row);
        double a[64], b[64];
        for (size_t h = 0; h < Hq; h++)
            for (size_t i = 0; i < W + N; i++) { /* as one long prompt has them */
                for (size_t d = 0; d < D; d++) {
                    a[d] = (double)q[(h * (W + N) + i) * D + d];
                    b[d] = (double)whole->q[((l * Hq + h) * ROWS + P - W + i) * D + d];
                }
                ra_assert_close("q", a, b, D, 1e-4, 1e-4);
            }
        free(q);
        char name[32];
        snprintf(name, sizeof name, "s0.l%zu.acc", l);
        assert_true(c.slides[l] == (ra_st_find(file, name) == NULL));
        if (c.slides[l])
            continue;
        float *acc = tensor(file, name, Hq * P * sizeof *acc);
        assert_memory_equal(acc, prompt->acc + l * Hq * P, Hq * P * sizeof *acc);
        free(acc);
    }
    ra_st_close(file);
    ra_lm_prompt_close(whole);
    ra_lm_prompt_close(prompt);
    assert_int_equal(unlink(path), 0);
    lm_case_close(&c);
}

/* Closed before its commit, at any point, a recording leaves what was there before. */
static void test_uncommitted(void **unused)
{
    (void)unused;
    static const char old[] = "a trace that was complete";
    struct lm_case c;
    lm_case_open(&c, LM_LLAMA, RA_F16);
    lm_tokens(32, tokens, ROWS + 1);
    for (int32_t steps = 0; steps <= N; steps += N)
        for (int there = 0; there < 2; there++) {
            struct session s;
            if (there)
                tmp_write(path, old, sizeof old);
            begin(&s, &c, "full", all, 4, TOP);
            decode(&s, steps);
            end(&s);
            assert_int_equal(tmp_dir_count(tmp_dir), there);
            if (!there)
                continue;
            size_t n;
            uint8_t *bytes = tmp_read(path, &n);
            assert_int_equal(n, sizeof old);
            assert_memory_equal(bytes, old, n);
            free(bytes);
            assert_int_equal(unlink(path), 0);
        }
    lm_case_close(&c);
}

static int setup(void **state)
{
    int rc = tmp_dir_setup(state);
    static char own[600];
    snprintf(own, sizeof own, "%s/trace.safetensors", tmp_dir);
    path = own;
    return rc;
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recordings),
        cmocka_unit_test(test_prompt_rows),
        cmocka_unit_test(test_uncommitted),
    };
    return cmocka_run_group_tests_name("lm_recorder", tests, setup, tmp_dir_teardown);
}
