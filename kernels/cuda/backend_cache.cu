/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recycled cache: brought to what was adopted, grown by self.
 */
#include "kernels/cuda/backend.cuh"

#include <algorithm>
#include <string.h>

void ra_cuda_adopt(void *self, int layer, int kv_head, const struct ra_retained *retained)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    struct ra_cuda_known *to = ra_cuda_at_hand(cuda, layer);
    const struct ra_positions *set = &retained->set;
    size_t first = (size_t)kv_head * (size_t)cuda->cap, n = (size_t)set->n;
    RA_BUG_ON(!to->held || set->n > cuda->cap);
    RA_BUG_ON(set->n > 0 && (set->pos[0] < 0 || set->pos[set->n - 1] >= to->rows));
    memcpy(to->next + first, set->pos, n * sizeof *set->pos);
    memcpy(to->order + first, retained->evict.pos, n * sizeof *set->pos);
    to->next_n[kv_head] = set->n;
    to->next_pinned = retained->n_pinned;
    RA_BUG_ON(kv_head > 0 && to->is_scored != (retained->score != NULL));
    to->is_scored = retained->score != NULL;
    if (retained->score)
        memcpy(to->next_score + first, retained->score, n * sizeof *retained->score);
    to->keeps_scores = to->keeps_scores || to->is_scored;
}

ra_recycled ra_cuda_recycled(const struct ra_cuda *cuda, const ra_cuda_span &span,
                             bool keeps_scores)
{
    ra_recycled some = ra_recycled_from(cuda->recycled, ra_cuda_row(cuda, span));
    if (!keeps_scores)
        some.score = NULL;
    return some;
}

ra_rows ra_cuda_rows(const struct ra_cuda *cuda, const ra_cuda_span &span, enum ra_branch branch)
{
    ra_rows rows = {};
    if (span.n > 1 && span.copies < cuda->B) { /* else they are all in line */
        rows.group = span.copies * cuda->model.Hkv;
        rows.stride = cuda->rows;
    }
    if (branch == RA_BRANCH_NONE || !cuda->recording.is_on)
        return rows;
    rows.gate = cuda->fires.card + span.slot * cuda->B + span.first;
    rows.per_gate = cuda->model.Hkv;
    rows.gate_value = branch == RA_BRANCH_FULL;
    return rows;
}

enum ra_status ra_cuda_install(struct ra_cuda *cuda, const ra_cuda_span &span,
                               const ra_cuda_call &call, cudaStream_t stream, struct ra_error *err)
{
    size_t row = ra_cuda_row(cuda, span), score = ra_cuda_score_row(cuda, span);
    size_t cap = (size_t)cuda->cap;
    int rows = span.n * span.copies * cuda->model.Hkv, layer = span.n == 1 ? call.layer : -1;
    ra_plan_args plan = {};
    RA_TRY(ra_cuda_put(cuda, call, 0, cuda->set, &plan.chosen, err));
    RA_TRY(ra_cuda_put(cuda, call, 1, cuda->order, &plan.order, err));
    RA_TRY(ra_cuda_put(cuda, call, 2, cuda->set_n, &plan.n_chosen, err));
    plan.n_pinned = (int32_t)call.variant;
    if (!call.given[3].empty())
        RA_TRY(ra_cuda_put(cuda, call, 3, cuda->given_score, &plan.given, err));
    plan.cache = ra_cuda_recycled(cuda, span, call.keeps_scores);
    plan.moves = cuda->moves + score * cap;
    plan.n_moves = cuda->n_moves + score;
    plan.n_new = cuda->recording.is_on ? NULL : cuda->counted.card + score;
    plan.stride = cuda->cap;
    plan.rows = ra_cuda_rows(cuda, span, call.branch);
    size_t shared = ra_plan_shared(cuda->cap);
    auto launch_plan = [=](cudaStream_t in) {
        return ra_launch(plan_refresh, (unsigned)rows, RA_PLAN_THREADS, shared, in, plan);
    };
    RA_TRY(ra_cuda_launch(cuda, stream, {"plan a refresh", launch_plan, "refresh", layer, false},
                          err));
    if (!cuda->r_k)
        return RA_OK;
    ra_move_args a = {};
    a.moves = plan.moves;
    a.n_moves = plan.n_moves;
    size_t stored = cuda->n_pages > 0 ? 0 : row * (size_t)cuda->config.max_rows * cuda->row_bytes;
    a.from_k = cuda->k + stored;
    a.from_v = cuda->v + stored;
    if (cuda->n_pages > 0)
        a.pages =
            cuda->pages.card + (size_t)(span.slot * cuda->B + span.first) * (size_t)cuda->n_pages;
    a.page_stride = cuda->n_pages;
    a.to_k = cuda->r_k + row * cap * cuda->row_bytes;
    a.to_v = cuda->r_v + row * cap * cuda->row_bytes;
    a.row_stride = cuda->config.max_rows;
    a.cap = cuda->cap;
    a.Hkv = cuda->model.Hkv;
    a.rows = plan.rows;
    int row_bytes = (int)cuda->row_bytes;
    auto launch_move = [=](cudaStream_t in) { return ra_launch_move(rows, row_bytes, a, in); };
    return ra_cuda_launch(cuda, stream, {"move rows", launch_move, "refresh", layer, false}, err);
}

