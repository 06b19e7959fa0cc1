/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing a recycled cache from logits: at once, or, in a recorded step, for all layers together
 * once they have attended, or beside the attention of the layers that follow.
 */
#include "kernels/cuda/backend.cuh"

#include <algorithm>
#include <string.h>

static ra_select_args choice(const struct ra_cuda *cuda, const ra_cuda_span &span,
                             const ra_cuda_call &call)
{
    const struct ra_select_rule *rule = &call.rule;
    size_t row = ra_cuda_score_row(cuda, span), stride = (size_t)cuda->logit_stride;
    size_t query = row * (size_t)cuda->model.G;
    ra_select_args a = {};
    a.logits = cuda->logits + query * stride;
    a.lse = cuda->lse + query;
    a.n = cuda->n + ra_cuda_row(cuda, span);
    a.keys = cuda->keys + row * stride;
    a.raw_keys = rule->evict == RA_EVICT_RAW ? cuda->raw_keys + row * stride : NULL;
    a.chosen = cuda->chosen + row * (size_t)cuda->cap;
    a.n_chosen = cuda->counted.card + row;
    a.scratch = cuda->select_zeros;
    a.lists = cuda->select_lists;
    a.logit_stride = a.key_stride = cuda->logit_stride;
    a.chosen_stride = cuda->cap;
    a.G = cuda->model.G;
    a.pool = rule->pool;
    a.K = rule->K;
    a.agg = rule->agg;
    a.current = rule->current;
    a.rows = ra_cuda_rows(cuda, span, call.branch);
    return a;
}

/* Entries that a row chooses, at most. */
static int32_t most_of(const ra_cuda_call &call)
{
    return call.rule.K < call.longest ? call.rule.K : call.longest;
}

