/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choosing a recycled cache from logits: at once, or, in a recorded step, for all layers together
 * once they have attended, or beside the attention of the layers that follow.
 */
#include "kernels/cuda/backend.cuh"

#include <algorithm>
#include <string.h>

/* The largest selector for at most so many layers. */
static const ra_cuda_selector *selector_for(const struct ra_cuda *cuda, int n_layers)
{
    const ra_cuda_selector *best = &cuda->selectors[0];
    for (int i = 1; i < cuda->n_selectors; i++)
        if (cuda->selectors[i].n_layers <= n_layers)
            best = &cuda->selectors[i];
    return best;
}

static ra_select_args choice(const struct ra_cuda *cuda, const ra_cuda_span &span,
                             const struct ra_select_rule *rule, uint32_t *scratch)
{
    size_t row = (size_t)span.score * (size_t)cuda->rows, stride = (size_t)cuda->logit_stride;
    size_t query = (size_t)(span.score * cuda->B) * (size_t)cuda->model.Hq;
    ra_select_args a = {};
    a.logits = cuda->logits + query * stride;
    a.lse = cuda->lse + query;
    a.n = cuda->n + (size_t)span.slot * (size_t)cuda->rows;
    a.keys = cuda->keys + row * stride;
    a.raw_keys = rule->evict == RA_EVICT_RAW ? cuda->raw_keys + row * stride : NULL;
    a.chosen = cuda->chosen + row * (size_t)cuda->cap;
    a.n_chosen = cuda->counted.card + row;
    a.scratch = scratch;
    a.logit_stride = a.key_stride = cuda->logit_stride;
    a.chosen_stride = cuda->cap;
    a.G = cuda->model.G;
    a.pool = rule->pool;
    a.K = rule->K;
    a.agg = rule->agg;
    a.current = rule->current;
    return a;
}

