/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one door to traces: chooses the source by name, checks arguments, and looks at every value
 * that comes through, so that no NaN, Inf or impossible token gets further than here.
 */
#include "traces/trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/synth.h"
#include "traces/trace_source.h"

struct ra_trace {
    const struct ra_trace_source_ops *ops;
    void *self;
    const struct ra_trace_info *info;
};

static const float max_logprob = 1e-3f; /* 0 but for the recorder's rounding */

enum ra_status ra_trace_open(struct ra_trace **trace, const char *name, struct ra_error *err)
{
    *trace = NULL;
    struct ra_trace *opened = calloc(1, sizeof *opened);
    if (!opened)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", name);
    opened->ops = strncmp(name, "synth:", 6) == 0 ? &ra_trace_source_synth : &ra_trace_source_file;
    enum ra_status st = opened->ops->open(&opened->self, name, err);
    if (st != RA_OK) {
        free(opened);
        return st;
    }
    opened->info = opened->ops->info(opened->self);
    *trace = opened;
    return RA_OK;
}

void ra_trace_close(struct ra_trace *trace)
{
    if (!trace)
        return;
    trace->ops->close(trace->self);
    free(trace);
}

const struct ra_trace_info *ra_trace_info(const struct ra_trace *trace)
{
    return trace->info;
}

const char *ra_trace_metadata(const struct ra_trace *trace, const char *key)
{
    return trace->ops->metadata ? trace->ops->metadata(trace->self, key) : NULL;
}

static const struct ra_trace_seq *sequence(const struct ra_trace *trace, int seq)
{
    RA_BUG_ON(seq < 0 || seq >= trace->info->n_seq);
    return &trace->info->seqs[seq];
}

static const struct ra_trace_layer *layer_of(const struct ra_trace *trace, int layer)
{
    RA_BUG_ON(layer < 0 || layer >= trace->info->n_layers);
    return &trace->info->layers[layer];
}

static enum ra_status absent(const struct ra_trace *trace, int seq, const char *tensor,
                             struct ra_error *err)
{
    return ra_fail(err, RA_EUSAGE, "%s: s%d.%s: not in this trace", trace->info->path, seq, tensor);
}

enum ra_status ra_trace_read(const struct ra_trace *trace, const struct ra_trace_slice *slice,
                             void *out, struct ra_error *err)
{
    enum ra_trace_part part = slice->part;
    int32_t first = slice->first, n = slice->n;
    int seq = slice->seq, head = slice->head;
    const struct ra_trace_seq *s = sequence(trace, seq);
    const struct ra_trace_layer *l = layer_of(trace, slice->layer);
    const struct ra_model *m = &trace->info->model;
    bool is_query = part == RA_TRACE_Q;
    int32_t begin = is_query ? 0 : l->first, end = is_query ? s->W + s->N : s->P + s->N;
    RA_BUG_ON(head < 0 || head >= (is_query ? m->Hq : m->Hkv));
    RA_BUG_ON(n < 0 || first < begin || first > end || n > end - first);
    if (n == 0)
        return RA_OK;
    RA_TRY(trace->ops->read(trace->self, slice, out, err));
    size_t width = (size_t)(part == RA_TRACE_V ? m->Dv : m->D);
    size_t bad = ra_first_nonfinite(m->dtype, out, (size_t)n * width);
    if (bad == (size_t)n * width)
        return RA_OK;
    return ra_fail(err, RA_EFORMAT,
                   "%s: s%d.l%d.%c: head %d, row %d, element %zu: expected a number, got NaN or "
                   "Inf",
                   trace->info->path, seq, l->id, "kvq"[part], head,
                   first - begin + (int32_t)(bad / width), bad % width);
}

enum ra_status ra_trace_acc(const struct ra_trace *trace, int seq, int layer, float *out,
                            struct ra_error *err)
{
    const struct ra_trace_seq *s = sequence(trace, seq);
    const struct ra_trace_layer *l = layer_of(trace, layer);
    if (!s->has_acc || !trace->ops->acc)
        return absent(trace, seq, "l*.acc", err);
    RA_TRY(trace->ops->acc(trace->self, seq, layer, out, err));
    for (int h = 0; h < trace->info->model.Hq; h++)
        for (int32_t p = 0; p < s->P; p++)
            if (!isfinite(out[(size_t)h * (size_t)s->P + (size_t)p]) ||
                out[(size_t)h * (size_t)s->P + (size_t)p] < 0)
                return ra_fail(err, RA_EFORMAT,
                               "%s: s%d.l%d.acc: head %d, position %d: expected a number of 0 or "
                               "more, got %g",
                               trace->info->path, seq, l->id, h, p,
                               (double)out[(size_t)h * (size_t)s->P + (size_t)p]);
    return RA_OK;
}

