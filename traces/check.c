/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pass over each head's K and V per batch of check steps. The softmax is kept running (largest
 * logit so far, sum, weighted sum of values), rescaled when a larger logit comes, so that no row of
 * scores is ever stored. Two divergences are possible at once: all checks run, the first is told.
 */
#include "traces/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rows read at once, and check steps of one pass over K and V. */
enum { BLOCK_ROWS = 256, BATCH_STEPS = 64 };

static const double acc_tolerance = 1e-3;

/* Softmax over the keys seen so far, of one query head at one check step. */
struct running {
    double top, sum;
    double *weighted; /* [Dv] */
};

struct check {
    const struct ra_trace *trace;
    const struct ra_trace_info *info;
    struct ra_trace_check_result *result;
    ra_trace_check_progress progress;
    void *context;
    double done, total;      /* heads' worth of K and V */
    unsigned char *stored;   /* one block as stored */
    float *keys, *values;    /* one block, widened */
    double *queries;         /* [G][BATCH_STEPS][D], scaled */
    struct running *running; /* [G][BATCH_STEPS] */
    double *weighted;        /* their sums */
    struct ra_error *err;
};

/* The rows of a sequence that are to be compared. */
struct rows {
    int seq, layer;
    int32_t n_steps;
    int32_t *steps; /* [n_steps] */
    float *o, *lse; /* [Hq][n_steps][Dv], [Hq][n_steps] */
};

static enum ra_status out_of_memory(const struct check *c)
{
    return ra_fail(c->err, RA_ENOMEM, "%s: out of memory", c->info->path);
}

static enum ra_status tick(struct check *c, double heads)
{
    c->done += heads;
    if (c->progress && !c->progress(c->context, c->done / c->total))
        return ra_fail(c->err, RA_EINTERRUPTED, "%s: check interrupted", c->info->path);
    return RA_OK;
}

static enum ra_status allocate(struct check *c)
{
    const struct ra_model *m = &c->info->model;
    size_t width = (size_t)(m->D > m->Dv ? m->D : m->Dv);
    size_t rows = (size_t)m->G * BATCH_STEPS;
    c->stored = malloc(BLOCK_ROWS * width * ra_dtype_bytes(m->dtype));
    c->keys = malloc(BLOCK_ROWS * (size_t)m->D * sizeof(float));
    c->values = malloc(BLOCK_ROWS * (size_t)m->Dv * sizeof(float));
    c->queries = malloc(rows * (size_t)m->D * sizeof(double));
    c->running = malloc(rows * sizeof *c->running);
    c->weighted = malloc(rows * (size_t)m->Dv * sizeof(double));
    if (!c->stored || !c->keys || !c->values || !c->queries || !c->running || !c->weighted)
        return out_of_memory(c);
    for (size_t i = 0; i < rows; i++)
        c->running[i].weighted = c->weighted + i * (size_t)m->Dv;
    return RA_OK;
}

static void release(struct check *c)
{
    free(c->stored);
    free(c->keys);
    free(c->values);
    free(c->queries);
    free(c->running);
    free(c->weighted);
}

static void note(struct ra_trace_check_place *place, int seq, int layer_id, int head, int32_t step,
                 double error)
{
    if (place->layer_id < 0 || error > place->error || isnan(error))
        *place = (struct ra_trace_check_place){seq, layer_id, head, step, error};
}

/* Read rows of K, V or Q widened; trace.c refuses what is no number. */
static enum ra_status read_block(struct check *c, const struct rows *r, enum ra_trace_part part,
                                 int head, int32_t first, int32_t n, float *out)
{
    const struct ra_model *m = &c->info->model;
    size_t count = (size_t)n * (size_t)(part == RA_TRACE_V ? m->Dv : m->D);
    RA_TRY(ra_trace_read(c->trace, &(struct ra_trace_slice){r->seq, r->layer, part, head, first, n},
                         c->stored, c->err));
    ra_widen(m->dtype, c->stored, count, out);
    return RA_OK;
}

