/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cpu backend: C17 and SIMD, any shape, f16, bf16 or f32. This file keeps the complete cache
 * C_f and the layers' reference queries, hands C_r to retained.c, and holds the table.
 */
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t ra_cpu_k_bytes(const struct ra_cpu *cpu)
{
    return (size_t)cpu->model.D * ra_dtype_bytes(cpu->model.dtype);
}

size_t ra_cpu_v_bytes(const struct ra_cpu *cpu)
{
    return (size_t)cpu->model.Dv * ra_dtype_bytes(cpu->model.dtype);
}

static size_t head_rows(const struct ra_cpu *cpu, int head)
{
    return (size_t)head * (size_t)cpu->config.max_rows;
}

const char *ra_cpu_rows_k(const struct ra_cpu *cpu, int layer, int head)
{
    return cpu->layers[layer].k + head_rows(cpu, head) * ra_cpu_k_bytes(cpu);
}

const char *ra_cpu_rows_v(const struct ra_cpu *cpu, int layer, int head)
{
    return cpu->layers[layer].v + head_rows(cpu, head) * ra_cpu_v_bytes(cpu);
}

static void cpu_reset(void *self)
{
    struct ra_cpu *cpu = self;
    cpu->holds = RA_CPU_NOTHING;
    for (int i = 0; i < cpu->config.n_layers; i++) {
        struct ra_cpu_layer *layer = &cpu->layers[i];
        layer->rows = 0;
        layer->has_reference = false;
        for (int head = 0; layer->retained && head < cpu->model.Hkv; head++)
            ra_cpu_retained_reset(&layer->retained[head]);
    }
}

static void cpu_close(void *self)
{
    struct ra_cpu *cpu = self;
    if (!cpu)
        return;
    ra_pool_close(cpu->pool);
    free(cpu);
}

static enum ra_status cpu_open(void **self, const struct ra_backend_config *config,
                               struct ra_error *err)
{
    *self = NULL;
    RA_TRY(ra_model_check(config->model, err));
    RA_BUG_ON(config->n_layers < 1 || config->max_rows < 1 || config->max_retained < 0);
    const struct ra_cpu_kernels *kernels;
    RA_TRY(ra_cpu_kernels_find(&kernels, err));
    struct ra_cpu *cpu;
    RA_TRY(ra_cpu_allocate(&cpu, config, err));
    cpu->kernels = kernels;
    if (config->n_threads != 1) {
        enum ra_status status = ra_pool_open(&cpu->pool, config->n_threads, err);
        if (status) {
            cpu_close(cpu);
            return status;
        }
    }
    *self = cpu;
    return RA_OK;
}

static enum ra_status cpu_load(void *self, int layer, const struct ra_prompt_rows *rows,
                               struct ra_error *err)
{
    struct ra_cpu *cpu = self;
    size_t P = (size_t)rows->P;
    if (rows->P < 0 || rows->P > cpu->config.max_rows)
        return ra_fail(err, RA_ERANGE, "cpu: layer %d: expected at most %d rows, got %d", layer,
                       (int)cpu->config.max_rows, (int)rows->P);
    for (size_t head = 0; head < (size_t)cpu->model.Hkv; head++) {
        char *to_k = cpu->layers[layer].k + head_rows(cpu, (int)head) * ra_cpu_k_bytes(cpu);
        char *to_v = cpu->layers[layer].v + head_rows(cpu, (int)head) * ra_cpu_v_bytes(cpu);
        memcpy(to_k, (const char *)rows->k + head * rows->k_stride, P * ra_cpu_k_bytes(cpu));
        memcpy(to_v, (const char *)rows->v + head * rows->v_stride, P * ra_cpu_v_bytes(cpu));
    }
    cpu->layers[layer].rows = rows->P;
    ra_cpu_extend_pages(cpu, layer, 0);
    return RA_OK;
}

static enum ra_status cpu_append(void *self, int layer, const void *k, const void *v,
                                 struct ra_error *err)
{
    struct ra_cpu *cpu = self;
    struct ra_cpu_layer *state = &cpu->layers[layer];
    size_t k_bytes = ra_cpu_k_bytes(cpu), v_bytes = ra_cpu_v_bytes(cpu);
    if (state->rows >= cpu->config.max_rows)
        return ra_fail(err, RA_ERANGE, "cpu: layer %d: expected at most %d rows, got one more",
                       layer, (int)cpu->config.max_rows);
    for (int head = 0; head < cpu->model.Hkv; head++) {
        size_t row = head_rows(cpu, head) + (size_t)state->rows;
        memcpy(state->k + row * k_bytes, (const char *)k + (size_t)head * k_bytes, k_bytes);
        memcpy(state->v + row * v_bytes, (const char *)v + (size_t)head * v_bytes, v_bytes);
    }
    state->rows++;
    ra_cpu_extend_pages(cpu, layer, state->rows - 1);
    for (int head = 0; state->retained && head < cpu->model.Hkv; head++)
        state->retained[head].self_pos = -1;
    if (cpu->scores_layer == layer)
        cpu->holds = RA_CPU_NOTHING;
    return RA_OK;
}

/* Columns of kept probabilities are entries of C_r: they mean nothing once it changes. */
static void drop_scores(struct ra_cpu *cpu, int layer)
{
    if (cpu->scores_layer == layer && cpu->holds == RA_CPU_RECYCLED)
        cpu->holds = RA_CPU_NOTHING;
}

static struct ra_cpu_retained *retained_of(struct ra_cpu *cpu, int layer, int head)
{
    RA_BUG_ON(layer < 0 || layer >= cpu->config.n_layers || !cpu->layers[layer].retained);
    return &cpu->layers[layer].retained[head];
}