enum ra_status ra_trace_tokens(const struct ra_trace *trace, int seq, int32_t *out,
                               struct ra_error *err)
{
    const struct ra_trace_seq *s = sequence(trace, seq);
    if (!s->has_tokens || !trace->ops->tokens)
        return absent(trace, seq, "tokens", err);
    RA_TRY(trace->ops->tokens(trace->self, seq, out, err));
    for (int32_t i = 0; i <= s->P + s->N; i++)
        if (out[i] < 0)
            return ra_fail(err, RA_EFORMAT, "%s: s%d.tokens: row %d: expected 0 or more, got %d",
                           trace->info->path, seq, i, out[i]);
    return RA_OK;
}

enum ra_status ra_trace_logprob(const struct ra_trace *trace, int seq, float *out,
                                struct ra_error *err)
{
    const struct ra_trace_seq *s = sequence(trace, seq);
    if (!s->has_logprob || !trace->ops->logprob)
        return absent(trace, seq, "logprob", err);
    RA_TRY(trace->ops->logprob(trace->self, seq, out, err));
    for (int32_t t = 0; t < s->N; t++)
        if (!isfinite(out[t]) || out[t] > max_logprob)
            return ra_fail(err, RA_EFORMAT,
                           "%s: s%d.logprob: step %d: expected a logarithm of at most 0, got %g",
                           trace->info->path, seq, t, (double)out[t]);
    return RA_OK;
}

enum ra_status ra_trace_check_steps(const struct ra_trace *trace, int seq, int32_t *out,
                                    struct ra_error *err)
{
    const struct ra_trace_seq *s = sequence(trace, seq);
    if (!s->has_check || !trace->ops->check_steps)
        return absent(trace, seq, "check_steps", err);
    RA_TRY(trace->ops->check_steps(trace->self, seq, out, err));
    for (int32_t i = 0; i < s->n_check; i++)
        if (out[i] < 0 || out[i] >= s->N || (i > 0 && out[i] <= out[i - 1]))
            return ra_fail(err, RA_EFORMAT,
                           "%s: s%d.check_steps: row %d: expected ascending steps below N = %d, "
                           "got %d",
                           trace->info->path, seq, i, s->N, out[i]);
    return RA_OK;
}

/* Rows of `width` values, [Hq][n_check]. */
static enum ra_status check_row_values(const struct ra_trace *trace, const char *tensor,
                                       const float *values, size_t n, size_t width,
                                       struct ra_error *err)
{
    size_t bad = ra_first_nonfinite(RA_F32, values, n);
    if (bad == n)
        return RA_OK;
    size_t row = bad / width;
    size_t n_check = n / width / (size_t)trace->info->model.Hq;
    return ra_fail(err, RA_EFORMAT, "%s: %s: head %zu, row %zu: expected a number, got NaN or Inf",
                   trace->info->path, tensor, row / n_check, row % n_check);
}

enum ra_status ra_trace_check_rows(const struct ra_trace *trace, int seq, int layer, float *o,
                                   float *lse, struct ra_error *err)
{
    const struct ra_trace_seq *s = sequence(trace, seq);
    const struct ra_trace_layer *l = layer_of(trace, layer);
    if (!s->has_check || !trace->ops->check_rows)
        return absent(trace, seq, "check_steps", err);
    RA_TRY(trace->ops->check_rows(trace->self, seq, layer, o, lse, err));
    size_t rows = (size_t)trace->info->model.Hq * (size_t)s->n_check;
    size_t Dv = (size_t)trace->info->model.Dv;
    char name[48];
    snprintf(name, sizeof name, "s%d.l%d.o", seq, l->id);
    RA_TRY(check_row_values(trace, name, o, rows * Dv, Dv, err));
    size_t n_nan = 0;
    for (size_t i = 0; lse && i < rows; i++)
        n_nan += isnan(lse[i]) ? 1 : 0;
    if (!lse || n_nan == rows) /* the source has none, or has refused NaN itself */
        return RA_OK;
    snprintf(name, sizeof name, "s%d.l%d.lse", seq, l->id);
    return check_row_values(trace, name, lse, rows, 1, err);
}

enum ra_status ra_trace_token_types(const struct ra_trace *trace, int seq, uint8_t *out,
                                    const char **names, struct ra_error *err)
{
    const struct ra_trace_seq *s = sequence(trace, seq);
    if (!s->has_token_type || !trace->ops->token_types)
        return absent(trace, seq, "token_type", err);
    RA_TRY(trace->ops->token_types(trace->self, seq, out, names, err));
    int n_types = 1;
    for (const char *at = strchr(*names, ','); at; at = strchr(at + 1, ','))
        n_types++;
    for (int32_t p = 0; p < s->P + s->N; p++)
        if (out[p] >= n_types)
            return ra_fail(
                err, RA_EFORMAT,
                "%s: s%d.token_type: position %d: expected one of %d token_types, got %d",
                trace->info->path, seq, p, n_types, out[p]);
    return RA_OK;
}

enum ra_status ra_trace_verify_digest(const struct ra_trace *trace, struct ra_error *err)
{
    if (!trace->ops->verify_digest)
        return ra_fail(err, RA_EDIVERGED, "%s: a generated trace states no checksum",
                       trace->info->path);
    return trace->ops->verify_digest(trace->self, err);
}
