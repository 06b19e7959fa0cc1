/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spelling of generated traces, what they say of themselves, and reading with rounding to the
 * stored type. Rows come from traces/synth_case.c or traces/synth_like.c.
 */
#include "traces/synth.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/params.h"
#include "sim/base/text.h"
#include "traces/synth_case.h"
#include "traces/synth_like.h"

enum { MAX_POSITIONS = 1 << 24, TAIL = 32, CHUNK = 64, MAX_D = 256 };

static const struct ra_param case_params[] = {
    {"case", RA_PARAM_CHOICE, offsetof(struct ra_synth_case_params, which), 0, 0, NULL,
     "needle|drift|sink|flat|integer", "property that can be proved", RA_REACH_ALL},
    {"P", RA_PARAM_INT, offsetof(struct ra_synth_case_params, P), 1, MAX_POSITIONS, "256", NULL,
     "prompt tokens", RA_REACH_ALL},
    {"N", RA_PARAM_INT, offsetof(struct ra_synth_case_params, N), 1, MAX_POSITIONS, "32", NULL,
     "decode steps", RA_REACH_ALL},
    {"W", RA_PARAM_INT, offsetof(struct ra_synth_case_params, W), 1, MAX_POSITIONS, "none", NULL,
     "stored queries of the prompt's end", RA_REACH_ALL},
    {"layers", RA_PARAM_INT, offsetof(struct ra_synth_case_params, layers), 1, 4096, "2", NULL,
     "layers", RA_REACH_ALL},
    {"Hq", RA_PARAM_INT, offsetof(struct ra_synth_case_params, Hq), 1, 4096, "4", NULL,
     "query heads", RA_REACH_ALL},
    {"Hkv", RA_PARAM_INT, offsetof(struct ra_synth_case_params, Hkv), 1, 4096, "2", NULL,
     "KV heads, a divisor of Hq", RA_REACH_ALL},
    {"D", RA_PARAM_INT, offsetof(struct ra_synth_case_params, D), 8, MAX_D, "32", NULL,
     "head dimension, a multiple of 8", RA_REACH_ALL},
    {"Dv", RA_PARAM_INT, offsetof(struct ra_synth_case_params, Dv), 8, MAX_D, "none", NULL,
     "head dimension of values", RA_REACH_ALL},
    {"dtype", RA_PARAM_CHOICE, offsetof(struct ra_synth_case_params, dtype), 0, 0, "f16",
     "f16|bf16|f32", "stored type", RA_REACH_ALL},
    {"seed", RA_PARAM_INT, offsetof(struct ra_synth_case_params, seed), 0, INT32_MAX, "1", NULL,
     "of all random numbers", RA_REACH_ALL},
    {"window", RA_PARAM_INT, offsetof(struct ra_synth_case_params, window), 1, MAX_POSITIONS,
     "none", NULL, "width of layers 1, 3, 5, ...", RA_REACH_ALL},
    {0},
};

static const struct ra_param like_params[] = {
    {"layers", RA_PARAM_INT, offsetof(struct ra_synth_like_params, layers), 1, 4096, "none", NULL,
     "layers to draw", RA_REACH_ALL},
    {"L", RA_PARAM_INT, offsetof(struct ra_synth_like_params, L), 1, MAX_POSITIONS, "none", NULL,
     "prompt tokens", RA_REACH_ALL},
    {"N", RA_PARAM_INT, offsetof(struct ra_synth_like_params, N), 1, MAX_POSITIONS, "none", NULL,
     "decode steps", RA_REACH_ALL},
    {"seed", RA_PARAM_INT, offsetof(struct ra_synth_like_params, seed), 0, INT32_MAX, "1", NULL,
     "of all random numbers", RA_REACH_ALL},
    {"Hq", RA_PARAM_INT, offsetof(struct ra_synth_like_params, Hq), 1, 4096, "none", NULL,
     "query heads", RA_REACH_ALL},
    {"Hkv", RA_PARAM_INT, offsetof(struct ra_synth_like_params, Hkv), 1, 4096, "none", NULL,
     "KV heads, a divisor of Hq", RA_REACH_ALL},
    {"D", RA_PARAM_INT, offsetof(struct ra_synth_like_params, D), 8, MAX_D, "none", NULL,
     "head dimension, a multiple of 8", RA_REACH_ALL},
    {"dtype", RA_PARAM_CHOICE, offsetof(struct ra_synth_like_params, dtype), 0, 0, "none",
     "none|f16|bf16|f32", "stored type", RA_REACH_ALL},
    {0},
};

