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

/* Rows on their way into a prompt. */
struct prefill {
    struct ra_lm *lm;
    struct ra_pool *pool;
    struct ra_lm_prompt *prompt;
    float *k, *v;         /* [Hkv][rows][D] of the layer at hand */
    float *scores;        /* [threads][chunk][rows] */
    int chunk;            /* rows at most */
    double *acc;          /* [n_layers][Hq][P] or NULL */
    int32_t *places;      /* [chunk] */
    int32_t begin, first; /* of the chunk; lowest key that one of its queries sees */
    const struct ra_lm_rows *rows;
};

size_t ra_lm_prompt_layer_bytes(const struct ra_lm *lm, int32_t rows)
{
    const struct ra_model *m = &lm->shape;
    return (size_t)m->Hkv * (size_t)rows * (size_t)m->D * ra_dtype_bytes(m->dtype);
}

/* Where the query of position opened - W is. */
static float *first_query(const struct ra_lm_prompt *prompt, const struct ra_lm *lm, int layer,
                          int head)
{
    size_t at = (size_t)layer * (size_t)lm->shape.Hq + (size_t)head;
    size_t rows = (size_t)(prompt->W + prompt->rows - prompt->opened);
    return prompt->q + at * rows * (size_t)lm->shape.D;
}

const float *ra_lm_prompt_queries(const struct ra_lm_prompt *prompt, const struct ra_lm *lm,
                                  int layer, int head)
{
    return first_query(prompt, lm, layer, head) +
           (size_t)(prompt->P - prompt->opened) * (size_t)lm->shape.D;
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

void ra_lm_prompt_put(struct ra_lm_prompt *prompt, const struct ra_lm *lm,
                      const struct ra_lm_rows *rows)
{
    const struct ra_model *m = &lm->shape;
    size_t row = (size_t)m->D * ra_dtype_bytes(m->dtype), D = (size_t)m->D;
    size_t layer = (size_t)rows->layer * ra_lm_prompt_layer_bytes(lm, prompt->rows);
    for (int i = 0; i < rows->n; i++) {
        int32_t pos = rows->positions[i], tail = pos - (prompt->opened - prompt->W);
        RA_BUG_ON(pos >= prompt->rows);
        for (int h = 0; h < m->Hkv; h++) {
            size_t from = ((size_t)i * (size_t)m->Hkv + (size_t)h) * row;
            size_t to = layer + ((size_t)h * (size_t)prompt->rows + (size_t)pos) * row;
            memcpy(prompt->k + to, (const char *)rows->k_raw + from, row);
            memcpy(prompt->v + to, (const char *)rows->v_raw + from, row);
        }
        for (int h = 0; tail >= 0 && h < m->Hq; h++)
            memcpy(first_query(prompt, lm, rows->layer, h) + (size_t)tail * D,
                   rows->q + ((size_t)i * (size_t)m->Hq + (size_t)h) * D, D * sizeof *rows->q);
    }
}

void ra_lm_prompt_resize(struct ra_lm_prompt *prompt, int32_t P)
{
    RA_BUG_ON(P < prompt->opened || P > prompt->rows);
    prompt->P = P;
}

/* Task: one KV head's keys, or values, up to the chunk's end. */
static void widen_head(void *context, size_t index, int worker)
{
    (void)worker;
    struct prefill *p = context;
    const struct ra_model *m = &p->lm->shape;
    bool values = index >= (size_t)m->Hkv;
    size_t head = index % (size_t)m->Hkv, D = (size_t)m->D, rows = (size_t)p->prompt->rows;
    size_t n = (size_t)(p->begin + p->rows->n - p->first);
    size_t at = head * rows + (size_t)p->first;
    const char *stored = (values ? p->prompt->v : p->prompt->k) +
                         (size_t)p->rows->layer * ra_lm_prompt_layer_bytes(p->lm, p->prompt->rows);
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
                         : p->prompt->rows;
    size_t D = (size_t)m->D, most = (size_t)p->prompt->rows;
    size_t kv = (index / (size_t)m->G * most + (size_t)p->first) * D;
    float *scores = p->scores + (size_t)worker * (size_t)p->chunk * most;
    float *out = rows->out + index * D;
    ra_gemm_nt(rows->n, n, m->D, (struct ra_matrix){(float *)rows->q + index * D, q_stride},
               (struct ra_matrix){p->k + kv, m->D}, (struct ra_matrix){scores, n});
    float sums[RA_LM_CHUNK];
    double *acc = NULL;
    if (p->acc)
        acc = p->acc + ((size_t)rows->layer * (size_t)m->Hq + index) * most;
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
    int n_threads = ra_pool_threads(p->pool);
    p->rows = rows;
    p->first = 0;
    if (c->window && c->slides[rows->layer] && p->begin >= c->window)
        p->first = p->begin - c->window + 1;
    ra_lm_prompt_put(p->prompt, p->lm, rows);
    ra_pool_run(p->pool, 2 * (size_t)c->Hkv, widen_head, p);
    ra_gemm_threads(1);
    ra_pool_run(p->pool, (size_t)c->Hq, attend_head, p);
    ra_gemm_threads(n_threads);
    return RA_OK;
}

/* The next n tokens, from p->begin on. */
static enum ra_status run_rows(struct prefill *p, const int32_t *tokens, int n,
                               const float **hidden, struct ra_error *err)
{
    struct ra_lm_attention attention = {attend, p};
    for (int i = 0; i < n; i++)
        p->places[i] = p->begin + i;
    return ra_lm_forward(p->lm, n, tokens, p->places, &attention, hidden, err);
}

static enum ra_status run_chunks(struct prefill *p, const struct ra_lm_prompt_config *config,
                                 struct ra_error *err)
{
    const float *hidden = NULL;
    int n = 0;
    for (p->begin = 0; p->begin < config->P; p->begin += n) {
        n = config->P - p->begin < RA_LM_CHUNK ? config->P - p->begin : RA_LM_CHUNK;
        RA_TRY(run_rows(p, config->tokens + p->begin, n, &hidden, err));
        if (config->progress && !config->progress(config->context, p->begin + n, config->P))
            return ra_fail(err, RA_EINTERRUPTED, "interrupted");
    }
    RA_BUG_ON(!hidden);
    size_t last = (size_t)(n - 1) * (size_t)p->lm->config->hidden;
    ra_lm_logits(p->lm, 1, hidden + last, p->prompt->logits);
    for (size_t i = 0; p->acc && i < (size_t)p->lm->config->n_layers * (size_t)p->lm->shape.Hq *
                                         (size_t)config->P;
         i++)
        p->prompt->acc[i] = (float)p->acc[i];
    return RA_OK;
}

static bool take_result(struct ra_lm_prompt *prompt, const struct ra_lm *lm, bool wants_acc)
{
    const struct ra_lm_config *c = lm->config;
    size_t L = (size_t)c->n_layers, Hq = (size_t)c->Hq;
    size_t layer = ra_lm_prompt_layer_bytes(lm, prompt->rows);
    size_t tail = (size_t)(prompt->W + prompt->rows - prompt->opened);
    prompt->k = malloc(L * layer);
    prompt->v = malloc(L * layer);
    prompt->q = malloc(L * Hq * tail * (size_t)c->D * sizeof(float));
    prompt->logits = malloc((size_t)c->vocab * sizeof(float));
    prompt->acc = wants_acc ? malloc(L * Hq * (size_t)prompt->P * sizeof(float)) : NULL;
    return prompt->k && prompt->v && prompt->q && prompt->logits && (prompt->acc || !wants_acc);
}

/* Room for the way to the result. */
static bool take_room(struct prefill *p)
{
    const struct ra_lm_config *c = p->lm->config;
    size_t rows = (size_t)p->prompt->rows, chunk = (size_t)p->chunk;
    size_t threads = (size_t)ra_pool_threads(p->pool);
    p->k = malloc((size_t)c->Hkv * rows * (size_t)c->D * sizeof *p->k);
    p->v = malloc((size_t)c->Hkv * rows * (size_t)c->D * sizeof *p->v);
    p->scores = malloc(threads * chunk * rows * sizeof *p->scores);
    p->places = malloc(chunk * sizeof *p->places);
    if (p->prompt->acc)
        p->acc = calloc((size_t)c->n_layers * (size_t)c->Hq * rows, sizeof *p->acc);
    return p->k && p->v && p->scores && p->places && (p->acc || !p->prompt->acc);
}

static void give_room(struct prefill *p)
{
    free(p->k);
    free(p->v);
    free(p->scores);
    free(p->places);
    free(p->acc);
}

enum ra_status ra_lm_prompt_open(struct ra_lm_prompt **prompt, struct ra_lm *lm,
                                 const struct ra_lm_prompt_config *config, struct ra_error *err)
{
    struct prefill p = {
        .lm = lm, .pool = config->pool, .prompt = calloc(1, sizeof **prompt), .chunk = RA_LM_CHUNK};
    RA_BUG_ON(config->P < 1 || config->W < 1 || config->W > config->P || config->room < 0);
    RA_BUG_ON(config->wants_acc && config->room);
    if (p.prompt)
        *p.prompt = (struct ra_lm_prompt){
            .P = config->P, .W = config->W, .opened = config->P, .rows = config->P + config->room};
    enum ra_status st =
        p.prompt && take_result(p.prompt, lm, config->wants_acc) && take_room(&p)
            ? run_chunks(&p, config, err)
            : ra_fail(err, RA_ENOMEM, "decoder: no memory for a prompt of %d tokens", config->P);
    give_room(&p);
    if (st != RA_OK) {
        ra_lm_prompt_close(p.prompt);
        p.prompt = NULL;
    }
    *prompt = p.prompt;
    return st;
}

enum ra_status ra_lm_prompt_extend(struct ra_lm_prompt *prompt, struct ra_lm *lm,
                                   const int32_t *tokens, int n, struct ra_pool *pool,
                                   float *logits, struct ra_error *err)
{
    struct prefill p = {.lm = lm, .pool = pool, .prompt = prompt, .chunk = n, .begin = prompt->P};
    const float *hidden;
    RA_BUG_ON(n < 1 || n > RA_LM_CHUNK || n > prompt->rows - prompt->P || prompt->acc);
    enum ra_status st = take_room(&p)
                            ? run_rows(&p, tokens, n, &hidden, err)
                            : ra_fail(err, RA_ENOMEM, "decoder: no memory for %d more tokens", n);
    give_room(&p);
    RA_TRY(st);
    ra_lm_logits(lm, n, hidden, logits);
    prompt->P += n;
    return RA_OK;
}
