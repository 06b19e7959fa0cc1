/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dense causal attention over chunks of the prompt: per query head two matrix products with a
 * softmax between them, over the keys up to the chunk's end. Heads go to threads, each product to
 * one.
 */
#include "traces/model/prompt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "traces/model/gemm.h"
#include "traces/model/layers.h"

struct prefill {
    struct ra_lm *lm;
    const struct ra_lm_prompt_config *config;
    struct ra_lm_prompt *prompt;
    float *k, *v;         /* [Hkv][P][D] of the layer at hand */
    float *scores;        /* [threads][chunk][P] */
    double *acc;          /* [n_layers][Hq][P] or NULL */
    int32_t *places;      /* [chunk] */
    int32_t begin, first; /* of the chunk; lowest key that one of its queries sees */
    const struct ra_lm_rows *rows;
};

size_t ra_lm_prompt_layer_bytes(const struct ra_lm *lm, int32_t P)
{
    const struct ra_model *m = &lm->shape;
    return (size_t)m->Hkv * (size_t)P * (size_t)m->D * ra_dtype_bytes(m->dtype);
}

void ra_lm_prompt_close(struct ra_lm_prompt *prompt)
{
    if (!prompt)
        return;
    free(prompt->k);
    free(prompt->v);
    free(prompt->q);
    free(prompt->acc);
    free(prompt->logits);
    free(prompt);
}

/* Put the chunk's rows into the cache, and its queries where they belong to the tail. */
static void keep_rows(struct prefill *p)
{
    const struct ra_model *m = &p->lm->shape;
    const struct ra_lm_rows *rows = p->rows;
    size_t row = (size_t)m->D * ra_dtype_bytes(m->dtype), D = (size_t)m->D;
    size_t layer = (size_t)rows->layer * ra_lm_prompt_layer_bytes(p->lm, p->config->P);
    for (int i = 0; i < rows->n; i++) {
        int32_t pos = p->begin + i, tail = pos - (p->config->P - p->config->W);
        for (int h = 0; h < m->Hkv; h++) {
            size_t from = ((size_t)i * (size_t)m->Hkv + (size_t)h) * row;
            size_t to = layer + ((size_t)h * (size_t)p->config->P + (size_t)pos) * row;
            memcpy(p->prompt->k + to, (const char *)rows->k_raw + from, row);
            memcpy(p->prompt->v + to, (const char *)rows->v_raw + from, row);
        }
        for (int h = 0; tail >= 0 && h < m->Hq; h++) {
            size_t head = (size_t)rows->layer * (size_t)m->Hq + (size_t)h;
            memcpy(p->prompt->q + (head * (size_t)p->config->W + (size_t)tail) * D,
                   rows->q + ((size_t)i * (size_t)m->Hq + (size_t)h) * D, D * sizeof *rows->q);
        }
    }
}

/* Task: one KV head's keys, or values, up to the chunk's end. */
static void widen_head(void *context, size_t index, int worker)
{
    (void)worker;
    struct prefill *p = context;
    const struct ra_model *m = &p->lm->shape;
    bool values = index >= (size_t)m->Hkv;
    size_t head = index % (size_t)m->Hkv, D = (size_t)m->D, P = (size_t)p->config->P;
    size_t n = (size_t)(p->begin + p->rows->n - p->first);
    size_t at = head * P + (size_t)p->first;
    const char *stored = (values ? p->prompt->v : p->prompt->k) +
                         (size_t)p->rows->layer * ra_lm_prompt_layer_bytes(p->lm, p->config->P);
    ra_widen(m->dtype, stored + at * D * ra_dtype_bytes(m->dtype), n * D,
             (values ? p->v : p->k) + at * D);
}

/* Softmax of one query over keys low..high of `scores`, whose key 0 is position `first`. Zero
 * elsewhere below n. Leaves the weights unnormalised and returns their sum. */
static float softmax(float *scores, int n, int low, int high, float scale)
{
    float top = -INFINITY;
    for (int j = low; j <= high; j++) {
        scores[j] *= scale;
        top = scores[j] > top ? scores[j] : top;
    }
    memset(scores, 0, (size_t)low * sizeof *scores);
    memset(scores + high + 1, 0, (size_t)(n - high - 1) * sizeof *scores);
    return ra_lm_exp_below(scores + low, high - low + 1, top);
}

/* Task: one query head. */
static void attend_head(void *context, size_t index, int worker)
{
    struct prefill *p = context;
    const struct ra_model *m = &p->lm->shape;
    const struct ra_lm_rows *rows = p->rows;
    int q_stride = m->Hq * m->D, n = p->begin + rows->n - p->first;
    int32_t window = p->lm->config->window && p->lm->config->slides[rows->layer]
                         ? p->lm->config->window
                         : p->config->P;
    size_t D = (size_t)m->D;
    size_t kv = (index / (size_t)m->G * (size_t)p->config->P + (size_t)p->first) * D;
    float *scores = p->scores + (size_t)worker * RA_LM_CHUNK * (size_t)p->config->P;
    float *out = rows->out + index * D;
    ra_gemm_nt(rows->n, n, m->D, (struct ra_matrix){(float *)rows->q + index * D, q_stride},
               (struct ra_matrix){p->k + kv, m->D}, (struct ra_matrix){scores, n});
    float sums[RA_LM_CHUNK];
    double *acc = NULL;
    if (p->acc)
        acc = p->acc + ((size_t)rows->layer * (size_t)m->Hq + index) * (size_t)p->config->P;
    for (int i = 0; i < rows->n; i++) {
        float *row = scores + (size_t)i * (size_t)n;
        int high = p->begin + i - p->first, low = high - window + 1 > 0 ? high - window + 1 : 0;
        sums[i] = softmax(row, n, low, high, (float)m->attn_scale);
        for (int j = low; acc && j <= high; j++)
            acc[p->first + j] += (double)row[j] / (double)sums[i];
    }
    ra_gemm_nn(rows->n, m->D, n, (struct ra_matrix){scores, n}, (struct ra_matrix){p->v + kv, m->D},
               (struct ra_matrix){out, q_stride});
    for (int i = 0; i < rows->n; i++)
        for (size_t d = 0; d < D; d++)
            out[(size_t)i * (size_t)q_stride + d] /= sums[i];
}

