/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recycled cache: chosen from logits, brought to what was adopted, grown by self.
 */
#include "kernels/cuda/backend.cuh"

#include <string.h>

static ra_select_args choice(const struct ra_cuda *cuda, int layer,
                             const struct ra_select_rule *rule)
{
    ra_select_args a = {};
    a.logits = cuda->logits;
    a.lse = cuda->lse;
    a.n = cuda->layers[layer].n;
    a.keys = cuda->keys;
    a.raw_keys = rule->evict == RA_EVICT_RAW ? cuda->raw_keys : NULL;
    a.chosen = cuda->chosen;
    a.n_chosen = cuda->counted.card;
    a.scratch = cuda->select_scratch;
    a.logit_stride = a.key_stride = cuda->logit_stride;
    a.chosen_stride = cuda->cap;
    a.G = cuda->model.G;
    a.pool = rule->pool;
    a.K = rule->K;
    a.agg = rule->agg;
    a.current = rule->current;
    return a;
}

static ra_order_args eviction(const struct ra_cuda *cuda, const struct ra_select_rule *rule)
{
    ra_order_args a = {};
    a.chosen = cuda->chosen;
    a.n_chosen = cuda->counted.card;
    a.keys = rule->evict == RA_EVICT_RAW ? cuda->raw_keys : cuda->keys;
    a.order = cuda->ranked.card;
    a.key_stride = cuda->logit_stride;
    a.chosen_stride = cuda->cap;
    a.protects = rule->current == RA_CURRENT_SNAPKV;
    return a;
}

/* What a checked run chose decides what it did next, and so what its recording must do. */
static void remember_choice(struct ra_cuda *cuda)
{
    std::vector<int32_t> choice;
    for (int head = 0; head < cuda->model.Hkv; head++) {
        const int32_t *first = cuda->ranked.host + (size_t)head * (size_t)cuda->cap;
        choice.push_back(cuda->counted.host[head]);
        choice.insert(choice.end(), first, first + cuda->counted.host[head]);
    }
    cuda->recording.choices.push_back(choice);
}

static void recall_choice(struct ra_cuda *cuda)
{
    RA_BUG_ON(cuda->recording.choices.empty());
    const int32_t *from = cuda->recording.choices.front().data();
    for (int head = 0; head < cuda->model.Hkv; head++) {
        int32_t n = cuda->counted.host[head] = *from++;
        memcpy(cuda->ranked.host + (size_t)head * (size_t)cuda->cap, from, (size_t)n * sizeof n);
        from += n;
    }
    cuda->recording.choices.pop_front();
}

enum ra_status ra_cuda_select(void *self, int layer, const struct ra_select_rule *rule,
                              struct ra_positions *order, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    int Hkv = cuda->model.Hkv;
    int32_t rows = cuda->layers[layer].rows, most = rule->K < rows ? rule->K : rows;
    RA_BUG_ON(cuda->scores_layer != layer || rule->K < 1 || most > cuda->cap);
    if (rule->pool > RA_AGGREGATE_POOL)
        return ra_fail(err, RA_EUSAGE, "cuda: expected pool of at most %d, got %d",
                       (int)RA_AGGREGATE_POOL, rule->pool);
    RA_TRY(
        ra_cuda_done(ra_launch_select(cuda->select_plan, choice(cuda, layer, rule), cuda->stream),
                     "select", err));
    RA_TRY(ra_cuda_done(ra_launch_order(Hkv, most, eviction(cuda, rule), cuda->stream),
                        "order evictions", err));
    RA_TRY(ra_cuda_fetch(cuda, cuda->counted, (size_t)Hkv, err));
    RA_TRY(ra_cuda_fetch(cuda, cuda->ranked, (size_t)Hkv * (size_t)cuda->cap, err));
    RA_TRY(ra_cuda_wait(cuda, "select", err));
    if (cuda->recording.is_on)
        recall_choice(cuda);
    for (int head = 0; head < Hkv; head++) {
        order[head].pos = cuda->ranked.host + (size_t)head * (size_t)cuda->cap;
        order[head].n = cuda->counted.host[head];
    }
    if (!cuda->recording.is_on)
        remember_choice(cuda);
    return RA_OK;
}

void ra_cuda_adopt(void *self, int layer, int kv_head, const struct ra_retained *retained)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    struct ra_cuda_layer *to = &cuda->layers[layer];
    const struct ra_positions *set = &retained->set;
    size_t first = (size_t)kv_head * (size_t)cuda->cap, n = (size_t)set->n;
    RA_BUG_ON(!to->held || set->n > cuda->cap);
    RA_BUG_ON(set->n > 0 && (set->pos[0] < 0 || set->pos[set->n - 1] >= to->rows));
    memcpy(to->next + first, set->pos, n * sizeof *set->pos);
    memcpy(to->order + first, retained->evict.pos, n * sizeof *set->pos);
    to->next_n[kv_head] = set->n;
    to->next_pinned = retained->n_pinned;
}

static enum ra_status give_adopted(struct ra_cuda *cuda, struct ra_cuda_layer *of, ra_plan_args *a,
                                   struct ra_error *err)
{
    size_t Hkv = (size_t)cuda->model.Hkv, entries = Hkv * (size_t)cuda->cap;
    memcpy(cuda->set.host, of->next, entries * sizeof(int32_t));
    memcpy(cuda->order.host, of->order, entries * sizeof(int32_t));
    memcpy(cuda->set_n.host, of->next_n, Hkv * sizeof(int32_t));
    RA_TRY(ra_cuda_give(cuda, cuda->set, entries, &a->chosen, err));
    RA_TRY(ra_cuda_give(cuda, cuda->order, entries, &a->order, err));
    return ra_cuda_give(cuda, cuda->set_n, Hkv, &a->n_chosen, err);
}