static enum ra_status start_batch(struct check *c, const struct rows *r, int kv_head, int32_t begin,
                                  int32_t n)
{
    const struct ra_model *m = &c->info->model;
    const struct ra_trace_seq *s = &c->info->seqs[r->seq];
    for (int g = 0; g < m->G; g++) {
        for (int32_t i = 0; i < n; i++) {
            size_t at = (size_t)g * BATCH_STEPS + (size_t)i;
            RA_TRY(read_block(c, r, RA_TRACE_Q, kv_head * m->G + g, s->W + r->steps[begin + i], 1,
                              c->keys));
            for (int d = 0; d < m->D; d++)
                c->queries[at * (size_t)m->D + (size_t)d] = m->attn_scale * (double)c->keys[d];
            c->running[at].top = -INFINITY;
            c->running[at].sum = 0;
            memset(c->running[at].weighted, 0, (size_t)m->Dv * sizeof(double));
        }
    }
    return RA_OK;
}

static void add_key(struct running *run, double logit, const float *value, int Dv)
{
    if (logit > run->top) {
        double shrink = exp(run->top - logit); /* exp(-inf) = 0 at the first key */
        run->sum *= shrink;
        for (int d = 0; d < Dv; d++)
            run->weighted[d] *= shrink;
        run->top = logit;
    }
    double weight = exp(logit - run->top);
    run->sum += weight;
    for (int d = 0; d < Dv; d++)
        run->weighted[d] += weight * (double)value[d];
}

/* Feed a block of keys to every row of the batch that may see them. */
static void attend_block(struct check *c, const struct rows *r, int32_t first, int32_t n_rows,
                         int32_t begin, int32_t n)
{
    const struct ra_model *m = &c->info->model;
    int32_t P = c->info->seqs[r->seq].P, window = c->info->layers[r->layer].window;
    for (int g = 0; g < m->G; g++) {
        for (int32_t i = 0; i < n; i++) {
            int32_t self = P + r->steps[begin + i];
            int32_t oldest = window > 0 && self - window + 1 > 0 ? self - window + 1 : 0;
            size_t at = (size_t)g * BATCH_STEPS + (size_t)i;
            const double *q = c->queries + at * (size_t)m->D;
            int32_t from = oldest > first ? oldest - first : 0;
            for (int32_t j = from; j < n_rows && first + j <= self; j++) {
                const float *key = c->keys + (size_t)j * (size_t)m->D;
                double logit = 0;
                for (int d = 0; d < m->D; d++)
                    logit += q[d] * (double)key[d];
                add_key(&c->running[at], logit, c->values + (size_t)j * (size_t)m->Dv, m->Dv);
            }
        }
    }
}

static void compare_row(struct check *c, const struct rows *r, int head, int32_t row,
                        const struct running *run)
{
    const struct ra_model *m = &c->info->model;
    int layer_id = c->info->layers[r->layer].id;
    size_t at = (size_t)head * (size_t)r->n_steps + (size_t)row;
    double difference = 0, norm = 0;
    for (int d = 0; d < m->Dv; d++) {
        double exact = run->weighted[d] / run->sum;
        double delta = (double)r->o[at * (size_t)m->Dv + (size_t)d] - exact;
        difference += delta * delta;
        norm += exact * exact;
    }
    double scale = norm > 0 ? sqrt(norm) : 1;
    note(&c->result->o, r->seq, layer_id, head, r->steps[row], sqrt(difference) / scale);
    double lse = run->top + log(run->sum);
    if (!isnan(r->lse[at]))
        note(&c->result->lse, r->seq, layer_id, head, r->steps[row],
             fabs((double)r->lse[at] - lse) / fmax(1, fabs(lse)));
    c->result->n_rows++;
}

/* All K and V rows of a head; rows that no check step sees are read for their finiteness. */
static enum ra_status check_head(struct check *c, const struct rows *r, int kv_head, int32_t begin,
                                 int32_t n)
{
    const struct ra_model *m = &c->info->model;
    const struct ra_trace_seq *s = &c->info->seqs[r->seq];
    int32_t end = s->P + s->N;
    RA_TRY(start_batch(c, r, kv_head, begin, n));
    for (int32_t first = c->info->layers[r->layer].first; first < end; first += BLOCK_ROWS) {
        int32_t rows = end - first < BLOCK_ROWS ? end - first : BLOCK_ROWS;
        RA_TRY(read_block(c, r, RA_TRACE_K, kv_head, first, rows, c->keys));
        RA_TRY(read_block(c, r, RA_TRACE_V, kv_head, first, rows, c->values));
        if (begin == 0)
            c->result->n_values += (uint64_t)rows * (uint64_t)(m->D + m->Dv);
        attend_block(c, r, first, rows, begin, n);
    }
    for (int g = 0; g < m->G; g++)
        for (int32_t i = 0; i < n; i++)
            compare_row(c, r, kv_head * m->G + g, begin + i, &c->running[g * BATCH_STEPS + i]);
    return tick(c, 1);
}

