/* SPDX-License-Identifier: Apache-2.0 */
#include "traces/model/decoder.h"

#include <stdlib.h>
#include <string.h>

#include "sim/rope.h"
#include "traces/model/gemm.h"
#include "traces/model/layers.h"

struct ra_lm_space {
    float *x, *h;           /* [rows][hidden] residual stream; normed */
    float *q, *k, *v, *o;   /* [rows][Hq * D], [rows][Hkv * D] twice, [rows][Hq * D] */
    char *k_raw, *v_raw;    /* [rows][Hkv * D] as stored */
    char *q_raw;            /* [rows][Hq * D] on the way of rounding */
    float *gate, *up;       /* [rows][ffn] */
    float *cosines, *sines; /* [2][rows][D / 2] of layers that do not slide; that do */
    float *frequencies;     /* [2][D / 2] */
};

static float *take(size_t *n, char *base, size_t count)
{
    size_t at = *n;
    *n += (count * sizeof(float) + 63) / 64 * 64;
    return base ? (float *)(void *)(base + at) : NULL;
}

/* Lay the arrays out from `base`; returns the bytes in all. */
static size_t lay_out(struct ra_lm_space *s, const struct ra_lm_config *c, size_t rows, char *base)
{
    size_t n = 0, D = (size_t)c->D, q = (size_t)c->Hq * D, kv = (size_t)c->Hkv * D;
    s->x = take(&n, base, rows * (size_t)c->hidden);
    s->h = take(&n, base, rows * (size_t)c->hidden);
    s->q = take(&n, base, rows * q);
    s->o = take(&n, base, rows * q);
    s->k = take(&n, base, rows * kv);
    s->v = take(&n, base, rows * kv);
    s->q_raw = (char *)take(&n, base, rows * q);
    s->k_raw = (char *)take(&n, base, rows * kv);
    s->v_raw = (char *)take(&n, base, rows * kv);
    s->gate = take(&n, base, rows * (size_t)c->ffn);
    s->up = take(&n, base, rows * (size_t)c->ffn);
    s->cosines = take(&n, base, rows * D);
    s->sines = take(&n, base, rows * D);
    s->frequencies = take(&n, base, D);
    return n;
}

enum ra_status ra_lm_open(struct ra_lm *lm, const struct ra_lm_config *config,
                          const struct ra_lm_weights *weights, enum ra_dtype dtype, int max_rows,
                          struct ra_error *err)
{
    *lm = (struct ra_lm){.config = config,
                         .weights = weights,
                         .shape = ra_lm_config_model(config, dtype),
                         .max_rows = max_rows};
    struct ra_lm_space measure;
    size_t bytes = lay_out(&measure, config, (size_t)max_rows, NULL), head = 256;
    RA_BUG_ON(sizeof *lm->space > head);
    char *memory = aligned_alloc(64, head + bytes);
    if (!memory)
        return ra_fail(err, RA_ENOMEM, "decoder: no memory for %d rows: %zu bytes", max_rows,
                       bytes);
    lm->space = (struct ra_lm_space *)(void *)memory;
    lay_out(lm->space, config, (size_t)max_rows, memory + head);
    ra_rope_frequencies(&config->rope, config->D, lm->space->frequencies);
    if (config->window)
        ra_rope_frequencies(&config->rope_local, config->D, lm->space->frequencies + config->D / 2);
    return RA_OK;
}

void ra_lm_close(struct ra_lm *lm)
{
    free(lm->space);
    *lm = (struct ra_lm){0};
}

/* c [n][outs] = a [n][ins] times weights [outs][ins]. */
static void product(int n, int outs, int ins, float *a, const float *weights, float *c)
{
    ra_gemm_nt(n, outs, ins, (struct ra_matrix){a, ins}, (struct ra_matrix){(float *)weights, ins},
               (struct ra_matrix){c, outs});
}

static void add_bias(float *rows, int n, int width, const float *bias)
{
    for (int i = 0; bias && i < n; i++)
        for (int j = 0; j < width; j++)
            rows[(size_t)i * (size_t)width + (size_t)j] += bias[j];
}

/* Norm, rotate: what lies between a projection and attention, of q and k. */
static void turn_heads(const struct ra_lm *lm, int n, int heads, bool slides, const float *norm,
                       float *rows)
{
    const struct ra_lm_config *c = lm->config;
    size_t half = (size_t)c->D / 2, kind = slides ? (size_t)lm->max_rows : 0;
    for (int i = 0; i < n; i++)
        for (int h = 0; h < heads; h++) {
            float *vec = rows + ((size_t)i * (size_t)heads + (size_t)h) * (size_t)c->D;
            if (norm)
                ra_lm_rms_norm(vec, norm, c->D, c->norm_eps, vec);
            size_t at = (kind + (size_t)i) * half;
            ra_lm_rotate(lm->space->cosines + at, lm->space->sines + at, c->D, vec);
        }
}

static enum ra_status round_rows(const struct ra_lm *lm, const struct ra_lm_rows *rows,
                                 const char *what, float *values, char *raw, int heads,
                                 struct ra_error *err)
{
    size_t width = (size_t)heads * (size_t)lm->shape.D, n = (size_t)rows->n * width;
    ra_narrow(lm->shape.dtype, values, n, raw);
    size_t bad = ra_first_nonfinite(lm->shape.dtype, raw, n);
    if (bad < n)
        return ra_fail(err, RA_ERANGE,
                       "layer %d, position %d: expected a %s that fits %s, got %g; another --dtype "
                       "may hold it",
                       rows->layer, rows->positions[bad / width], what,
                       ra_dtype_name(lm->shape.dtype), (double)values[bad]);
    ra_widen(lm->shape.dtype, raw, n, values);
    return RA_OK;
}

