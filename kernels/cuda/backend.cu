/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cuda backend's table, and the complete cache C_f.
 */
#include "kernels/cuda/backend.cuh"

#include <math.h>
#include <new>
#include <numeric>
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/append.cuh"

enum ra_status ra_cuda_done(cudaError_t error, const char *what, struct ra_error *err)
{
    if (error == cudaSuccess)
        return RA_OK;
    return ra_fail(err, RA_EDEVICE, "cuda: %s: %s (%s)", what, cudaGetErrorString(error),
                   cudaGetErrorName(error));
}

enum ra_status ra_cuda_wait(struct ra_cuda *cuda, const char *operation, struct ra_error *err)
{
    if (cuda->recording.is_open)
        return RA_OK;
    return ra_cuda_done(cudaStreamSynchronize(cuda->stream), operation, err);
}

enum ra_status ra_cuda_same(const struct ra_cuda *cuda, const void *fetched, size_t bytes,
                            const char *what, struct ra_error *err)
{
    const char *first = static_cast<const char *>(fetched);
    for (int b = 1; b < cuda->at_hand; b++)
        if (memcmp(first, first + (size_t)b * bytes, bytes) != 0)
            return ra_fail(err, RA_EDIVERGED, "cuda: copy %d of %d: its %s is not the first's", b,
                           cuda->B, what);
    return RA_OK;
}

/* --- what it can run -------------------------------------------------------------------------- */

/* Numbers of the toolkit's errors, not all of which every toolkit names. */
enum {
    STUB_LIBRARY = 34,
    INSUFFICIENT_DRIVER = 35,
    DRIVER_MISMATCH = 803,
    COMPAT_UNSUPPORTED = 804
};

static enum ra_status no_driver(struct ra_error *err)
{
    int driver = 0, needed = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&needed);
    if (driver == 0)
        return ra_fail(err, RA_ENODEV, "cuda: no NVIDIA driver found; use --backend cpu");
    return ra_fail(err, RA_ENODEV,
                   "cuda: the NVIDIA driver is for CUDA %d.%d, expected %d.%d or newer; use "
                   "--backend cpu",
                   driver / 1000, driver % 1000 / 10, needed / 1000, needed % 1000 / 10);
}

static enum ra_status ask_capability(int *major, int *minor, struct ra_error *err)
{
    RA_TRY(ra_cuda_done(cudaDeviceGetAttribute(major, cudaDevAttrComputeCapabilityMajor, 0),
                        "ask for the compute capability", err));
    return ra_cuda_done(cudaDeviceGetAttribute(minor, cudaDevAttrComputeCapabilityMinor, 0),
                        "ask for the compute capability", err);
}

/* cp.async and __reduce_add_sync are from 8.0 on. */
static enum ra_status check_capability(struct ra_error *err)
{
    int major = 0, minor = 0;
    RA_TRY(ask_capability(&major, &minor, err));
    if (major >= 8)
        return RA_OK;
    return ra_fail(err, RA_ENODEV,
                   "cuda: expected compute capability 8.0 or newer, got %d.%d; use --backend cpu",
                   major, minor);
}

static enum ra_status cuda_probe(struct ra_error *err)
{
    int n = 0;
    cudaError_t error = cudaGetDeviceCount(&n);
    (void)cudaGetLastError();
    if (error == cudaSuccess && n > 0)
        return check_capability(err);
    switch ((int)error) {
    case cudaSuccess:
    case cudaErrorNoDevice:
        return ra_fail(err, RA_ENODEV,
                       "cuda: no GPU found, one NVIDIA device is needed; use --backend cpu");
    case STUB_LIBRARY:
        return ra_fail(err, RA_ENODEV,
                       "cuda: libcuda.so.1 is the toolkit's stub, expected the driver's; use "
                       "--backend cpu");
    case DRIVER_MISMATCH:
    case COMPAT_UNSUPPORTED:
        return ra_fail(
            err, RA_ENODEV,
            "cuda: the NVIDIA driver and its libraries are of different versions; restart "
            "the machine or install them anew");
    case INSUFFICIENT_DRIVER:
        return no_driver(err);
    default:
        return ra_fail(err, RA_ENODEV, "cuda: no GPU to be had: %s; use --backend cpu",
                       cudaGetErrorString(error));
    }
}

