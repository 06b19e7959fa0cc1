/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The forward pass as the papers write it: f64, one token after the other. Only the rotary angle is
 * formed in f32, as the models form it.
 */
#include "tests/support/lm_case.h"

#include <math.h>
#include <stdlib.h>

#include "tests/support/ra_test.h"

enum { WIDTH = 64 };

struct pass {
    const struct lm_case *c;
    int n;
    double *k, *v; /* [layers][n][Hkv * D] */
    lm_sees sees;
    const void *context;
};

/* out [outs] = weights [outs][ins] times in, plus bias where there is one. */
static void times(const float *weights, const float *bias, const double *in, int outs, int ins,
                  double *out)
{
    for (int i = 0; i < outs; i++) {
        out[i] = bias ? (double)bias[i] : 0;
        for (int j = 0; j < ins; j++)
            out[i] += (double)weights[i * ins + j] * in[j];
    }
}

static void norm(const float *weight, const double *in, int n, double eps, double *out)
{
    double mean = 0;
    for (int i = 0; i < n; i++)
        mean += in[i] * in[i] / n;
    for (int i = 0; i < n; i++)
        out[i] = (weight ? (double)weight[i] / sqrt(mean + eps) : 1) * in[i];
}

/* One head at its place: normed where the family does, then pairs (i, i + D/2) turned. */
static void turn(const struct ra_lm_config *c, const struct ra_rope *rope, const float *weight,
                 int at, double *head)
{
    norm(weight, head, c->D, c->norm_eps, head);
    for (int i = 0; i < c->D / 2; i++) {
        float frequency = 1 / (float)pow(rope->theta, (double)((float)(2 * i) / (float)c->D));
        if (rope->type == RA_ROPE_LINEAR)
            frequency /= (float)rope->factor;
        double angle = (double)((float)at * frequency), a = head[i], b = head[i + c->D / 2];
        head[i] = a * cos(angle) - b * sin(angle);
        head[i + c->D / 2] = a * sin(angle) + b * cos(angle);
    }
}

/* Query head h of the token at `at` over the keys that it sees. */
static void attend(const struct pass *p, int layer, int at, int h, const double *q, double *out)
{
    const struct ra_lm_config *c = &p->c->config;
    int kv = c->Hkv * c->D, head = h / (c->Hq / c->Hkv) * c->D;
    double sum = 0, *weights = calloc((size_t)at + 1, sizeof *weights), top = -INFINITY;
    assert_non_null(weights);
    for (int pass = 0; pass < 2; pass++) /* the largest logit first */
        for (int j = 0; j <= at; j++) {
            const double *k = p->k + (size_t)(layer * p->n + j) * (size_t)kv + head;
            double logit = 0;
            bool slid = c->window && c->slides[layer] && at - j >= c->window;
            if (slid || (p->sees && !p->sees(p->context, layer, h, at, j)))
                continue;
            for (int d = 0; d < c->D; d++)
                logit += c->attn_scale * q[d] * k[d];
            top = fmax(top, logit);
            weights[j] = pass ? exp(logit - top) : 0;
            sum += weights[j];
        }
    for (int d = 0; d < c->D; d++)
        out[d] = 0;
    for (int j = 0; j <= at; j++) {
        const double *v = p->v + (size_t)(layer * p->n + j) * (size_t)kv + head;
        for (int d = 0; d < c->D; d++)
            out[d] += weights[j] / sum * v[d];
    }
    free(weights);
}

static double activate(const struct ra_lm_config *c, double x)
{
    if (c->activation == RA_LM_SILU)
        return x / (1 + exp(-x));
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static void run_layer(const struct pass *p, int layer, int at, double *x)
{
    const struct ra_lm_config *c = &p->c->config;
    const struct ra_lm_layer *w = &p->c->layers[layer];
    const struct ra_rope *rope = c->window && c->slides[layer] ? &c->rope_local : &c->rope;
    int hidden = c->hidden, q_width = c->Hq * c->D, kv = c->Hkv * c->D;
    double h[WIDTH], q[WIDTH], o[WIDTH], gate[WIDTH], up[WIDTH];
    double *k = p->k + (size_t)(layer * p->n + at) * (size_t)kv;
    double *v = p->v + (size_t)(layer * p->n + at) * (size_t)kv;
    norm(w->input_norm, x, hidden, c->norm_eps, h);
    times(w->q, w->q_bias, h, q_width, hidden, q);
    times(w->k, w->k_bias, h, kv, hidden, k);
    times(w->v, w->v_bias, h, kv, hidden, v);
    for (int i = 0; i < c->Hq; i++)
        turn(c, rope, w->q_norm, at, q + i * c->D);
    for (int i = 0; i < c->Hkv; i++)
        turn(c, rope, w->k_norm, at, k + i * c->D);
    for (int i = 0; i < c->Hq; i++)
        attend(p, layer, at, i, q + i * c->D, o + i * c->D);
    times(w->o, NULL, o, hidden, q_width, h);
    norm(w->attn_post_norm, h, hidden, c->norm_eps, h);
    for (int i = 0; i < hidden; i++)
        x[i] += h[i];
    norm(w->mlp_norm, x, hidden, c->norm_eps, h);
    times(w->gate, NULL, h, c->ffn, hidden, gate);
    times(w->up, NULL, h, c->ffn, hidden, up);
    for (int i = 0; i < c->ffn; i++)
        gate[i] = activate(c, gate[i]) * up[i];
    times(w->down, NULL, gate, hidden, c->ffn, h);
    norm(w->mlp_post_norm, h, hidden, c->norm_eps, h);
    for (int i = 0; i < hidden; i++)
        x[i] += h[i];
}

void lm_reference(const struct lm_case *c, const int32_t *tokens, int n, lm_sees sees,
                  const void *context, double *logits)
{
    size_t kv = (size_t)(LM_LAYERS * n) * (size_t)(c->config.Hkv * c->config.D);
    int hidden = c->config.hidden;
    struct pass p = {.c = c,
                     .n = n,
                     .k = calloc(kv, sizeof(double)),
                     .v = calloc(kv, sizeof(double)),
                     .sees = sees,
                     .context = context};
    assert_true(p.k && p.v && c->config.Hq * c->config.D <= WIDTH && c->config.ffn <= WIDTH);
    for (int at = 0; at < n; at++) {
        double x[WIDTH], h[WIDTH];
        for (int i = 0; i < hidden; i++)
            x[i] = (double)c->weights.embed[tokens[at] * hidden + i] * c->config.embed_scale;
        for (int layer = 0; layer < LM_LAYERS; layer++)
            run_layer(&p, layer, at, x);
        norm(c->weights.norm, x, hidden, c->config.norm_eps, h);
        times(c->weights.head, NULL, h, LM_VOCAB, hidden, logits + (size_t)at * LM_VOCAB);
    }
    free(p.k);
    free(p.v);
}