/* With the choice that waits for the step's end, if there is one; else at once. */
static enum ra_status launch_install(struct ra_cuda *cuda, const ra_cuda_call &call,
                                     struct ra_error *err)
{
    for (ra_cuda_due &due : cuda->recording.due)
        if (ra_cuda_concerns(due.choice, call) && due.choice.branch == call.branch) {
            /* Copies that choose alike refresh alike. */
            RA_BUG_ON(due.choice.first != call.first || due.choice.n != call.n);
            due.install = call;
            due.refreshes = true;
            return RA_OK;
        }
    bool beside = false; /* is its choice? */
    for (const ra_cuda_call &each : cuda->recording.beside)
        beside = beside || ra_cuda_concerns(each, call);
    return ra_cuda_install(cuda, ra_cuda_span_of(cuda, call.layer, call.first, call.n), call,
                           beside ? cuda->beside : cuda->stream, err);
}

static void take_over(struct ra_cuda *cuda, struct ra_cuda_known *of)
{
    for (int head = 0; head < cuda->model.Hkv; head++) {
        int32_t n = of->next_n[head], pinned = of->next_pinned < n ? of->next_pinned : n;
        of->held[head] = n;
        of->queued[head] = n - pinned;
        of->has_self[head] =
            n > 0 && of->next[(size_t)head * (size_t)cuda->cap + (size_t)n - 1] == of->rows - 1;
        of->next_n[head] = -1;
    }
}

/* What was adopted; of a branch not taken, nothing. */
static ra_cuda_call refresh_call(const struct ra_cuda *cuda, int layer)
{
    const struct ra_cuda_known *of = ra_cuda_at_hand(cuda, layer);
    size_t Hkv = (size_t)cuda->model.Hkv, entries = Hkv * (size_t)cuda->cap * sizeof(int32_t);
    std::vector<int32_t> none(Hkv, 0);
    ra_cuda_call call = ra_cuda_call_of(cuda, "refresh", layer, launch_install);
    call.variant = of->next_pinned;
    call.keeps_scores = of->keeps_scores;
    ra_cuda_call_give(&call, 0, of->next, entries);
    ra_cuda_call_give(&call, 1, of->order, entries);
    ra_cuda_call_give(&call, 2, cuda->is_passed_over ? none.data() : of->next_n,
                      Hkv * sizeof(int32_t));
    if (of->is_scored)
        ra_cuda_call_give(&call, 3, of->next_score, Hkv * (size_t)cuda->cap * sizeof(double));
    return call;
}

enum ra_status ra_cuda_refresh(void *self, int layer, int64_t *moved, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    struct ra_cuda_known *of = ra_cuda_at_hand(cuda, layer);
    int Hkv = cuda->model.Hkv;
    RA_BUG_ON(!of->held);
    *moved = 0;
    if (of->next_n[0] < 0 && !cuda->is_passed_over)
        return RA_OK;
    ra_cuda_call call = refresh_call(cuda, layer);
    if (!cuda->is_passed_over)
        take_over(cuda, of);
    RA_TRY(ra_cuda_issue(cuda, call, err));
    if (!ra_cuda_runs(cuda))
        return RA_OK;
    ra_cuda_pair<int32_t> counted = cuda->counted;
    counted.card += ra_cuda_score_row(cuda, ra_cuda_span_of(cuda, layer, call.first, call.n));
    RA_TRY(ra_cuda_fetch(cuda, counted, (size_t)Hkv, err));
    RA_TRY(ra_cuda_wait(cuda, call.name, err));
    RA_TRY(ra_cuda_same(cuda, counted.host, (size_t)Hkv * sizeof(int32_t), "count of moves", err));
    for (int head = 0; head < Hkv; head++)
        *moved += cuda->counted.host[head];
    return RA_OK;
}