static void cuda_device(char *text, size_t size)
{
    struct cudaDeviceProp card;
    if (cudaGetDeviceProperties(&card, 0) != cudaSuccess) {
        (void)cudaGetLastError();
        snprintf(text, size, "no device");
        return;
    }
    snprintf(text, size, "%s, sm_%d%d, %d SMs", card.name, card.major, card.minor,
             card.multiProcessorCount);
}

static size_t cuda_cache_bytes()
{
    int bytes = 0;
    if (cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, 0) != cudaSuccess)
        (void)cudaGetLastError();
    return bytes > 0 ? (size_t)bytes : 0;
}

/* Launches that start early are from 9.0 on. */
static enum ra_status check_early(struct ra_error *err)
{
    int major = 0, minor = 0;
    RA_TRY(ask_capability(&major, &minor, err));
    if (major >= 9)
        return RA_OK;
    return ra_fail(err, RA_EUSAGE,
                   "cuda: --pdl: expected compute capability 9.0 or newer, got %d.%d", major,
                   minor);
}

static enum ra_status check_pages(const struct ra_backend_config *config, struct ra_error *err)
{
    for (int layer = 0; config->pages && layer < config->n_layers; layer++) {
        const struct ra_page_rule *rule = &config->pages[layer];
        int32_t n = rule->page > 0 ? ra_cuda_page_count(rule, config->max_rows) : 0;
        if (n > RA_ORDER_MOST)
            return ra_fail(err, RA_EUSAGE,
                           "cuda: layer %d: expected at most %d pages of %d keys, got %d; use "
                           "--backend cpu",
                           layer, (int)RA_ORDER_MOST, (int)rule->page, (int)n);
    }
    return RA_OK;
}

enum ra_status ra_cuda_check(const struct ra_backend_config *config, struct ra_error *err)
{
    const struct ra_model *m = config->model;
    RA_TRY(ra_model_check(m, err));
    if (m->Dv != m->D || !ra_decode_exists(m->dtype, m->D))
        return ra_fail(err, RA_EUSAGE,
                       "cuda: expected head dimensions D = Dv of 64, 128 or 256 (f32: 64 or 128), "
                       "got D = %d, Dv = %d in %s; use --backend cpu",
                       m->D, m->Dv, ra_dtype_name(m->dtype));
    if (config->page != 0 && config->page != RA_PAGE)
        return ra_fail(err, RA_EUSAGE, "cuda: expected pages of %d rows, got %d", (int)RA_PAGE,
                       config->page);
    if (m->G > RA_AGGREGATE_HEADS)
        return ra_fail(err, RA_EUSAGE,
                       "cuda: expected at most %d query heads of a KV head, got %d; use --backend "
                       "cpu",
                       (int)RA_AGGREGATE_HEADS, m->G);
    /* A choice leaves room for self, unless it is of everything. */
    bool is_all = config->max_retained == config->max_rows;
    int32_t chosen = config->max_retained - (is_all ? 0 : 1);
    if (chosen > RA_ORDER_MOST)
        return ra_fail(err, RA_EUSAGE, "cuda: expected k of at most %d, got %d; use --backend cpu",
                       (int)RA_ORDER_MOST, (int)chosen);
    if (config->early)
        RA_TRY(check_early(err));
    return check_pages(config, err);
}

