/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of keys told apart by what is kept of each: brought up to date with C_f, and chosen among.
 */
#include "kernels/cuda/backend.cuh"

#include "kernels/cuda/digest.cuh"

#include <algorithm>

int32_t ra_cuda_paged_rows(const struct ra_page_rule *rule, int32_t rows)
{
    return rule->rows > 0 && rule->rows < rows ? rule->rows : rows;
}

int32_t ra_cuda_page_count(const struct ra_page_rule *rule, int32_t rows)
{
    int32_t paged = ra_cuda_paged_rows(rule, rows);
    return paged / rule->page + (paged % rule->page != 0);
}

/* Pages that are chosen, of n. */
static int32_t wanted(const struct ra_page_rule *rule, int32_t n)
{
    return std::min(std::max(rule->K / rule->page, rule->least), n);
}

int32_t ra_cuda_page_most(const struct ra_page_rule *rule, int32_t rows)
{
    int64_t pages = wanted(rule, ra_cuda_page_count(rule, rows));
    return (int32_t)std::min(pages * rule->page, (int64_t)rows);
}

size_t ra_cuda_digest_bytes(const struct ra_model *model, const struct ra_page_rule *rule)
{
    size_t D = (size_t)model->D;
    return rule->digest == RA_PAGE_MEAN ? D * sizeof(float) : 2 * D * ra_dtype_bytes(model->dtype);
}

static size_t digest_of(const struct ra_cuda *cuda, const struct ra_cuda_layer *layer, int copy)
{
    size_t pages = (size_t)ra_cuda_page_count(&layer->rule, cuda->config.max_rows);
    return (size_t)(copy * cuda->model.Hkv) * pages *
           ra_cuda_digest_bytes(&cuda->model, &layer->rule);
}

cudaError_t ra_cuda_digest(const struct ra_cuda *cuda, const struct ra_cuda_layer *layer, int first,
                           int copies, int32_t fresh, cudaStream_t stream)
{
    size_t row = (size_t)(first * cuda->model.Hkv);
    size_t stored = layer->pages ? 0 : row * (size_t)cuda->config.max_rows * cuda->row_bytes;
    ra_digest_args a = {};
    a.k = layer->k + stored;
    a.pages = layer->pages ? layer->pages + (size_t)first * (size_t)cuda->n_pages : NULL;
    a.n = layer->n + row;
    a.digest = layer->digest + digest_of(cuda, layer, first);
    a.row_stride = cuda->config.max_rows;
    a.page_stride = cuda->n_pages;
    a.n_pages = ra_cuda_page_count(&layer->rule, cuda->config.max_rows);
    a.page = layer->rule.page;
    a.most = ra_cuda_paged_rows(&layer->rule, cuda->config.max_rows);
    a.fresh = fresh;
    a.n_rows = copies * cuda->model.Hkv;
    a.Hkv = cuda->model.Hkv;
    a.D = cuda->model.D;
    return ra_launch_digest(cuda->model.dtype, layer->rule.digest, a, stream);
}

static enum ra_status launch_pages(struct ra_cuda *cuda, const ra_cuda_call &call,
                                   struct ra_error *err)
{
    const struct ra_cuda_layer *of = &cuda->layers[call.layer];
    const struct ra_page_rule *rule = &call.pages;
    size_t row = (size_t)(call.first * cuda->model.Hkv);
    ra_rank_args a = {};
    RA_TRY(ra_cuda_put(cuda, call, 0, cuda->q, &a.q, err));
    a.digest = of->digest + digest_of(cuda, of, call.first);
    a.n = of->n + row;
    a.scores = cuda->page_scores;
    a.keys = cuda->page_keys;
    a.order = cuda->page_order.card;
    a.n_ranked = cuda->page_ranked;
    a.n_pages = ra_cuda_page_count(&of->rule, cuda->config.max_rows);
    a.page = rule->page;
    a.most = ra_cuda_paged_rows(&of->rule, cuda->config.max_rows);
    a.D = cuda->model.D;
    a.G = cuda->model.G;
    a.agg = rule->agg;
    a.takes_newest = rule->takes_newest;
    a.takes_first = rule->takes_first;
    a.scale = (float)cuda->model.attn_scale;
    if (call.branch != RA_BRANCH_NONE)
        a.rows =
            ra_cuda_rows(cuda, ra_cuda_span_of(cuda, call.layer, call.first, call.n), call.branch);
    int rows = call.n * cuda->model.Hkv, longest = call.longest;
    enum ra_dtype dtype = cuda->model.dtype;
    enum ra_page_digest digest = rule->digest;
    auto launch = [=](cudaStream_t stream) {
        return ra_launch_rank(dtype, digest, rows, longest, a, stream);
    };
    return ra_cuda_launch(cuda, cuda->stream, {call.name, launch, "select", call.layer, false},
                          err);
}

