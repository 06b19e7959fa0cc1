/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention operations of the cpu backend: say which keys each group of query heads sees, run all
 * (group, split) pairs on the threads, merge each head's splits in order. Every pair writes to its
 * own place, so the number of threads changes no bit.
 */
#include "kernels/cpu/cpu.h"

struct batch {
    struct ra_cpu *cpu;
    const float *q;
    int n_units, group; /* unit u is query heads u*group..u*group+group-1, with keys[u] */
    int32_t n_splits;   /* of the longest key list */
    bool keep_logits;
    void (*work)(const struct ra_cpu_split *split);
};

static size_t partial_size(const struct ra_cpu *cpu)
{
    return (size_t)cpu->model.Dv + 2;
}

static int32_t splits_of(const struct ra_cpu_keys *keys)
{
    return (ra_cpu_keys_count(keys) + RA_CPU_SPLIT - 1) / RA_CPU_SPLIT;
}

static void run_split(void *context, size_t task, int worker)
{
    (void)worker;
    const struct batch *batch = context;
    struct ra_cpu *cpu = batch->cpu;
    size_t unit = task / (size_t)batch->n_splits, number = task % (size_t)batch->n_splits;
    size_t head = unit * (size_t)batch->group;
    const struct ra_cpu_keys *keys = &cpu->keys[unit];
    int32_t first = (int32_t)number * RA_CPU_SPLIT;
    int32_t count = ra_cpu_keys_count(keys) - first;
    if (count <= 0)
        return;
    struct ra_cpu_split split = {
        .kernels = cpu->kernels,
        .model = &cpu->model,
        .keys = keys,
        .first = first,
        .count = count < RA_CPU_SPLIT ? count : RA_CPU_SPLIT,
        .q = batch->q + head * (size_t)cpu->model.D,
        .n_heads = batch->group,
        .logits = batch->keep_logits ? cpu->scores + head * cpu->score_stride : NULL,
        .stride = cpu->score_stride,
        .partial = cpu->partial + (head * (size_t)cpu->max_splits + number) * partial_size(cpu),
        .partial_stride = (size_t)cpu->max_splits * partial_size(cpu),
    };
    batch->work(&split);
}

static void run(struct batch *batch)
{
    batch->n_splits = 1;
    for (int unit = 0; unit < batch->n_units; unit++) {
        int32_t n = splits_of(&batch->cpu->keys[unit]);
        batch->n_splits = n > batch->n_splits ? n : batch->n_splits;
    }
    RA_BUG_ON(batch->n_splits > batch->cpu->max_splits);
    ra_pool_run(batch->cpu->pool, (size_t)batch->n_units * (size_t)batch->n_splits, run_split,
                batch);
}

static void attend(struct batch *batch, float *out)
{
    struct ra_cpu *cpu = batch->cpu;
    batch->work = ra_cpu_attend_split;
    run(batch);
    for (int head = 0; head < cpu->model.Hq; head++)
        ra_cpu_merge(cpu->partial + (size_t)head * (size_t)cpu->max_splits * partial_size(cpu),
                     partial_size(cpu), splits_of(&cpu->keys[head / batch->group]), cpu->model.Dv,
                     out + (size_t)head * (size_t)cpu->model.Dv);
}

/* The scratch now holds scores of this kind; `keys` says of what. */
static void claim_scores(struct ra_cpu *cpu, int layer, enum ra_cpu_scores holds)
{
    cpu->holds = holds;
    cpu->scores_layer = layer;
    cpu->softmaxed = false;
}

/* Key lists are shared by all attention: probabilities kept for `accumulate` end with them. */
static struct batch start(struct ra_cpu *cpu, int layer, const float *q)
{
    RA_BUG_ON(layer < 0 || layer >= cpu->config.n_layers || cpu->layers[layer].rows == 0);
    if (cpu->holds == RA_CPU_RECYCLED)
        cpu->holds = RA_CPU_NOTHING;
    return (struct batch){.cpu = cpu, .q = q, .n_units = cpu->model.Hkv, .group = cpu->model.G};
}

/* Rows first.. to self of C_f, for every KV head. */
static void see_rows(struct ra_cpu *cpu, int layer, int32_t first)
{
    for (int head = 0; head < cpu->model.Hkv; head++)
        cpu->keys[head] = (struct ra_cpu_keys){
            .k = ra_cpu_rows_k(cpu, layer, head),
            .v = ra_cpu_rows_v(cpu, layer, head),
            .first_row = first,
            .n = cpu->layers[layer].rows - first,
        };
}