static enum ra_status check_queries(struct check *c, const struct rows *r)
{
    const struct ra_model *m = &c->info->model;
    int32_t end = c->info->seqs[r->seq].W + c->info->seqs[r->seq].N;
    for (int h = 0; h < m->Hq; h++) {
        for (int32_t first = 0; first < end; first += BLOCK_ROWS) {
            int32_t rows = end - first < BLOCK_ROWS ? end - first : BLOCK_ROWS;
            RA_TRY(read_block(c, r, RA_TRACE_Q, h, first, rows, c->keys));
            c->result->n_values += (uint64_t)rows * (uint64_t)m->D;
        }
    }
    return RA_OK;
}

static enum ra_status check_acc(struct check *c, int seq, int layer)
{
    const struct ra_trace_seq *s = &c->info->seqs[seq];
    size_t Hq = (size_t)c->info->model.Hq, P = (size_t)s->P;
    if (!s->has_acc || c->info->layers[layer].window > 0)
        return RA_OK;
    float *acc = malloc(Hq * P * sizeof *acc);
    if (!acc)
        return out_of_memory(c);
    enum ra_status st = ra_trace_acc(c->trace, seq, layer, acc, c->err);
    for (size_t h = 0; st == RA_OK && h < Hq; h++) {
        double sum = 0;
        for (size_t p = 0; p < P; p++)
            sum += (double)acc[h * P + p];
        note(&c->result->acc, seq, c->info->layers[layer].id, (int)h, -1,
             fabs(sum / (double)P - 1));
    }
    if (st == RA_OK)
        c->result->n_values += Hq * P;
    free(acc);
    return st;
}

static enum ra_status check_layer(struct check *c, struct rows *r)
{
    const struct ra_model *m = &c->info->model;
    RA_TRY(check_queries(c, r));
    if (r->n_steps > 0) {
        RA_TRY(ra_trace_check_rows(c->trace, r->seq, r->layer, r->o, r->lse, c->err));
        c->result->n_values += (uint64_t)m->Hq * (uint64_t)r->n_steps * (uint64_t)(m->Dv + 1);
    }
    for (int head = 0; head < m->Hkv; head++) {
        int32_t begin = 0;
        do { /* once without check rows: the values are looked at all the same */
            int32_t left = r->n_steps - begin;
            int32_t n = left < BATCH_STEPS ? left : BATCH_STEPS;
            RA_TRY(check_head(c, r, head, begin, n));
            begin += n;
        } while (begin < r->n_steps);
    }
    return check_acc(c, r->seq, r->layer);
}

/* Tensors of the sequence itself; values are looked at by the readers. */
static enum ra_status check_sequence_values(struct check *c, int seq)
{
    const struct ra_trace_seq *s = &c->info->seqs[seq];
    size_t n = (size_t)(s->P + s->N) + 1;
    int32_t *buffer = malloc(n * sizeof *buffer); /* the longest of them */
    if (!buffer)
        return out_of_memory(c);
    const char *names;
    enum ra_status st = RA_OK;
    if (s->has_tokens)
        st = ra_trace_tokens(c->trace, seq, buffer, c->err);
    if (st == RA_OK && s->has_logprob)
        st = ra_trace_logprob(c->trace, seq, (float *)(void *)buffer, c->err);
    if (st == RA_OK && s->has_token_type)
        st = ra_trace_token_types(c->trace, seq, (uint8_t *)(void *)buffer, &names, c->err);
    if (st == RA_OK)
        c->result->n_values += (s->has_tokens ? n : 0) + (s->has_logprob ? (size_t)s->N : 0) +
                               (s->has_token_type ? n - 1 : 0);
    free(buffer);
    return st;
}