static enum ra_status cuda_fits(const struct ra_backend_config *config, struct ra_error *err)
{
    RA_TRY(ra_cuda_check(config, err));
    size_t needed = ra_cuda_memory(config), free_bytes = 0, total = 0;
    RA_TRY(ra_cuda_done(cudaMemGetInfo(&free_bytes, &total), "ask for free memory", err));
    bool is_large = needed >= (size_t)1 << 30;
    double unit = is_large ? 0x1p30 : 0x1p20;
    if (needed > free_bytes)
        return ra_fail(err, RA_ENOMEM,
                       "cuda: the replay needs %.2f %s of the card's memory, %.2f are free; "
                       "replay fewer layers (--layers) or steps (--steps)",
                       (double)needed / unit, is_large ? "GiB" : "MiB", (double)free_bytes / unit);
    return RA_OK;
}

/* --- opening and closing ---------------------------------------------------------------------- */

static void cuda_close(void *self)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    if (!cuda)
        return;
    ra_cuda_recording_close(cuda);
    for (cudaEvent_t event : {cuda->fork, cuda->join})
        if (event)
            cudaEventDestroy(event);
    if (cuda->beside)
        cudaStreamDestroy(cuda->beside);
    if (cuda->stream)
        cudaStreamDestroy(cuda->stream);
    ra_cuda_release(cuda);
    delete cuda;
}

static void forget(const struct ra_cuda *cuda, struct ra_cuda_known *known)
{
    known->rows = 0;
    known->is_scored = known->keeps_scores = false;
    for (int head = 0; head < cuda->model.Hkv && known->held; head++) {
        known->held[head] = known->queued[head] = 0;
        known->has_self[head] = false;
        known->next_n[head] = -1;
    }
}

enum ra_status ra_cuda_clear(struct ra_cuda *cuda, const struct ra_cuda_layer *layer,
                             struct ra_error *err)
{
    size_t counts = (size_t)cuda->rows * sizeof(int32_t);
    const struct ra_recycled *c = &layer->recycled;
    const struct {
        void *piece;
        int value;
        size_t bytes;
    } cleared[] = {{layer->n, 0, counts},
                   {c->n, 0, counts},
                   {c->queue_first, 0, counts},
                   {c->queue_n, 0, counts},
                   {c->self_pos, -1, counts},
                   {c->score, 0, (size_t)cuda->rows * (size_t)cuda->cap * sizeof(double)}};
    for (const auto &each : cleared)
        if (each.piece)
            RA_TRY(ra_cuda_done(cudaMemsetAsync(each.piece, each.value, each.bytes, cuda->stream),
                                "reset", err));
    return ra_cuda_done(
        cudaMemsetAsync(layer->has_reference, 0, (size_t)cuda->B * sizeof(int32_t), cuda->stream),
        "reset", err);
}

/* A card that fails here fails at the next operation too, which can say so. */
static void cuda_reset(void *self)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    struct ra_error unsaid;
    cuda->scores_layer = -1;
    ra_cuda_recording_reset(cuda);
    for (int i = 0; i < cuda->config.n_layers; i++) {
        for (int copy = 0; copy < (cuda->config.apart ? cuda->B : 1); copy++)
            forget(cuda, ra_cuda_known_of(cuda, i, copy));
        if (ra_cuda_clear(cuda, &cuda->layers[i], &unsaid))
            return;
    }
    (void)ra_cuda_wait(cuda, "reset", &unsaid);
}

static enum ra_status open_stream(struct ra_cuda *cuda, struct ra_error *err)
{
    RA_TRY(ra_cuda_done(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking),
                        "open a stream", err));
    RA_TRY(ra_cuda_done(cudaStreamCreateWithFlags(&cuda->beside, cudaStreamNonBlocking),
                        "open a stream", err));
    for (cudaEvent_t *event : {&cuda->fork, &cuda->join})
        RA_TRY(ra_cuda_done(cudaEventCreateWithFlags(event, cudaEventDisableTiming),
                            "make an event", err));
    size_t shared = ra_plan_shared(cuda->cap);
    return ra_cuda_done(cudaFuncSetAttribute(plan_refresh,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             (int)(cuda->cap > 0 ? shared : 0)),
                        "reserve shared memory", err);
}

