/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scores of the entries of C_r: what they received of the attention, and which of them goes by it.
 */
#include "kernels/cuda/backend.cuh"

#include "kernels/cuda/accumulate.cuh"
#include "kernels/cuda/cut.cuh"

#include <algorithm>
#include <string.h>

/* --- accumulating ------------------------------------------------------------------------------
 */

static std::vector<int32_t> position_of_self(const struct ra_cuda *cuda, int layer)
{
    return std::vector<int32_t>((size_t)cuda->model.Hkv, ra_cuda_at_hand(cuda, layer)->rows - 1);
}

/* variant: the aggregation, twice, and one more where scores add up. */
static enum ra_status launch_accumulate(struct ra_cuda *cuda, const ra_cuda_call &call,
                                        struct ra_error *err)
{
    ra_cuda_span span = ra_cuda_span_of(cuda, call.layer, call.first, call.n);
    size_t query = ra_cuda_score_row(cuda, span) * (size_t)cuda->model.G;
    ra_accumulate_args a = {};
    RA_TRY(ra_cuda_put(cuda, call, 0, cuda->position, &a.position, err));
    RA_TRY(ra_cuda_put(cuda, call, 1, cuda->flags, &a.self_in, err));
    a.cache = ra_cuda_recycled(cuda, span, true);
    a.logits = cuda->logits + query * (size_t)cuda->logit_stride;
    a.lse = cuda->lse + query;
    a.logit_stride = cuda->logit_stride;
    a.G = cuda->model.G;
    a.agg = (enum ra_agg)(call.variant / 2);
    a.keeps = call.variant % 2;
    a.rows = ra_cuda_rows(cuda, span, call.branch);
    int rows = call.n * cuda->model.Hkv;
    auto launch = [=](cudaStream_t stream) { return ra_launch_accumulate(rows, a, stream); };
    return ra_cuda_launch(cuda, cuda->stream, {call.name, launch, "scores", call.layer, false},
                          err);
}

static enum ra_status fetch_scores(struct ra_cuda *cuda, int layer, struct ra_error *err)
{
    const struct ra_recycled *c = &cuda->layers[layer].recycled;
    size_t first = (size_t)(cuda->turn * cuda->model.Hkv), cap = (size_t)cuda->cap,
           Hkv = (size_t)cuda->model.Hkv;
    ra_cuda_pair<int32_t> slot_pos = {cuda->slot_pos, c->slot_pos + first * cap};
    ra_cuda_pair<double> score = {cuda->score, c->score + first * cap},
                         self_score = {cuda->self_score, c->self_score + first};
    RA_TRY(ra_cuda_fetch(cuda, slot_pos, Hkv * cap, err));
    RA_TRY(ra_cuda_fetch(cuda, score, Hkv * cap, err));
    RA_TRY(ra_cuda_fetch(cuda, self_score, Hkv, err));
    RA_TRY(ra_cuda_wait(cuda, "accumulate", err));
    RA_TRY(ra_cuda_same(cuda, score.host, Hkv * cap * sizeof(double), "scores", err));
    return ra_cuda_same(cuda, self_score.host, Hkv * sizeof(double), "score", err);
}

/* By position, as they come back. */
static void order_scores(struct ra_cuda *cuda, const struct ra_cuda_known *of, int head)
{
    size_t first = (size_t)head * (size_t)cuda->cap, n = (size_t)of->held[head];
    const int32_t *slot_pos = cuda->slot_pos + first;
    float *out = cuda->entry_scores + (size_t)head * ((size_t)cuda->cap + 1);
    std::vector<size_t> slots(n);
    for (size_t i = 0; i < n; i++)
        slots[i] = i;
    std::sort(slots.begin(), slots.end(),
              [=](size_t a, size_t b) { return slot_pos[a] < slot_pos[b]; });
    for (size_t i = 0; i < n; i++)
        out[i] = (float)cuda->score[first + slots[i]];
    out[n] = (float)cuda->self_score[head];
}

enum ra_status ra_cuda_accumulate(void *self, int layer, enum ra_agg agg, bool keep,
                                  const float **scores, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    const struct ra_cuda_known *of = ra_cuda_at_hand(cuda, layer);
    size_t Hkv = (size_t)cuda->model.Hkv;
    RA_BUG_ON(!of->held || cuda->scores_layer != layer || cuda->scores_turn != cuda->turn ||
              !cuda->scores_of_cache);
    std::vector<int32_t> position = position_of_self(cuda, layer),
                         flags(of->has_self, of->has_self + Hkv);
    ra_cuda_call call = ra_cuda_call_of(cuda, "accumulate", layer, launch_accumulate);
    call.variant = 2 * agg + keep;
    ra_cuda_call_give(&call, 0, position.data(), Hkv * sizeof(int32_t));
    ra_cuda_call_give(&call, 1, flags.data(), Hkv * sizeof(int32_t));
    RA_TRY(ra_cuda_issue(cuda, call, err));
    if (ra_cuda_runs(cuda))
        RA_TRY(fetch_scores(cuda, layer, err));
    for (int head = 0; head < cuda->model.Hkv; head++) {
        if (ra_cuda_runs(cuda))
            order_scores(cuda, of, head);
        scores[head] = cuda->entry_scores + (size_t)head * ((size_t)cuda->cap + 1);
    }
    return RA_OK;
}

/* --- cutting -----------------------------------------------------------------------------------
 */

