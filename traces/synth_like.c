/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fits happen at the length asked for, at most 8192 tokens and 512 steps; beyond, what was fitted
 * there is stretched. The first drawing of each recorded layer is fitted from fixed knobs; later
 * ones start from its result: they need a few steps only, and it is the same result in whatever
 * order layers are read.
 */
#include "traces/synth_like.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/params.h"
#include "sim/base/rng.h"
#include "traces/synth_math.h"
#include "traces/synth_tune.h"

enum { FIT_PROMPT = 8192, FIT_STEPS = 512, NORM_ROWS = 64 };

struct fitted {
    bool is_done;
    struct ra_synth_layer layer;
};

struct ra_synth_like {
    struct ra_trace *source;
    struct ra_model model; /* of what is drawn */
    struct ra_synth_like_params params;
    int n_recorded;
    int *recorded;          /* [n_recorded] indices of full-attention layers */
    struct fitted *layers;  /* [params.layers] */
    pthread_mutex_t *mutex; /* of `layers` */
};

/* What the statistics of a recorded layer are read through. */
struct recorded {
    const struct ra_trace *trace;
    int seq, layer;
};

static enum ra_status read_recorded(const void *context, enum ra_trace_part part, int head,
                                    int32_t first, int32_t n, float *out, struct ra_error *err)
{
    const struct recorded *recorded = context;
    const struct ra_trace_info *info = ra_trace_info(recorded->trace);
    size_t elements = (size_t)n * (size_t)info->model.D;
    int32_t tail = part == RA_TRACE_Q ? info->seqs[recorded->seq].W : 0;
    void *stored = malloc(elements * ra_dtype_bytes(info->model.dtype));
    if (!stored)
        return ra_fail(err, RA_ENOMEM, "statistics: no memory for %d rows", n);
    enum ra_status st = ra_trace_read(
        recorded->trace,
        &(struct ra_trace_slice){recorded->seq, recorded->layer, part, head, first + tail, n},
        stored, err);
    if (st == RA_OK)
        ra_widen(info->model.dtype, stored, elements, out);
    free(stored);
    return st;
}

/* Statistics of a recorded layer; the caller closes *measure. */
static enum ra_status measure_recorded(const struct ra_trace *trace, int seq, int layer,
                                       struct ra_measure *measure, struct ra_error *err)
{
    const struct ra_trace_info *info = ra_trace_info(trace);
    struct recorded recorded = {trace, seq, layer};
    struct ra_measure_source source = {&info->model, info->seqs[seq].P, info->seqs[seq].N,
                                       &recorded, read_recorded};
    if (info->layers[layer].window)
        return ra_fail(err, RA_EUSAGE,
                       "%s: layer %d: expected a full-attention layer, got a window "
                       "of %d",
                       info->path, info->layers[layer].id, info->layers[layer].window);
    RA_TRY(ra_measure_open(measure, &info->model, err));
    enum ra_status st = ra_measure_run(measure, &source, err);
    if (st != RA_OK)
        ra_measure_close(measure);
    return st;
}

enum ra_status ra_fit_measure(const struct ra_trace *trace, int seq, int layer,
                              struct ra_fit_stats *stats, struct ra_error *err)
{
    struct ra_measure measure = {0};
    RA_TRY(measure_recorded(trace, seq, layer, &measure, err));
    ra_measure_stats(&measure, &ra_trace_info(trace)->model, stats);
    ra_measure_close(&measure);
    return RA_OK;
}

/* What a layer of the asked-for shape shall measure like; the caller closes *target. */
static enum ra_status measure_target(const struct ra_synth_like *like, int recorded,
                                     struct ra_measure *target, struct ra_error *err)
{
    struct ra_measure measured = {0};
    RA_TRY(measure_recorded(like->source, 0, recorded, &measured, err));
    /* Undoing a rotation needs the C library's cosine; its last bit must not reach the fit. */
    for (int l = 0; l < RA_FIT_COSINES; l++)
        measured.cosine[l] = floor(measured.cosine[l] * 0x1p20 + 0.5) * 0x1p-20;
    enum ra_status st = ra_measure_open(target, &like->model, err);
    if (st == RA_OK)
        ra_measure_reshape(&measured, &ra_trace_info(like->source)->model, target, &like->model);
    ra_measure_close(&measured);
    return st;
}

