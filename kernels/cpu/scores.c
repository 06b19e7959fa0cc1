/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the cpu backend does with logits it kept: choose a recycled cache, or add up what each
 * entry received. Both turn the logits into probabilities once, in place.
 */
#include "kernels/cpu/cpu.h"

static void softmax_head(void *context, size_t head, int worker)
{
    (void)worker;
    struct ra_cpu *cpu = context;
    int32_t n = ra_cpu_keys_count(&cpu->keys[head / (size_t)cpu->model.G]);
    if (cpu->holds == RA_CPU_FULL)
        n = cpu->layers[cpu->scores_layer].rows;
    ra_cpu_softmax(cpu->scores + head * cpu->score_stride, n);
}

static void make_probabilities(struct ra_cpu *cpu, int layer, enum ra_cpu_scores expected)
{
    RA_BUG_ON(cpu->holds != expected || cpu->scores_layer != layer);
    if (!cpu->softmaxed)
        ra_pool_run(cpu->pool, (size_t)cpu->model.Hq, softmax_head, cpu);
    cpu->softmaxed = true;
}

static const double *group_scores(const struct ra_cpu *cpu, int head)
{
    return cpu->scores + (size_t)head * (size_t)cpu->model.G * cpu->score_stride;
}

struct choice {
    struct ra_cpu *cpu;
    int layer;
    const struct ra_select_rule *rule;
    struct ra_positions *order;
};

static void choose_head(void *context, size_t index, int worker)
{
    (void)worker;
    const struct choice *choice = context;
    struct ra_cpu *cpu = choice->cpu;
    const struct ra_cpu_layer *layer = &cpu->layers[choice->layer];
    int32_t *order = layer->order + index * (size_t)cpu->cap;
    struct ra_select_rule rule = ra_select_rule_of(choice->rule, (int)index);
    int32_t n = ra_cpu_choose(&rule, group_scores(cpu, (int)index), cpu->score_stride, cpu->model.G,
                              layer->rows, &cpu->select[index], order);
    choice->order[index] = (struct ra_positions){.pos = order, .n = n};
}

enum ra_status ra_cpu_op_select(void *self, int layer, const struct ra_select_rule *rule,
                                struct ra_positions *order, struct ra_error *err)
{
    (void)err;
    struct ra_cpu *cpu = self;
    make_probabilities(cpu, layer, RA_CPU_FULL);
    RA_BUG_ON(rule->K < 1 || rule->pool < 1 || rule->pool % 2 == 0);
    int32_t rows = cpu->layers[layer].rows;
    RA_BUG_ON((rule->K < rows ? rule->K : rows) > cpu->cap);
    struct choice choice = {.cpu = cpu, .layer = layer, .rule = rule, .order = order};
    ra_pool_run(cpu->pool, (size_t)cpu->model.Hkv, choose_head, &choice);
    return RA_OK;
}

/* New score of one entry, whose probabilities stand in `column`. */
static double add(double score, bool keep, const double *column, const struct ra_cpu *cpu,
                  enum ra_agg agg)
{
    double received = ra_cpu_aggregate(column, cpu->score_stride, cpu->model.G, agg);
    return keep ? score + received : received;
}

enum ra_status ra_cpu_op_accumulate(void *self, int layer, enum ra_agg agg, bool keep,
                                    const float **scores, struct ra_error *err)
{
    (void)err;
    struct ra_cpu *cpu = self;
    make_probabilities(cpu, layer, RA_CPU_RECYCLED);
    struct ra_cpu_layer *state = &cpu->layers[layer];
    RA_BUG_ON(!state->retained);
    for (int head = 0; head < cpu->model.Hkv; head++) {
        struct ra_cpu_retained *cache = &state->retained[head];
        const struct ra_cpu_keys *keys = &cpu->keys[head];
        const double *prob = group_scores(cpu, head);
        float *out = cpu->accumulated + (size_t)head * ((size_t)cpu->cap + 1);
        scores[head] = out;
        for (int32_t i = 0; i < cache->n; i++) {
            const double *column = prob + (cache->k ? cache->slot[i] : i);
            cache->score[i] = add(cache->score[i], keep, column, cpu, agg);
            out[i] = (float)cache->score[i];
        }
        if (keys->self_k) {
            cache->self_pos = state->rows - 1;
            cache->self_score = add(0, false, prob + keys->n, cpu, agg);
            out[cache->n] = (float)cache->self_score;
        }
    }
    return RA_OK;
}

/* KV heads that keep the same positions get the same scores: agg over those of all heads. */
static void share_scores(struct ra_cpu_retained *heads, int Hkv, enum ra_agg agg)
{
    for (int32_t i = 0; i <= heads[0].n; i++) {
        double *first = i < heads[0].n ? &heads[0].score[i] : &heads[0].self_score;
        for (int h = 1; h < Hkv && agg != RA_AGG_FIRST; h++) {
            double other = i < heads[h].n ? heads[h].score[i] : heads[h].self_score;
            *first = agg == RA_AGG_MAX ? (other > *first ? other : *first) : *first + other;
        }
        if (agg == RA_AGG_MEAN)
            *first /= Hkv;
        for (int h = 1; h < Hkv; h++)
            *(i < heads[h].n ? &heads[h].score[i] : &heads[h].self_score) = *first;
    }
}

enum ra_status ra_cpu_op_cut(void *self, int layer, const struct ra_cut_rule *rule,
                             const int32_t *instead, int32_t *evicted, struct ra_error *err)
{
    (void)err;
    struct ra_cpu *cpu = self;
    struct ra_cpu_layer *state = &cpu->layers[layer];
    RA_BUG_ON(!state->retained || rule->K < 1 || rule->recent > rule->K);
    RA_BUG_ON(rule->of_layer && rule->adds_up);
    if (rule->of_layer)
        share_scores(state->retained, cpu->model.Hkv, rule->agg);
    for (int head = 0; head < cpu->model.Hkv; head++) {
        struct ra_cut_rule own = ra_cut_rule_of(rule, head);
        evicted[head] = ra_cpu_retained_cut(
            &state->retained[head], state->rows - 1, &own, instead ? instead[head] : -1,
            ra_cpu_rows_k(cpu, layer, head), ra_cpu_rows_v(cpu, layer, head));
    }
    return RA_OK;
}
