/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention and scores: each operation is one launch of decode_split or score_keys over the rows it
 * names.
 */
#include "kernels/cuda/backend.cuh"

#include <string.h>

static size_t query_floats(const struct ra_cuda *cuda)
{
    return (size_t)cuda->model.Hq * (size_t)cuda->model.D;
}

/* Where the card decides, it runs where the decision is that of its branch. */
static void set_gate(const struct ra_cuda *cuda, const ra_cuda_call &call, ra_decode_args *a)
{
    if (call.branch == RA_BRANCH_NONE || !cuda->recording.is_on)
        return;
    a->gate = cuda->layers[call.layer].fires + call.first;
    a->gate_value = call.branch == RA_BRANCH_FULL;
}

/* All rows of C_f of the copies from `first` on. */
static ra_decode_args over_all(const struct ra_cuda *cuda, int layer, int first)
{
    const struct ra_cuda_layer *of = &cuda->layers[layer];
    size_t row = (size_t)(first * cuda->model.Hkv);
    size_t stored = of->pages ? 0 : row * (size_t)cuda->config.max_rows * cuda->row_bytes;
    ra_decode_args a = {};
    a.k = of->k + stored;
    a.v = of->v + stored;
    a.pages = of->pages ? of->pages + (size_t)first * (size_t)cuda->n_pages : NULL;
    a.page_stride = cuda->n_pages;
    a.n = of->n + row;
    a.partial = cuda->partial;
    a.partial_sums = cuda->partial_sums;
    a.ticket = cuda->ticket;
    a.row_stride = cuda->config.max_rows;
    a.logit_stride = cuda->logit_stride;
    a.window = of->window;
    a.Hkv = cuda->model.Hkv;
    a.heads = cuda->model.G;
    a.scale = (float)cuda->model.attn_scale;
    return a;
}

struct how {
    bool logits, gather, attends;
};

static enum ra_status run(struct ra_cuda *cuda, ra_decode_args a, const ra_cuda_call &call,
                          const how &how, struct ra_error *err)
{
    int rows = call.n * a.Hkv * ra_decode_parts(a.heads);
    ra_decode_plan plan = {};
    plan.dtype = cuda->model.dtype;
    plan.D = cuda->model.D;
    plan.B = call.n;
    plan.splits = ra_decode_splits(cuda->n_sms, rows, call.longest);
    plan.logits = how.logits;
    plan.gather = how.gather || a.pages;
    if (how.logits) { /* otherwise those of an earlier pass stay */
        ra_cuda_span span = ra_cuda_span_of(cuda, call.layer, call.first, call.n);
        size_t query = ra_cuda_score_row(cuda, span) * (size_t)cuda->model.G;
        a.lse = cuda->lse + query;
        a.logits = cuda->logits + query * (size_t)cuda->logit_stride;
    }
    a.out = call.out;
    set_gate(cuda, call, &a);
    bool attends = how.attends;
    auto launch = [=](cudaStream_t stream) {
        return attends ? ra_launch_decode(plan, a, stream) : ra_launch_score(plan, a, stream);
    };
    const char *op = how.attends ? "attend" : "scores";
    return ra_cuda_launch(cuda, cuda->stream, {call.name, launch, op, call.layer, false}, err);
}

static enum ra_status fetch_out(struct ra_cuda *cuda, float *out, const char *name,
                                struct ra_error *err)
{
    if (!ra_cuda_runs(cuda))
        return RA_OK;
    RA_TRY(ra_cuda_fetch(cuda, cuda->out, query_floats(cuda), err));
    RA_TRY(ra_cuda_wait(cuda, name, err));
    memcpy(out, cuda->out.host, query_floats(cuda) * sizeof *out);
    return ra_cuda_same(cuda, cuda->out.host, query_floats(cuda) * sizeof *out, "output", err);
}

/* An operation on the query, operand 0. */
static ra_cuda_call query_call(const struct ra_cuda *cuda, const char *name, int layer,
                               enum ra_status (*launch)(struct ra_cuda *, const ra_cuda_call &,
                                                        struct ra_error *),
                               const float *q)
{
    ra_cuda_call call = ra_cuda_call_of(cuda, name, layer, launch);
    ra_cuda_call_give(&call, 0, q, query_floats(cuda) * sizeof *q);
    call.longest = ra_cuda_at_hand(cuda, layer)->rows;
    RA_BUG_ON(call.longest < 1);
    return call;
}

