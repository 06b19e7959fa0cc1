/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two blocks of memory of the cuda backend, the card's and pinned memory of the host. The same
 * walk over their pieces adds up sizes and later places them, so what is announced is what is
 * taken.
 */
#include "kernels/cuda/backend.cuh"

#include <algorithm>
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

/* n elements on; NULL while pieces are only counted. */
template <class T> static T *offset(T *base, size_t n)
{
    return base ? base + n : nullptr;
}

/* Of a KV head. */
static size_t rows_stored(const struct ra_cuda *cuda)
{
    return cuda->n_pages > 0 ? (size_t)cuda->n_pages * RA_PAGE : (size_t)cuda->config.max_rows;
}

/* Layers without a window lie in line in every array, so that one launch serves any stretch of
 * them. */
static void lay_out_slots(struct ra_cuda *cuda, arenas &at)
{
    size_t rows = (size_t)cuda->n_slots * (size_t)cuda->rows, cap = (size_t)cuda->cap;
    cuda->k = at.card.take<char>(rows * rows_stored(cuda), cuda->row_bytes);
    cuda->v = at.card.take<char>(rows * rows_stored(cuda), cuda->row_bytes);
    cuda->n = at.card.take<int32_t>(rows);
    if (cuda->n_pages > 0)
        cuda->pages =
            at.take_pair<int32_t>((size_t)(cuda->n_slots * cuda->B) * (size_t)cuda->n_pages);
    if (cap == 0)
        return;
    struct ra_recycled *c = &cuda->recycled;
    c->cap = cuda->cap;
    c->n = at.card.take<int32_t>(rows);
    c->slot_pos = at.card.take<int32_t>(rows * cap);
    c->queue = at.card.take<int32_t>(rows * cap);
    c->queue_first = at.card.take<int32_t>(rows);
    c->queue_n = at.card.take<int32_t>(rows);
    c->score = at.card.take<double>(rows * cap);
    c->self_score = at.card.take<double>(rows);
    c->self_pos = at.card.take<int32_t>(rows);
    if (cuda->config.cache == RA_CACHE_COMPACT) {
        cuda->r_k = at.card.take<char>(rows * cap, cuda->row_bytes);
        cuda->r_v = at.card.take<char>(rows * cap, cuda->row_bytes);
    }
}

static void place_slot(const struct ra_cuda *cuda, struct ra_cuda_layer *layer)
{
    size_t row = (size_t)layer->slot * (size_t)cuda->rows, cap = (size_t)cuda->cap;
    const struct ra_recycled *all = &cuda->recycled; /* not yet there while pieces are counted */
    size_t stored = cuda->n_pages > 0 ? 0 : row * rows_stored(cuda) * cuda->row_bytes;
    layer->k = offset(cuda->k, stored);
    layer->v = offset(cuda->v, stored);
    if (cuda->n_pages > 0) {
        size_t page = (size_t)(layer->slot * cuda->B) * (size_t)cuda->n_pages;
        layer->pages = offset(cuda->pages.card, page);
        layer->page_of = offset(cuda->pages.host, page);
    }
    layer->n = offset(cuda->n, row);
    layer->fires = offset(cuda->fires.card, (size_t)(layer->slot * cuda->B));
    if (all->n)
        layer->recycled = ra_recycled_from(*all, row);
    layer->r_k = offset(cuda->r_k, row * cap * cuda->row_bytes);
    layer->r_v = offset(cuda->r_v, row * cap * cuda->row_bytes);
}

/* Where a layer may have a C_r. */
static void lay_out_known(const struct ra_cuda *cuda, int slot, struct ra_cuda_known *known,
                          arenas &at)
{
    size_t Hkv = (size_t)cuda->model.Hkv, entries = Hkv * (size_t)cuda->cap;
    if (slot < 0 || entries == 0)
        return;
    struct ra_cuda_known placed = {};
    placed.held = at.host.take<int32_t>(Hkv);
    placed.queued = at.host.take<int32_t>(Hkv);
    placed.has_self = at.host.take<bool>(Hkv);
    placed.next = at.host.take<int32_t>(entries);
    placed.order = at.host.take<int32_t>(entries);
    placed.next_n = at.host.take<int32_t>(Hkv);
    placed.next_score = at.host.take<double>(entries);
    if (known)
        *known = placed;
}

/* Windows and rules of pages are copied into the layers, so that the caller's arrays are not needed
 * later. */
