/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two blocks of memory of the cuda backend, the card's and pinned memory of the host. The same
 * walk over their pieces adds up sizes and later places them, so what is announced is what is
 * taken.
 */
#include "kernels/cuda/backend.cuh"

#include <new>
#include <stdlib.h>

/* Hands out consecutive pieces of a block; without a base it only adds up. */
struct arena {
    char *base;
    size_t used;
    bool overflow;

    template <class T> T *take(size_t n, size_t each = sizeof(T))
    {
        const size_t kAlignment = 256; /* cudaMalloc's own */
        size_t bytes, end;
        if (__builtin_mul_overflow(n, each, &bytes) ||
            __builtin_add_overflow(bytes, kAlignment - 1, &bytes) ||
            __builtin_add_overflow(used, bytes / kAlignment * kAlignment, &end)) {
            overflow = true;
            return nullptr;
        }
        T *piece = base ? reinterpret_cast<T *>(base + used) : nullptr;
        used = end;
        return piece;
    }
};

struct arenas {
    arena card, host;

    template <class T> ra_cuda_pair<T> take_pair(size_t n)
    {
        return {host.take<T>(n), card.take<T>(n)};
    }
};

static void lay_out_recycled(const struct ra_cuda *cuda, struct ra_cuda_layer *layer, arenas &at)
{
    size_t Hkv = (size_t)cuda->model.Hkv, entries = Hkv * (size_t)cuda->cap;
    struct ra_recycled *c = &layer->recycled;
    c->cap = cuda->cap;
    c->n = at.card.take<int32_t>(Hkv);
    c->slot_pos = at.card.take<int32_t>(entries);
    c->queue = at.card.take<int32_t>(entries);
    c->queue_first = at.card.take<int32_t>(Hkv);
    c->queue_n = at.card.take<int32_t>(Hkv);
    if (cuda->config.cache == RA_CACHE_COMPACT) {
        layer->r_k = at.card.take<char>(entries, cuda->row_bytes);
        layer->r_v = at.card.take<char>(entries, cuda->row_bytes);
    }
    layer->held = at.host.take<int32_t>(Hkv);
    layer->queued = at.host.take<int32_t>(Hkv);
    layer->has_self = at.host.take<bool>(Hkv);
    layer->next = at.host.take<int32_t>(entries);
    layer->order = at.host.take<int32_t>(entries);
    layer->next_n = at.host.take<int32_t>(Hkv);
}

/* Windows are copied into the layers, so that the caller's array is not needed later. */
static void lay_out_layer(const struct ra_cuda *cuda, int number, arenas &at)
{
    size_t Hkv = (size_t)cuda->model.Hkv, rows = Hkv * (size_t)cuda->config.max_rows;
    struct ra_cuda_layer layer = {};
    layer.window = cuda->config.window[number];
    layer.k = at.card.take<char>(rows, cuda->row_bytes);
    layer.v = at.card.take<char>(rows, cuda->row_bytes);
    layer.n = at.card.take<int32_t>(Hkv);
    layer.n_prompt = at.card.take<int32_t>(Hkv);
    layer.self_k = at.card.take<char>(Hkv, cuda->row_bytes);
    layer.self_v = at.card.take<char>(Hkv, cuda->row_bytes);
    layer.reference = at.card.take<double>((size_t)cuda->model.D);
    layer.has_reference = at.card.take<int32_t>(1);
    if (cuda->cap > 0 && layer.window == 0)
        lay_out_recycled(cuda, &layer, at);
    if (cuda->layers)
        cuda->layers[number] = layer;
}

static void lay_out_choice(struct ra_cuda *cuda, arenas &at)
{
    size_t Hkv = (size_t)cuda->model.Hkv, entries = Hkv * (size_t)cuda->cap;
    cuda->select_plan = ra_plan_select(cuda->n_sms, cuda->model.Hkv, cuda->config.max_rows);
    cuda->keys = at.card.take<uint32_t>(Hkv * (size_t)cuda->logit_stride);
    cuda->raw_keys = at.card.take<uint32_t>(Hkv * (size_t)cuda->logit_stride);
    cuda->select_scratch = at.card.take<uint32_t>(ra_select_scratch(cuda->select_plan), 1);
    cuda->chosen = at.card.take<int32_t>(entries);
    cuda->ranked = at.take_pair<int32_t>(entries);
    cuda->counted = at.take_pair<int32_t>(Hkv);
    cuda->set = at.take_pair<int32_t>(entries);
    cuda->order = at.take_pair<int32_t>(entries);
    cuda->set_n = at.take_pair<int32_t>(Hkv);
    cuda->position = at.take_pair<int32_t>(Hkv);
    cuda->moves = at.card.take<int2>(entries);
}

