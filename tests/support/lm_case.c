/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/lm_case.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/rng.h"
#include "tests/support/ra_test.h"
#include "traces/model/gemm.h"

const char *const lm_family_names[] = {"llama", "alone", "qwen2", "qwen3", "gemma"};

static void set_family(struct ra_lm_config *c, enum lm_family family)
{
    switch (family) {
    case LM_ALONE:
        c->Hkv = 6;
        c->tied = false;
        break;
    case LM_QWEN2:
        c->Hkv = 1;
        c->qkv_bias = true;
        break;
    case LM_QWEN3:
        c->Hq = 4;
        c->D = 16;
        c->qk_norm = true;
        break;
    case LM_GEMMA:
        c->Hq = 4;
        c->Hkv = 2;
        c->activation = RA_LM_GELU_TANH;
        c->qk_norm = c->post_norms = c->norm_plus_one = true;
        c->embed_scale = 4.9;
        c->window = LM_WINDOW;
        c->slides[0] = c->slides[2] = c->slides[3] = true;
        c->rope_local = (struct ra_rope){.type = RA_ROPE_DEFAULT, .theta = 100};
        break;
    default:
        c->rope = (struct ra_rope){.type = RA_ROPE_LINEAR, .theta = 500, .factor = 2.5};
    }
}

/* The next of the weights: their scale keeps attention peaked and logits apart. */
struct drawing {
    float *at;
    uint64_t key;
};

static const float *draw(struct drawing *d, int rows, int columns, double middle, double spread)
{
    float *out = d->at;
    int n = rows * columns;
    d->at += n;
    d->key++;
    for (int i = 0; i < n; i++)
        out[i] = (float)(middle + spread * ra_rng_normal(d->key, (uint64_t)i));
    return out;
}

static const float *matrix(struct drawing *d, int outs, int ins)
{
    return draw(d, outs, ins, 0, 1.7 / sqrt(ins));
}

static const float *norm(struct drawing *d, int n, bool is_there)
{
    return is_there ? draw(d, 1, n, 1, 0.2) : NULL;
}

static void draw_layer(struct drawing *d, const struct ra_lm_config *c, struct ra_lm_layer *w)
{
    int q = c->Hq * c->D, kv = c->Hkv * c->D;
    w->input_norm = norm(d, c->hidden, true);
    w->mlp_norm = norm(d, c->hidden, true);
    w->attn_post_norm = norm(d, c->hidden, c->post_norms);
    w->mlp_post_norm = norm(d, c->hidden, c->post_norms);
    w->q_norm = norm(d, c->D, c->qk_norm);
    w->k_norm = norm(d, c->D, c->qk_norm);
    w->q = matrix(d, q, c->hidden);
    w->k = matrix(d, kv, c->hidden);
    w->v = matrix(d, kv, c->hidden);
    w->o = matrix(d, c->hidden, q);
    w->gate = matrix(d, c->ffn, c->hidden);
    w->up = matrix(d, c->ffn, c->hidden);
    w->down = matrix(d, c->hidden, c->ffn);
    w->q_bias = c->qkv_bias ? draw(d, 1, q, 0, 0.5) : NULL;
    w->k_bias = c->qkv_bias ? draw(d, 1, kv, 0, 0.5) : NULL;
    w->v_bias = c->qkv_bias ? draw(d, 1, kv, 0, 0.5) : NULL;
}

void lm_case_open(struct lm_case *c, enum lm_family family, enum ra_dtype dtype)
{
    struct ra_error err;
    *c = (struct lm_case){.memory = NULL};
    c->config = (struct ra_lm_config){.arch = "test",
                                      .n_layers = LM_LAYERS,
                                      .hidden = 24,
                                      .ffn = 37,
                                      .vocab = LM_VOCAB,
                                      .Hq = 6,
                                      .Hkv = 2,
                                      .D = 8,
                                      .max_positions = 4096,
                                      .norm_eps = 1e-5,
                                      .embed_scale = 1,
                                      .tied = true,
                                      .slides = c->slides,
                                      .rope = {.type = RA_ROPE_DEFAULT, .theta = 1e4},
                                      .bos = -1};
    set_family(&c->config, family);
    c->config.attn_scale = family == LM_GEMMA ? 0.3 : 1 / sqrt(c->config.D);
    c->memory = malloc(100000 * sizeof *c->memory);
    assert_non_null(c->memory);
    struct drawing d = {c->memory, ra_rng_key(71, (uint64_t)family)};
    for (int l = 0; l < LM_LAYERS; l++)
        draw_layer(&d, &c->config, &c->layers[l]);
    c->weights.embed = draw(&d, LM_VOCAB, c->config.hidden, 0, 0.6);
    c->weights.head =
        c->config.tied ? c->weights.embed : draw(&d, LM_VOCAB, c->config.hidden, 0, 0.6);
    c->weights.norm = norm(&d, c->config.hidden, true);
    c->weights.layers = c->layers;
    assert_true(d.at < c->memory + 100000);
    ra_assert_ok(ra_gemm_open(RA_GEMM_PLAIN, 0, &err));
    ra_assert_ok(ra_lm_open(&c->lm, &c->config, &c->weights, dtype, RA_LM_CHUNK, &err));
}

