/* SPDX-License-Identifier: Apache-2.0 */
#include "traces/model/recorder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/reference.h"
#include "traces/model/layers.h"
#include "traces/model/recorder_metadata.h"

/* Tensors of one recorded layer. */
struct layer_tensors {
    size_t k, v, q, acc, o, lse;
};

struct ra_lm_recorder {
    struct ra_lm_recording r;
    struct ra_st_writer *writer;
    struct layer_tensors *layers; /* [n_layers] */
    int *slot;                    /* [model layers] index among the recorded, -1: not */
    size_t tokens, logprob, steps, top_id, top_logprob;
    char *raw;     /* one query row, or the prompt's tail of a head, as stored */
    int32_t *best; /* [top_k] */
    float *best_logprob;
};

void ra_lm_recorder_close(struct ra_lm_recorder *rec)
{
    if (!rec)
        return;
    ra_st_writer_close(rec->writer);
    free(rec->layers);
    free(rec->slot);
    free(rec->raw);
    free(rec->best);
    free(rec->best_logprob);
    free(rec);
}

static enum ra_st_dtype stored_type(enum ra_dtype dtype)
{
    return dtype == RA_F16 ? RA_ST_F16 : dtype == RA_BF16 ? RA_ST_BF16 : RA_ST_F32;
}

static enum ra_status declare(struct ra_lm_recorder *rec, int layer, const char *part,
                              enum ra_st_dtype dtype, const uint64_t shape[3], size_t *index,
                              struct ra_error *err)
{
    char name[64];
    snprintf(name, sizeof name, "s0.l%d.%s", layer, part);
    return ra_st_writer_tensor(rec->writer, name, dtype, shape[2] ? 3 : 2, shape, index, err);
}

/* Large tensors first, so that every row is aligned. */
static enum ra_status declare_all(struct ra_lm_recorder *rec, bool has_acc, struct ra_error *err)
{
    const struct ra_lm_recording *r = &rec->r;
    const struct ra_model *m = &r->lm->shape;
    enum ra_st_dtype stored = stored_type(m->dtype);
    uint64_t P = (uint64_t)r->P, N = (uint64_t)r->N, W = (uint64_t)r->W, D = (uint64_t)m->D;
    uint64_t Hq = (uint64_t)m->Hq, C = (uint64_t)r->n_check, top = (uint64_t)r->top_k;
    uint64_t kv[3] = {(uint64_t)m->Hkv, P + N, D}, q[3] = {Hq, W + N, D}, acc[3] = {Hq, P, 0};
    uint64_t o[3] = {Hq, C, D}, lse[3] = {Hq, C, 0}, tokens[1] = {P + N + 1}, steps[1] = {N};
    uint64_t best[2] = {N, top}, check[1] = {C};
    for (int i = 0; i < r->n_layers; i++) {
        RA_TRY(declare(rec, r->layers[i], "k", stored, kv, &rec->layers[i].k, err));
        RA_TRY(declare(rec, r->layers[i], "v", stored, kv, &rec->layers[i].v, err));
        RA_TRY(declare(rec, r->layers[i], "q", stored, q, &rec->layers[i].q, err));
    }
    for (int i = 0; i < r->n_layers; i++) {
        const struct ra_lm_config *c = r->lm->config;
        bool slides = c->window && c->slides[r->layers[i]];
        if (has_acc && !slides)
            RA_TRY(declare(rec, r->layers[i], "acc", RA_ST_F32, acc, &rec->layers[i].acc, err));
        if (C)
            RA_TRY(declare(rec, r->layers[i], "o", RA_ST_F32, o, &rec->layers[i].o, err));
        if (C)
            RA_TRY(declare(rec, r->layers[i], "lse", RA_ST_F32, lse, &rec->layers[i].lse, err));
    }
    struct ra_st_writer *w = rec->writer;
    RA_TRY(ra_st_writer_tensor(w, "s0.tokens", RA_ST_I32, 1, tokens, &rec->tokens, err));
    RA_TRY(ra_st_writer_tensor(w, "s0.logprob", RA_ST_F32, 1, steps, &rec->logprob, err));
    if (top) {
        RA_TRY(ra_st_writer_tensor(w, "s0.topk_id", RA_ST_I32, 2, best, &rec->top_id, err));
        RA_TRY(
            ra_st_writer_tensor(w, "s0.topk_logprob", RA_ST_F32, 2, best, &rec->top_logprob, err));
    }
    return C ? ra_st_writer_tensor(w, "s0.check_steps", RA_ST_I32, 1, check, &rec->steps, err)
             : RA_OK;
}

