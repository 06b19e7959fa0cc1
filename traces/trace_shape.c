/* SPDX-License-Identifier: Apache-2.0 */
/* Reads metadata in the order a person would ask: is it ours, can we express it, what is it. */
#include "traces/trace_shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/metadata.h"

enum { MAX_MODEL_LAYERS = 4096, MAX_HEADS = 4096, MAX_DIM = 256, MAX_WINDOW = 1 << 30 };

static const double tolerance_exact = 1e-5;  /* q, k, v rounded before the recorder's attention */
static const double tolerance_hooked = 5e-3; /* rounded after it: o and lse saw other values */

static enum ra_status check_version(const struct ra_shards *s, struct ra_error *err)
{
    const char *format, *version;
    RA_TRY(ra_metadata_text(s, "format", &format, err));
    if (strcmp(format, "rattn-trace") != 0)
        return ra_metadata_fail(s, "format", "rattn-trace", format, err);
    RA_TRY(ra_metadata_text(s, "version", &version, err));
    char major[16];
    int32_t number;
    size_t n = strcspn(version, ".");
    snprintf(major, sizeof major, "%.*s", n < sizeof major ? (int)n : 0, version);
    if (!ra_metadata_parse_int(major, &number) || number != 1 || version[n] != '.' ||
        !ra_metadata_parse_int(version + n + 1, &number))
        return ra_metadata_fail(s, "version", "1.x (this reader knows 1.0)", version, err);
    return RA_OK;
}

static enum ra_status check_expressible(const struct ra_shards *s, struct ra_error *err)
{
    RA_TRY(ra_metadata_only(s, "attn_sinks", "none", err));
    RA_TRY(ra_metadata_only(s, "attn_softcap", "0|0.0|none", err));
    RA_TRY(ra_metadata_only(s, "rope.layout", "half", err));
    RA_TRY(ra_metadata_only(s, "k.stage", "post_rope", err));
    return RA_OK;
}

static enum ra_status read_rope(const struct ra_shards *s, struct ra_rope *rope,
                                struct ra_error *err)
{
    const char *type = ra_shards_metadata(s, "rope.type");
    *rope = (struct ra_rope){.type = RA_ROPE_UNKNOWN};
    if (!type)
        return RA_OK;
    if (strcmp(type, "none") == 0)
        rope->type = RA_ROPE_NONE;
    else if (strcmp(type, "default") == 0)
        rope->type = RA_ROPE_DEFAULT;
    else if (strcmp(type, "linear") == 0)
        rope->type = RA_ROPE_LINEAR;
    else if (strcmp(type, "llama3") == 0)
        rope->type = RA_ROPE_LLAMA3;
    if (rope->type == RA_ROPE_UNKNOWN || rope->type == RA_ROPE_NONE)
        return RA_OK; /* yarn, dynamic and what comes later cannot be un-rotated here */
    RA_TRY(ra_metadata_real(s, "rope.theta", &rope->theta, err));
    if (rope->type == RA_ROPE_DEFAULT)
        return RA_OK;
    RA_TRY(ra_metadata_real(s, "rope.factor", &rope->factor, err));
    if (rope->type == RA_ROPE_LINEAR)
        return RA_OK;
    RA_TRY(ra_metadata_real(s, "rope.low_freq_factor", &rope->low_freq_factor, err));
    RA_TRY(ra_metadata_real(s, "rope.high_freq_factor", &rope->high_freq_factor, err));
    RA_TRY(ra_metadata_real(s, "rope.original_max_position", &rope->original_max_position, err));
    if (rope->high_freq_factor <= rope->low_freq_factor)
        return ra_metadata_fail(s, "rope.high_freq_factor", "more than rope.low_freq_factor",
                                ra_shards_metadata(s, "rope.high_freq_factor"), err);
    return RA_OK;
}

static enum ra_status read_model(const struct ra_shards *s, struct ra_model *m,
                                 struct ra_error *err)
{
    RA_TRY(ra_metadata_int(s, "n_layers", true, 1, MAX_MODEL_LAYERS, &m->n_layers, err));
    RA_TRY(ra_metadata_int(s, "n_q_heads", true, 1, MAX_HEADS, &m->Hq, err));
    RA_TRY(ra_metadata_int(s, "n_kv_heads", true, 1, MAX_HEADS, &m->Hkv, err));
    RA_TRY(ra_metadata_int(s, "head_dim", true, 1, MAX_DIM, &m->D, err));
    m->Dv = m->D;
    RA_TRY(ra_metadata_int(s, "v_head_dim", false, 1, MAX_DIM, &m->Dv, err));
    RA_TRY(ra_metadata_real(s, "attn_scale", &m->attn_scale, err));
    m->G = m->Hq / m->Hkv;
    m->dtype = RA_F16;
    enum ra_status st = ra_model_check(m, err);
    if (st != RA_OK)
        return ra_fail_context(err, st, "%s: metadata", ra_shards_path(s));
    return read_rope(s, &m->rope, err);
}

