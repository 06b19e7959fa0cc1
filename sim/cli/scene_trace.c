/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scene from a trace: scores of one layer at a time, recomputed in f64 from its own queries and
 * keys. Holds the keys of one layer and its decode queries.
 */
#include "sim/cli/scene.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/reference.h"
#include "traces/trace.h"

struct taken {
    struct ra_trace *trace;
    const struct ra_trace_info *info;
    int *layer_ids;     /* [env.n_layers] of full-attention layers */
    int *layer_indices; /* the same, in the trace */
    int entered;        /* index in the trace */
    char *k;            /* [Hkv][P + N][D] stored */
    float *q;           /* [Hq][N + 1][D], row 0 the last prompt token's */
    float *step_q;      /* [G][D] */
    float *all_q;       /* [Hq][D] of one step */
    int32_t *tokens;    /* [P + N + 1] or NULL */
    double *mean;
    struct ra_queries queries;
};

static void close_taken(struct ra_scene *scene)
{
    struct taken *taken = scene->self;
    if (!taken)
        return;
    ra_trace_close(taken->trace);
    free(taken->layer_ids);
    free(taken->layer_indices);
    free(taken->k);
    free(taken->q);
    free(taken->step_q);
    free(taken->all_q);
    free(taken->tokens);
    free(taken->mean);
    free(taken);
}

static enum ra_status read_queries(struct ra_scene *scene, int index, struct ra_error *err)
{
    struct taken *taken = scene->self;
    const struct ra_model *model = scene->env.model;
    int32_t n = scene->env.N + 1;
    size_t size = (size_t)n * (size_t)model->D;
    char *stored = malloc(size * ra_dtype_bytes(model->dtype));
    if (!stored)
        return ra_fail(err, RA_ENOMEM, "explain: no memory for queries");
    enum ra_status status = RA_OK;
    for (int h = 0; h < model->Hq && status == RA_OK; h++) {
        status = ra_trace_read(
            taken->trace,
            &(struct ra_trace_slice){0, index, RA_TRACE_Q, h, taken->info->seqs[0].W - 1, n},
            stored, err);
        if (status == RA_OK)
            ra_widen(model->dtype, stored, size, taken->q + (size_t)h * size);
    }
    free(stored);
    return status;
}

static enum ra_status enter(struct ra_scene *scene, int layer, struct ra_error *err)
{
    struct taken *taken = scene->self;
    const struct ra_model *model = scene->env.model;
    int32_t rows = scene->env.P + scene->env.N;
    size_t head = (size_t)rows * (size_t)model->D * ra_dtype_bytes(model->dtype);
    taken->entered = taken->layer_indices[layer];
    for (int h = 0; h < model->Hkv; h++)
        RA_TRY(ra_trace_read(taken->trace,
                             &(struct ra_trace_slice){0, taken->entered, RA_TRACE_K, h, 0, rows},
                             taken->k + (size_t)h * head, err));
    return read_queries(scene, taken->entered, err);
}

static void score(struct ra_scene *scene, int32_t t, double *prob)
{
    struct taken *taken = scene->self;
    const struct ra_model *model = scene->env.model;
    size_t D = (size_t)model->D, n = (size_t)scene->env.N + 1;
    size_t head = (size_t)(scene->env.P + scene->env.N) * D * ra_dtype_bytes(model->dtype);
    for (int h = 0; h < model->Hkv; h++) {
        for (int g = 0; g < model->G; g++)
            memcpy(taken->step_q + (size_t)g * D,
                   taken->q + ((size_t)(h * model->G + g) * n + (size_t)(t + 1)) * D,
                   D * sizeof *taken->step_q);
        struct ra_reference call = {.model = model,
                                    .k = taken->k + (size_t)h * head,
                                    .q = taken->step_q,
                                    .q_step = (size_t)model->G * D,
                                    .n_steps = 1,
                                    .first_L = scene->env.P + t + 1,
                                    .prob = prob,
                                    .first_head = h * model->G};
        ra_reference_attend(&call);
    }
}