static enum ra_status take_room(struct ra_lm_recorder *rec, struct ra_error *err)
{
    const struct ra_lm_recording *r = &rec->r;
    size_t n = (size_t)r->n_layers, model = (size_t)r->lm->config->n_layers;
    size_t tail = (size_t)r->W * (size_t)r->lm->shape.D, row = (size_t)r->lm->shape.Hq;
    row *= (size_t)r->lm->shape.D;
    rec->layers = calloc(n, sizeof *rec->layers);
    rec->slot = malloc(model * sizeof *rec->slot);
    rec->raw = malloc((tail > row ? tail : row) * ra_dtype_bytes(RA_F32));
    rec->best = malloc(((size_t)r->top_k + 1) * sizeof *rec->best);
    rec->best_logprob = malloc(((size_t)r->top_k + 1) * sizeof *rec->best_logprob);
    if (!rec->layers || !rec->slot || !rec->raw || !rec->best || !rec->best_logprob)
        return ra_fail(err, RA_ENOMEM, "%s: no memory to record %d layers", r->path, r->n_layers);
    for (size_t l = 0; l < model; l++)
        rec->slot[l] = -1;
    for (int i = 0; i < r->n_layers; i++)
        rec->slot[r->layers[i]] = i;
    return RA_OK;
}

enum ra_status ra_lm_recorder_open(struct ra_lm_recorder **recorder,
                                   const struct ra_lm_recording *recording, struct ra_error *err)
{
    *recorder = NULL;
    struct ra_lm_recorder *rec = calloc(1, sizeof *rec);
    if (!rec)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", recording->path);
    rec->r = *recording;
    enum ra_status st = take_room(rec, err);
    if (st == RA_OK)
        st = ra_st_writer_open(&rec->writer, recording->path, err);
    if (st != RA_OK) {
        ra_lm_recorder_close(rec);
        return st;
    }
    *recorder = rec;
    return RA_OK;
}

static enum ra_status put_prompt_layer(struct ra_lm_recorder *rec, int i,
                                       const struct ra_lm_prompt *prompt, struct ra_error *err)
{
    const struct ra_lm_recording *r = &rec->r;
    const struct ra_model *m = &r->lm->shape;
    const struct layer_tensors *to = &rec->layers[i];
    size_t e = ra_dtype_bytes(m->dtype), row = (size_t)m->D * e, n = (size_t)r->P * row;
    size_t whole = (size_t)(r->P + r->N) * row, tail = (size_t)r->W * (size_t)m->D;
    size_t layer = (size_t)r->layers[i];
    const char *k = prompt->k + layer * ra_lm_prompt_layer_bytes(r->lm, r->P);
    const char *v = prompt->v + layer * ra_lm_prompt_layer_bytes(r->lm, r->P);
    for (size_t h = 0; h < (size_t)m->Hkv; h++) {
        RA_TRY(ra_st_writer_put(rec->writer, to->k, h * whole, k + h * n, n, err));
        RA_TRY(ra_st_writer_put(rec->writer, to->v, h * whole, v + h * n, n, err));
    }
    for (size_t h = 0; h < (size_t)m->Hq; h++) {
        const float *q = prompt->q + (layer * (size_t)m->Hq + h) * tail;
        ra_narrow(m->dtype, q, tail, rec->raw);
        RA_TRY(ra_st_writer_put(rec->writer, to->q, h * (size_t)(r->W + r->N) * row, rec->raw,
                                tail * e, err));
    }
    if (!to->acc)
        return RA_OK;
    size_t acc = (size_t)m->Hq * (size_t)r->P;
    return ra_st_writer_put(rec->writer, to->acc, 0, prompt->acc + layer * acc,
                            acc * sizeof *prompt->acc, err);
}

enum ra_status ra_lm_recorder_prompt(struct ra_lm_recorder *rec, const struct ra_lm_prompt *prompt,
                                     struct ra_error *err)
{
    RA_TRY(ra_lm_recorder_metadata(rec->writer, &rec->r, err));
    RA_TRY(declare_all(rec, prompt->acc != NULL, err));
    RA_TRY(ra_st_writer_begin(rec->writer, err));
    for (int i = 0; i < rec->r.n_layers; i++)
        RA_TRY(put_prompt_layer(rec, i, prompt, err));
    return RA_OK;
}

static int check_of(const struct ra_lm_recording *r, int32_t t)
{
    for (int i = 0; i < r->n_check; i++)
        if (r->check_steps[i] == t)
            return i;
    return -1;
}

