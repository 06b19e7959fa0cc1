/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recycled cache: brought to what was adopted, grown by self.
 */
#include "kernels/cuda/backend.cuh"

#include <string.h>

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

enum ra_status ra_cuda_install(struct ra_cuda *cuda, const ra_cuda_span &span, ra_plan_args plan,
                               cudaStream_t stream, struct ra_error *err)
{
    size_t row = (size_t)span.slot * (size_t)cuda->rows, cap = (size_t)cuda->cap;
    size_t score = (size_t)span.score * (size_t)cuda->rows;
    const struct ra_recycled *all = &cuda->recycled;
    int rows = span.n * cuda->rows;
    plan.cache = {all->n + row,           all->slot_pos + row * cap, all->queue + row * cap,
                  all->queue_first + row, all->queue_n + row,        cuda->cap};
    plan.moves = cuda->moves + score * cap;
    plan.n_moves = cuda->counted.card + score;
    plan.stride = cuda->cap;
    size_t shared = ra_plan_shared(cuda->cap);
    auto launch_plan = [=](cudaStream_t in) {
        return ra_launch(plan_refresh, (unsigned)rows, RA_PLAN_THREADS, shared, in, plan);
    };
    RA_TRY(ra_cuda_launch(cuda, stream, {"plan a refresh", launch_plan, false}, err));
    if (!cuda->r_k)
        return RA_OK;
    ra_move_args a = {};
    a.moves = plan.moves;
    a.n_moves = plan.n_moves;
    size_t stored = cuda->n_pages > 0 ? 0 : row * (size_t)cuda->config.max_rows * cuda->row_bytes;
    a.from_k = cuda->k + stored;
    a.from_v = cuda->v + stored;
    if (cuda->n_pages > 0)
        a.pages = cuda->pages.card + (size_t)(span.slot * cuda->B) * (size_t)cuda->n_pages;
    a.page_stride = cuda->n_pages;
    a.to_k = cuda->r_k + row * cap * cuda->row_bytes;
    a.to_v = cuda->r_v + row * cap * cuda->row_bytes;
    a.row_stride = cuda->config.max_rows;
    a.cap = cuda->cap;
    a.Hkv = cuda->model.Hkv;
    int row_bytes = (int)cuda->row_bytes;
    auto launch_move = [=](cudaStream_t in) { return ra_launch_move(rows, row_bytes, a, in); };
    return ra_cuda_launch(cuda, stream, {"move rows", launch_move, false}, err);
}

static enum ra_status install_layer(struct ra_cuda *cuda, int layer, struct ra_error *err)
{
    const struct ra_cuda_layer *of = &cuda->layers[layer];
    size_t Hkv = (size_t)cuda->model.Hkv, entries = Hkv * (size_t)cuda->cap;
    ra_plan_args a = {};
    memcpy(cuda->set.host, of->next, entries * sizeof(int32_t));
    memcpy(cuda->order.host, of->order, entries * sizeof(int32_t));
    memcpy(cuda->set_n.host, of->next_n, Hkv * sizeof(int32_t));
    RA_TRY(ra_cuda_give(cuda, cuda->set, entries, &a.chosen, err));
    RA_TRY(ra_cuda_give(cuda, cuda->order, entries, &a.order, err));
    RA_TRY(ra_cuda_give(cuda, cuda->set_n, Hkv, &a.n_chosen, err));
    a.n_pinned = of->next_pinned;
    return ra_cuda_install(cuda, ra_cuda_span_of(cuda, layer), a,
                           cuda->recording.is_beside ? cuda->beside : cuda->stream, err);
}

/* Does the layer's choice wait for the end of the step? Then so does its refresh. */
static bool joins_due(struct ra_cuda *cuda, int layer)
{
    for (ra_cuda_due &due : cuda->recording.due)
        if (due.layer == layer) {
            due.refreshes = true;
            return true;
        }
    return false;
}

static void take_over(struct ra_cuda *cuda, struct ra_cuda_layer *of)
{
    for (int head = 0; head < cuda->model.Hkv; head++) {
        int32_t n = of->next_n[head], pinned = of->next_pinned < n ? of->next_pinned : n;
        of->held[head] = n;
        of->queued[head] = n - pinned;
        of->has_self[head] =
            n > 0 && of->next[(size_t)head * (size_t)cuda->cap + (size_t)n - 1] == of->rows - 1;
    }
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
    take_over(cuda, of);
    if (joins_due(cuda, layer))
        return RA_OK; /* its lists are kept until then */
    RA_TRY(install_layer(cuda, layer, err));
    ra_cuda_pair<int32_t> counted = cuda->counted;
    counted.card += ra_cuda_span_of(cuda, layer).score * cuda->rows;
    RA_TRY(ra_cuda_fetch(cuda, counted, (size_t)Hkv, err));
    RA_TRY(ra_cuda_wait(cuda, "refresh", err));
    RA_TRY(ra_cuda_same(cuda, counted.host, (size_t)Hkv * sizeof(int32_t), "count of moves", err));
    for (int head = 0; head < Hkv; head++) {
        *moved += cuda->recording.is_on ? 0 : cuda->counted.host[head];
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
    RA_TRY(ra_cuda_settle(cuda, err));
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
    a.n_rows = cuda->rows;
    a.Hkv = Hkv;
    a.row_bytes = (int32_t)cuda->row_bytes;
    a.K = K;
    unsigned each = RA_INSERT_THREADS / 32;
    auto launch = [=](cudaStream_t stream) {
        return ra_launch(insert_evict, ((unsigned)a.n_rows + each - 1) / each, RA_INSERT_THREADS, 0,
                         stream, a);
    };
    RA_TRY(ra_cuda_launch(cuda, cuda->stream, {"insert and evict", launch, false}, err));
    RA_TRY(ra_cuda_fetch(cuda, cuda->counted, (size_t)Hkv, err));
    RA_TRY(ra_cuda_wait(cuda, "insert and evict", err));
    RA_TRY(ra_cuda_same(cuda, cuda->counted.host, (size_t)Hkv * sizeof(int32_t), "eviction", err));
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