enum ra_status ra_cuda_choose(struct ra_cuda *cuda, const ra_cuda_span &span,
                              const struct ra_select_rule *rule, int32_t most, cudaStream_t stream,
                              struct ra_error *err)
{
    for (ra_cuda_span rest = span; rest.n > 0;) {
        const ra_cuda_selector *selector = selector_for(cuda, rest.n);
        ra_select_args a = choice(cuda, rest, rule, selector->scratch);
        ra_select_plan plan = selector->plan;
        auto launch = [=](cudaStream_t in) { return ra_launch_select(plan, a, in); };
        RA_TRY(ra_cuda_launch(cuda, stream, {"select", launch, false}, err));
        rest.score += selector->n_layers;
        rest.slot += selector->n_layers;
        rest.n -= selector->n_layers;
    }
    ra_select_args a = choice(cuda, span, rule, NULL);
    ra_order_args order = {};
    order.chosen = a.chosen;
    order.n_chosen = a.n_chosen;
    order.keys = a.raw_keys ? a.raw_keys : a.keys;
    order.order = cuda->ranked.card + (a.chosen - cuda->chosen);
    order.key_stride = cuda->logit_stride;
    order.chosen_stride = cuda->cap;
    order.protects = rule->current == RA_CURRENT_SNAPKV;
    int rows = span.n * cuda->rows;
    auto launch = [=](cudaStream_t in) { return ra_launch_order(rows, most, order, in); };
    return ra_cuda_launch(cuda, stream, {"order evictions", launch, false}, err);
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
static enum ra_status fork(struct ra_cuda *cuda, struct ra_error *err)
{
    cuda->recording.is_beside = true;
    return ra_cuda_between(
        cuda, "fork", [cuda] { return wait_for(cuda->stream, cuda->fork, cuda->beside); }, err);
}

static enum ra_status join(struct ra_cuda *cuda, struct ra_error *err)
{
    if (!cuda->recording.is_beside)
        return RA_OK;
    cuda->recording.is_beside = false;
    return ra_cuda_between(
        cuda, "join", [cuda] { return wait_for(cuda->beside, cuda->join, cuda->stream); }, err);
}

static bool same_rule(const struct ra_select_rule &a, const struct ra_select_rule &b)
{
    return a.K == b.K && a.pool == b.pool && a.agg == b.agg && a.current == b.current &&
           a.evict == b.evict;
}

static int32_t most_of(const struct ra_cuda *cuda, const ra_cuda_due &due)
{
    int32_t rows = cuda->layers[due.layer].rows;
    return due.rule.K < rows ? due.rule.K : rows;
}

static bool in_line(const struct ra_cuda *cuda, const ra_cuda_due &a, const ra_cuda_due &b)
{
    const struct ra_cuda_layer *x = &cuda->layers[a.layer], *y = &cuda->layers[b.layer];
    return y->slot == x->slot + 1 && same_rule(a.rule, b.rule) && x->rows == y->rows &&
           a.refreshes == b.refreshes && x->next_pinned == y->next_pinned;
}

/* The adopted lists of layers in line, as operands of one launch. */
static ra_plan_args keep_lists(struct ra_cuda *cuda, const ra_cuda_due *first, size_t n)
{
    size_t Hkv = (size_t)cuda->model.Hkv, entries = Hkv * (size_t)cuda->cap;
    std::vector<int32_t> set, order, set_n;
    for (size_t i = 0; i < n; i++) {
        struct ra_cuda_layer *of = &cuda->layers[first[i].layer];
        for (int b = 0; b < cuda->B; b++) {
            set.insert(set.end(), of->next, of->next + entries);
            order.insert(order.end(), of->order, of->order + entries);
            set_n.insert(set_n.end(), of->next_n, of->next_n + Hkv);
        }
        std::fill(of->next_n, of->next_n + Hkv, -1);
    }
    ra_plan_args a = {};
    a.chosen = (int32_t *)ra_cuda_keep(cuda, set.data(), set.size() * sizeof(int32_t), 1);
    a.order = (int32_t *)ra_cuda_keep(cuda, order.data(), order.size() * sizeof(int32_t), 1);
    a.n_chosen = (int32_t *)ra_cuda_keep(cuda, set_n.data(), set_n.size() * sizeof(int32_t), 1);
    a.n_pinned = cuda->layers[first->layer].next_pinned;
    return a;
}

static enum ra_status settle_span(struct ra_cuda *cuda, const ra_cuda_due *first, size_t n,
                                  struct ra_error *err)
{
    ra_cuda_span span = ra_cuda_span_of(cuda, first->layer);
    span.n = (int)n;
    RA_TRY(ra_cuda_choose(cuda, span, &first->rule, most_of(cuda, *first), cuda->stream, err));
    return first->refreshes
               ? ra_cuda_install(cuda, span, keep_lists(cuda, first, n), cuda->stream, err)
               : RA_OK;
}

enum ra_status ra_cuda_settle(struct ra_cuda *cuda, struct ra_error *err)
{
    RA_TRY(join(cuda, err));
    std::vector<ra_cuda_due> due;
    due.swap(cuda->recording.due);
    for (size_t i = 0, n; i < due.size(); i += n) {
        for (n = 1; i + n < due.size() && in_line(cuda, due[i + n - 1], due[i + n]);)
            n++;
        RA_TRY(settle_span(cuda, &due[i], n, err));
    }
    return RA_OK;
}

static enum ra_status record_choice(struct ra_cuda *cuda, int layer,
                                    const struct ra_select_rule *rule, struct ra_error *err)
{
    ra_cuda_due due = {layer, *rule, false};
    cudaStream_t stream = cuda->stream;
    recall_choice(cuda);
    if (cuda->config.select == RA_SELECT_DEFERRED) {
        cuda->recording.due.push_back(due);
        return RA_OK;
    }
    if (cuda->config.select == RA_SELECT_SIDE) {
        RA_TRY(fork(cuda, err));
        stream = cuda->beside;
    }
    return ra_cuda_choose(cuda, ra_cuda_span_of(cuda, layer), rule, most_of(cuda, due), stream,
                          err);
}

/* -----------------------------------------------------------------------------------------------
 */

static enum ra_status choose_now(struct ra_cuda *cuda, int layer, const struct ra_select_rule *rule,
                                 struct ra_error *err)
{
    ra_cuda_span span = ra_cuda_span_of(cuda, layer);
    size_t Hkv = (size_t)cuda->model.Hkv, cap = (size_t)cuda->cap;
    size_t row = (size_t)span.score * (size_t)cuda->rows;
    ra_cuda_pair<int32_t> counted = cuda->counted, ranked = cuda->ranked;
    RA_TRY(
        ra_cuda_choose(cuda, span, rule, most_of(cuda, {layer, *rule, false}), cuda->stream, err));
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
    RA_BUG_ON(cuda->scores_layer != layer || rule->K < 1 ||
              most_of(cuda, {layer, *rule, false}) > cuda->cap);
    if (rule->pool > RA_AGGREGATE_POOL)
        return ra_fail(err, RA_EUSAGE, "cuda: expected pool of at most %d, got %d",
                       (int)RA_AGGREGATE_POOL, rule->pool);
    RA_TRY(cuda->recording.is_on ? record_choice(cuda, layer, rule, err)
                                 : choose_now(cuda, layer, rule, err));
    for (int head = 0; head < cuda->model.Hkv; head++) {
        order[head].pos = cuda->ranked.host + (size_t)head * (size_t)cuda->cap;
        order[head].n = cuda->counted.host[head];
    }
    return RA_OK;
}
