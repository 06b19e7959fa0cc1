/* SPDX-License-Identifier: Apache-2.0 */
/* Which layers and steps of a recorded sequence are replayed, and what schedules may ask of it. */
#include "sim/engine_shape.h"

#include <stdlib.h>
#include <string.h>

#include "sim/engine_member.h"

static bool is_wanted(const struct ra_replay_config *config, int layer_id)
{
    if (!config->layer_ids)
        return true;
    for (int i = 0; i < config->n_layer_ids; i++)
        if (config->layer_ids[i] == layer_id)
            return true;
    return false;
}

static enum ra_status pick_layers(struct ra_shape *shape, const struct ra_replay_config *config,
                                  struct ra_error *err)
{
    const struct ra_trace_info *info = shape->info;
    shape->lanes = calloc((size_t)info->n_layers, sizeof *shape->lanes);
    shape->full_ids = calloc((size_t)info->n_layers, sizeof *shape->full_ids);
    if (!shape->lanes || !shape->full_ids)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for %d layers", info->n_layers);
    for (int i = 0; i < config->n_layer_ids; i++) {
        bool found = false;
        for (int l = 0; l < info->n_layers; l++)
            found |= info->layers[l].id == config->layer_ids[i];
        if (!found)
            return ra_fail(err, RA_EUSAGE, "%s: layer %d is not recorded", info->path,
                           config->layer_ids[i]);
    }
    for (int l = 0; l < info->n_layers; l++) {
        const struct ra_trace_layer *layer = &info->layers[l];
        if (!is_wanted(config, layer->id))
            continue;
        struct ra_lane *lane = &shape->lanes[shape->n_lanes++];
        *lane = (struct ra_lane){.index = l, .id = layer->id, .window = layer->window, .full = -1};
        if (!layer->window) {
            lane->full = shape->n_full;
            shape->full_ids[shape->n_full++] = layer->id;
        }
    }
    for (int l = 0, narrow = shape->n_full; l < shape->n_lanes; l++)
        shape->lanes[l].slot = shape->lanes[l].window ? narrow++ : shape->lanes[l].full;
    if (shape->n_full == 0)
        return ra_fail(err, RA_EUSAGE, "%s: no full-attention layer among those chosen",
                       info->path);
    return RA_OK;
}

static enum ra_status pick_steps(struct ra_shape *shape, const struct ra_replay_config *config,
                                 struct ra_error *err)
{
    int32_t N = shape->seq->N, last = config->last_step < 0 ? N - 1 : config->last_step;
    if (N < 1)
        return ra_fail(err, RA_EUSAGE, "%s: sequence %d has no decode steps", shape->info->path,
                       config->seq);
    if (config->first_step < 0 || config->first_step > last || last >= N)
        return ra_fail(err, RA_EUSAGE, "steps %d..%d: expected a range within 0..%d",
                       config->first_step, last, N - 1);
    shape->P = shape->seq->P;
    shape->first_step = config->first_step;
    shape->n_steps = last - config->first_step + 1;
    shape->run_steps = last + 1;
    return RA_OK;
}

int32_t ra_shape_first_row(const struct ra_shape *shape, const struct ra_lane *lane)
{
    int32_t first = shape->info->layers[lane->index].first; /* > 0: outside every window */
    return first > shape->drop ? first - shape->drop : 0;
}

enum ra_status ra_shape_read(const struct ra_shape *shape, const struct ra_trace *trace,
                             struct ra_trace_slice slice, void *out, struct ra_error *err)
{
    slice.first += slice.part == RA_TRACE_Q ? 0 : shape->drop;
    return ra_trace_read(trace, &slice, out, err);
}

enum ra_status ra_shape_read_acc(const struct ra_shape *shape,
                                 const struct ra_replay_config *config, const struct ra_lane *lane,
                                 float *acc, struct ra_error *err)
{
    size_t P = (size_t)shape->P, recorded = P + (size_t)shape->drop;
    RA_TRY(ra_trace_acc(config->trace, config->seq, lane->index, acc, err));
    for (size_t h = 0; h < (size_t)shape->model->Hq; h++)
        memmove(acc + h * P, acc + h * recorded + (size_t)shape->drop, P * sizeof *acc);
    return RA_OK;
}

enum ra_status ra_shape_read_tail(const struct ra_shape *shape,
                                  const struct ra_replay_config *config, const struct ra_lane *lane,
                                  int32_t W, float *q, struct ra_error *err)
{
    const struct ra_model *m = shape->model;
    size_t n = (size_t)W * (size_t)m->D;
    char *stored = malloc(n * ra_dtype_bytes(m->dtype));
    enum ra_status st = stored ? RA_OK : ra_fail(err, RA_ENOMEM, "engine: no memory for queries");
    for (int h = 0; st == RA_OK && h < m->Hq; h++) {
        st = ra_trace_read(
            config->trace,
            &(struct ra_trace_slice){config->seq, lane->index, RA_TRACE_Q, h, shape->seq->W - W, W},
            stored, err);
        if (st == RA_OK)
            ra_widen(m->dtype, stored, n, q + (size_t)h * n);
    }
    free(stored);
    return st;
}

enum ra_status ra_shape_read_q(const struct ra_replay_config *config, const struct ra_shape *shape,
                               const struct ra_lane *lane, float *q, struct ra_error *err)
{
    const struct ra_model *m = shape->model;
    size_t n = (size_t)shape->run_steps + 1, D = (size_t)m->D, e = ra_dtype_bytes(m->dtype);
    char *stored = malloc(n * D * e);
    enum ra_status st = stored ? RA_OK : ra_fail(err, RA_ENOMEM, "engine: no memory for queries");
    for (int h = 0; st == RA_OK && h < m->Hq; h++) {
        st = ra_trace_read(config->trace,
                           &(struct ra_trace_slice){config->seq, lane->index, RA_TRACE_Q, h,
                                                    shape->seq->W - 1, (int32_t)n},
                           stored, err);
        for (size_t i = 0; st == RA_OK && i < n; i++)
            ra_widen(m->dtype, stored + i * D * e, D, q + (i * (size_t)m->Hq + (size_t)h) * D);
    }
    free(stored);
    return st;
}