/* The pages of a layer, in an order that is no order, as after long use of a pool: a step of the
 * golden ratio, or the next that has no divisor in common. */
static enum ra_status shuffle_pages(struct ra_cuda *cuda, struct ra_error *err)
{
    int64_t n = cuda->n_pages, n_lists = (int64_t)cuda->n_slots * cuda->B,
            step = (int64_t)((double)n * 0.618) + 1;
    while (n > 0 && std::gcd(step, n) != 1)
        step++;
    for (int64_t list = 0; list < n_lists && n > 0; list++)
        for (int64_t i = 0; i < n; i++)
            cuda->pages.host[list * n + i] = (int32_t)(list * n + (i + 1 + list) * step % n);
    if (n == 0)
        return RA_OK;
    return ra_cuda_done(cudaMemcpy(cuda->pages.card, cuda->pages.host,
                                   (size_t)(n_lists * n) * sizeof(int32_t), cudaMemcpyHostToDevice),
                        "load the list of pages", err);
}

static enum ra_status cuda_open(void **self, const struct ra_backend_config *config,
                                struct ra_error *err)
{
    *self = NULL;
    RA_BUG_ON(config->n_layers < 1 || config->max_rows < 1 || config->max_retained < 0);
    RA_TRY(cuda_probe(err));
    RA_TRY(ra_cuda_check(config, err));
    struct ra_cuda *cuda = new (std::nothrow) struct ra_cuda();
    if (!cuda)
        return ra_fail(err, RA_ENOMEM, "cuda: no memory for a backend");
    cuda->config = *config;
    enum ra_status st = ra_cuda_allocate(cuda, err);
    if (st == RA_OK)
        st = open_stream(cuda, err);
    if (st != RA_OK) {
        cuda_close(cuda);
        return st;
    }
    cuda_reset(cuda);
    st = shuffle_pages(cuda, err);
    if (st != RA_OK) {
        cuda_close(cuda);
        return st;
    }
    *self = cuda;
    return RA_OK;
}

/* --- C_f ---------------------------------------------------------------------------------------
 */

static void cuda_turn(void *self, int copy)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    RA_BUG_ON(!cuda->config.apart || copy < 0 || copy >= cuda->B);
    cuda->turn = copy;
}

struct copied {
    const char *from;
    char *to;
};

/* K or V of the first n rows of `row`, a KV head of a copy. A page has room for every head, RA_PAGE
 * rows each. */
static enum ra_status load_row(const struct ra_cuda *cuda, const struct ra_cuda_layer *layer,
                               const copied &what, int row, int32_t n, struct ra_error *err)
{
    size_t bytes = cuda->row_bytes, Hkv = (size_t)cuda->model.Hkv;
    size_t copy = (size_t)row / Hkv, head = (size_t)row % Hkv;
    int32_t each = layer->pages ? RA_PAGE : n;
    for (int32_t first = 0; first < n; first += each) {
        size_t to = (size_t)row * (size_t)cuda->config.max_rows;
        if (layer->pages) {
            const int32_t *list = layer->page_of + copy * (size_t)cuda->n_pages;
            to = ((size_t)list[first / RA_PAGE] * Hkv + head) * RA_PAGE;
        }
        size_t rows = (size_t)(n - first < each ? n - first : each);
        RA_TRY(ra_cuda_done(cudaMemcpy(what.to + to * bytes, what.from + (size_t)first * bytes,
                                       rows * bytes, cudaMemcpyHostToDevice),
                            "load prompt rows", err));
    }
    return RA_OK;
}