/* Pages of each KV head, the one wanted most last. Recorded: those of the checked run. */
static enum ra_status fetch_pages(struct ra_cuda *cuda, const ra_cuda_call &call,
                                  std::vector<int32_t> *pages, struct ra_error *err)
{
    std::deque<std::vector<int32_t>> &choices = cuda->recording.choices;
    size_t Hkv = (size_t)cuda->model.Hkv, n = (size_t)call.longest;
    size_t stride =
        (size_t)ra_cuda_page_count(&cuda->layers[call.layer].rule, cuda->config.max_rows);
    if (!ra_cuda_runs(cuda)) {
        RA_BUG_ON(choices.empty() || choices.front().size() != Hkv * n);
        *pages = choices.front();
        choices.pop_front();
        return RA_OK;
    }
    RA_TRY(ra_cuda_fetch(cuda, cuda->page_order, Hkv * stride, err));
    RA_TRY(ra_cuda_wait(cuda, call.name, err));
    const int32_t *order = cuda->page_order.host;
    for (size_t row = 0; row < Hkv * (size_t)call.n; row++) {
        const int32_t *from = order + row * stride;
        if (!std::equal(from, from + n, order + row % Hkv * stride))
            return ra_fail(err, RA_EDIVERGED,
                           "cuda: copy %zu of %d: its order of pages is not the first's", row / Hkv,
                           cuda->B);
    }
    for (size_t head = 0; head < Hkv; head++)
        pages->insert(pages->end(), order + head * stride, order + head * stride + n);
    choices.push_back(*pages);
    return RA_OK;
}

/* All positions of the chosen pages, of each page the highest first. */
static struct ra_positions positions_of(const struct ra_page_rule *rule, const int32_t *pages,
                                        int32_t n, int32_t rows, int32_t *room)
{
    struct ra_positions all = {room, 0};
    for (int32_t i = n - wanted(rule, n); i < n; i++) {
        int32_t first = pages[i] * rule->page, end = std::min(first + rule->page, rows);
        for (int32_t position = end - 1; position >= first; position--)
            room[all.n++] = position;
    }
    return all;
}

enum ra_status ra_cuda_select_pages(void *self, int layer, const float *q,
                                    const struct ra_page_rule *rule, struct ra_positions *order,
                                    struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    const struct ra_cuda_layer *of = &cuda->layers[layer];
    RA_BUG_ON(!of->digest || of->rule.page != rule->page || of->rule.digest != rule->digest);
    int32_t rows = ra_cuda_paged_rows(&of->rule, ra_cuda_at_hand(cuda, layer)->rows);
    size_t floats = (size_t)cuda->model.Hq * (size_t)cuda->model.D;
    std::vector<int32_t> pages;
    ra_cuda_call call = ra_cuda_call_of(cuda, "select pages", layer, launch_pages);
    call.pages = *rule;
    call.pages.K = 0; /* all are sorted */
    call.pages.K_heads = NULL;
    call.longest = ra_cuda_page_count(&of->rule, rows);
    ra_cuda_call_give(&call, 0, q, floats * sizeof *q);
    int32_t n = call.longest;
    ra_cuda_call asked = call; /* a recording takes the call itself */
    RA_TRY(ra_cuda_issue(cuda, call, err));
    std::fill(order, order + cuda->model.Hkv, ra_positions{of->page_positions, 0});
    if (cuda->is_passed_over)
        return RA_OK;
    RA_TRY(fetch_pages(cuda, asked, &pages, err));
    size_t most = (size_t)ra_cuda_page_most(&of->rule, cuda->config.max_rows);
    for (int head = 0; head < cuda->model.Hkv; head++) {
        struct ra_page_rule own = ra_page_rule_of(rule, head);
        order[head] = positions_of(&own, pages.data() + (size_t)head * (size_t)n, n, rows,
                                   of->page_positions + (size_t)head * most);
    }
    return RA_OK;
}