/* variant: K; 0: of each KV head its own. */
static enum ra_status launch_insert(struct ra_cuda *cuda, const ra_cuda_call &call,
                                    struct ra_error *err)
{
    const struct ra_cuda_layer *of = &cuda->layers[call.layer];
    ra_cuda_span span = ra_cuda_span_of(cuda, call.layer, call.first, call.n);
    size_t row = (size_t)(call.first * cuda->model.Hkv), cap = (size_t)cuda->cap;
    RA_TRY(ra_cuda_settle_for(cuda, call, err));
    ra_insert_args a = {};
    RA_TRY(ra_cuda_put(cuda, call, 0, cuda->position, &a.position, err));
    if (call.variant == 0)
        RA_TRY(ra_cuda_put(cuda, call, 1, cuda->most, &a.each_K, err));
    a.cache = ra_cuda_recycled(cuda, span, call.keeps_scores);
    a.self_k = ra_cuda_self(cuda, call)->at_k;
    a.self_v = ra_cuda_self(cuda, call)->at_v;
    if (of->r_k) {
        a.to_k = of->r_k + row * cap * cuda->row_bytes;
        a.to_v = of->r_v + row * cap * cuda->row_bytes;
    }
    /* Recorded, nobody asks. */
    a.evicted = cuda->recording.is_on ? NULL : cuda->counted.card;
    a.n_rows = call.n * cuda->model.Hkv;
    a.Hkv = cuda->model.Hkv;
    a.row_bytes = (int32_t)cuda->row_bytes;
    a.K = (int32_t)call.variant;
    a.rows = ra_cuda_rows(cuda, span, call.branch);
    unsigned each = RA_INSERT_THREADS / 32;
    auto launch = [=](cudaStream_t stream) {
        return ra_launch(insert_evict, ((unsigned)a.n_rows + each - 1) / each, RA_INSERT_THREADS, 0,
                         stream, a);
    };
    return ra_cuda_launch(cuda, cuda->stream, {call.name, launch, "evict", call.layer, false}, err);
}

static enum ra_status fetch_evicted(struct ra_cuda *cuda, int32_t *evicted, struct ra_error *err)
{
    size_t Hkv = (size_t)cuda->model.Hkv;
    if (evicted)
        std::fill(evicted, evicted + Hkv, -1);
    if (!ra_cuda_runs(cuda))
        return RA_OK;
    RA_TRY(ra_cuda_fetch(cuda, cuda->counted, Hkv, err));
    RA_TRY(ra_cuda_wait(cuda, "insert and evict", err));
    if (evicted)
        memcpy(evicted, cuda->counted.host, Hkv * sizeof *evicted);
    return ra_cuda_same(cuda, cuda->counted.host, Hkv * sizeof(int32_t), "eviction", err);
}

enum ra_status ra_cuda_insert_evict(void *self, int layer, const int32_t *most, int32_t *evicted,
                                    struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    struct ra_cuda_known *of = ra_cuda_at_hand(cuda, layer);
    int Hkv = cuda->model.Hkv;
    RA_BUG_ON(!of->held || *std::min_element(most, most + Hkv) < 1);
    for (int head = 0; head < Hkv; head++)
        if (of->held[head] > most[head] && of->queued[head] > 0)
            return ra_fail(err, RA_ERANGE,
                           "cuda: layer %d, KV head %d: expected at most %d entries, got %d; one "
                           "is evicted a step",
                           layer, head, (int)most[head], (int)of->held[head]);
    std::vector<int32_t> position((size_t)Hkv, of->rows - 1);
    ra_cuda_call call = ra_cuda_call_of(cuda, "insert and evict", layer, launch_insert);
    ra_cuda_call_give(&call, 0, position.data(), position.size() * sizeof(int32_t));
    call.keeps_scores = of->keeps_scores;
    call.variant = std::count(most, most + Hkv, most[0]) == Hkv ? most[0] : 0;
    if (call.variant == 0)
        ra_cuda_call_give(&call, 1, most, (size_t)Hkv * sizeof *most);
    RA_TRY(ra_cuda_issue(cuda, call, err));
    for (int head = 0; head < Hkv && !cuda->is_passed_over; head++) {
        bool replaces = of->held[head] >= most[head] && of->queued[head] > 0;
        of->held[head] += !replaces;
        of->queued[head] += !replaces;
        of->has_self[head] = true;
    }
    return fetch_evicted(cuda, evicted, err);
}