enum ra_status ra_cpu_attend_full(void *self, int layer, const float *q, bool want_scores,
                                  float *out, struct ra_error *err)
{
    (void)err;
    struct ra_cpu *cpu = self;
    struct batch batch = start(cpu, layer, q);
    const struct ra_cpu_layer *state = &cpu->layers[layer];
    RA_BUG_ON(want_scores && state->window > 0);
    bool cut = state->window > 0 && state->window < state->rows;
    see_rows(cpu, layer, cut ? state->rows - state->window : 0);
    batch.keep_logits = want_scores && cpu->config.scores == RA_SCORES_FUSED;
    if (batch.keep_logits)
        claim_scores(cpu, layer, RA_CPU_FULL);
    attend(&batch, out);
    return RA_OK;
}

enum ra_status ra_cpu_score(void *self, int layer, const float *q, struct ra_error *err)
{
    (void)err;
    struct ra_cpu *cpu = self;
    struct batch batch = start(cpu, layer, q);
    see_rows(cpu, layer, 0);
    claim_scores(cpu, layer, RA_CPU_FULL);
    batch.keep_logits = true;
    batch.work = ra_cpu_score_split;
    run(&batch);
    return RA_OK;
}

static const char *self_k(const struct ra_cpu *cpu, int layer, int head)
{
    return ra_cpu_rows_k(cpu, layer, head) +
           (size_t)(cpu->layers[layer].rows - 1) * ra_cpu_k_bytes(cpu);
}

static const char *self_v(const struct ra_cpu *cpu, int layer, int head)
{
    return ra_cpu_rows_v(cpu, layer, head) +
           (size_t)(cpu->layers[layer].rows - 1) * ra_cpu_v_bytes(cpu);
}

/* A = C_r and self: slots where rows are kept, else rows of C_f by index. */
static struct ra_cpu_keys recycled_keys(const struct ra_cpu *cpu, int layer, int head)
{
    const struct ra_cpu_layer *state = &cpu->layers[layer];
    struct ra_cpu_keys keys = {.k = ra_cpu_rows_k(cpu, layer, head),
                               .v = ra_cpu_rows_v(cpu, layer, head)};
    const struct ra_cpu_retained *cache = state->retained ? &state->retained[head] : NULL;
    if (!cache || !ra_cpu_retained_has_last(cache, state->rows - 1)) {
        keys.self_k = self_k(cpu, layer, head);
        keys.self_v = self_v(cpu, layer, head);
    }
    if (cache && cache->k) {
        keys.k = cache->k;
        keys.v = cache->v;
        keys.n = cache->n_slots;
        keys.live = cache->n_free > 0 ? cache->slot_pos : NULL;
    } else if (cache) {
        keys.index = cache->pos;
        keys.n = cache->n;
    }
    return keys;
}

enum ra_status ra_cpu_attend_recycled(void *self, int layer, const float *q, bool want_scores,
                                      float *out, struct ra_error *err)
{
    (void)err;
    struct ra_cpu *cpu = self;
    struct batch batch = start(cpu, layer, q);
    for (int head = 0; head < cpu->model.Hkv; head++)
        cpu->keys[head] = recycled_keys(cpu, layer, head);
    batch.keep_logits = want_scores;
    if (want_scores)
        claim_scores(cpu, layer, RA_CPU_RECYCLED);
    attend(&batch, out);
    return RA_OK;
}

enum ra_status ra_cpu_attend_sets(void *self, int layer, const float *q,
                                  const struct ra_positions *sets, int n_sets, float *out,
                                  struct ra_error *err)
{
    struct ra_cpu *cpu = self;
    struct batch batch = start(cpu, layer, q);
    RA_BUG_ON(n_sets != cpu->model.Hkv && n_sets != cpu->model.Hq);
    batch.n_units = n_sets;
    batch.group = cpu->model.Hq / n_sets;
    int32_t last = cpu->layers[layer].rows - 1;
    for (int i = 0; i < n_sets; i++) {
        const struct ra_positions *set = &sets[i];
        if (set->n > 0 && (set->pos[0] < 0 || set->pos[set->n - 1] >= last || set->n > last))
            return ra_fail(err, RA_ERANGE,
                           "cpu: layer %d: set %d of %d: expected positions 0 to %d, got %d to %d",
                           layer, i, n_sets, last - 1, set->pos[0], set->pos[set->n - 1]);
        int head = i * batch.group / cpu->model.G;
        cpu->keys[i] = (struct ra_cpu_keys){
            .k = ra_cpu_rows_k(cpu, layer, head),
            .v = ra_cpu_rows_v(cpu, layer, head),
            .index = set->pos,
            .n = set->n,
            .self_k = self_k(cpu, layer, head),
            .self_v = self_v(cpu, layer, head),
        };
    }
    attend(&batch, out);
    return RA_OK;
}