static enum ra_status cuda_load(void *self, int layer, const struct ra_prompt_rows *rows,
                                struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    struct ra_cuda_layer *to = &cuda->layers[layer];
    if (rows->P < 0 || rows->P > cuda->config.max_rows)
        return ra_fail(err, RA_ERANGE, "cuda: layer %d: expected at most %d rows, got %d", layer,
                       (int)cuda->config.max_rows, (int)rows->P);
    int Hkv = cuda->model.Hkv, first = cuda->turn * Hkv, n = cuda->at_hand * Hkv;
    for (int row = first; row < first + n; row++) {
        size_t head = (size_t)(row % Hkv);
        const char *k = static_cast<const char *>(rows->k) + head * rows->k_stride;
        const char *v = static_cast<const char *>(rows->v) + head * rows->v_stride;
        RA_TRY(load_row(cuda, to, {k, to->k}, row, rows->P, err));
        RA_TRY(load_row(cuda, to, {v, to->v}, row, rows->P, err));
    }
    ra_cuda_at_hand(cuda, layer)->rows = rows->P;
    std::vector<int32_t> counts((size_t)n, rows->P);
    for (int32_t *there : {to->n, to->n_prompt})
        RA_TRY(ra_cuda_done(cudaMemcpy(there + first, counts.data(),
                                       counts.size() * sizeof(int32_t), cudaMemcpyHostToDevice),
                            "load prompt rows", err));
    if (!to->digest)
        return RA_OK;
    RA_TRY(ra_cuda_done(ra_cuda_digest(cuda, to, cuda->turn, cuda->at_hand, -1, cuda->stream),
                        "digest pages of the prompt", err));
    return ra_cuda_wait(cuda, "digest pages of the prompt", err);
}

/* variant: the row lies in a page that is told apart from others. */
static enum ra_status launch_append(struct ra_cuda *cuda, const ra_cuda_call &call,
                                    struct ra_error *err)
{
    const struct ra_cuda_layer *to = &cuda->layers[call.layer];
    int Hkv = cuda->model.Hkv;
    size_t row = (size_t)(call.first * Hkv), bytes = cuda->row_bytes, copy = (size_t)Hkv * bytes;
    const char *k = NULL, *v = NULL;
    if (call.first == 0)
        RA_TRY(ra_cuda_begin_layer(cuda, err));
    RA_TRY(ra_cuda_put(cuda, call, 0, to->self_k + row * bytes, &k, err));
    RA_TRY(ra_cuda_put(cuda, call, 1, to->self_v + row * bytes, &v, err));
    for (int i = 0; i < (cuda->config.apart ? call.n : 1); i++) {
        ra_cuda_known *known = ra_cuda_known_of(cuda, call.layer, call.first + i);
        known->at_k = k + (size_t)i * copy;
        known->at_v = v + (size_t)i * copy;
    }
    size_t stored = to->pages ? 0 : row * (size_t)cuda->config.max_rows * bytes;
    ra_append_args a = {};
    a.self_k = k;
    a.self_v = v;
    a.full_k = to->k + stored;
    a.full_v = to->v + stored;
    a.n = to->n + row;
    a.pages = to->pages ? to->pages + (size_t)call.first * (size_t)cuda->n_pages : NULL;
    a.row_stride = cuda->config.max_rows;
    a.page_stride = cuda->n_pages;
    a.n_rows = call.n * Hkv;
    a.Hkv = Hkv;
    a.row_bytes = (int32_t)bytes;
    auto launch = [a](cudaStream_t stream) { return ra_launch_append(a, stream); };
    RA_TRY(
        ra_cuda_launch(cuda, cuda->stream, {call.name, launch, "append", call.layer, true}, err));
    if (call.variant == 0)
        return RA_OK;
    int from = call.first, copies = call.n;
    auto digest = [=](cudaStream_t stream) {
        return ra_cuda_digest(cuda, to, from, copies, 1, stream);
    };
    return ra_cuda_launch(cuda, cuda->stream, {"digest a page", digest, "append", call.layer, true},
                          err);
}