static enum ra_status plan(struct ra_cuda *cuda, struct ra_cuda_layer *of, struct ra_error *err)
{
    ra_plan_args a = {};
    RA_TRY(give_adopted(cuda, of, &a, err));
    a.cache = of->recycled;
    a.moves = cuda->moves;
    a.n_moves = cuda->counted.card;
    a.stride = cuda->cap;
    a.max_rows = cuda->config.max_rows;
    a.n_pinned = of->next_pinned;
    return ra_cuda_done(ra_launch(plan_refresh, (unsigned)cuda->model.Hkv, RA_PLAN_THREADS,
                                  ra_plan_shared(a.max_rows, cuda->cap), cuda->stream, a),
                        "plan a refresh", err);
}

static enum ra_status move(struct ra_cuda *cuda, const struct ra_cuda_layer *of,
                           struct ra_error *err)
{
    if (!of->r_k)
        return RA_OK;
    ra_move_args a = {};
    a.moves = cuda->moves;
    a.n_moves = cuda->counted.card;
    a.from_k = of->k;
    a.from_v = of->v;
    a.to_k = of->r_k;
    a.to_v = of->r_v;
    a.row_stride = cuda->config.max_rows;
    a.cap = cuda->cap;
    a.Hkv = cuda->model.Hkv;
    return ra_cuda_done(ra_launch_move(cuda->model.Hkv, (int)cuda->row_bytes, a, cuda->stream),
                        "move rows", err);
}

enum ra_status ra_cuda_refresh(void *self, int layer, int64_t *moved, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    struct ra_cuda_layer *of = &cuda->layers[layer];
    int Hkv = cuda->model.Hkv;
    RA_BUG_ON(!of->held);
    *moved = 0;
    if (of->next_n[0] < 0)
        return RA_OK;
    RA_TRY(plan(cuda, of, err));
    RA_TRY(move(cuda, of, err));
    RA_TRY(ra_cuda_fetch(cuda, cuda->counted, (size_t)Hkv, err));
    RA_TRY(ra_cuda_wait(cuda, "refresh", err));
    for (int head = 0; head < Hkv; head++) {
        int32_t n = of->next_n[head], pinned = of->next_pinned < n ? of->next_pinned : n;
        *moved += cuda->recording.is_on ? 0 : cuda->counted.host[head];
        of->held[head] = n;
        of->queued[head] = n - pinned;
        of->has_self[head] =
            n > 0 && of->next[(size_t)head * (size_t)cuda->cap + (size_t)n - 1] == of->rows - 1;
        of->next_n[head] = -1;
    }
    return RA_OK;
}

enum ra_status ra_cuda_insert_evict(void *self, int layer, int32_t K, int32_t *evicted,
                                    struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    struct ra_cuda_layer *of = &cuda->layers[layer];
    int Hkv = cuda->model.Hkv;
    RA_BUG_ON(!of->held || K < 1);
    for (int head = 0; head < Hkv; head++) {
        if (of->held[head] > K && of->queued[head] > 0)
            return ra_fail(err, RA_ERANGE,
                           "cuda: layer %d, KV head %d: expected at most %d entries, got %d; one "
                           "is evicted a step",
                           layer, head, (int)K, (int)of->held[head]);
        cuda->position.host[head] = of->rows - 1;
    }
    ra_insert_args a = {};
    RA_TRY(ra_cuda_give(cuda, cuda->position, (size_t)Hkv, &a.position, err));
    a.cache = of->recycled;
    a.self_k = of->at_k;
    a.self_v = of->at_v;
    a.to_k = of->r_k;
    a.to_v = of->r_v;
    a.evicted = cuda->counted.card;
    a.n_rows = Hkv;
    a.Hkv = Hkv;
    a.row_bytes = (int32_t)cuda->row_bytes;
    a.K = K;
    unsigned each = RA_INSERT_THREADS / 32;
    RA_TRY(ra_cuda_done(ra_launch(insert_evict, ((unsigned)Hkv + each - 1) / each,
                                  RA_INSERT_THREADS, 0, cuda->stream, a),
                        "insert and evict", err));
    RA_TRY(ra_cuda_fetch(cuda, cuda->counted, (size_t)Hkv, err));
    RA_TRY(ra_cuda_wait(cuda, "insert and evict", err));
    for (int head = 0; head < Hkv; head++) {
        bool replaces = of->held[head] >= K && of->queued[head] > 0;
        of->held[head] += !replaces;
        of->queued[head] += !replaces;
        of->has_self[head] = true;
        if (evicted)
            evicted[head] = cuda->recording.is_on ? -1 : cuda->counted.host[head];
    }
    return RA_OK;
}

enum ra_status ra_cuda_accumulate(void *self, int layer, enum ra_agg agg, bool keep,
                                  const float **scores, struct ra_error *err)
{
    (void)self, (void)layer, (void)agg, (void)keep, (void)scores;
    return ra_fail(err, RA_ENODEV, "cuda: scores of entries are not accumulated");
}