enum ra_status ra_shape_form_queries(struct ra_shape *shape, const struct ra_replay_config *config,
                                     struct ra_error *err)
{
    const struct ra_model *m = shape->model;
    size_t n = (size_t)shape->run_steps + 1, D = (size_t)m->D, Hq = (size_t)m->Hq;
    shape->query_means = calloc((size_t)shape->n_full * n * D, sizeof *shape->query_means);
    float *q = malloc(n * Hq * D * sizeof *q);
    enum ra_status st = RA_OK;
    if (!shape->query_means || !q) {
        free(q);
        return ra_fail(err, RA_ENOMEM, "engine: no memory for query means");
    }
    for (int l = 0; st == RA_OK && l < shape->n_lanes; l++) {
        if (shape->lanes[l].full < 0)
            continue;
        st = ra_shape_read_q(config, shape, &shape->lanes[l], q, err);
        double *mean = shape->query_means + (size_t)shape->lanes[l].full * n * D;
        for (size_t i = 0; st == RA_OK && i < n * D; i++) {
            for (size_t h = 0; h < Hq; h++)
                mean[i] += (double)q[(i / D * Hq + h) * D + i % D];
            mean[i] /= (double)Hq;
        }
    }
    free(q);
    shape->queries = (struct ra_queries){
        .n_layers = shape->n_full, .D = m->D, .N = shape->run_steps, .mean = shape->query_means};
    return st;
}

static enum ra_status check_needs(const struct ra_shape *shape,
                                  const struct ra_replay_config *config, struct ra_error *err)
{
    for (int p = 0; p < config->n_policies; p++) {
        const char *name = ra_policy_spec_canonical(config->specs[p]);
        unsigned needs = ra_policy_spec_needs(config->specs[p]);
        const struct ra_transform_chain *chain = ra_policy_spec_transform(config->specs[p]);
        if (chain)
            RA_TRY(ra_transform_fits(chain, shape->model, err));
        if ((needs & RA_NEEDS_ACC) && !shape->seq->has_acc)
            return ra_fail(err, RA_EUSAGE, "%s: needs tensor s%d.l*.acc, which %s lacks", name,
                           config->seq, shape->info->path);
        if ((needs & RA_NEEDS_TRUTH) && !config->quality)
            return ra_fail(err, RA_EUSAGE,
                           "%s: chooses by exact scores, which --no-quality leaves out", name);
        if ((needs & RA_NEEDS_REFERENCE) && !config->quality)
            return ra_fail(err, RA_EUSAGE,
                           "%s: its choice is the reference's, which --no-quality leaves out",
                           name);
    }
    if (!config->quality && config->export_paths)
        return ra_fail(err, RA_EUSAGE, "--export: needs the quality that --no-quality leaves out");
    if (!config->quality && ra_engine_members(config) > 1)
        return ra_fail(err, RA_EUSAGE, "%s: needs the quality that --no-quality leaves out",
                       config->with     ? "--batch of several sequences"
                       : config->spread ? "--phase spread"
                                        : "--ragged");
    if (!config->quality && !(config->backend->caps & RA_CAP_EXACT))
        return ra_fail(err, RA_EUSAGE,
                       "--no-quality: the %s backend makes no selections of its own",
                       config->backend->name);
    return RA_OK;
}

enum ra_status ra_shape_open(struct ra_shape *shape, const struct ra_replay_config *config,
                             struct ra_error *err)
{
    const struct ra_trace_info *info = ra_trace_info(config->trace);
    *shape = (struct ra_shape){.info = info, .model = &info->model};
    if (config->seq < 0 || config->seq >= info->n_seq)
        return ra_fail(err, RA_EUSAGE, "%s: sequence %d, expected 0 to %d", info->path, config->seq,
                       info->n_seq - 1);
    shape->seq = &info->seqs[config->seq];
    enum ra_status st = pick_steps(shape, config, err);
    if (st == RA_OK)
        st = pick_layers(shape, config, err);
    if (st == RA_OK)
        st = check_needs(shape, config, err);
    if (st == RA_OK)
        st = ra_shape_open_types(shape, config, err);
    if (st != RA_OK)
        ra_shape_close(shape);
    return st;
}

void ra_shape_close(struct ra_shape *shape)
{
    free(shape->lanes);
    free(shape->full_ids);
    free(shape->query_means);
    free(shape->types);
    *shape = (struct ra_shape){0};
}

bool ra_shape_counts(const struct ra_shape *shape, int32_t t)
{
    return t >= shape->first_step && t < shape->first_step + shape->n_steps;
}

size_t ra_shape_at(const struct ra_shape *shape, int full, int32_t t)
{
    return (size_t)full * (size_t)shape->n_steps + (size_t)(t - shape->first_step);
}

size_t ra_shape_slot(const struct ra_shape *shape, enum ra_record kind, int slot, int32_t t)
{
    size_t per_lane = (size_t)shape->run_steps + 1;
    return ((size_t)kind * (size_t)shape->n_lanes + (size_t)slot) * per_lane + (size_t)(t + 1);
}

size_t ra_shape_slots(const struct ra_shape *shape)
{
    return (size_t)RA_RECORD_COUNT * (size_t)shape->n_lanes * ((size_t)shape->run_steps + 1);
}
