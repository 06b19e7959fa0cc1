/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layers' reference queries, what is decided by them, and the branches of a decision.
 */
#include "kernels/cuda/backend.cuh"

#include "kernels/cuda/query.cuh"

static enum ra_status launch_compare(struct ra_cuda *cuda, const ra_cuda_call &call,
                                     struct ra_error *err)
{
    const struct ra_cuda_layer *of = &cuda->layers[call.layer];
    size_t first = (size_t)call.first;
    ra_query_args a = {};
    RA_TRY(ra_cuda_put(cuda, call, 0, cuda->q, &a.q, err));
    a.reference = of->reference + first * (size_t)cuda->model.D;
    a.has_reference = of->has_reference + first;
    a.cosine = cuda->cosine.card;
    a.fires = of->fires + first;
    a.sim = call.sim;
    a.n_rows = call.n;
    a.Hq = cuda->model.Hq;
    a.D = cuda->model.D;
    a.update = (enum ra_query_update)call.variant;
    const unsigned each = RA_QUERY_THREADS / 32, grid = ((unsigned)call.n + each - 1) / each;
    auto launch = [=](cudaStream_t stream) {
        return ra_launch(query_cosine, grid, RA_QUERY_THREADS, 0, stream, a);
    };
    RA_TRY(
        ra_cuda_launch(cuda, cuda->stream, {call.name, launch, "cosine", call.layer, false}, err));
    bool asks = cuda->recording.is_on && a.update == RA_QUERY_FIRED &&
                cuda->config.decide == RA_DECIDE_HOST;
    return asks ? ra_cuda_ask(cuda, call, err) : RA_OK;
}

static ra_cuda_call comparison(const struct ra_cuda *cuda, int layer, const float *q,
                               enum ra_query_update update)
{
    size_t floats = (size_t)cuda->model.Hq * (size_t)cuda->model.D;
    ra_cuda_call call = ra_cuda_call_of(cuda, "cosine", layer, launch_compare);
    call.variant = update;
    ra_cuda_call_give(&call, 0, q, floats * sizeof *q);
    return call;
}

/* What was compared: cosines, the same of all copies. */
static enum ra_status fetch_cosine(struct ra_cuda *cuda, double *cosine, struct ra_error *err)
{
    if (!ra_cuda_runs(cuda))
        return RA_OK;
    RA_TRY(ra_cuda_fetch(cuda, cuda->cosine, 1, err));
    RA_TRY(ra_cuda_wait(cuda, "cosine", err));
    *cosine = *cuda->cosine.host;
    return ra_cuda_same(cuda, cuda->cosine.host, sizeof(double), "cosine", err);
}

enum ra_status ra_cuda_cosine(void *self, int layer, const float *q, double *cosine,
                              struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    ra_cuda_call call = comparison(cuda, layer, q, RA_QUERY_COMPARE);
    RA_TRY(ra_cuda_issue(cuda, call, err));
    return fetch_cosine(cuda, cosine, err);
}

enum ra_status ra_cuda_set_reference(void *self, int layer, const float *q, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    ra_cuda_call call = comparison(cuda, layer, q, RA_QUERY_SET);
    double unwanted;
    RA_TRY(ra_cuda_issue(cuda, call, err));
    return fetch_cosine(cuda, &unwanted, err);
}

enum ra_status ra_cuda_decide(void *self, int layer, const float *q, double sim, bool is_full,
                              double *cosine, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    ra_cuda_call call = comparison(cuda, layer, q, RA_QUERY_FIRED);
    ra_cuda_pair<int32_t> fires = {cuda->fires.host, cuda->layers[layer].fires + cuda->turn};
    call.sim = sim;
    call.expects.assign((size_t)call.n, is_full);
    RA_TRY(ra_cuda_issue(cuda, call, err));
    if (!ra_cuda_runs(cuda))
        return RA_OK;
    RA_TRY(ra_cuda_fetch(cuda, fires, 1, err));
    RA_TRY(fetch_cosine(cuda, cosine, err));
    if ((fires.host[0] != 0) == is_full)
        return RA_OK;
    return ra_fail(err, RA_EDIVERGED,
                   "cuda: layer %d of the replay: by a cosine of %.9g, sim %.9g, the step is %s, "
                   "expected %s",
                   layer, *cosine, sim, is_full ? "recycled" : "full",
                   is_full ? "full" : "recycled");
}

void ra_cuda_branch(void *self, enum ra_branch branch, bool is_taken)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    cuda->branch = branch;
    cuda->is_passed_over = branch != RA_BRANCH_NONE && !is_taken;
}