/* The last n prompt queries of a head, which read_queries left out. */
static enum ra_status tail(void *context, int head, int32_t n, float *q, struct ra_error *err)
{
    const struct ra_scene *scene = context;
    const struct taken *taken = scene->self;
    const struct ra_model *model = scene->env.model;
    size_t size = (size_t)n * (size_t)model->D;
    char *stored = malloc(size * ra_dtype_bytes(model->dtype));
    if (!stored)
        return ra_fail(err, RA_ENOMEM, "explain: no memory for the prompt's last %d queries", n);
    struct ra_trace_slice slice = {0, taken->entered, RA_TRACE_Q, head, scene->env.W - n, n};
    enum ra_status status = ra_trace_read(taken->trace, &slice, stored, err);
    if (status == RA_OK)
        ra_widen(model->dtype, stored, size, q);
    free(stored);
    return status;
}

static void rows(struct ra_scene *scene, int32_t t, struct ra_scores_input *input)
{
    const struct taken *taken = scene->self;
    const struct ra_model *model = scene->env.model;
    size_t D = (size_t)model->D, n = (size_t)scene->env.N + 1;
    for (size_t h = 0; h < (size_t)model->Hq; h++)
        memcpy(taken->all_q + h * D, taken->q + (h * n + (size_t)(t + 1)) * D,
               D * sizeof *taken->all_q);
    input->q = taken->all_q;
    input->k = taken->k;
    input->k_stride = (size_t)(scene->env.P + scene->env.N) * D * ra_dtype_bytes(model->dtype);
    input->tail = tail;
    input->context = scene;
}

static enum ra_status acc(struct ra_scene *scene, float *out, struct ra_error *err)
{
    struct taken *taken = scene->self;
    return ra_trace_acc(taken->trace, 0, taken->entered, out, err);
}

static void name(const struct ra_scene *scene, int32_t pos, char out[RA_SCENE_NAME])
{
    const struct taken *taken = scene->self;
    out[0] = 0;
    if (taken->tokens)
        snprintf(out, RA_SCENE_NAME, "#%d", (int)taken->tokens[pos]);
}

/* Means over query heads of every layer, which schedules with sim= compare. */
static enum ra_status form_means(struct ra_scene *scene, struct ra_error *err)
{
    struct taken *taken = scene->self;
    const struct ra_model *model = scene->env.model;
    size_t row = ((size_t)scene->env.N + 1) * (size_t)model->D;
    taken->mean = calloc((size_t)scene->env.n_layers * row, sizeof *taken->mean);
    if (!taken->mean)
        return ra_fail(err, RA_ENOMEM, "explain: no memory for queries");
    for (int layer = 0; layer < scene->env.n_layers; layer++) {
        double *mean = taken->mean + (size_t)layer * row;
        RA_TRY(read_queries(scene, taken->layer_indices[layer], err));
        for (int h = 0; h < model->Hq; h++)
            for (size_t i = 0; i < row; i++)
                mean[i] += (double)taken->q[(size_t)h * row + i];
        for (size_t i = 0; i < row; i++)
            mean[i] /= model->Hq;
    }
    taken->queries = (struct ra_queries){
        .n_layers = scene->env.n_layers, .D = model->D, .N = scene->env.N, .mean = taken->mean};
    scene->env.queries = &taken->queries;
    return RA_OK;
}

/* Full-attention layers are what a policy sees; *shown is the index of the one asked for. */
static enum ra_status choose_layers(struct taken *taken, int layer_id, int *n, int *shown,
                                    struct ra_error *err)
{
    const struct ra_trace_info *info = taken->info;
    RA_BUG_ON(info->n_layers < 1);
    taken->layer_ids = calloc((size_t)info->n_layers, sizeof *taken->layer_ids);
    taken->layer_indices = calloc((size_t)info->n_layers, sizeof *taken->layer_indices);
    if (!taken->layer_ids || !taken->layer_indices)
        return ra_fail(err, RA_ENOMEM, "explain: no memory for layers");
    *n = 0;
    *shown = -1;
    for (int i = 0; i < info->n_layers; i++) {
        if (info->layers[i].id == layer_id && info->layers[i].window)
            return ra_fail(err, RA_EUSAGE,
                           "--layer: layer %d has a sliding window, which no policy changes",
                           layer_id);
        if (info->layers[i].window)
            continue;
        if (info->layers[i].id == layer_id)
            *shown = *n;
        taken->layer_ids[*n] = info->layers[i].id;
        taken->layer_indices[(*n)++] = i;
    }
    if (*n == 0)
        return ra_fail(err, RA_EUSAGE, "%s: has sliding-window layers only", info->path);
    if (layer_id < 0)
        *shown = *n / 2;
    if (*shown < 0)
        return ra_fail(err, RA_EUSAGE, "--layer: layer %d is not recorded in %s", layer_id,
                       info->path);
    return RA_OK;
}