static enum ra_status attend(void *context, const struct ra_lm_rows *rows, struct ra_error *err)
{
    (void)err;
    struct prefill *p = context;
    const struct ra_lm_config *c = p->lm->config;
    int n_threads = ra_pool_threads(p->config->pool);
    p->rows = rows;
    p->first = 0;
    if (c->window && c->slides[rows->layer] && p->begin >= c->window)
        p->first = p->begin - c->window + 1;
    keep_rows(p);
    ra_pool_run(p->config->pool, 2 * (size_t)c->Hkv, widen_head, p);
    ra_gemm_threads(1);
    ra_pool_run(p->config->pool, (size_t)c->Hq, attend_head, p);
    ra_gemm_threads(n_threads);
    return RA_OK;
}

static enum ra_status run_chunks(struct prefill *p, struct ra_error *err)
{
    const struct ra_lm_prompt_config *config = p->config;
    struct ra_lm_attention attention = {attend, p};
    const float *hidden = NULL;
    int n = 0;
    for (p->begin = 0; p->begin < config->P; p->begin += n) {
        n = config->P - p->begin < RA_LM_CHUNK ? config->P - p->begin : RA_LM_CHUNK;
        for (int i = 0; i < n; i++)
            p->places[i] = p->begin + i;
        RA_TRY(ra_lm_forward(p->lm, n, config->tokens + p->begin, p->places, &attention, &hidden,
                             err));
        if (config->progress && !config->progress(config->context, p->begin + n, config->P))
            return ra_fail(err, RA_EINTERRUPTED, "interrupted");
    }
    size_t last = (size_t)(n - 1) * (size_t)p->lm->config->hidden;
    ra_lm_logits(p->lm, 1, hidden + last, p->prompt->logits);
    for (size_t i = 0; p->acc && i < (size_t)p->lm->config->n_layers * (size_t)p->lm->shape.Hq *
                                         (size_t)config->P;
         i++)
        p->prompt->acc[i] = (float)p->acc[i];
    return RA_OK;
}

/* Room for the result and for the way to it. */
static bool take_room(struct prefill *p)
{
    const struct ra_lm_config *c = p->lm->config;
    size_t P = (size_t)p->config->P, L = (size_t)c->n_layers, Hq = (size_t)c->Hq;
    size_t D = (size_t)c->D, layer = ra_lm_prompt_layer_bytes(p->lm, p->config->P);
    size_t threads = (size_t)ra_pool_threads(p->config->pool);
    p->prompt->k = malloc(L * layer);
    p->prompt->v = malloc(L * layer);
    p->prompt->q = malloc(L * Hq * (size_t)p->config->W * D * sizeof(float));
    p->prompt->logits = malloc((size_t)c->vocab * sizeof(float));
    p->k = malloc((size_t)c->Hkv * P * D * sizeof *p->k);
    p->v = malloc((size_t)c->Hkv * P * D * sizeof *p->v);
    p->scores = malloc(threads * RA_LM_CHUNK * P * sizeof *p->scores);
    p->places = malloc(RA_LM_CHUNK * sizeof *p->places);
    if (p->config->wants_acc) {
        p->prompt->acc = malloc(L * Hq * P * sizeof(float));
        p->acc = calloc(L * Hq * P, sizeof *p->acc);
    }
    return p->prompt->k && p->prompt->v && p->prompt->q && p->prompt->logits && p->k && p->v &&
           p->scores && p->places && (!p->config->wants_acc || (p->prompt->acc && p->acc));
}

enum ra_status ra_lm_prompt_open(struct ra_lm_prompt **prompt, struct ra_lm *lm,
                                 const struct ra_lm_prompt_config *config, struct ra_error *err)
{
    struct prefill p = {.lm = lm, .config = config, .prompt = calloc(1, sizeof **prompt)};
    RA_BUG_ON(config->P < 1 || config->W < 1 || config->W > config->P);
    enum ra_status st;
    if (p.prompt && take_room(&p)) {
        p.prompt->P = config->P;
        p.prompt->W = config->W;
        st = run_chunks(&p, err);
    } else {
        st = ra_fail(err, RA_ENOMEM, "decoder: no memory for a prompt of %d tokens", config->P);
    }
    free(p.k);
    free(p.v);
    free(p.scores);
    free(p.places);
    free(p.acc);
    if (st != RA_OK) {
        ra_lm_prompt_close(p.prompt);
        p.prompt = NULL;
    }
    *prompt = p.prompt;
    return st;
}