static void lay_out_layer(const struct ra_cuda *cuda, int number, int slot, arenas &at)
{
    size_t rows = (size_t)cuda->rows, B = (size_t)cuda->B;
    struct ra_cuda_layer layer = {};
    layer.window = cuda->config.window[number];
    layer.slot = slot;
    if (slot >= 0) {
        place_slot(cuda, &layer);
    } else {
        layer.k = at.card.take<char>(rows * (size_t)cuda->config.max_rows, cuda->row_bytes);
        layer.v = at.card.take<char>(rows * (size_t)cuda->config.max_rows, cuda->row_bytes);
        layer.n = at.card.take<int32_t>(rows);
    }
    layer.n_prompt = at.card.take<int32_t>(rows);
    layer.self_k = at.card.take<char>(rows, cuda->row_bytes);
    layer.self_v = at.card.take<char>(rows, cuda->row_bytes);
    layer.reference = at.card.take<double>(B * (size_t)cuda->model.D);
    layer.has_reference = at.card.take<int32_t>(B);
    if (cuda->config.pages && cuda->config.pages[number].page > 0) {
        layer.rule = cuda->config.pages[number];
        int32_t most = ra_cuda_page_most(&layer.rule, cuda->config.max_rows);
        layer.digest = at.card.take<char>(
            rows * (size_t)ra_cuda_page_count(&layer.rule, cuda->config.max_rows),
            ra_cuda_digest_bytes(&cuda->model, &layer.rule));
        layer.page_positions = at.host.take<int32_t>((size_t)cuda->model.Hkv * (size_t)most);
    }
    size_t copies = cuda->config.apart ? B : 1;
    layer.known = at.host.take<struct ra_cuda_known>(copies);
    for (size_t copy = 0; copy < copies; copy++)
        lay_out_known(cuda, slot, layer.known ? &layer.known[copy] : nullptr, at);
    if (cuda->layers)
        cuda->layers[number] = layer;
}

/* What any launch needs that chooses: of one copy of one layer, or more, or all. */
static void lay_out_selectors(struct ra_cuda *cuda, arenas &at)
{
    size_t zeros = 0, lists = 0;
    int rows = cuda->score_slots * cuda->rows, least = cuda->config.apart ? 1 : cuda->B;
    for (int n = least * cuda->model.Hkv; n <= rows; n += least * cuda->model.Hkv) {
        ra_select_plan plan = ra_plan_select(cuda->n_sms, n, cuda->config.max_rows);
        zeros = std::max(zeros, ra_select_zeros(plan));
        lists = std::max(lists, ra_select_lists(plan));
    }
    cuda->select_zeros = at.card.take<uint32_t>(zeros, 1);
    cuda->select_lists = at.card.take<uint32_t>(lists, 1);
}

static void lay_out_choice(struct ra_cuda *cuda, arenas &at)
{
    size_t rows = (size_t)cuda->rows, entries = rows * (size_t)cuda->cap;
    size_t slots = (size_t)cuda->score_slots;
    lay_out_selectors(cuda, at);
    cuda->keys = at.card.take<uint32_t>(slots * rows * (size_t)cuda->logit_stride);
    cuda->raw_keys = at.card.take<uint32_t>(slots * rows * (size_t)cuda->logit_stride);
    cuda->chosen = at.card.take<int32_t>(slots * entries);
    cuda->ranked = {at.host.take<int32_t>(entries), at.card.take<int32_t>(slots * entries)};
    cuda->counted = {at.host.take<int32_t>(rows), at.card.take<int32_t>(slots * rows)};
    cuda->set = at.card.take<int32_t>(entries);
    cuda->order = at.card.take<int32_t>(entries);
    cuda->set_n = at.card.take<int32_t>(rows);
    cuda->given_score = at.card.take<double>(entries);
    cuda->instead = at.card.take<int32_t>(rows);
    cuda->cut_each = at.card.take<int32_t>(2 * rows);
    cuda->slot_pos = at.host.take<int32_t>(entries);
    cuda->score = at.host.take<double>(entries);
    cuda->self_score = at.host.take<double>(rows);
    cuda->entry_scores = at.host.take<float>((size_t)cuda->model.Hkv * ((size_t)cuda->cap + 1));
    cuda->position = at.card.take<int32_t>(rows);
    cuda->most = at.card.take<int32_t>(rows);
    cuda->moves = at.card.take<int2>(slots * entries);
    cuda->n_moves = at.card.take<int32_t>(slots * rows);
}

/* What a choice among pages needs. */
static void lay_out_pages(struct ra_cuda *cuda, arenas &at)
{
    size_t n = 0, rows = (size_t)cuda->rows;
    for (int layer = 0; cuda->config.pages && layer < cuda->config.n_layers; layer++) {
        const struct ra_page_rule *rule = &cuda->config.pages[layer];
        if (rule->page > 0)
            n = std::max(n, (size_t)ra_cuda_page_count(rule, cuda->config.max_rows));
    }
    if (n == 0)
        return;
    cuda->page_scores = at.card.take<float>(rows * (size_t)cuda->model.G * n);
    cuda->page_keys = at.card.take<uint32_t>(rows * n);
    cuda->page_order = at.take_pair<int32_t>(rows * n);
    cuda->page_ranked = at.card.take<int32_t>(rows);
}