static enum ra_status allocate(struct ra_scene *scene, struct ra_error *err)
{
    struct taken *taken = scene->self;
    const struct ra_model *model = scene->env.model;
    size_t D = (size_t)model->D, rows = (size_t)scene->env.P + (size_t)scene->env.N;
    taken->k = malloc((size_t)model->Hkv * rows * D * ra_dtype_bytes(model->dtype));
    taken->q = malloc((size_t)model->Hq * ((size_t)scene->env.N + 1) * D * sizeof *taken->q);
    taken->step_q = malloc((size_t)model->G * D * sizeof *taken->step_q);
    taken->all_q = malloc((size_t)model->Hq * D * sizeof *taken->all_q);
    if (!taken->k || !taken->q || !taken->step_q || !taken->all_q)
        return ra_fail(err, RA_ENOMEM, "explain: no memory for one layer's keys");
    if (!taken->info->seqs[0].has_tokens)
        return RA_OK;
    taken->tokens = malloc((rows + 1) * sizeof *taken->tokens);
    if (!taken->tokens)
        return ra_fail(err, RA_ENOMEM, "explain: no memory for tokens");
    return ra_trace_tokens(taken->trace, 0, taken->tokens, err);
}

static enum ra_status prepare(struct ra_scene *scene, int layer_id, unsigned needs,
                              struct ra_error *err)
{
    struct taken *taken = scene->self;
    const struct ra_trace_seq *seq = &taken->info->seqs[0];
    int n = 0;
    RA_TRY(choose_layers(taken, layer_id, &n, &scene->layer, err));
    scene->env = (struct ra_policy_env){.model = &taken->info->model,
                                        .P = seq->P,
                                        .N = seq->N,
                                        .W = seq->W,
                                        .n_layers = n,
                                        .layer_ids = taken->layer_ids};
    if (scene->kv_head >= taken->info->model.Hkv)
        return ra_fail(err, RA_EUSAGE, "--head: expected a KV head below %d, got %d",
                       taken->info->model.Hkv, scene->kv_head);
    scene->has_acc = seq->has_acc;
    scene->has_truth = true;
    scene->row_bytes = (int)ra_model_row_bytes(&taken->info->model);
    scene->title = taken->info->path;
    scene->scores = "recomputed in f64 from the recorded queries and keys";
    RA_TRY(allocate(scene, err));
    return needs & RA_NEEDS_QUERIES ? form_means(scene, err) : RA_OK;
}

enum ra_status ra_scene_trace(struct ra_scene *scene, const char *trace_name, int layer_id,
                              int kv_head, unsigned needs, struct ra_error *err)
{
    memset(scene, 0, sizeof *scene);
    struct taken *taken = calloc(1, sizeof *taken);
    if (!taken)
        return ra_fail(err, RA_ENOMEM, "explain: no memory");
    scene->self = taken;
    scene->close = close_taken;
    scene->kv_head = kv_head;
    scene->enter = enter;
    scene->score = score;
    scene->rows = rows;
    scene->acc = acc;
    scene->name = name;
    enum ra_status status = ra_trace_open(&taken->trace, trace_name, err);
    if (status == RA_OK) {
        taken->info = ra_trace_info(taken->trace);
        status = prepare(scene, layer_id, needs, err);
    }
    if (status != RA_OK)
        ra_scene_close(scene);
    return status;
}