enum ra_status ra_cuda_choose(struct ra_cuda *cuda, const ra_cuda_span &span,
                              const ra_cuda_call &call, cudaStream_t stream, struct ra_error *err)
{
    int rows = span.n * span.copies * cuda->model.Hkv, layer = span.n == 1 ? call.layer : -1;
    ra_select_args a = choice(cuda, span, call);
    ra_select_plan plan = ra_plan_select(cuda->n_sms, rows, cuda->config.max_rows);
    auto select = [=](cudaStream_t in) { return ra_launch_select(plan, a, in); };
    RA_TRY(ra_cuda_launch(cuda, stream, {"select", select, "select", layer, false}, err));
    ra_order_args order = {};
    order.chosen = a.chosen;
    order.n_chosen = a.n_chosen;
    order.keys = a.raw_keys ? a.raw_keys : a.keys;
    order.order = cuda->ranked.card + (a.chosen - cuda->chosen);
    order.key_stride = cuda->logit_stride;
    order.chosen_stride = cuda->cap;
    order.protects = a.current == RA_CURRENT_SNAPKV;
    order.rows = a.rows;
    int32_t most = most_of(call);
    auto launch = [=](cudaStream_t in) { return ra_launch_order(rows, most, order, in); };
    return ra_cuda_launch(cuda, stream, {"order evictions", launch, "select", layer, false}, err);
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

/* --- recorded steps ----------------------------------------------------------------------------
 */

/* What one stream was given so far comes before what the other is given from here on. */
static cudaError_t wait_for(cudaStream_t first, cudaEvent_t event, cudaStream_t then)
{
    cudaError_t error = cudaEventRecord(event, first);
    return error == cudaSuccess ? cudaStreamWaitEvent(then, event, 0) : error;
}

/* The other stream goes on from here. */
static enum ra_status fork(struct ra_cuda *cuda, const ra_cuda_call &call, struct ra_error *err)
{
    cuda->recording.beside.push_back(call);
    return ra_cuda_between(
        cuda, "fork", [cuda] { return wait_for(cuda->stream, cuda->fork, cuda->beside); }, err);
}

enum ra_status ra_cuda_join(struct ra_cuda *cuda, struct ra_error *err)
{
    if (cuda->recording.beside.empty())
        return RA_OK;
    cuda->recording.beside.clear();
    return ra_cuda_between(
        cuda, "join", [cuda] { return wait_for(cuda->beside, cuda->join, cuda->stream); }, err);
}

/* Can b be chosen, and refreshed, by the same launches as a, the layer before it? */
static bool in_line(const struct ra_cuda *cuda, const ra_cuda_due &a, const ra_cuda_due &b)
{
    const ra_cuda_call &x = a.choice, &y = b.choice;
    return cuda->layers[y.layer].slot == cuda->layers[x.layer].slot + 1 && x.first == y.first &&
           x.n == y.n && x.branch == y.branch && ra_cuda_same_rule(x.rule, y.rule) &&
           a.refreshes == b.refreshes && a.install.variant == b.install.variant &&
           a.install.keeps_scores == b.install.keeps_scores &&
           a.install.given[3].empty() == b.install.given[3].empty();
}

/* n choices in line. */
static enum ra_status settle_span(struct ra_cuda *cuda, const ra_cuda_due *due, size_t n,
                                  struct ra_error *err)
{
    ra_cuda_call choice = due->choice, install = due->install;
    ra_cuda_span span = ra_cuda_span_of(cuda, choice.layer, choice.first, choice.n);
    span.n = (int)n;
    for (size_t i = 1; i < n; i++) {
        choice.longest = std::max(choice.longest, due[i].choice.longest);
        for (int k = 0; k < RA_CUDA_OPERANDS; k++)
            install.given[k].insert(install.given[k].end(), due[i].install.given[k].begin(),
                                    due[i].install.given[k].end());
    }
    RA_TRY(ra_cuda_choose(cuda, span, choice, cuda->stream, err));
    return due->refreshes ? ra_cuda_install(cuda, span, install, cuda->stream, err) : RA_OK;
}

enum ra_status ra_cuda_settle(struct ra_cuda *cuda, struct ra_error *err)
{
    RA_TRY(ra_cuda_join(cuda, err));
    std::vector<ra_cuda_due> due;
    due.swap(cuda->recording.due);
    /* By copies: layers that the same ones choose for come to lie in line. */
    std::stable_sort(due.begin(), due.end(), [](const ra_cuda_due &a, const ra_cuda_due &b) {
        return a.choice.first < b.choice.first;
    });
    for (size_t i = 0, n; i < due.size(); i += n) {
        for (n = 1; i + n < due.size() && in_line(cuda, due[i + n - 1], due[i + n]);)
            n++;
        RA_TRY(settle_span(cuda, &due[i], n, err));
    }
    return RA_OK;
}

enum ra_status ra_cuda_settle_for(struct ra_cuda *cuda, const ra_cuda_call &call,
                                  struct ra_error *err)
{
    bool concerned = false;
    for (const ra_cuda_due &due : cuda->recording.due)
        concerned = concerned || ra_cuda_concerns(due.choice, call);
    for (const ra_cuda_call &each : cuda->recording.beside)
        concerned = concerned || ra_cuda_concerns(each, call);
    return concerned ? ra_cuda_settle(cuda, err) : RA_OK;
}

/* In a recorded step. */
static enum ra_status launch_choice(struct ra_cuda *cuda, const ra_cuda_call &call,
                                    struct ra_error *err)
{
    cudaStream_t stream = cuda->stream;
    if (cuda->config.select == RA_SELECT_DEFERRED) {
        cuda->recording.due.push_back({call, {}, false});
        return RA_OK;
    }
    if (cuda->config.select == RA_SELECT_SIDE) {
        RA_TRY(fork(cuda, call, err));
        stream = cuda->beside;
    }
    return ra_cuda_choose(cuda, ra_cuda_span_of(cuda, call.layer, call.first, call.n), call, stream,
                          err);
}

/* -----------------------------------------------------------------------------------------------
 */

static enum ra_status choose_now(struct ra_cuda *cuda, const ra_cuda_call &call,
                                 struct ra_error *err)
{
    ra_cuda_span span = ra_cuda_span_of(cuda, call.layer, call.first, call.n);
    size_t Hkv = (size_t)cuda->model.Hkv, cap = (size_t)cuda->cap;
    size_t row = ra_cuda_score_row(cuda, span);
    ra_cuda_pair<int32_t> counted = cuda->counted, ranked = cuda->ranked;
    RA_TRY(ra_cuda_choose(cuda, span, call, cuda->stream, err));
    counted.card += row;
    ranked.card += row * cap;
    RA_TRY(ra_cuda_fetch(cuda, counted, Hkv, err));
    RA_TRY(ra_cuda_fetch(cuda, ranked, Hkv * cap, err));
    RA_TRY(ra_cuda_wait(cuda, "select", err));
    RA_TRY(ra_cuda_same(cuda, counted.host, Hkv * sizeof(int32_t), "count of entries", err));
    RA_TRY(ra_cuda_same(cuda, ranked.host, Hkv * cap * sizeof(int32_t), "choice", err));
    remember_choice(cuda);
    return RA_OK;
}

enum ra_status ra_cuda_select(void *self, int layer, const struct ra_select_rule *rule,
                              struct ra_positions *order, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    ra_cuda_call call = ra_cuda_call_of(cuda, "select", layer, launch_choice);
    call.rule = *rule;
    call.rule.K_heads = NULL;
    call.longest = ra_cuda_at_hand(cuda, layer)->rows;
    RA_BUG_ON(cuda->scores_layer != layer || cuda->scores_turn != cuda->turn ||
              cuda->scores_of_cache || rule->K < 1 || most_of(call) > cuda->cap);
    if (rule->pool > RA_AGGREGATE_POOL)
        return ra_fail(err, RA_EUSAGE, "cuda: expected pool of at most %d, got %d",
                       (int)RA_AGGREGATE_POOL, rule->pool);
    if (rule->K_heads && rule->evict == RA_EVICT_RAW)
        return ra_fail(
            err, RA_ENODEV,
            "cuda: KV heads with budgets of their own need evict=pooled, whose order does "
            "not depend on them");
    if (ra_cuda_runs(cuda))
        RA_TRY(choose_now(cuda, call, err));
    else
        RA_TRY(ra_cuda_issue(cuda, call, err));
    if (cuda->recording.is_on && !cuda->is_passed_over)
        recall_choice(cuda);
    for (int head = 0; head < cuda->model.Hkv; head++) {
        order[head].pos = cuda->ranked.host + (size_t)head * (size_t)cuda->cap;
        order[head].n = cuda->is_passed_over ? 0 : cuda->counted.host[head];
        /* All are chosen for the largest budget: a smaller one has what would go last. */
        int32_t over = rule->K_heads ? order[head].n - rule->K_heads[head] : 0;
        order[head].pos += over > 0 ? over : 0;
        order[head].n -= over > 0 ? over : 0;
    }
    return RA_OK;
}