/* Mean length of the last keys of the prompt, or what it would be with as many dimensions as are
 * asked for. */
static enum ra_status key_norm(const struct ra_synth_like *like, int layer, double *norm,
                               struct ra_error *err)
{
    const struct ra_trace_info *info = ra_trace_info(like->source);
    struct recorded recorded = {like->source, 0, layer};
    int32_t P = info->seqs[0].P, n = P < NORM_ROWS ? P : NORM_ROWS;
    float rows[NORM_ROWS * RA_SYNTH_MAX_D];
    double sum = 0;
    for (int h = 0; h < info->model.Hkv; h++) {
        RA_TRY(read_recorded(&recorded, RA_TRACE_K, h, P - n, n, rows, err));
        for (int32_t i = 0; i < n * info->model.D; i++)
            sum += (double)rows[i] * (double)rows[i];
    }
    *norm = sum > 0 ? sqrt(sum / n / info->model.Hkv) : 1;
    *norm *= sqrt((double)like->model.D / info->model.D);
    return RA_OK;
}

static enum ra_status fit(const struct ra_synth_like *like, int index,
                          const struct ra_synth_knobs *start, struct ra_synth_layer *layer,
                          struct ra_error *err)
{
    int recorded = ra_synth_like_source_layer(like, index);
    int32_t P = like->params.L < FIT_PROMPT ? like->params.L : FIT_PROMPT;
    int32_t N = like->params.N < FIT_STEPS ? like->params.N : FIT_STEPS;
    uint64_t key = ra_rng_key((uint64_t)like->params.seed, (uint64_t)index);
    struct ra_measure target = {0};
    double norm;
    RA_TRY(key_norm(like, recorded, &norm, err));
    ra_synth_layer_init(layer, &like->model, P, N, key, norm);
    RA_TRY(measure_target(like, recorded, &target, err));
    enum ra_status st = ra_synth_knobs_open(&layer->knobs, &like->model, err);
    if (st == RA_OK && start)
        ra_synth_knobs_copy(&layer->knobs, start, &like->model);
    if (st == RA_OK)
        st = ra_synth_tune(layer, &target, err);
    if (st != RA_OK)
        ra_synth_knobs_close(&layer->knobs);
    ra_measure_close(&target);
    if (st == RA_OK && like->params.L > P)
        layer->sink_shift = ra_synth_log((double)like->params.L / P);
    layer->P = like->params.L;
    layer->N = like->params.N;
    return st;
}

static enum ra_status fit_once(const struct ra_synth_like *like, int index, struct ra_error *err)
{
    struct fitted *fitted = &like->layers[index];
    if (fitted->is_done)
        return RA_OK;
    const struct ra_synth_knobs *start = NULL;
    if (index >= like->n_recorded) {
        RA_TRY(fit_once(like, index % like->n_recorded, err));
        start = &like->layers[index % like->n_recorded].layer.knobs;
    }
    RA_TRY(fit(like, index, start, &fitted->layer, err));
    fitted->is_done = true;
    return RA_OK;
}

enum ra_status ra_synth_like_read(const struct ra_synth_like *like,
                                  const struct ra_trace_slice *slice, float *out,
                                  struct ra_error *err)
{
    int width = slice->part == RA_TRACE_V ? like->model.Dv : like->model.D;
    pthread_mutex_lock(like->mutex);
    enum ra_status st = fit_once(like, slice->layer, err);
    pthread_mutex_unlock(like->mutex);
    for (int32_t i = 0; i < slice->n && st == RA_OK; i++)
        ra_synth_layer_row(&like->layers[slice->layer].layer, slice->part, slice->head,
                           slice->first + i, out + (size_t)i * (size_t)width);
    return st;
}

const struct ra_trace *ra_synth_like_source(const struct ra_synth_like *like)
{
    return like->source;
}