enum ra_status ra_lm_recorder_row(struct ra_lm_recorder *rec, const struct ra_lm_rows *rows,
                                  struct ra_error *err)
{
    const struct ra_lm_recording *r = &rec->r;
    const struct ra_model *m = &r->lm->shape;
    int slot = rec->slot[rows->layer];
    if (slot < 0)
        return RA_OK;
    const struct layer_tensors *to = &rec->layers[slot];
    int32_t t = rows->positions[0] - r->P;
    int check = check_of(r, t);
    size_t row = (size_t)m->D * ra_dtype_bytes(m->dtype), D = (size_t)m->D;
    size_t kv = (size_t)(r->P + r->N) * row, q = (size_t)(r->W + r->N) * row;
    for (size_t h = 0; h < (size_t)m->Hkv; h++) {
        const char *k = (const char *)rows->k_raw + h * row;
        const char *v = (const char *)rows->v_raw + h * row;
        size_t at = h * kv + (size_t)rows->positions[0] * row;
        RA_TRY(ra_st_writer_put(rec->writer, to->k, at, k, row, err));
        RA_TRY(ra_st_writer_put(rec->writer, to->v, at, v, row, err));
    }
    ra_narrow(m->dtype, rows->q, (size_t)m->Hq * D, rec->raw);
    for (size_t h = 0; h < (size_t)m->Hq; h++) {
        size_t at = h * q + (size_t)(r->W + t) * row;
        RA_TRY(ra_st_writer_put(rec->writer, to->q, at, rec->raw + h * row, row, err));
        if (check >= 0 && r->is_full) {
            at = (h * (size_t)r->n_check + (size_t)check) * D * sizeof(float);
            RA_TRY(ra_st_writer_put(rec->writer, to->o, at, rows->out + h * D, D * sizeof(float),
                                    err));
        }
    }
    return RA_OK;
}

/* The top_k likeliest, likeliest first; ties: lower id first. */
static void find_best(struct ra_lm_recorder *rec, const float *logits)
{
    int kept = 0, most = rec->r.top_k;
    for (int32_t id = 0; id < rec->r.lm->config->vocab; id++) {
        int at = kept;
        while (at > 0 && logits[rec->best[at - 1]] < logits[id])
            at--;
        if (at == most)
            continue;
        int moved = (kept < most ? kept : most - 1) - at;
        memmove(rec->best + at + 1, rec->best + at, (size_t)moved * sizeof *rec->best);
        rec->best[at] = id;
        kept += kept < most;
    }
}

enum ra_status ra_lm_recorder_step(struct ra_lm_recorder *rec, int32_t t, const float *logits,
                                   int32_t target, double *logprob, struct ra_error *err)
{
    int vocab = rec->r.lm->config->vocab, n = rec->r.top_k;
    *logprob = ra_lm_logprob(logits, vocab, target);
    float value = (float)*logprob;
    size_t at = (size_t)t * sizeof value, width = (size_t)n * sizeof value;
    RA_TRY(ra_st_writer_put(rec->writer, rec->logprob, at, &value, sizeof value, err));
    if (n == 0)
        return RA_OK;
    find_best(rec, logits);
    double whole = *logprob - (double)logits[target];
    for (int i = 0; i < n; i++)
        rec->best_logprob[i] = (float)((double)logits[rec->best[i]] + whole);
    RA_TRY(ra_st_writer_put(rec->writer, rec->top_id, (size_t)t * width, rec->best, width, err));
    return ra_st_writer_put(rec->writer, rec->top_logprob, (size_t)t * width, rec->best_logprob,
                            width, err);
}

/* What full attention gives at a check step, from the recorded rows. */
struct check {
    char *k, *v;        /* [P + N][D] of a KV head */
    char *q_raw;        /* [D] */
    float *q, *o;       /* [D] */
    double *prob, *out; /* [P + N], [D] */
};

