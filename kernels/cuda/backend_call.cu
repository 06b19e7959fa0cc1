/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on their way to launches. */
#include "kernels/cuda/backend.cuh"

#include <string.h>

ra_cuda_call ra_cuda_call_of(const struct ra_cuda *cuda, const char *name, int layer,
                             enum ra_status (*launch)(struct ra_cuda *, const ra_cuda_call &,
                                                      struct ra_error *))
{
    ra_cuda_call call = {};
    call.name = name;
    call.launch = launch;
    call.layer = layer;
    call.first = cuda->turn;
    call.n = cuda->at_hand;
    call.branch = cuda->branch;
    return call;
}

bool ra_cuda_concerns(const ra_cuda_call &a, const ra_cuda_call &b)
{
    return a.layer == b.layer && a.first < b.first + b.n && b.first < a.first + a.n;
}

void ra_cuda_call_give(ra_cuda_call *call, int i, const void *operand, size_t bytes)
{
    const char *from = static_cast<const char *>(operand);
    for (int copy = 0; copy < call->n; copy++)
        call->given[i].insert(call->given[i].end(), from, from + bytes);
}

enum ra_status ra_cuda_put(struct ra_cuda *cuda, const ra_cuda_call &call, int i, void *area,
                           const void **at, struct ra_error *err)
{
    const std::vector<char> &given = call.given[i];
    *at = ra_cuda_keep(cuda, given.data(), given.size());
    if (*at)
        return RA_OK;
    *at = area;
    return ra_cuda_done(
        cudaMemcpyAsync(area, given.data(), given.size(), cudaMemcpyHostToDevice, cuda->stream),
        "copy to the card", err);
}

bool ra_cuda_same_rule(const struct ra_select_rule &a, const struct ra_select_rule &b)
{
    return a.K == b.K && a.pool == b.pool && a.agg == b.agg && a.current == b.current &&
           a.evict == b.evict;
}

static bool same_cut(const struct ra_cut_rule &a, const struct ra_cut_rule &b)
{
    return a.K == b.K && a.recent == b.recent && a.agg == b.agg && a.adds_up == b.adds_up &&
           a.of_layer == b.of_layer;
}

static bool same_pages(const struct ra_page_rule &a, const struct ra_page_rule &b)
{
    return a.K == b.K && a.page == b.page && a.least == b.least && a.rows == b.rows &&
           a.digest == b.digest && a.agg == b.agg && a.takes_newest == b.takes_newest &&
           a.takes_first == b.takes_first;
}

/* Can `next` be launched with `call`, for the copies right behind its own? */
static bool continues(const struct ra_cuda *cuda, const ra_cuda_call &call,
                      const ra_cuda_call &next)
{
    size_t floats = (size_t)call.n * (size_t)(cuda->model.Hq * cuda->model.D);
    bool same = next.launch == call.launch && next.variant == call.variant &&
                next.branch == call.branch && next.sim == call.sim &&
                next.keeps_scores == call.keeps_scores && ra_cuda_same_rule(next.rule, call.rule) &&
                same_cut(next.cut, call.cut) && same_pages(next.pages, call.pages);
    for (int i = 0; i < RA_CUDA_OPERANDS; i++)
        same =
            same && next.given[i].size() * (size_t)call.n == call.given[i].size() * (size_t)next.n;
    return same && next.first == call.first + call.n &&
           (call.out ? next.out == call.out + floats : !next.out);
}

static void extend(ra_cuda_call *call, const ra_cuda_call &next)
{
    for (int i = 0; i < RA_CUDA_OPERANDS; i++)
        call->given[i].insert(call->given[i].end(), next.given[i].begin(), next.given[i].end());
    call->expects.insert(call->expects.end(), next.expects.begin(), next.expects.end());
    call->longest = next.longest > call->longest ? next.longest : call->longest;
    call->n += next.n;
}

/* The first call that is left, with what continues it. A copy's calls keep their order: only the
 * first that it has left may go. */
static ra_cuda_call take(const struct ra_cuda *cuda, std::vector<ra_cuda_call> *calls)
{
    ra_cuda_call call = std::move(calls->front());
    calls->erase(calls->begin());
    int copy = call.first; /* whose first call was looked at last */
    for (size_t i = 0; i < calls->size();) {
        ra_cuda_call &next = (*calls)[i];
        bool is_first = next.first != copy;
        copy = next.first;
        if (!is_first || !continues(cuda, call, next)) {
            i++;
            continue;
        }
        extend(&call, next);
        calls->erase(calls->begin() + (ptrdiff_t)i);
    }
    return call;
}

enum ra_status ra_cuda_flush(struct ra_cuda *cuda, struct ra_error *err)
{
    std::vector<ra_cuda_call> calls;
    calls.swap(cuda->recording.held_back);
    while (!calls.empty()) {
        ra_cuda_call call = take(cuda, &calls);
        RA_TRY(call.launch(cuda, call, err));
    }
    return RA_OK;
}

/* What a branch not taken is given counts, so that there is room for it among the recorded. */
static void count(struct ra_cuda *cuda, const ra_cuda_call &call)
{
    for (const std::vector<char> &given : call.given)
        if (!given.empty())
            ra_cuda_keep(cuda, given.data(), given.size());
}

enum ra_status ra_cuda_issue(struct ra_cuda *cuda, ra_cuda_call &call, struct ra_error *err)
{
    std::vector<ra_cuda_call> &held_back = cuda->recording.held_back;
    if (!cuda->recording.is_on && cuda->is_passed_over) {
        count(cuda, call);
        return RA_OK;
    }
    if (!cuda->recording.is_on || !cuda->config.apart)
        return call.launch(cuda, call, err);
    /* Calls come layer by layer, and within a layer copy by copy. */
    if (!held_back.empty() && held_back.front().layer != call.layer)
        RA_TRY(ra_cuda_flush(cuda, err));
    held_back.push_back(std::move(call));
    return RA_OK;
}