static void note_scores(struct ra_cuda *cuda, int layer, bool of_cache)
{
    cuda->scores_layer = layer;
    cuda->scores_turn = cuda->turn;
    cuda->scores_of_cache = of_cache;
}

/* variant: logits are wanted. */
static enum ra_status launch_full(struct ra_cuda *cuda, const ra_cuda_call &call,
                                  struct ra_error *err)
{
    ra_decode_args a = over_all(cuda, call.layer, call.first);
    RA_TRY(ra_cuda_put(cuda, call, 0, cuda->q, &a.q, err));
    return run(cuda, a, call, {call.variant != 0, false, true}, err);
}

enum ra_status ra_cuda_attend_full(void *self, int layer, const float *q, bool want_scores,
                                   float *out, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    bool fused = want_scores && cuda->config.scores == RA_SCORES_FUSED;
    ra_cuda_call call = query_call(cuda, "attend to everything", layer, launch_full, q);
    call.variant = fused;
    call.out = ra_cuda_output(cuda);
    RA_TRY(ra_cuda_issue(cuda, call, err));
    if (fused)
        note_scores(cuda, layer, false);
    return fetch_out(cuda, out, call.name, err);
}

static enum ra_status launch_score(struct ra_cuda *cuda, const ra_cuda_call &call,
                                   struct ra_error *err)
{
    ra_decode_args a = over_all(cuda, call.layer, call.first);
    RA_TRY(ra_cuda_put(cuda, call, 0, cuda->q, &a.q, err));
    return run(cuda, a, call, {true, false, false}, err);
}

enum ra_status ra_cuda_score(void *self, int layer, const float *q, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    ra_cuda_call call = query_call(cuda, "score", layer, launch_score, q);
    RA_TRY(ra_cuda_issue(cuda, call, err));
    note_scores(cuda, layer, false);
    return ra_cuda_wait(cuda, call.name, err);
}

/* variant: logits are wanted. */
static enum ra_status launch_recycled(struct ra_cuda *cuda, const ra_cuda_call &call,
                                      struct ra_error *err)
{
    const struct ra_cuda_layer *of = &cuda->layers[call.layer];
    size_t row = (size_t)(call.first * cuda->model.Hkv), cap = (size_t)cuda->cap;
    RA_TRY(ra_cuda_settle_for(cuda, call, err));
    ra_decode_args a = over_all(cuda, call.layer, call.first);
    RA_TRY(ra_cuda_put(cuda, call, 0, cuda->q, &a.q, err));
    RA_TRY(ra_cuda_put(cuda, call, 1, cuda->flags, &a.self_in, err));
    /* The row that was appended is self, which comes from elsewhere. */
    a.early = cuda->ahead == RA_CUDA_APPEND;
    a.n = of->recycled.n + row;
    a.self_k = ra_cuda_self(cuda, call)->at_k;
    a.self_v = ra_cuda_self(cuda, call)->at_v;
    if (of->r_k) {
        a.pages = NULL;
        a.k = of->r_k + row * cap * cuda->row_bytes;
        a.v = of->r_v + row * cap * cuda->row_bytes;
        a.row_stride = cuda->cap;
    } else {
        a.index = of->recycled.slot_pos + row * cap;
        a.index_stride = cuda->cap;
    }
    return run(cuda, a, call, {call.variant != 0, !of->r_k, true}, err);
}

enum ra_status ra_cuda_attend_recycled(void *self, int layer, const float *q, bool want_scores,
                                       float *out, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    struct ra_cuda_known *known = ra_cuda_at_hand(cuda, layer);
    RA_BUG_ON(!known->held);
    std::vector<int32_t> flags(known->has_self, known->has_self + cuda->model.Hkv);
    ra_cuda_call call = query_call(cuda, "attend to the recycled cache", layer, launch_recycled, q);
    ra_cuda_call_give(&call, 1, flags.data(), flags.size() * sizeof(int32_t));
    call.longest = cuda->cap;
    call.variant = want_scores;
    call.out = ra_cuda_output(cuda);
    RA_TRY(ra_cuda_issue(cuda, call, err));
    if (want_scores) {
        note_scores(cuda, layer, true);
        known->keeps_scores = true;
    }
    return fetch_out(cuda, out, call.name, err);
}