static enum ra_status launch_cut(struct ra_cuda *cuda, const ra_cuda_call &call,
                                 struct ra_error *err)
{
    const struct ra_cuda_layer *of = &cuda->layers[call.layer];
    ra_cuda_span span = ra_cuda_span_of(cuda, call.layer, call.first, call.n);
    size_t entry = (size_t)(call.first * cuda->model.Hkv) * (size_t)cuda->cap;
    ra_cut_args a = {};
    RA_TRY(ra_cuda_put(cuda, call, 0, cuda->position, &a.position, err));
    RA_TRY(ra_cuda_put(cuda, call, 1, cuda->instead, &a.instead, err));
    if (!call.given[2].empty())
        RA_TRY(ra_cuda_put(cuda, call, 2, cuda->cut_each, &a.each, err));
    a.cache = ra_cuda_recycled(cuda, span, true);
    a.self_k = ra_cuda_self(cuda, call)->at_k;
    a.self_v = ra_cuda_self(cuda, call)->at_v;
    if (of->r_k) {
        a.to_k = of->r_k + entry * cuda->row_bytes;
        a.to_v = of->r_v + entry * cuda->row_bytes;
    }
    a.evicted = cuda->recording.is_on ? NULL : cuda->counted.card;
    a.heads = call.cut.of_layer ? cuda->model.Hkv : 1;
    a.K = call.cut.K;
    a.recent = call.cut.recent;
    a.row_bytes = (int32_t)cuda->row_bytes;
    a.agg = call.cut.agg;
    a.rows = ra_cuda_rows(cuda, span, call.branch);
    int rows = call.n * cuda->model.Hkv;
    auto launch = [=](cudaStream_t stream) { return ra_launch_cut(rows, a, stream); };
    return ra_cuda_launch(cuda, cuda->stream, {call.name, launch, "evict", call.layer, false}, err);
}

/* What it chose; recorded, what it chose in the checked run. */
static enum ra_status fetch_cut(struct ra_cuda *cuda, int32_t *evicted, struct ra_error *err)
{
    size_t Hkv = (size_t)cuda->model.Hkv;
    std::deque<std::vector<int32_t>> &choices = cuda->recording.choices;
    if (!ra_cuda_runs(cuda)) {
        RA_BUG_ON(choices.empty() || choices.front().size() != Hkv);
        std::copy(choices.front().begin(), choices.front().end(), evicted);
        choices.pop_front();
        return RA_OK;
    }
    RA_TRY(ra_cuda_fetch(cuda, cuda->counted, Hkv, err));
    RA_TRY(ra_cuda_wait(cuda, "cut", err));
    std::copy(cuda->counted.host, cuda->counted.host + Hkv, evicted);
    choices.emplace_back(evicted, evicted + Hkv);
    return ra_cuda_same(cuda, cuda->counted.host, Hkv * sizeof(int32_t), "eviction", err);
}

/* K and recent of each KV head. */
static std::vector<int32_t> each_rule(const struct ra_cut_rule *rule, int Hkv)
{
    std::vector<int32_t> each;
    for (int head = 0; head < Hkv; head++) {
        struct ra_cut_rule own = ra_cut_rule_of(rule, head);
        RA_BUG_ON(own.K < 1 || own.recent > own.K);
        each.push_back(own.K);
        each.push_back(own.recent);
    }
    return each;
}

enum ra_status ra_cuda_cut(void *self, int layer, const struct ra_cut_rule *rule,
                           const int32_t *instead, int32_t *evicted, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    struct ra_cuda_known *of = ra_cuda_at_hand(cuda, layer);
    int Hkv = cuda->model.Hkv;
    RA_BUG_ON(!of->held || rule->K < 1);
    RA_BUG_ON(rule->of_layer && rule->adds_up);
    bool differ = rule->K_heads || rule->recent_heads;
    if (differ && rule->of_layer)
        return ra_fail(err, RA_ENODEV,
                       "cuda: KV heads that keep the same entries keep as many; use --backend cpu");
    std::vector<int32_t> position = position_of_self(cuda, layer), goes((size_t)Hkv, -1);
    if (instead)
        goes.assign(instead, instead + Hkv);
    ra_cuda_call call = ra_cuda_call_of(cuda, "cut", layer, launch_cut);
    call.cut = *rule;
    if (differ) {
        std::vector<int32_t> each = each_rule(rule, Hkv);
        ra_cuda_call_give(&call, 2, each.data(), each.size() * sizeof(int32_t));
        call.cut = ra_cut_rule_of(rule, 0);
        call.cut.K = call.cut.recent = 0; /* each has its own */
    }
    ra_cuda_call_give(&call, 0, position.data(), position.size() * sizeof(int32_t));
    ra_cuda_call_give(&call, 1, goes.data(), goes.size() * sizeof(int32_t));
    RA_TRY(ra_cuda_issue(cuda, call, err));
    if (cuda->is_passed_over) {
        std::fill(evicted, evicted + Hkv, -1);
        return RA_OK;
    }
    RA_TRY(fetch_cut(cuda, evicted, err));
    for (int head = 0; head < Hkv; head++) {
        int32_t victim = goes[(size_t)head] >= 0 ? goes[(size_t)head] : evicted[head];
        RA_BUG_ON(of->has_self[head]);
        of->held[head] += victim < 0;
        of->queued[head] += victim < 0;
        of->has_self[head] = victim != of->rows - 1;
    }
    return RA_OK;
}