/* Assign every piece. Run once to count and once to place. */
static void lay_out(struct ra_cuda *cuda, arenas &at)
{
    const struct ra_model *m = &cuda->model;
    size_t B = (size_t)cuda->B, Hq = (size_t)m->Hq, Hkv = (size_t)m->Hkv;
    size_t max_rows = (size_t)cuda->config.max_rows, heads = Hq * (size_t)m->D;
    /* Partial results of the group's heads, those that do not exist among them; or one head each.
     */
    size_t G = (size_t)ra_decode_group(m->G), parts = Hkv * (size_t)ra_decode_parts(m->G);
    size_t of_split = B * (parts * G > Hq ? parts * G : Hq);
    cuda->logit_stride = (int64_t)(max_rows + 4) / 4 * 4;
    cuda->layers = at.host.take<struct ra_cuda_layer>((size_t)cuda->config.n_layers);
    cuda->q = at.card.take<float>(B * heads);
    cuda->out = at.take_pair<float>(B * heads);
    cuda->logits =
        at.card.take<float>((size_t)cuda->score_slots * B * Hq * (size_t)cuda->logit_stride);
    cuda->lse = at.card.take<float>((size_t)cuda->score_slots * B * Hq);
    cuda->partial = at.card.take<float>(of_split * RA_DECODE_MAX_SPLITS * (size_t)m->D);
    cuda->partial_sums = at.card.take<float>(2 * of_split * RA_DECODE_MAX_SPLITS);
    cuda->ticket = at.card.take<uint32_t>(B * (parts > Hq ? parts : Hq));
    cuda->index = at.card.take<int32_t>(B * Hq * max_rows);
    cuda->index_n = at.card.take<int32_t>(B * Hq);
    cuda->flags = at.card.take<int32_t>(B * Hkv);
    cuda->cosine = at.take_pair<double>(B);
    cuda->fires = {at.host.take<int32_t>(B), at.card.take<int32_t>((size_t)cuda->n_slots * B)};
    if (cuda->cap > 0)
        lay_out_choice(cuda, at);
    lay_out_pages(cuda, at);
    cuda->filler = at.card.take<char>(cuda->filler_bytes);
    cuda->never = at.card.take<uint32_t>(1);
    lay_out_slots(cuda, at);
    for (int layer = 0, slot = 0; layer < cuda->config.n_layers; layer++)
        lay_out_layer(cuda, layer, cuda->config.window[layer] == 0 ? slot++ : -1, at);
}

static int sms()
{
    int n = 0;
    cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, 0);
    return n > 0 ? n : 1;
}

/* Twice the L2 in any case; and four times between two uses of a line, a step apart. */
static size_t filler_bytes(const struct ra_backend_config *config)
{
    int cache = 0;
    cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, 0);
    return config->between && cache > 0 ? (config->n_layers > 1 ? 2 : 4) * (size_t)cache : 0;
}

static struct ra_cuda shape_of(const struct ra_backend_config *config)
{
    struct ra_cuda shape = {};
    shape.config = *config;
    shape.model = *config->model;
    shape.cap = config->max_retained;
    shape.filler_bytes = filler_bytes(config);
    shape.B = config->batch > 1 ? config->batch : 1;
    shape.at_hand = config->apart ? 1 : shape.B;
    shape.rows = shape.B * shape.model.Hkv;
    shape.row_bytes = (size_t)shape.model.D * ra_dtype_bytes(shape.model.dtype);
    shape.scores_layer = -1;
    shape.n_sms = sms();
    for (int layer = 0; layer < config->n_layers; layer++)
        shape.n_slots += config->window[layer] == 0;
    bool alone = shape.cap == 0 || config->select == RA_SELECT_INLINE || shape.n_slots == 0;
    shape.score_slots = alone ? 1 : shape.n_slots;
    shape.n_pages = config->page > 0 ? (config->max_rows + RA_PAGE - 1) / RA_PAGE : 0;
    return shape;
}

static arenas count(const struct ra_backend_config *config)
{
    struct ra_cuda shape = shape_of(config);
    arenas counted = {};
    lay_out(&shape, counted);
    return counted;
}

/* What every recorded step of every layer keeps on the card: its query, its row and its output. */
static size_t recorded_bytes(const struct ra_backend_config *config)
{
    const struct ra_model *m = config->model;
    size_t heads = (size_t)m->Hq * (size_t)m->D * sizeof(float);
    size_t row = (size_t)m->Hkv * (size_t)m->D * ra_dtype_bytes(m->dtype);
    size_t B = config->batch > 1 ? (size_t)config->batch : 1;
    return (size_t)config->n_steps * (size_t)config->n_layers * B * (2 * heads + 2 * row);
}

size_t ra_cuda_memory(const struct ra_backend_config *config)
{
    arenas counted = count(config);
    size_t bytes;
    if (counted.card.overflow ||
        __builtin_add_overflow(counted.card.used, recorded_bytes(config), &bytes))
        return SIZE_MAX;
    return bytes;
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