static enum ra_status put_check(struct ra_lm_recorder *rec, struct check *c, int i, int head,
                                int number, struct ra_error *err)
{
    const struct ra_lm_recording *r = &rec->r;
    const struct ra_lm_config *config = r->lm->config;
    struct ra_model m = r->lm->shape;
    size_t D = (size_t)m.D, row = D * ra_dtype_bytes(m.dtype);
    int32_t t = r->check_steps[number], L = r->P + t + 1, first = 0;
    bool slides = config->window && config->slides[r->layers[i]];
    if (slides && L > config->window)
        first = L - config->window;
    size_t q = ((size_t)head * (size_t)(r->W + r->N) + (size_t)(r->W + t)) * row;
    RA_TRY(ra_st_writer_get(rec->writer, rec->layers[i].q, q, c->q_raw, row, err));
    ra_widen(m.dtype, c->q_raw, D, c->q);
    m.Hq = m.G = 1;
    struct ra_reference call = {.model = &m,
                                .k = c->k + (size_t)first * row,
                                .v = c->v + (size_t)first * row,
                                .q = c->q,
                                .q_step = D,
                                .n_steps = 1,
                                .first_L = L - first,
                                .prob = c->prob,
                                .step_stride = (size_t)L,
                                .out = c->out,
                                .out_step = D};
    ra_reference_attend(&call);
    int32_t best = 0;
    for (int32_t j = 1; j < L - first; j++)
        best = c->prob[j] > c->prob[best] ? j : best;
    double logit = 0;
    ra_widen(m.dtype, c->k + (size_t)(first + best) * row, D, c->o);
    for (size_t d = 0; d < D; d++)
        logit += (double)c->q[d] * (double)c->o[d];
    float lse = (float)(logit * m.attn_scale - log(c->prob[best]));
    size_t at = ((size_t)head * (size_t)r->n_check + (size_t)number) * sizeof lse;
    RA_TRY(ra_st_writer_put(rec->writer, rec->layers[i].lse, at, &lse, sizeof lse, err));
    if (r->is_full)
        return RA_OK;
    for (size_t d = 0; d < D; d++)
        c->o[d] = (float)c->out[d];
    return ra_st_writer_put(rec->writer, rec->layers[i].o, at * D, c->o, D * sizeof(float), err);
}

static enum ra_status put_checks(struct ra_lm_recorder *rec, struct check *c, struct ra_error *err)
{
    const struct ra_model *m = &rec->r.lm->shape;
    size_t n = (size_t)(rec->r.P + rec->r.N) * (size_t)m->D * ra_dtype_bytes(m->dtype);
    for (int i = 0; i < rec->r.n_layers; i++)
        for (int h = 0; h < m->Hq; h++) {
            size_t at = (size_t)(h / m->G) * n;
            if (h % m->G == 0) {
                RA_TRY(ra_st_writer_get(rec->writer, rec->layers[i].k, at, c->k, n, err));
                RA_TRY(ra_st_writer_get(rec->writer, rec->layers[i].v, at, c->v, n, err));
            }
            for (int number = 0; number < rec->r.n_check; number++)
                RA_TRY(put_check(rec, c, i, h, number, err));
        }
    return RA_OK;
}

static enum ra_status check_rows(struct ra_lm_recorder *rec, struct ra_error *err)
{
    const struct ra_model *m = &rec->r.lm->shape;
    size_t rows = (size_t)(rec->r.P + rec->r.N), D = (size_t)m->D;
    size_t e = ra_dtype_bytes(m->dtype);
    struct check c = {.k = malloc(rows * D * e),
                      .v = malloc(rows * D * e),
                      .q_raw = malloc(D * e),
                      .q = malloc(D * sizeof *c.q),
                      .o = malloc(D * sizeof *c.o),
                      .prob = malloc(rows * sizeof *c.prob),
                      .out = malloc(D * sizeof *c.out)};
    enum ra_status st;
    if (c.k && c.v && c.q_raw && c.q && c.o && c.prob && c.out)
        st = put_checks(rec, &c, err);
    else
        st = ra_fail(err, RA_ENOMEM, "%s: no memory for check rows", rec->r.path);
    free(c.k);
    free(c.v);
    free(c.q_raw);
    free(c.q);
    free(c.o);
    free(c.prob);
    free(c.out);
    return st;
}

enum ra_status ra_lm_recorder_commit(struct ra_lm_recorder *rec, const int32_t *tokens,
                                     struct ra_error *err)
{
    const struct ra_lm_recording *r = &rec->r;
    size_t n = (size_t)(r->P + r->N + 1) * sizeof *tokens;
    RA_TRY(ra_st_writer_put(rec->writer, rec->tokens, 0, tokens, n, err));
    if (r->n_check) {
        RA_TRY(ra_st_writer_put(rec->writer, rec->steps, 0, r->check_steps,
                                (size_t)r->n_check * sizeof *r->check_steps, err));
        RA_TRY(check_rows(rec, err));
    }
    return ra_st_writer_commit(rec->writer, err);
}