const struct ra_model *ra_synth_like_model(const struct ra_synth_like *like)
{
    return &like->model;
}

int ra_synth_like_source_layer(const struct ra_synth_like *like, int layer)
{
    return like->recorded[layer % like->n_recorded];
}

static enum ra_status find_layers(struct ra_synth_like *like, struct ra_error *err)
{
    const struct ra_trace_info *info = ra_trace_info(like->source);
    like->recorded = calloc((size_t)info->n_layers, sizeof *like->recorded);
    if (!like->recorded)
        return ra_fail(err, RA_ENOMEM, "generator: no memory for %d layers", info->n_layers);
    for (int i = 0; i < info->n_layers; i++)
        if (!info->layers[i].window)
            like->recorded[like->n_recorded++] = i;
    if (like->n_recorded == 0)
        return ra_fail(err, RA_EUSAGE,
                       "%s: expected a trace with full-attention layers, got window "
                       "layers only",
                       info->path);
    return RA_OK;
}

/* Take what is given unless it is the recorded trace's own, which then counts as not given. */
static void set_shape(int *field, int32_t *param)
{
    if (*param == *field)
        *param = RA_INT_NONE;
    else if (*param != RA_INT_NONE)
        *field = *param;
}

static void set_model(struct ra_model *model, const struct ra_model *recorded,
                      struct ra_synth_like_params *params)
{
    *model = *recorded;
    model->n_layers = params->layers;
    model->rope = (struct ra_rope){.type = RA_ROPE_NONE};
    set_shape(&model->Hq, &params->Hq);
    set_shape(&model->Hkv, &params->Hkv);
    set_shape(&model->D, &params->D);
    model->G = model->Hq / model->Hkv;
    if (model->D != recorded->D) {
        model->Dv = model->D;
        model->attn_scale *= sqrt((double)recorded->D / model->D);
    }
    if (params->dtype == 1 + (int32_t)recorded->dtype)
        params->dtype = 0;
    if (params->dtype != 0)
        model->dtype = (enum ra_dtype)(params->dtype - 1);
}

static enum ra_status open_parts(struct ra_synth_like *like, const char *source,
                                 struct ra_synth_like_params *params, struct ra_error *err)
{
    RA_TRY(ra_trace_open(&like->source, source, err));
    const struct ra_trace_info *info = ra_trace_info(like->source);
    RA_TRY(find_layers(like, err));
    params->layers = params->layers == RA_INT_NONE ? like->n_recorded : params->layers;
    params->L = params->L == RA_INT_NONE ? info->seqs[0].P : params->L;
    params->N = params->N == RA_INT_NONE ? info->seqs[0].N : params->N;
    set_model(&like->model, &info->model, params);
    like->params = *params;
    like->layers = calloc((size_t)params->layers, sizeof *like->layers);
    like->mutex = malloc(sizeof *like->mutex);
    if (like->mutex && pthread_mutex_init(like->mutex, NULL) != 0) {
        free(like->mutex);
        like->mutex = NULL;
    }
    if (!like->layers || !like->mutex)
        return ra_fail(err, RA_ENOMEM, "generator: no memory for %d layers", params->layers);
    return RA_OK;
}

enum ra_status ra_synth_like_open(struct ra_synth_like **like, const char *source,
                                  struct ra_synth_like_params *params, struct ra_error *err)
{
    *like = calloc(1, sizeof **like);
    if (!*like)
        return ra_fail(err, RA_ENOMEM, "generator: no memory");
    enum ra_status st = open_parts(*like, source, params, err);
    if (st != RA_OK) {
        ra_synth_like_close(*like);
        *like = NULL;
    }
    return st;
}

void ra_synth_like_close(struct ra_synth_like *like)
{
    if (!like)
        return;
    for (int i = 0; like->layers && i < like->params.layers; i++)
        ra_synth_knobs_close(&like->layers[i].layer.knobs);
    if (like->mutex)
        pthread_mutex_destroy(like->mutex);
    free(like->mutex);
    free(like->layers);
    free(like->recorded);
    ra_trace_close(like->source);
    free(like);
}
