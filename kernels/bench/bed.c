/* SPDX-License-Identifier: Apache-2.0 */
/* Rows, queries, sets; attention in plain f64. */
#include "kernels/bench/bed.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/half.h"

static void *need(void *memory)
{
    if (!memory)
        ra_bench_stop("bed", "out of memory");
    return memory;
}

static void must(enum ra_status status, const struct ra_error *err)
{
    if (status)
        ra_bench_stop("bed", err->msg);
}

static const struct ra_backend_ops *ops(void)
{
    return ra_backend_find("cpu");
}

static void fill(uint16_t *rows, size_t n, uint64_t *seed)
{
    for (size_t i = 0; i < n; i++)
        rows[i] = ra_f32_to_f16(ra_bench_uniform(seed));
}

/* K positions of 0..L-2, ascending: each with the chance that leaves the right number. */
static void choose(int32_t *set, int32_t K, int32_t L, uint64_t *seed)
{
    int32_t taken = 0;
    for (int32_t p = 0; p < L - 1 && taken < K; p++)
        if ((int32_t)(ra_bench_random(seed) % (uint64_t)(L - 1 - p)) < K - taken)
            set[taken++] = p;
}

/* Every fourth entry moves on by one where that is free. */
static void change(const int32_t *set, int32_t K, int32_t L, int32_t *changed)
{
    memcpy(changed, set, (size_t)K * sizeof *set);
    for (int32_t i = 0; i < K; i += 4)
        changed[i] += i + 1 < K ? set[i + 1] > set[i] + 1 : set[i] + 1 < L - 1;
}

static int32_t *set_of(const struct ra_bed *bed, int which, int layer, int head)
{
    return bed->set[which] +
           ((size_t)layer * (size_t)bed->model.Hkv + (size_t)head) * (size_t)bed->K;
}

int64_t ra_bed_refresh(struct ra_bed *bed)
{
    struct ra_error err;
    int64_t moved, total = 0;
    bed->now = !bed->now;
    for (int layer = 0; layer < bed->config.n_layers; layer++) {
        for (int head = 0; head < bed->model.Hkv; head++) {
            struct ra_positions set = {set_of(bed, bed->now, layer, head), bed->K};
            ops()->adopt(bed->cpu, layer, head, &(struct ra_retained){.set = set, .evict = set});
        }
        must(ops()->refresh(bed->cpu, layer, &moved, &err), &err);
        total += moved;
    }
    return total;
}

int64_t ra_bed_changes(const struct ra_bed *bed)
{
    size_t n = (size_t)(bed->config.n_layers * bed->model.Hkv) * (size_t)bed->K;
    int64_t changes = 0;
    for (size_t i = 0; i < n; i++)
        changes += bed->set[0][i] != bed->set[1][i];
    return changes;
}

static void choose_sets(struct ra_bed *bed, uint64_t *seed)
{
    for (int layer = 0; layer < bed->config.n_layers; layer++)
        for (int head = 0; head < bed->model.Hkv; head++) {
            choose(set_of(bed, 0, layer, head), bed->K, bed->L, seed);
            change(set_of(bed, 0, layer, head), bed->K, bed->L, set_of(bed, 1, layer, head));
        }
    bed->now = 1; /* the first refresh installs set 0 */
    ra_bed_refresh(bed);
}

static void fill_layers(struct ra_bed *bed)
{
    struct ra_error err;
    uint64_t seed = 42;
    size_t rows = (size_t)bed->model.Hkv * (size_t)bed->L, D = (size_t)bed->model.D;
    uint16_t *k = need(malloc(rows * D * sizeof *k)), *v = need(malloc(rows * D * sizeof *v));
    for (int layer = 0; layer < bed->config.n_layers; layer++) {
        fill(k, rows * D, &seed);
        fill(v, rows * D, &seed);
        size_t stride = (size_t)bed->L * D * sizeof *k;
        const struct ra_prompt_rows prompt = {k, v, stride, stride, bed->L};
        must(ops()->load(bed->cpu, layer, &prompt, &err), &err);
    }
    if (bed->K > 0)
        choose_sets(bed, &seed);
    size_t n = (size_t)bed->config.n_layers * (size_t)bed->model.Hq * D;
    for (size_t i = 0; i < n; i++)
        bed->q[i] = ra_f16_to_f32(ra_f32_to_f16(2 * ra_bench_uniform(&seed)));
    free(k);
    free(v);
}

