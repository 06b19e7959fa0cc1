/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A trace described. Sizes are of what a replay reads, computed from the shapes; provenance is the
 * metadata that says where model, text and tensors came from, as the recorder wrote it.
 */
#include "sim/cli/info.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/cli/output.h"
#include "sim/cli/wrap.h"

/* Of the whole trace; those of a sequence follow below with "sN." before them. */
static const char *const provenance[] = {
    "model.revision",       "model.arch",        "model.sha256",
    "model.quant",          "tokenizer.sha256",  "license",
    "dtype.compute",        "dtype.cache",       "capture.tool",
    "capture.tool_version", "capture.attn_impl", "capture.device",
    "capture.rounded",      "capture.time_utc",
};
static const char *const sequence_provenance[] = {"task", "source", "source_sha256"};
enum {
    N_PROVENANCE = sizeof provenance / sizeof *provenance,
    N_SEQUENCE = sizeof sequence_provenance / sizeof *sequence_provenance,
    MANY_SEQUENCES = 20,
    LABEL = 13, /* columns before a value */
    DIGEST = 15 /* columns before one that does not fit: 64 digits just do from here */
};

static const char *rope_name(enum ra_rope_type type)
{
    switch (type) {
    case RA_ROPE_NONE:
        return "none";
    case RA_ROPE_DEFAULT:
        return "default";
    case RA_ROPE_LINEAR:
        return "linear";
    case RA_ROPE_LLAMA3:
        return "llama3";
    case RA_ROPE_UNKNOWN:
        break;
    }
    return "unknown";
}

static const char *sequence_key(char key[64], int seq, const char *name)
{
    snprintf(key, 64, "s%d.%s", seq, name);
    return key;
}

/* Bytes of K and V, and of Q, that a sequence holds over all recorded layers. */
static void sequence_bytes(const struct ra_trace_info *info, int seq, uint64_t *kv, uint64_t *q)
{
    const struct ra_trace_seq *sequence = &info->seqs[seq];
    const struct ra_model *model = &info->model;
    *kv = *q = 0;
    for (int i = 0; i < info->n_layers; i++) {
        uint64_t rows = (uint64_t)(sequence->P + sequence->N - info->layers[i].first);
        *kv += rows * (uint64_t)model->Hkv * ra_model_row_bytes(model);
        *q += (uint64_t)(sequence->W + sequence->N) * (uint64_t)model->Hq * (uint64_t)model->D *
              ra_dtype_bytes(model->dtype);
    }
}

/* --- JSON --------------------------------------------------------------------------------------
 */

static void put(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value);
}

static json_t *model_json(const struct ra_trace_info *info)
{
    const struct ra_model *model = &info->model;
    json_t *object = json_object();
    put(object, "id", ra_json_text(info->model_id));
    put(object, "n_layers", json_integer(model->n_layers));
    put(object, "Hq", json_integer(model->Hq));
    put(object, "Hkv", json_integer(model->Hkv));
    put(object, "G", json_integer(model->G));
    put(object, "D", json_integer(model->D));
    put(object, "Dv", json_integer(model->Dv));
    put(object, "dtype", json_string(ra_dtype_name(model->dtype)));
    put(object, "attn_scale", json_real(model->attn_scale));
    put(object, "rope", json_string(rope_name(model->rope.type)));
    put(object, "row_bytes", json_integer((json_int_t)ra_model_row_bytes(model)));
    return object;
}

static json_t *optional_json(const struct ra_trace_seq *seq)
{
    json_t *list = json_array();
    const struct {
        bool has;
        const char *name;
    } parts[] = {{seq->has_tokens, "tokens"},
                 {seq->has_logprob, "logprob"},
                 {seq->has_acc, "acc"},
                 {seq->has_check, "check"},
                 {seq->has_token_type, "token_type"}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i].has)
            json_array_append_new(list, json_string(parts[i].name));
    return list;
}

static json_t *sequence_json(const struct ra_trace *trace, int seq)
{
    const struct ra_trace_info *info = ra_trace_info(trace);
    const struct ra_trace_seq *sequence = &info->seqs[seq];
    json_t *object = json_object();
    uint64_t kv, q;
    char key[64];
    sequence_bytes(info, seq, &kv, &q);
    put(object, "P", json_integer(sequence->P));
    put(object, "N", json_integer(sequence->N));
    put(object, "W", json_integer(sequence->W));
    put(object, "mode", ra_json_text(sequence->mode));
    put(object, "schedule_of_trace", ra_json_text(sequence->schedule));
    put(object, "optional", optional_json(sequence));
    put(object, "check_steps", json_integer(sequence->n_check));
    put(object, "kv_bytes", json_integer((json_int_t)kv));
    put(object, "q_bytes", json_integer((json_int_t)q));
    for (int i = 0; i < N_SEQUENCE; i++)
        put(object, sequence_provenance[i],
            ra_json_text(ra_trace_metadata(trace, sequence_key(key, seq, sequence_provenance[i]))));
    return object;
}