static void cpu_adopt(void *self, int layer, int kv_head, const struct ra_retained *retained)
{
    struct ra_cpu *cpu = self;
    const struct ra_positions *set = &retained->set;
    RA_BUG_ON(set->n > 0 && (set->pos[0] < 0 || set->pos[set->n - 1] >= cpu->layers[layer].rows));
    ra_cpu_retained_adopt(retained_of(cpu, layer, kv_head), retained);
}

struct install {
    struct ra_cpu *cpu;
    int layer;
};

static void install_head(void *context, size_t head, int worker)
{
    (void)worker;
    const struct install *install = context;
    struct ra_cpu *cpu = install->cpu;
    cpu->moved[head] = ra_cpu_retained_install(retained_of(cpu, install->layer, (int)head),
                                               ra_cpu_rows_k(cpu, install->layer, (int)head),
                                               ra_cpu_rows_v(cpu, install->layer, (int)head));
}

static enum ra_status cpu_refresh(void *self, int layer, int64_t *moved, struct ra_error *err)
{
    (void)err;
    struct ra_cpu *cpu = self;
    struct install install = {.cpu = cpu, .layer = layer};
    drop_scores(cpu, layer);
    ra_pool_run(cpu->pool, (size_t)cpu->model.Hkv, install_head, &install);
    *moved = 0;
    for (int head = 0; head < cpu->model.Hkv; head++)
        *moved += cpu->moved[head];
    return RA_OK;
}

static enum ra_status cpu_insert_evict(void *self, int layer, const int32_t *K, int32_t *evicted,
                                       struct ra_error *err)
{
    (void)err;
    struct ra_cpu *cpu = self;
    drop_scores(cpu, layer);
    for (int head = 0; head < cpu->model.Hkv; head++) {
        int32_t gone = ra_cpu_retained_insert(
            retained_of(cpu, layer, head), cpu->layers[layer].rows - 1, K[head],
            ra_cpu_rows_k(cpu, layer, head), ra_cpu_rows_v(cpu, layer, head));
        if (evicted)
            evicted[head] = gone;
    }
    return RA_OK;
}

static void mean_query(const struct ra_model *model, const float *q, double *mean)
{
    for (int d = 0; d < model->D; d++)
        mean[d] = 0;
    for (int head = 0; head < model->Hq; head++)
        for (int d = 0; d < model->D; d++)
            mean[d] += (double)q[head * model->D + d];
    for (int d = 0; d < model->D; d++)
        mean[d] /= model->Hq;
}

static enum ra_status cpu_cosine(void *self, int layer, const float *q, double *cosine,
                                 struct ra_error *err)
{
    (void)err;
    const struct ra_cpu *cpu = self;
    const struct ra_cpu_layer *state = &cpu->layers[layer];
    double mean[RA_CPU_MAX_DIM], dot = 0, norm = 0, reference_norm = 0;
    *cosine = NAN;
    if (!state->has_reference)
        return RA_OK;
    mean_query(&cpu->model, q, mean);
    for (int d = 0; d < cpu->model.D; d++) {
        dot += mean[d] * state->reference[d];
        norm += mean[d] * mean[d];
        reference_norm += state->reference[d] * state->reference[d];
    }
    if (norm > 0 && reference_norm > 0)
        *cosine = fmin(1, fmax(-1, dot / (sqrt(norm) * sqrt(reference_norm))));
    return RA_OK;
}

static enum ra_status cpu_set_reference(void *self, int layer, const float *q, struct ra_error *err)
{
    (void)err;
    struct ra_cpu *cpu = self;
    mean_query(&cpu->model, q, cpu->layers[layer].reference);
    cpu->layers[layer].has_reference = true;
    return RA_OK;
}

static enum ra_status cpu_probe(struct ra_error *err)
{
    const struct ra_cpu_kernels *kernels;
    return ra_cpu_kernels_find(&kernels, err);
}

static void processor_name(char *text, size_t size)
{
    char line[256];
    snprintf(text, size, "unnamed processor");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file)
        return;
    while (fgets(line, sizeof line, file)) {
        const char *name = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !name)
            continue;
        name += 1 + strspn(name + 1, " \t");
        snprintf(text, size, "%.*s", (int)strcspn(name, "\n"), name);
        break;
    }
    fclose(file);
}

static void cpu_device(char *text, size_t size)
{
    const struct ra_cpu_kernels *kernels;
    struct ra_error err = {0};
    char name[128];
    processor_name(name, sizeof name);
    snprintf(text, size, "%s, %s", name,
             ra_cpu_kernels_find(&kernels, &err) ? "RATTN_SIMD unusable" : kernels->name);
}

const struct ra_backend_ops ra_backend_cpu = {
    .name = "cpu",
    .summary = "C or SIMD, any shape, threads over KV heads and splits of the context",
    .caps = RA_CAP_EXACT,
    .method = "cpu-wall",
    .launch_mode = "call",
    .probe = cpu_probe,
    .device = cpu_device,
    .memory = ra_cpu_memory,
    .open = cpu_open,
    .reset = cpu_reset,
    .load = cpu_load,
    .append = cpu_append,
    .attend_full = ra_cpu_attend_full,
    .score = ra_cpu_score,
    .select = ra_cpu_op_select,
    .adopt = cpu_adopt,
    .refresh = cpu_refresh,
    .attend_recycled = ra_cpu_attend_recycled,
    .insert_evict = cpu_insert_evict,
    .attend_sets = ra_cpu_attend_sets,
    .cosine = cpu_cosine,
    .set_reference = cpu_set_reference,
    .accumulate = ra_cpu_op_accumulate,
    .cut = ra_cpu_op_cut,
    .select_pages = ra_cpu_op_select_pages,
    .close = cpu_close,
};