void ra_bed_open(struct ra_bed *bed, const struct ra_bed_shape *shape)
{
    struct ra_error err;
    size_t layer_bytes = (size_t)shape->Hkv * (size_t)shape->L * (size_t)shape->D * 4;
    int n_layers = (int)((shape->bytes + layer_bytes - 1) / layer_bytes);
    memset(bed, 0, sizeof *bed);
    bed->model = (struct ra_model){.n_layers = n_layers,
                                   .Hq = shape->Hq,
                                   .Hkv = shape->Hkv,
                                   .G = shape->Hq / shape->Hkv,
                                   .D = shape->D,
                                   .Dv = shape->D,
                                   .dtype = RA_F16,
                                   .attn_scale = 1 / sqrt(shape->D)};
    bed->L = shape->L;
    bed->K = shape->K;
    bed->window = need(calloc((size_t)n_layers, sizeof *bed->window));
    bed->config = (struct ra_backend_config){.model = &bed->model,
                                             .n_layers = n_layers,
                                             .window = bed->window,
                                             .max_rows = shape->L,
                                             .max_retained = shape->K > 0 ? shape->K + 1 : 0,
                                             .cache = shape->cache,
                                             .n_threads = shape->n_threads};
    size_t heads = (size_t)n_layers * (size_t)shape->Hq;
    bed->q = need(malloc(heads * (size_t)shape->D * sizeof *bed->q));
    bed->out = need(malloc((size_t)(shape->Hq * shape->D) * sizeof *bed->out));
    for (int i = 0; i < 2; i++)
        bed->set[i] = need(malloc((heads * (size_t)shape->K + 1) * sizeof *bed->set[i]));
    void *cpu;
    must(ops()->open(&cpu, &bed->config, &err), &err);
    bed->cpu = cpu;
    fill_layers(bed);
    snprintf(bed->shape, sizeof bed->shape, "Hq=%d Hkv=%d D=%d f16 L=%d", shape->Hq, shape->Hkv,
             shape->D, (int)shape->L);
}

void ra_bed_close(struct ra_bed *bed)
{
    ops()->close(bed->cpu);
    free(bed->window);
    free(bed->q);
    free(bed->out);
    free(bed->set[0]);
    free(bed->set[1]);
}

size_t ra_bed_set_bytes(const struct ra_bed *bed, int32_t n)
{
    return (size_t)bed->model.Hkv * (size_t)n * ra_model_row_bytes(&bed->model);
}

size_t ra_bed_bytes(const struct ra_bed *bed)
{
    return (size_t)bed->config.n_layers * ra_bed_set_bytes(bed, bed->L);
}

const float *ra_bed_query(const struct ra_bed *bed, int layer)
{
    return bed->q + (size_t)layer * (size_t)(bed->model.Hq * bed->model.D);
}

static void attend(struct ra_bed *bed, int layer, bool recycled)
{
    struct ra_error err;
    const float *q = ra_bed_query(bed, layer);
    if (recycled)
        must(ops()->attend_recycled(bed->cpu, layer, q, false, bed->out, &err), &err);
    else
        must(ops()->attend_full(bed->cpu, layer, q, false, bed->out, &err), &err);
}

void ra_bed_attend_full(void *bed)
{
    for (int layer = 0; layer < ((struct ra_bed *)bed)->config.n_layers; layer++)
        attend(bed, layer, false);
}

void ra_bed_attend_recycled(void *bed)
{
    for (int layer = 0; layer < ((struct ra_bed *)bed)->config.n_layers; layer++)
        attend(bed, layer, true);
}

static double dot(const uint16_t *row, const float *q, int D)
{
    double sum = 0;
    for (int d = 0; d < D; d++)
        sum += (double)ra_f16_to_f32(row[d]) * (double)q[d];
    return sum;
}

/* ||out - o|| / ||o|| of one query head over n keys: positions set[i], or i where set is NULL; the
 * last of them is self. *bound: what rounding explains. */
static double error_of(const struct ra_bed *bed, int layer, int head, const int32_t *set, int32_t n,
                       double *bound)
{
    int D = bed->model.D, kv_head = head / bed->model.G;
    const uint16_t *k = (const void *)ra_cpu_rows_k(bed->cpu, layer, kv_head);
    const uint16_t *v = (const void *)ra_cpu_rows_v(bed->cpu, layer, kv_head);
    const float *q = ra_bed_query(bed, layer) + (size_t)head * (size_t)D;
    double o[RA_CPU_MAX_DIM] = {0}, sum = 0, off = 0, size = 0, largest = 0;
    for (int32_t i = 0; i < n; i++) {
        size_t row = (size_t)(i == n - 1 ? bed->L - 1 : set ? set[i] : i) * (size_t)D;
        double logit = bed->model.attn_scale * dot(k + row, q, D), weight = exp(logit);
        largest = fmax(largest, fabs(logit));
        sum += weight;
        for (int d = 0; d < D; d++)
            o[d] += weight * (double)ra_f16_to_f32(v[row + (size_t)d]);
    }
    for (int d = 0; d < D; d++) {
        double difference = (double)bed->out[head * D + d] - o[d] / sum;
        off += difference * difference;
        size += o[d] / sum * (o[d] / sum);
    }
    *bound = ra_kernel_err_bound(largest);
    return sqrt(off / size);
}

double ra_bed_check(struct ra_bed *bed, bool recycled)
{
    double worst = 0, bound;
    for (int layer = 0; layer < bed->config.n_layers; layer++) {
        attend(bed, layer, recycled);
        for (int head = 0; head < bed->model.Hq; head++) {
            const int32_t *set =
                recycled ? set_of(bed, bed->now, layer, head / bed->model.G) : NULL;
            double error = error_of(bed, layer, head, set, recycled ? bed->K + 1 : bed->L, &bound);
            if (!(error <= bound))
                ra_bench_stop(bed->shape, "output differs from plain f64 attention");
            worst = fmax(worst, error);
        }
    }
    return worst;
}