json_t *ra_info_json(const struct ra_trace *trace)
{
    const struct ra_trace_info *info = ra_trace_info(trace);
    json_t *object = json_object(), *full = json_array(), *window = json_array(),
           *sequences = json_array(), *origin = json_object();
    for (int i = 0; i < info->n_layers; i++) {
        const struct ra_trace_layer *layer = &info->layers[i];
        if (!layer->window)
            json_array_append_new(full, json_integer(layer->id));
        else
            json_array_append_new(window,
                                  json_pack("{s:i, s:i, s:i}", "layer", layer->id, "window",
                                            (int)layer->window, "first", (int)layer->first));
    }
    for (int seq = 0; seq < info->n_seq; seq++)
        json_array_append_new(sequences, sequence_json(trace, seq));
    for (int i = 0; i < N_PROVENANCE; i++)
        put(origin, provenance[i], ra_json_text(ra_trace_metadata(trace, provenance[i])));
    put(object, "trace", ra_json_text(info->path));
    put(object, "synthetic", ra_json_text(info->synthetic));
    put(object, "model", model_json(info));
    put(object, "layers", full);
    put(object, "window_layers", window);
    put(object, "sequences", sequences);
    put(object, "content_sha256", ra_json_text(*info->sha256 ? info->sha256 : NULL));
    put(object, "provenance", origin);
    return object;
}

/* --- text --------------------------------------------------------------------------------------
 */

static void label(const char *name)
{
    printf("%-*s ", LABEL - 1, name);
}

/* "0, 9, 19-21" of the layers that are full (or windowed) attention. */
static void put_layers(const struct ra_trace_info *info, bool windowed)
{
    int n = 0;
    for (int i = 0; i < info->n_layers; i++) {
        int first = info->layers[i].id, last = first;
        if ((info->layers[i].window > 0) != windowed)
            continue;
        while (i + 1 < info->n_layers && info->layers[i + 1].id == last + 1 &&
               (info->layers[i + 1].window > 0) == windowed) {
            last++;
            i++;
        }
        printf(first == last ? "%s%d" : "%s%d-%d", n++ ? ", " : "", first, last);
    }
}

static void put_layer_lines(const struct ra_trace_info *info)
{
    int n_window = 0;
    int32_t narrow = 0, wide = 0;
    for (int i = 0; i < info->n_layers; i++) {
        int32_t w = info->layers[i].window;
        n_window += w > 0;
        if (w > 0 && (narrow == 0 || w < narrow))
            narrow = w;
        wide = w > wide ? w : wide;
    }
    label("layers");
    printf("%d of %d: ", info->n_layers, info->model.n_layers);
    put_layers(info, false);
    puts(n_window ? " (full attention)" : "");
    if (n_window == 0)
        return;
    label("");
    put_layers(info, true);
    printf(narrow == wide ? " (sliding window, %d positions)\n"
                          : " (sliding windows, %d to %d positions)\n",
           (int)narrow, (int)wide);
}

static void put_model(const struct ra_trace_info *info)
{
    const struct ra_model *model = &info->model;
    label("model");
    ra_put_safe(info->model_id);
    putchar('\n');
    put_layer_lines(info);
    label("heads");
    printf("Hq = %d, Hkv = %d (G = %d), D = %d, Dv = %d\n", model->Hq, model->Hkv, model->G,
           model->D, model->Dv);
    label("values");
    char text[160];
    snprintf(text, sizeof text,
             "%s, %zu bytes of K and V per position and KV head, scale %.9g, rope %s",
             ra_dtype_name(model->dtype), ra_model_row_bytes(model), model->attn_scale,
             rope_name(model->rope.type));
    ra_put_wrapped(LABEL, LABEL, text);
}

static void put_sequence(const struct ra_trace *trace, int seq)
{
    const struct ra_trace_info *info = ra_trace_info(trace);
    const struct ra_trace_seq *sequence = &info->seqs[seq];
    uint64_t kv, q;
    char name[32], key[64];
    sequence_bytes(info, seq, &kv, &q);
    snprintf(name, sizeof name, "sequence %d", seq);
    label(name);
    printf("P = %" PRId32 " prompt tokens, N = %" PRId32 " steps, W = %" PRId32 " prompt queries\n",
           sequence->P, sequence->N, sequence->W);
    label("");
    char text[512];
    snprintf(text, sizeof text,
             "%s, recorded under %s attention, %.1f MiB of K and V, %.1f MiB of Q", sequence->mode,
             sequence->schedule, (double)kv / 0x1p20, (double)q / 0x1p20);
    ra_put_wrapped(LABEL, LABEL, text);
    label("");
    printf("also holds: %s%s%s%s", sequence->has_tokens ? "tokens, " : "",
           sequence->has_logprob ? "logprob, " : "", sequence->has_acc ? "acc, " : "",
           sequence->has_token_type ? "token types, " : "");
    printf("%" PRId32 " check steps\n", sequence->n_check);
    for (int i = 0; i < N_SEQUENCE; i++) {
        const char *value =
            ra_trace_metadata(trace, sequence_key(key, seq, sequence_provenance[i]));
        if (!value)
            continue;
        label("");
        ra_put_wrapped(LABEL + printf("%s: ", sequence_provenance[i]), LABEL, value);
    }
}

void ra_info_text(const struct ra_trace *trace, bool is_verbose)
{
    const struct ra_trace_info *info = ra_trace_info(trace);
    label("trace");
    ra_put_safe(info->path);
    putchar('\n');
    if (info->synthetic) {
        label("note");
        ra_put_wrapped(LABEL, LABEL, info->synthetic);
    }
    put_model(info);
    int shown = is_verbose || info->n_seq <= MANY_SEQUENCES ? info->n_seq : MANY_SEQUENCES;
    for (int seq = 0; seq < shown; seq++)
        put_sequence(trace, seq);
    if (shown < info->n_seq)
        printf("%d more sequences; -v shows them\n", info->n_seq - shown);
    label("checksum");
    printf("%s\n", *info->sha256 ? info->sha256 : "none stated");
    for (int i = 0; i < N_PROVENANCE; i++) {
        const char *value = ra_trace_metadata(trace, provenance[i]);
        if (!value)
            continue;
        ra_put_wrapped(printf("%-20s ", provenance[i]), DIGEST, value);
    }
}