static enum ra_status attention_block(struct ra_lm *lm, struct ra_lm_rows *rows,
                                      const struct ra_lm_attention *attention, struct ra_error *err)
{
    const struct ra_lm_config *c = lm->config;
    const struct ra_lm_layer *w = &lm->weights->layers[rows->layer];
    struct ra_lm_space *s = lm->space;
    int n = rows->n, q = c->Hq * c->D, kv = c->Hkv * c->D;
    bool slides = c->window && c->slides[rows->layer];
    product(n, q, c->hidden, s->h, w->q, s->q);
    product(n, kv, c->hidden, s->h, w->k, s->k);
    product(n, kv, c->hidden, s->h, w->v, s->v);
    add_bias(s->q, n, q, w->q_bias);
    add_bias(s->k, n, kv, w->k_bias);
    add_bias(s->v, n, kv, w->v_bias);
    turn_heads(lm, n, c->Hq, slides, w->q_norm, s->q);
    turn_heads(lm, n, c->Hkv, slides, w->k_norm, s->k);
    RA_TRY(round_rows(lm, rows, "query", s->q, s->q_raw, c->Hq, err));
    RA_TRY(round_rows(lm, rows, "key", s->k, s->k_raw, c->Hkv, err));
    RA_TRY(round_rows(lm, rows, "value", s->v, s->v_raw, c->Hkv, err));
    RA_TRY(attention->attend(attention->context, rows, err));
    product(n, c->hidden, q, s->o, w->o, s->h);
    return RA_OK;
}

static void norm_rows(const struct ra_lm *lm, int n, const float *in, const float *weight,
                      float *out)
{
    size_t width = (size_t)lm->config->hidden;
    for (size_t i = 0; weight && i < (size_t)n; i++)
        ra_lm_rms_norm(in + i * width, weight, lm->config->hidden, lm->config->norm_eps,
                       out + i * width);
}

static void add_residual(const struct ra_lm *lm, int n)
{
    for (size_t i = 0; i < (size_t)n * (size_t)lm->config->hidden; i++)
        lm->space->x[i] += lm->space->h[i];
}

static enum ra_status run_layer(struct ra_lm *lm, struct ra_lm_rows *rows,
                                const struct ra_lm_attention *attention, struct ra_error *err)
{
    const struct ra_lm_config *c = lm->config;
    const struct ra_lm_layer *w = &lm->weights->layers[rows->layer];
    struct ra_lm_space *s = lm->space;
    int n = rows->n;
    norm_rows(lm, n, s->x, w->input_norm, s->h);
    RA_TRY(attention_block(lm, rows, attention, err));
    norm_rows(lm, n, s->h, w->attn_post_norm, s->h);
    add_residual(lm, n);
    norm_rows(lm, n, s->x, w->mlp_norm, s->h);
    product(n, c->ffn, c->hidden, s->h, w->gate, s->gate);
    product(n, c->ffn, c->hidden, s->h, w->up, s->up);
    ra_lm_gate(c->activation, s->up, n * c->ffn, s->gate);
    product(n, c->hidden, c->ffn, s->gate, w->down, s->h);
    norm_rows(lm, n, s->h, w->mlp_post_norm, s->h);
    add_residual(lm, n);
    return RA_OK;
}

static void begin(struct ra_lm *lm, int n, const int32_t *tokens, const int32_t *positions)
{
    const struct ra_lm_config *c = lm->config;
    struct ra_lm_space *s = lm->space;
    size_t half = (size_t)c->D / 2, hidden = (size_t)c->hidden;
    for (int i = 0; i < n; i++) {
        RA_BUG_ON(tokens[i] < 0 || tokens[i] >= c->vocab);
        memcpy(s->x + (size_t)i * hidden, lm->weights->embed + (size_t)tokens[i] * hidden,
               hidden * sizeof *s->x);
        for (int kind = 0; kind < (c->window ? 2 : 1); kind++) {
            size_t at = ((size_t)kind * (size_t)lm->max_rows + (size_t)i) * half;
            ra_lm_rope_table(s->frequencies + (size_t)kind * half, c->D, positions[i],
                             s->cosines + at, s->sines + at);
        }
    }
    if (c->embed_scale != 1)
        for (size_t i = 0; i < (size_t)n * hidden; i++)
            s->x[i] *= (float)c->embed_scale;
}

enum ra_status ra_lm_forward(struct ra_lm *lm, int n, const int32_t *tokens,
                             const int32_t *positions, const struct ra_lm_attention *attention,
                             const float **hidden, struct ra_error *err)
{
    struct ra_lm_space *s = lm->space;
    struct ra_lm_rows rows = {.n = n,
                              .positions = positions,
                              .q = s->q,
                              .k = s->k,
                              .v = s->v,
                              .k_raw = s->k_raw,
                              .v_raw = s->v_raw,
                              .out = s->o};
    RA_BUG_ON(n < 1 || n > lm->max_rows);
    begin(lm, n, tokens, positions);
    for (rows.layer = 0; rows.layer < lm->config->n_layers; rows.layer++)
        RA_TRY(run_layer(lm, &rows, attention, err));
    norm_rows(lm, n, s->x, lm->weights->norm, s->h);
    *hidden = s->h;
    return RA_OK;
}

void ra_lm_logits(const struct ra_lm *lm, int n, const float *hidden, float *logits)
{
    product(n, lm->config->vocab, lm->config->hidden, (float *)hidden, lm->weights->head, logits);
}