const ra_cuda_known *ra_cuda_self(const struct ra_cuda *cuda, const ra_cuda_call &call)
{
    const ra_cuda_known *first = ra_cuda_known_of(cuda, call.layer, call.first);
    ptrdiff_t copy = (ptrdiff_t)cuda->model.Hkv * (ptrdiff_t)cuda->row_bytes;
    RA_BUG_ON(!first->at_k);
    for (int i = 1; i < call.n && cuda->config.apart; i++) {
        const ra_cuda_known *next = ra_cuda_known_of(cuda, call.layer, call.first + i);
        RA_BUG_ON(next->at_k != first->at_k + i * copy || next->at_v != first->at_v + i * copy);
    }
    return first;
}

static enum ra_status cuda_append(void *self, int layer, const void *k, const void *v,
                                  struct ra_error *err)
{
    struct ra_cuda *cuda = static_cast<struct ra_cuda *>(self);
    struct ra_cuda_known *known = ra_cuda_at_hand(cuda, layer);
    size_t bytes = (size_t)cuda->model.Hkv * cuda->row_bytes;
    if (known->rows >= cuda->config.max_rows)
        return ra_fail(err, RA_ERANGE, "cuda: layer %d: expected at most %d rows, got one more",
                       layer, (int)cuda->config.max_rows);
    ra_cuda_call call = ra_cuda_call_of(cuda, "append", layer, launch_append);
    ra_cuda_call_give(&call, 0, k, bytes);
    ra_cuda_call_give(&call, 1, v, bytes);
    const struct ra_cuda_layer *to = &cuda->layers[layer];
    call.variant = to->digest && ra_cuda_paged_rows(&to->rule, known->rows + 1) > known->rows;
    RA_TRY(ra_cuda_issue(cuda, call, err));
    known->rows++;
    for (int head = 0; head < cuda->model.Hkv && known->has_self; head++)
        known->has_self[head] = false;
    if (cuda->scores_layer == layer && cuda->scores_turn == cuda->turn)
        cuda->scores_layer = -1;
    return ra_cuda_wait(cuda, call.name, err);
}

/* What runs on the host takes a time that says nothing of a card. */
#ifdef __CUDACC__
#define RA_CUDA_METHOD "cuda-event"
#define RA_CUDA_COUNT NULL
#else
#define RA_CUDA_METHOD "synthetic"
#define RA_CUDA_COUNT ra_cuda_count
#endif

/* The two names of the library that are visible. */
extern "C" {
extern const struct ra_backend_ops ra_backend_cuda __attribute__((visibility("default")));
extern const uint64_t ra_backend_abi __attribute__((visibility("default")));
}
const uint64_t ra_backend_abi = RA_BACKEND_ABI;
const struct ra_backend_ops ra_backend_cuda = {
    "cuda",
    "one NVIDIA GPU; D = Dv of 64, 128 or 256",
    RA_CAP_EXACT | RA_CAP_OWN_MEMORY,
    RA_CUDA_METHOD,
    "step-graph",
    cuda_probe,
    cuda_device,
    cuda_cache_bytes,
    ra_cuda_memory,
    cuda_fits,
    cuda_open,
    cuda_reset,
    cuda_turn,
    cuda_load,
    cuda_append,
    ra_cuda_attend_full,
    ra_cuda_score,
    ra_cuda_select,
    ra_cuda_adopt,
    ra_cuda_refresh,
    ra_cuda_attend_recycled,
    ra_cuda_insert_evict,
    ra_cuda_attend_sets,
    ra_cuda_cosine,
    ra_cuda_set_reference,
    ra_cuda_decide,
    ra_cuda_branch,
    ra_cuda_accumulate,
    ra_cuda_cut,
    ra_cuda_select_pages,
    ra_cuda_record_begin,
    ra_cuda_record_step,
    ra_cuda_play,
    ra_cuda_launched,
    RA_CUDA_COUNT,
    cuda_close,
};