static enum ra_status check_set(const struct ra_positions *set, int32_t rows, struct ra_error *err)
{
    for (int32_t i = 0; i < set->n; i++)
        if (set->pos[i] < 0 || set->pos[i] >= rows - 1)
            return ra_fail(err, RA_ERANGE, "cuda: set: expected positions 0 to %d, got %d",
                           (int)rows - 2, (int)set->pos[i]);
    return RA_OK;
}

static int32_t row_of(const struct ra_cuda *cuda, int layer, int row, int32_t position)
{
    const struct ra_cuda_layer *of = &cuda->layers[layer];
    if (!of->pages)
        return row * cuda->config.max_rows + position;
    int copy = row / cuda->model.Hkv, head = row % cuda->model.Hkv;
    int32_t page = of->page_of[copy * cuda->n_pages + position / RA_PAGE];
    return (page * cuda->model.Hkv + head) * RA_PAGE + position % RA_PAGE;
}

/* The sets, with self at the end, as numbers of rows of C_f of all KV heads together: so that any
 * number of sets may share one. Those of all copies at hand, which differ: each names rows of its
 * own. */
static enum ra_status give_sets(const struct ra_cuda *cuda, const struct ra_positions *sets,
                                int n_sets, ra_cuda_call *call, struct ra_error *err)
{
    int32_t rows = ra_cuda_at_hand(cuda, call->layer)->rows, longest = 0;
    std::vector<int32_t> counts;
    for (int i = 0; i < n_sets; i++) {
        RA_TRY(check_set(&sets[i], rows, err));
        counts.push_back(sets[i].n + 1);
        longest = sets[i].n + 1 > longest ? sets[i].n + 1 : longest;
    }
    RA_BUG_ON(longest > cuda->config.max_rows);
    std::vector<int32_t> index((size_t)(call->n * n_sets) * (size_t)longest);
    for (int i = 0; i < call->n * n_sets; i++) {
        const struct ra_positions *set = &sets[i % n_sets];
        int32_t *to = index.data() + (size_t)i * (size_t)longest;
        int row = call->first * cuda->model.Hkv + i / (n_sets / cuda->model.Hkv);
        for (int32_t j = 0; j < set->n; j++)
            to[j] = row_of(cuda, call->layer, row, set->pos[j]);
        to[set->n] = row_of(cuda, call->layer, row, rows - 1);
    }
    const char *bytes = (const char *)index.data();
    call->given[1].assign(bytes, bytes + index.size() * sizeof(int32_t));
    ra_cuda_call_give(call, 2, counts.data(), counts.size() * sizeof(int32_t));
    call->longest = longest;
    return RA_OK;
}

/* variant: the sets of a copy. */
static enum ra_status launch_sets(struct ra_cuda *cuda, const ra_cuda_call &call,
                                  struct ra_error *err)
{
    ra_decode_args a = over_all(cuda, call.layer, 0);
    RA_TRY(ra_cuda_put(cuda, call, 0, cuda->q, &a.q, err));
    RA_TRY(ra_cuda_put(cuda, call, 1, cuda->index, &a.index, err));
    RA_TRY(ra_cuda_put(cuda, call, 2, cuda->index_n, &a.n, err));
    a.index_stride = call.longest;
    a.pages = NULL;
    a.row_stride = 0;
    a.Hkv = (int32_t)call.variant;
    a.heads = cuda->model.Hq / a.Hkv;
    return run(cuda, a, call, {false, true, true}, err);
}

enum ra_status ra_cuda_attend_sets(void *self, int layer, const float *q,
                                   const struct ra_positions *sets, int n_sets, float *out,
                                   struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    RA_BUG_ON(n_sets != cuda->model.Hkv && n_sets != cuda->model.Hq);
    ra_cuda_call call = query_call(cuda, "attend to sets", layer, launch_sets, q);
    call.variant = n_sets;
    RA_TRY(give_sets(cuda, sets, n_sets, &call, err));
    call.out = ra_cuda_output(cuda);
    RA_TRY(ra_cuda_issue(cuda, call, err));
    return fetch_out(cuda, out, call.name, err);
}