/* Assign every piece. Run once to count and once to place. */
static void lay_out(struct ra_cuda *cuda, arenas &at)
{
    const struct ra_model *m = &cuda->model;
    size_t Hq = (size_t)m->Hq, Hkv = (size_t)m->Hkv, max_rows = (size_t)cuda->config.max_rows;
    size_t heads = Hq * (size_t)m->D, G = (size_t)ra_decode_group(m->G);
    /* Partial results of the group's heads, those that do not exist among them; or one head each.
     */
    size_t parts = Hkv * (size_t)ra_decode_parts(m->G), of_split = parts * G > Hq ? parts * G : Hq;
    cuda->logit_stride = (int64_t)(max_rows + 4) / 4 * 4;
    cuda->layers = at.host.take<struct ra_cuda_layer>((size_t)cuda->config.n_layers);
    cuda->q = at.take_pair<float>(heads);
    cuda->out = at.take_pair<float>(heads);
    cuda->self = {at.host.take<char>(2 * Hkv, cuda->row_bytes), nullptr};
    cuda->logits = at.card.take<float>(Hq * (size_t)cuda->logit_stride);
    cuda->lse = at.card.take<float>(Hq);
    cuda->partial = at.card.take<float>(of_split * RA_DECODE_MAX_SPLITS * (size_t)m->D);
    cuda->partial_sums = at.card.take<float>(2 * of_split * RA_DECODE_MAX_SPLITS);
    cuda->ticket = at.card.take<uint32_t>(parts > Hq ? parts : Hq);
    cuda->index = at.take_pair<int32_t>(Hq * max_rows);
    cuda->index_n = at.take_pair<int32_t>(Hq);
    cuda->flags = at.take_pair<int32_t>(Hkv);
    cuda->cosine = at.take_pair<double>(1);
    cuda->fires = at.card.take<int32_t>(1);
    if (cuda->cap > 0)
        lay_out_choice(cuda, at);
    for (int layer = 0; layer < cuda->config.n_layers; layer++)
        lay_out_layer(cuda, layer, at);
}

static int sms()
{
    int n = 0;
    cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, 0);
    return n > 0 ? n : 1;
}

static struct ra_cuda shape_of(const struct ra_backend_config *config)
{
    struct ra_cuda shape = {};
    shape.config = *config;
    shape.model = *config->model;
    shape.cap = config->max_retained;
    shape.row_bytes = (size_t)shape.model.D * ra_dtype_bytes(shape.model.dtype);
    shape.scores_layer = -1;
    shape.n_sms = sms();
    return shape;
}

static arenas count(const struct ra_backend_config *config)
{
    struct ra_cuda shape = shape_of(config);
    arenas counted = {};
    lay_out(&shape, counted);
    return counted;
}

size_t ra_cuda_memory(const struct ra_backend_config *config)
{
    arenas counted = count(config);
    return counted.card.overflow ? SIZE_MAX : counted.card.used;
}

size_t ra_cuda_host_memory(const struct ra_backend_config *config)
{
    arenas counted = count(config);
    return counted.host.overflow ? SIZE_MAX : counted.host.used;
}

static enum ra_status take_blocks(struct ra_cuda *cuda, size_t card, size_t host,
                                  struct ra_error *err)
{
    size_t free_bytes = 0, total = 0;
    cudaMemGetInfo(&free_bytes, &total);
    if (card == SIZE_MAX || host == SIZE_MAX ||
        cudaMalloc((void **)&cuda->card_block, card) != cudaSuccess) {
        (void)cudaGetLastError();
        return ra_fail(err, RA_ENOMEM,
                       "cuda: %d layers of %d rows need %zu bytes of the card's memory, %zu of %zu "
                       "are free",
                       cuda->config.n_layers, (int)cuda->config.max_rows, card, free_bytes, total);
    }
    if (cudaMallocHost((void **)&cuda->host_block, host) != cudaSuccess) {
        (void)cudaGetLastError();
        return ra_fail(err, RA_ENOMEM, "cuda: no %zu bytes of pinned memory for what is copied",
                       host);
    }
    memset(cuda->host_block, 0, host);
    return ra_cuda_done(cudaMemset(cuda->card_block, 0, card), "clear the card's memory", err);
}

enum ra_status ra_cuda_allocate(struct ra_cuda *cuda, struct ra_error *err)
{
    arenas at = count(&cuda->config);
    struct ra_cuda shape = shape_of(&cuda->config);
    RA_TRY(take_blocks(cuda, at.card.overflow ? SIZE_MAX : at.card.used,
                       at.host.overflow ? SIZE_MAX : at.host.used, err));
    shape.card_block = cuda->card_block;
    shape.host_block = cuda->host_block;
    *cuda = shape;
    arenas placed = {{cuda->card_block, 0, false}, {cuda->host_block, 0, false}};
    lay_out(cuda, placed);
    return RA_OK;
}

void ra_cuda_release(struct ra_cuda *cuda)
{
    cudaFreeHost(cuda->host_block);
    cudaFree(cuda->card_block);
}