static const char *const properties[] = {
    "needle: one prompt position has at least 0.99 of the mass at every fourth step",
    "drift: four positions have at least 0.99 of the mass and advance by four per step",
    "sink: position 0 has at least half of the mass",
    "flat: every set has its share of positions as mass",
    "integer: whole-numbered rows, exact logits, ties exact or at least 1/8 apart",
};

struct synth {
    struct ra_trace_info info;
    struct ra_trace_seq seq;
    struct ra_trace_layer *layers;
    struct ra_synth_case_params params;
    struct ra_synth_like *like; /* NULL for a case */
    char *name, *model_id, *synthetic, *spelling;
    char *like_name; /* value of "like=" */
};

static enum ra_status keep_text(char **out, struct ra_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static enum ra_status keep_text(char **out, struct ra_error *err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vasprintf(out, format, args);
    va_end(args);
    if (n >= 0)
        return RA_OK;
    *out = NULL;
    return ra_fail(err, RA_ENOMEM, "generator: no memory");
}

/* --- spelling -----------------------------------------------------------------------------------
 */

static enum ra_status set_pair(const struct ra_param *table, struct ra_span pair, void *params,
                               unsigned *seen, struct ra_error *err)
{
    struct ra_span key, value = pair;
    char text[64], hint[RA_HINT_MAX];
    size_t n = 0;
    if (!ra_span_cut(&value, '=', &key))
        return ra_fail(err, RA_EUSAGE, "synth: expected key=value, got '%.*s'", RA_SPAN(pair));
    while (table[n].name && !ra_span_is(key, table[n].name))
        n++;
    if (!table[n].name)
        return ra_fail(err, RA_EUSAGE, "synth: no parameter named '%.*s'; %s", RA_SPAN(key),
                       ra_text_hint(key, table, n, sizeof *table, hint));
    if (*seen >> n & 1)
        return ra_fail(err, RA_EUSAGE, "synth: %s: expected once, got it twice", table[n].name);
    *seen |= 1u << n;
    /* A value too long for a number is refused as the number it is not, by what fits. */
    size_t length = value.n < sizeof text ? value.n : sizeof text - 1;
    memcpy(text, value.at, length);
    text[length] = '\0';
    return ra_param_set(&table[n], text, params, "synth:", err);
}

static enum ra_status set_pairs(const struct ra_param *table, struct ra_span rest, void *params,
                                struct ra_error *err)
{
    unsigned seen = 0;
    struct ra_span pair;
    bool more = rest.at != NULL;
    ra_params_defaults(table, params);
    while (more) {
        more = ra_span_cut(&rest, ',', &pair);
        RA_TRY(set_pair(table, pair, params, &seen, err));
    }
    return RA_OK;
}

static enum ra_status spell(struct synth *synth, const struct ra_param *table, const void *params,
                            const char *start, struct ra_error *err)
{
    char text[512];
    struct ra_writer writer = {text, sizeof text, 0};
    for (const struct ra_param *row = table; row->name; row++) {
        char value[32];
        ra_param_format(row, params, value, sizeof value);
        if (table == like_params && strcmp(value, "none") == 0)
            continue; /* the shape is the recorded trace's: names say so by silence */
        ra_write(&writer, "%s%s=%s", row == table ? "" : ",", row->name, value);
    }
    return keep_text(&synth->spelling, err, "synth:%s%s", start, text);
}

/* --- opening ------------------------------------------------------------------------------------
 */

static enum ra_status check_usage(const struct synth *synth, struct ra_error *err)
{
    struct ra_error inner;
    const struct ra_trace_seq *seq = &synth->seq;
    if (ra_model_check(&synth->info.model, &inner) != RA_OK)
        return ra_fail(err, RA_EUSAGE, "synth: %s", inner.msg);
    if (seq->P > MAX_POSITIONS - seq->N)
        return ra_fail(err, RA_EUSAGE, "synth: expected at most %d positions, got %lld",
                       MAX_POSITIONS, (long long)seq->P + seq->N);
    if (seq->W > seq->P)
        return ra_fail(err, RA_EUSAGE, "synth: W: expected at most P = %d, got %d", seq->P, seq->W);
    return RA_OK;
}

static enum ra_status open_case(struct synth *synth, struct ra_span rest, struct ra_error *err)
{
    struct ra_synth_case_params *params = &synth->params;
    RA_TRY(set_pairs(case_params, rest, params, err));
    params->W = params->W != RA_INT_NONE ? params->W : params->P < TAIL ? params->P : TAIL;
    params->Dv = params->Dv != RA_INT_NONE ? params->Dv : params->D;
    synth->info.n_layers = params->layers;
    synth->info.model = (struct ra_model){
        .n_layers = params->layers,
        .Hq = params->Hq,
        .Hkv = params->Hkv,
        .G = params->Hq / params->Hkv,
        .D = params->D,
        .Dv = params->Dv,
        .dtype = (enum ra_dtype)params->dtype,
        .attn_scale = RA_SYNTH_SCALE,
        .rope = {.type = RA_ROPE_NONE},
    };
    synth->seq.P = params->P;
    synth->seq.N = params->N;
    synth->seq.W = params->W;
    RA_TRY(check_usage(synth, err));
    RA_TRY(ra_synth_case_check(params, "synth:", err));
    const char *property = properties[params->which];
    int n = (int)strcspn(property, ":");
    RA_TRY(keep_text(&synth->model_id, err, "synth:%.*s", n, property));
    RA_TRY(keep_text(&synth->synthetic, err, "synthetic (case=%.*s)", n, property));
    return spell(synth, case_params, params, "", err);
}

static enum ra_status describe_like(struct synth *synth, const struct ra_trace_info *source,
                                    const char *file, struct ra_error *err)
{
    const struct ra_model *model = &synth->info.model, *from = &source->model;
    char shape[80] = "";
    if (model->Hq != from->Hq || model->Hkv != from->Hkv || model->D != from->D)
        snprintf(shape, sizeof shape, ", drawn with Hq=%d, Hkv=%d, D=%d", model->Hq, model->Hkv,
                 model->D);
    RA_TRY(keep_text(&synth->model_id, err, "synth:like(%s)", source->model_id));
    return keep_text(&synth->synthetic, err, "synthetic (fitted to %s, %s%s)", source->model_id,
                     file, shape);
}

static enum ra_status open_like(struct synth *synth, struct ra_span source, struct ra_span rest,
                                struct ra_error *err)
{
    struct ra_synth_like_params params;
    RA_TRY(set_pairs(like_params, rest, &params, err));
    RA_TRY(keep_text(&synth->like_name, err, "%.*s", (int)source.n, source.at));
    if (source.n == 0 || strncmp(synth->like_name, "synth:", 6) == 0)
        return ra_fail(err, RA_EUSAGE,
                       "synth: like: expected the name of a recorded trace, got '%.*s'",
                       RA_SPAN(source));
    RA_TRY(ra_synth_like_open(&synth->like, synth->like_name, &params, err));
    const struct ra_trace_info *info = ra_trace_info(ra_synth_like_source(synth->like));
    synth->info.n_layers = params.layers;
    synth->info.model = *ra_synth_like_model(synth->like);
    synth->seq.P = params.L;
    synth->seq.N = params.N;
    synth->seq.W = info->seqs[0].W < params.L ? info->seqs[0].W : params.L;
    RA_TRY(check_usage(synth, err));
    const char *file =
        strrchr(synth->like_name, '/') ? strrchr(synth->like_name, '/') + 1 : synth->like_name;
    RA_TRY(describe_like(synth, info, file, err));
    char *start;
    RA_TRY(keep_text(&start, err, "like=%s,", synth->like_name));
    enum ra_status st = spell(synth, like_params, &params, start, err);
    free(start);
    return st;
}

static enum ra_status describe(struct synth *synth, struct ra_error *err)
{
    int n = synth->info.n_layers, window = synth->like ? RA_INT_NONE : synth->params.window;
    synth->layers = calloc((size_t)n, sizeof *synth->layers);
    if (!synth->layers)
        return ra_fail(err, RA_ENOMEM, "generator: no memory for %d layers", n);
    for (int i = 0; i < n; i++) {
        synth->layers[i].id = i;
        synth->layers[i].window = window != RA_INT_NONE && i % 2 == 1 ? window : 0;
    }
    synth->seq.mode = "synthetic";
    synth->seq.schedule = "full";
    synth->info.path = synth->name;
    synth->info.model_id = synth->model_id;
    synth->info.synthetic = synth->synthetic;
    synth->info.layers = synth->layers;
    synth->info.n_seq = 1;
    synth->info.seqs = &synth->seq;
    synth->info.check_tolerance = 1e-5;
    return RA_OK;
}

static void synth_close(void *self)
{
    struct synth *synth = self;
    if (!synth)
        return;
    ra_synth_like_close(synth->like);
    free(synth->layers);
    free(synth->name);
    free(synth->model_id);
    free(synth->synthetic);
    free(synth->spelling);
    free(synth->like_name);
    free(synth);
}

static enum ra_status open_parts(struct synth *synth, const char *name, struct ra_error *err)
{
    static const char prefix[] = "synth:";
    struct ra_span all, rest, pair, key;
    RA_TRY(keep_text(&synth->name, err, "%s", name));
    if (strncmp(name, prefix, strlen(prefix)) != 0)
        return ra_fail(err, RA_EUSAGE, "expected a name that starts with 'synth:', got '%.64s'",
                       name);
    all = rest = ra_span_of(synth->name + strlen(prefix));
    bool more = ra_span_cut(&rest, ',', &pair);
    struct ra_span value = pair;
    bool is_pair = ra_span_cut(&value, '=', &key);
    if (is_pair && ra_span_is(key, "case"))
        RA_TRY(open_case(synth, all, err));
    else if (is_pair && ra_span_is(key, "like"))
        RA_TRY(open_like(synth, value, more ? rest : (struct ra_span){NULL, 0}, err));
    else
        return ra_fail(err, RA_EUSAGE,
                       "synth: expected case=NAME or like=TRACE to come first, got '%.*s'",
                       RA_SPAN(pair));
    return describe(synth, err);
}

static enum ra_status synth_open(void **self, const char *name, struct ra_error *err)
{
    struct synth *synth = calloc(1, sizeof *synth);
    *self = NULL;
    if (!synth)
        return ra_fail(err, RA_ENOMEM, "generator: no memory");
    enum ra_status st = open_parts(synth, name, err);
    if (st != RA_OK)
        synth_close(synth);
    else
        *self = synth;
    return st;
}

/* --- reading ------------------------------------------------------------------------------------
 */

static const struct ra_trace_info *synth_info(const void *self)
{
    return &((const struct synth *)self)->info;
}

static const char *synth_metadata(const void *self, const char *key)
{
    const struct synth *synth = self;
    if (strcmp(key, "synth.spelling") == 0)
        return synth->spelling;
    if (strcmp(key, "synth.like") == 0)
        return synth->like_name;
    if (strcmp(key, "synth.property") == 0 && !synth->like)
        return properties[synth->params.which];
    return NULL;
}

static enum ra_status synth_read(const void *self, const struct ra_trace_slice *slice, void *out,
                                 struct ra_error *err)
{
    const struct synth *synth = self;
    const struct ra_model *model = &synth->info.model;
    size_t width = (size_t)(slice->part == RA_TRACE_V ? model->Dv : model->D);
    int32_t tail = slice->part == RA_TRACE_Q ? synth->seq.W : 0;
    float rows[CHUNK * MAX_D];
    char *to = out;
    for (int32_t done = 0; done < slice->n; done += CHUNK) {
        struct ra_trace_slice piece = *slice;
        piece.first += done;
        piece.n = slice->n - done < CHUNK ? slice->n - done : CHUNK;
        for (int32_t i = 0; i < piece.n && !synth->like; i++)
            ra_synth_case_row(&synth->params, piece.layer, piece.part, piece.head, piece.first + i,
                              rows + (size_t)i * width);
        piece.first -= tail; /* rows of a fit are counted from the prefill's query */
        if (synth->like)
            RA_TRY(ra_synth_like_read(synth->like, &piece, rows, err));
        ra_narrow(model->dtype, rows, (size_t)piece.n * width, to);
        to += (size_t)piece.n * width * ra_dtype_bytes(model->dtype);
    }
    return RA_OK;
}

const struct ra_trace_source_ops ra_trace_source_synth = {
    .name = "synth",
    .open = synth_open,
    .info = synth_info,
    .metadata = synth_metadata,
    .read = synth_read,
    .close = synth_close,
};
