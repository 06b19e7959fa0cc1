/* SPDX-License-Identifier: Apache-2.0 */
#include "traces/model/recorder_metadata.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Once a key failed, the others do nothing. */
struct keys {
    struct ra_st_writer *writer;
    struct ra_error *err;
    enum ra_status status;
};

static void put(struct keys *k, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void put(struct keys *k, const char *key, const char *format, ...)
{
    va_list args;
    char *text = NULL;
    if (k->status != RA_OK)
        return;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    k->status = n < 0 ? ra_fail(k->err, RA_ENOMEM, "recorder: no memory for %s", key)
                      : ra_st_writer_metadata(k->writer, key, text, k->err);
    free(n < 0 ? NULL : text);
}

/* Numbers, or words by `of`, joined by commas. */
static void put_list(struct keys *k, const char *key, const int *numbers, int n)
{
    char *text = malloc((size_t)n * 12 + 1);
    if (!text) {
        k->status = ra_fail(k->err, RA_ENOMEM, "recorder: no memory for %s", key);
        return;
    }
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < n; i++)
        used += (size_t)snprintf(text + used, 13, "%s%d", i ? "," : "", numbers[i]);
    put(k, key, "%s", text);
    free(text);
}

static void put_layer_types(struct keys *k, const struct ra_lm_config *c)
{
    char *text = malloc((size_t)c->n_layers * sizeof "sliding,");
    if (!text) {
        k->status = ra_fail(k->err, RA_ENOMEM, "recorder: no memory for layer_types");
        return;
    }
    size_t used = 0;
    for (int l = 0; l < c->n_layers; l++) {
        const char *word = c->window && c->slides[l] ? "sliding" : "full";
        used += (size_t)sprintf(text + used, "%s%s", l ? "," : "", word);
    }
    put(k, "layer_types", "%s", text);
    if (c->window)
        put(k, "sliding_window", "%d", c->window);
    free(text);
}

static void put_rope(struct keys *k, const struct ra_lm_config *c)
{
    static const char *const names[] = {"unknown", "none", "default", "linear", "llama3"};
    const struct ra_rope *rope = &c->rope;
    put(k, "rope.type", "%s", names[rope->type]);
    put(k, "rope.theta", "%.9g", rope->theta);
    if (rope->type == RA_ROPE_LINEAR || rope->type == RA_ROPE_LLAMA3)
        put(k, "rope.factor", "%.9g", rope->factor);
    if (rope->type == RA_ROPE_LLAMA3) {
        put(k, "rope.low_freq_factor", "%.9g", rope->low_freq_factor);
        put(k, "rope.high_freq_factor", "%.9g", rope->high_freq_factor);
        put(k, "rope.original_max_position", "%.9g", rope->original_max_position);
    }
    if (c->window)
        put(k, "rope.theta_local", "%.9g", c->rope_local.theta);
    put(k, "rope.layout", "half");
    put(k, "k.stage", "post_rope");
}

static void put_model(struct keys *k, const struct ra_lm_recording *r)
{
    const struct ra_lm_config *c = r->lm->config;
    put(k, "model.id", "%s", r->origin->id);
    put(k, "model.revision", "%s", r->origin->revision);
    put(k, "model.arch", "%s", c->arch);
    put(k, "model.sha256", "%s", r->origin->sha256);
    put(k, "model.quant", "%s", r->origin->quant);
    put(k, "n_layers", "%d", c->n_layers);
    put_list(k, "layers", r->layers, r->n_layers);
    put(k, "n_q_heads", "%d", c->Hq);
    put(k, "n_kv_heads", "%d", c->Hkv);
    put(k, "head_dim", "%d", c->D);
    put(k, "v_head_dim", "%d", c->D);
    put(k, "hidden_size", "%d", c->hidden);
    put(k, "vocab_size", "%d", c->vocab);
    put(k, "attn_scale", "%.9g", c->attn_scale);
    put(k, "attn_softcap", "0");
    put(k, "attn_sinks", "none");
    put_layer_types(k, c);
    put_rope(k, c);
}

static void put_sequence(struct keys *k, const struct ra_lm_recording *r)
{
    put(k, "n_seq", "1");
    put(k, "s0.prompt_len", "%d", r->P);
    put(k, "s0.decode_len", "%d", r->N);
    put(k, "s0.q_tail", "%d", r->W);
    put(k, "s0.first_pos", "0");
    put(k, "s0.mode", "%s", r->is_greedy ? "greedy" : "teacher_forced");
    put(k, "s0.policy", "%s", r->policy);
    put(k, "s0.task", "lm");
    put(k, "s0.source", "%s", r->ids->source);
    put(k, "s0.source_sha256", "%s", r->ids->source_sha256);
    put(k, "tokenizer.sha256", "%s", r->ids->tokenizer_sha256);
}

enum ra_status ra_lm_recorder_metadata(struct ra_st_writer *writer, const struct ra_lm_recording *r,
                                       struct ra_error *err)
{
    struct keys k = {.writer = writer, .err = err, .status = RA_OK};
    put(&k, "format", "rattn-trace");
    put(&k, "version", "1.0");
    put_model(&k, r);
    put(&k, "dtype.compute", "f32");
    put(&k, "dtype.cache", "%s", ra_dtype_name(r->lm->shape.dtype));
    put_sequence(&k, r);
    put(&k, "license", "model: %s; text: %s", r->origin->license,
        r->ids->license[0] ? r->ids->license : "unknown");
    put(&k, "capture.tool", "rattn-sim record");
    put(&k, "capture.tool_version", "%s", RA_VERSION);
    put(&k, "capture.attn_impl", "%s", r->attention);
    put(&k, "capture.device", "cpu");
    put(&k, "capture.rounded", "1");
    put(&k, "content.sha256", "%064d", 0);
    return k.status;
}
