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

static enum ra_status give_query(struct ra_cuda *cuda, const float *q, ra_decode_args *a,
                                 struct ra_error *err)
{
    memcpy(cuda->q.host, q, query_floats(cuda) * sizeof *q);
    return ra_cuda_give(cuda, cuda->q, query_floats(cuda), &a->q, err);
}

/* All rows of C_f. */
static ra_decode_args over_all(const struct ra_cuda *cuda, int layer)
{
    const struct ra_cuda_layer *of = &cuda->layers[layer];
    ra_decode_args a = {};
    a.k = of->k;
    a.v = of->v;
    a.pages = of->pages;
    a.page_stride = cuda->n_pages;
    a.n = of->n;
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

struct launch {
    const char *name;
    int32_t n; /* keys of the longest row */
    bool logits, gather, attends;
    int score; /* whose scores, as in a span */
};

static enum ra_status run(struct ra_cuda *cuda, ra_decode_args a, const launch &how,
                          struct ra_error *err)
{
    int rows = cuda->B * a.Hkv * ra_decode_parts(a.heads);
    ra_decode_plan plan = {};
    plan.dtype = cuda->model.dtype;
    plan.D = cuda->model.D;
    plan.B = cuda->B;
    plan.splits = ra_decode_splits(cuda->n_sms, rows, how.n);
    plan.logits = how.logits;
    plan.gather = how.gather || a.pages;
    if (how.logits) { /* otherwise those of an earlier pass stay */
        size_t query = (size_t)(how.score * cuda->B) * (size_t)cuda->model.Hq;
        a.lse = cuda->lse + query;
        a.logits = cuda->logits + query * (size_t)cuda->logit_stride;
    }
    bool attends = how.attends;
    auto launch = [=](cudaStream_t stream) {
        return attends ? ra_launch_decode(plan, a, stream) : ra_launch_score(plan, a, stream);
    };
    return ra_cuda_launch(cuda, cuda->stream, {how.name, launch, false}, err);
}

static enum ra_status fetch_out(struct ra_cuda *cuda, float *out, const char *name,
                                struct ra_error *err)
{
    RA_TRY(ra_cuda_fetch(cuda, cuda->out, query_floats(cuda), err));
    RA_TRY(ra_cuda_wait(cuda, name, err));
    if (cuda->recording.is_on)
        return RA_OK;
    memcpy(out, cuda->out.host, query_floats(cuda) * sizeof *out);
    return ra_cuda_same(cuda, cuda->out.host, query_floats(cuda) * sizeof *out, "output", err);
}

enum ra_status ra_cuda_attend_full(void *self, int layer, const float *q, bool want_scores,
                                   float *out, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    bool fused = want_scores && cuda->config.scores == RA_SCORES_FUSED;
    launch how = {"attend to everything",
                  cuda->layers[layer].rows,
                  fused,
                  false,
                  true,
                  ra_cuda_span_of(cuda, layer).score};
    RA_BUG_ON(cuda->layers[layer].rows < 1);
    ra_decode_args a = over_all(cuda, layer);
    a.out = ra_cuda_output(cuda);
    RA_TRY(give_query(cuda, q, &a, err));
    RA_TRY(run(cuda, a, how, err));
    if (fused)
        cuda->scores_layer = layer;
    return fetch_out(cuda, out, how.name, err);
}

enum ra_status ra_cuda_score(void *self, int layer, const float *q, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    launch how = {"score", cuda->layers[layer].rows,          true, false,
                  false,   ra_cuda_span_of(cuda, layer).score};
    RA_BUG_ON(cuda->layers[layer].rows < 1);
    ra_decode_args a = over_all(cuda, layer);
    RA_TRY(give_query(cuda, q, &a, err));
    RA_TRY(run(cuda, a, how, err));
    cuda->scores_layer = layer;
    return ra_cuda_wait(cuda, how.name, err);
}

enum ra_status ra_cuda_attend_recycled(void *self, int layer, const float *q, bool want_scores,
                                       float *out, struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    const struct ra_cuda_layer *of = &cuda->layers[layer];
    bool gathers = !of->r_k;
    launch how = {"attend to the recycled cache", cuda->cap, false, gathers, true, 0};
    RA_BUG_ON(!of->held || of->rows < 1 || !of->at_k);
    RA_TRY(ra_cuda_settle(cuda, err));
    if (want_scores)
        return ra_fail(err, RA_ENODEV, "cuda: probabilities of a recycled step are not kept");
    for (int head = 0; head < cuda->model.Hkv; head++)
        cuda->flags.host[head] = of->has_self[head];
    ra_decode_args a = over_all(cuda, layer);
    a.out = ra_cuda_output(cuda);
    RA_TRY(ra_cuda_give(cuda, cuda->flags, (size_t)cuda->model.Hkv, &a.self_in, err));
    RA_TRY(give_query(cuda, q, &a, err));
    /* The row that was appended is self, which comes from elsewhere. */
    a.early = cuda->ahead == RA_CUDA_APPEND;
    a.n = of->recycled.n;
    a.self_k = of->at_k;
    a.self_v = of->at_v;
    if (gathers) {
        a.index = of->recycled.slot_pos;
        a.index_stride = cuda->cap;
    } else {
        a.pages = NULL;
        a.k = of->r_k;
        a.v = of->r_v;
        a.row_stride = cuda->cap;
    }
    RA_TRY(run(cuda, a, how, err));
    return fetch_out(cuda, out, how.name, err);
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
 * number of sets may share one. */
static enum ra_status list_rows(struct ra_cuda *cuda, int layer, const struct ra_positions *sets,
                                int n_sets, int32_t *stride, struct ra_error *err)
{
    int32_t rows = cuda->layers[layer].rows, longest = 0;
    for (int i = 0; i < n_sets; i++) {
        RA_TRY(check_set(&sets[i], rows, err));
        longest = sets[i].n + 1 > longest ? sets[i].n + 1 : longest;
    }
    RA_BUG_ON(longest > cuda->config.max_rows);
    *stride = longest;
    for (int i = 0; i < cuda->B * n_sets; i++) {
        const struct ra_positions *set = &sets[i % n_sets];
        int32_t *to = cuda->index.host + (size_t)i * (size_t)longest;
        int row = i / (n_sets / cuda->model.Hkv);
        for (int32_t j = 0; j < set->n; j++)
            to[j] = row_of(cuda, layer, row, set->pos[j]);
        to[set->n] = row_of(cuda, layer, row, rows - 1);
        cuda->index_n.host[i % n_sets] = set->n + 1;
    }
    return RA_OK;
}

/* The lists of all copies, which differ: each names rows of its own. */
static enum ra_status give_index(struct ra_cuda *cuda, size_t n, const int32_t **at,
                                 struct ra_error *err)
{
    *at = static_cast<const int32_t *>(ra_cuda_keep(cuda, cuda->index.host, n * sizeof **at, 1));
    if (*at)
        return RA_OK;
    *at = cuda->index.card;
    return ra_cuda_done(cudaMemcpyAsync(cuda->index.card, cuda->index.host, n * sizeof **at,
                                        cudaMemcpyHostToDevice, cuda->stream),
                        "copy to the card", err);
}

enum ra_status ra_cuda_attend_sets(void *self, int layer, const float *q,
                                   const struct ra_positions *sets, int n_sets, float *out,
                                   struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    RA_BUG_ON(n_sets != cuda->model.Hkv && n_sets != cuda->model.Hq);
    int32_t longest;
    RA_TRY(list_rows(cuda, layer, sets, n_sets, &longest, err));
    launch how = {"attend to sets", longest, false, true, true, 0};
    ra_decode_args a = over_all(cuda, layer);
    a.out = ra_cuda_output(cuda);
    RA_TRY(give_index(cuda, (size_t)(cuda->B * n_sets) * (size_t)longest, &a.index, err));
    RA_TRY(ra_cuda_give(cuda, cuda->index_n, (size_t)n_sets, &a.n, err));
    RA_TRY(give_query(cuda, q, &a, err));
    a.index_stride = longest;
    a.pages = NULL;
    a.row_stride = 0;
    a.Hkv = n_sets;
    a.heads = cuda->model.Hq / n_sets;
    RA_TRY(run(cuda, a, how, err));
    return fetch_out(cuda, out, how.name, err);
}