static enum ra_status read_layers(const struct ra_shards *s, struct ra_trace_shape *shape,
                                  struct ra_error *err)
{
    const char *text;
    RA_TRY(ra_metadata_text(s, "layers", &text, err));
    shape->layers = calloc((size_t)shape->model.n_layers, sizeof *shape->layers);
    if (!shape->layers)
        return ra_fail(err, RA_ENOMEM, "%s: out of memory", ra_shards_path(s));
    char item[16];
    int32_t last = -1;
    for (const char *rest = text; rest;) {
        int32_t id;
        if (!ra_metadata_item(&rest, item, sizeof item) || !ra_metadata_parse_int(item, &id) ||
            id <= last || id >= shape->model.n_layers) {
            char expected[80];
            snprintf(expected, sizeof expected, "ascending layer numbers below n_layers %d",
                     shape->model.n_layers);
            return ra_metadata_fail(s, "layers", expected, text, err);
        }
        shape->layers[shape->n_layers++].id = last = id;
    }
    return RA_OK;
}

static enum ra_status bad_layer_type(const struct ra_shards *s, int layer, const char *got,
                                     struct ra_error *err)
{
    return ra_fail(err, RA_EFORMAT,
                   "%s: metadata: layer_types: layer %d: expected full or sliding, got '%s' "
                   "(rattn-trace 1.0 holds nothing else)",
                   ra_shards_path(s), layer, got);
}

/* layer_types has one word per layer of the model, recorded or not. */
static enum ra_status read_windows(const struct ra_shards *s, struct ra_trace_shape *shape,
                                   struct ra_error *err)
{
    const char *rest = ra_shards_metadata(s, "layer_types");
    int32_t window = 0;
    RA_TRY(ra_metadata_int(s, "sliding_window", false, 0, MAX_WINDOW, &window, err));
    if (!rest && window > 0)
        return ra_fail(err, RA_EFORMAT, "%s: metadata: layer_types: missing, sliding_window is %d",
                       ra_shards_path(s), window);
    if (!rest)
        return RA_OK;
    int n = 0, recorded = 0;
    while (rest) {
        char item[32];
        bool ok = ra_metadata_item(&rest, item, sizeof item);
        bool is_window = strcmp(item, "sliding") == 0;
        if (!ok || (!is_window && strcmp(item, "full") != 0))
            return bad_layer_type(s, n, item, err);
        if (is_window && window == 0)
            return ra_fail(err, RA_EFORMAT,
                           "%s: metadata: sliding_window: missing, layer %d is sliding",
                           ra_shards_path(s), n);
        if (recorded < shape->n_layers && shape->layers[recorded].id == n)
            shape->layers[recorded++].window = is_window ? window : 0;
        n++;
    }
    if (n != shape->model.n_layers)
        return ra_fail(err, RA_EFORMAT,
                       "%s: metadata: layer_types: expected %d entries as n_layers says, got %d",
                       ra_shards_path(s), shape->model.n_layers, n);
    return RA_OK;
}

static enum ra_status read_first_rows(const struct ra_shards *s, struct ra_trace_shape *shape,
                                      struct ra_error *err)
{
    bool has_full = false;
    for (int i = 0; i < shape->n_layers; i++) {
        struct ra_trace_layer *layer = &shape->layers[i];
        char key[32];
        snprintf(key, sizeof key, "kv_first.l%d", layer->id);
        RA_TRY(ra_metadata_int(s, key, false, 0, MAX_WINDOW, &layer->first, err));
        if (layer->window == 0 && layer->first > 0)
            return ra_metadata_fail(s, key, "0, the layer is no window layer",
                                    ra_shards_metadata(s, key), err);
        has_full = has_full || layer->window == 0;
    }
    if (!has_full)
        return ra_fail(err, RA_EFORMAT,
                       "%s: metadata: layers: expected a full-attention layer, got window layers "
                       "only",
                       ra_shards_path(s));
    return RA_OK;
}

enum ra_status ra_trace_shape_read(const struct ra_shards *s, struct ra_trace_shape *shape,
                                   struct ra_error *err)
{
    *shape = (struct ra_trace_shape){0};
    RA_TRY(check_version(s, err));
    RA_TRY(check_expressible(s, err));
    RA_TRY(read_model(s, &shape->model, err));
    RA_TRY(read_layers(s, shape, err));
    RA_TRY(read_windows(s, shape, err));
    RA_TRY(read_first_rows(s, shape, err));
    int32_t is_rounded = 1;
    RA_TRY(ra_metadata_int(s, "capture.rounded", false, 0, 1, &is_rounded, err));
    shape->check_tolerance = is_rounded ? tolerance_exact : tolerance_hooked;
    return RA_OK;
}

void ra_trace_shape_fini(struct ra_trace_shape *shape)
{
    free(shape->layers);
    *shape = (struct ra_trace_shape){0};
}