void lm_case_close(struct lm_case *c)
{
    ra_lm_close(&c->lm);
    free(c->memory);
}

void lm_tokens(uint64_t key, int32_t *tokens, int n)
{
    for (int i = 0; i < n; i++)
        tokens[i] = ra_rng_int(ra_rng_key(5, key), (uint64_t)i, 0, LM_VOCAB - 1);
}

struct ra_lm_prompt *lm_prompt(struct lm_case *c, const int32_t *tokens, int32_t P, int32_t W,
                               bool wants_acc, struct ra_pool *pool)
{
    struct ra_lm_prompt *prompt;
    struct ra_error err;
    struct ra_lm_prompt_config config = {
        .tokens = tokens, .P = P, .W = W, .wants_acc = wants_acc, .pool = pool};
    ra_assert_ok(ra_lm_prompt_open(&prompt, &c->lm, &config, &err));
    return prompt;
}

void lm_decode(const struct lm_run *run, float *logits)
{
    enum { MOST = 32 };
    struct ra_policy_spec *specs[MOST];
    struct ra_lm_loop *loop;
    struct ra_error err;
    int32_t tokens[MOST], P = run->prompt->P;
    size_t vocab = LM_VOCAB, n = (size_t)run->n;
    assert_in_range(run->n, 1, MOST);
    for (int i = 0; i < run->n; i++)
        ra_assert_ok(ra_policy_parse(&specs[i], run->policies[i], &err));
    struct ra_lm_loop_config config = {.lm = &run->c->lm,
                                       .prompt = run->prompt,
                                       .n = run->n,
                                       .specs = (const struct ra_policy_spec *const *)specs,
                                       .backend =
                                           run->backend ? run->backend : ra_backend_find("cpu"),
                                       .N = run->N,
                                       .pool = run->pool};
    ra_assert_ok(ra_lm_loop_open(&loop, &config, &err));
    float *step = malloc(n * vocab * sizeof *step);
    assert_non_null(step);
    for (int32_t t = 0; t < run->N; t++) {
        const float *hidden;
        for (int i = 0; i < run->n; i++)
            tokens[i] = run->tokens[i][P + t];
        ra_assert_ok(ra_lm_loop_step(loop, tokens, &hidden, &err));
        ra_lm_logits(&run->c->lm, run->n, hidden, step);
        for (size_t i = 0; i < n; i++) {
            memcpy(logits + (i * (size_t)run->N + (size_t)t) * vocab, step + i * vocab,
                   vocab * sizeof *step);
            struct ra_lm_step_counts counts = ra_lm_loop_counts(loop, (int)i);
            if (run->each)
                run->each(run->context, (int)i, t, &counts);
        }
    }
    free(step);
    ra_lm_loop_close(loop);
    for (int i = 0; i < run->n; i++)
        ra_policy_spec_close(specs[i]);
}

static double gap(const float *got, const void *expected, bool is_f32, size_t n)
{
    double worst = 0, largest = 1;
    for (size_t i = 0; i < n; i++) {
        double e = is_f32 ? (double)((const float *)expected)[i] : ((const double *)expected)[i];
        double d = fabs((double)got[i] - e);
        worst = isnan(d) ? INFINITY : fmax(worst, d);
        largest = fmax(largest, fabs(e));
    }
    return worst / largest;
}

double lm_gap(const float *got, const double *expected, size_t n)
{
    return gap(got, expected, false, n);
}

double lm_gap_f32(const float *got, const float *expected, size_t n)
{
    return gap(got, expected, true, n);
}