static enum ra_status check_sequence(struct check *c, int seq)
{
    const struct ra_model *m = &c->info->model;
    const struct ra_trace_seq *s = &c->info->seqs[seq];
    struct rows r = {.seq = seq, .n_steps = s->has_check ? s->n_check : 0};
    size_t rows = (size_t)m->Hq * (size_t)r.n_steps;
    r.steps = malloc(((size_t)r.n_steps + 1) * sizeof *r.steps);
    r.o = malloc((rows * (size_t)m->Dv + 1) * sizeof *r.o);
    r.lse = malloc((rows + 1) * sizeof *r.lse);
    enum ra_status st = RA_OK;
    if (!r.steps || !r.o || !r.lse)
        st = out_of_memory(c);
    if (st == RA_OK && r.n_steps > 0)
        st = ra_trace_check_steps(c->trace, seq, r.steps, c->err);
    if (st == RA_OK)
        st = check_sequence_values(c, seq);
    for (r.layer = 0; st == RA_OK && r.layer < c->info->n_layers; r.layer++)
        st = check_layer(c, &r);
    free(r.steps);
    free(r.o);
    free(r.lse);
    return st;
}

/* NaN is no match either. */
static bool within(const struct ra_trace_check_place *place, double tolerance)
{
    return place->layer_id < 0 || place->error <= tolerance;
}

static enum ra_status verdict(const struct check *c, const struct ra_error *digest_error)
{
    const struct ra_trace_check_result *result = c->result;
    double tolerance = c->info->check_tolerance;
    if (result->has_digest && !result->digest_matches) {
        if (c->err)
            *c->err = *digest_error;
        return RA_EDIVERGED;
    }
    const struct {
        const char *name;
        const struct ra_trace_check_place *place;
        double tolerance;
    } parts[] = {{"o", &result->o, tolerance},
                 {"lse", &result->lse, tolerance},
                 {"acc", &result->acc, fmax(tolerance, acc_tolerance)}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const struct ra_trace_check_place *place = parts[i].place;
        if (within(place, parts[i].tolerance))
            continue;
        char step[32] = "";
        if (place->step >= 0)
            snprintf(step, sizeof step, ", step %d", place->step);
        return ra_fail(c->err, RA_EDIVERGED,
                       "%s: s%d.l%d.%s: head %d%s: expected within %g of the value recomputed in "
                       "f64, relative error %g",
                       c->info->path, place->seq, place->layer_id, parts[i].name, place->head, step,
                       parts[i].tolerance, place->error);
    }
    return RA_OK;
}

static double count_heads(const struct ra_trace_info *info)
{
    double total = 0;
    for (int seq = 0; seq < info->n_seq; seq++) {
        int batches = (info->seqs[seq].n_check + BATCH_STEPS - 1) / BATCH_STEPS;
        total += (double)info->n_layers * info->model.Hkv * (batches > 0 ? batches : 1);
    }
    return total;
}

enum ra_status ra_trace_check(const struct ra_trace *trace, struct ra_trace_check_result *result,
                              ra_trace_check_progress progress, void *context, struct ra_error *err)
{
    static const struct ra_trace_check_place nowhere = {-1, -1, -1, -1, 0};
    *result = (struct ra_trace_check_result){.o = nowhere, .lse = nowhere, .acc = nowhere};
    struct check c = {.trace = trace,
                      .info = ra_trace_info(trace),
                      .result = result,
                      .progress = progress,
                      .context = context,
                      .err = err};
    c.total = count_heads(c.info);
    struct ra_error digest_error = {RA_OK, ""};
    result->has_digest = c.info->sha256[0] != '\0';
    if (result->has_digest) {
        enum ra_status st = ra_trace_verify_digest(trace, &digest_error);
        result->digest_matches = st == RA_OK;
        if (st != RA_OK && st != RA_EDIVERGED)
            return ra_fail(err, st, "%s", digest_error.msg);
    }
    enum ra_status st = allocate(&c);
    for (int seq = 0; st == RA_OK && seq < c.info->n_seq; seq++)
        st = check_sequence(&c, seq);
    release(&c);
    return st == RA_OK ? verdict(&c, &digest_error) : st;
}
