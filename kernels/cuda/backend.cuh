/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of the cuda backend, and its operations by file: backend_memory.cu sizes and places the
 * two blocks that hold everything (operations allocate nothing), backend.cu keeps C_f and the
 * reference queries, backend_attend.cu attends and scores, backend_select.cu chooses,
 * backend_cache.cu keeps C_r.
 *
 * An operation copies what it is given to the card, launches, copies back what it returns, and
 * waits. For times, backend_record.cu records the launches of whole steps as graphs, with
 * everything they are given already on the card.
 */
#ifndef RA_KERNELS_CUDA_BACKEND_CUH
#define RA_KERNELS_CUDA_BACKEND_CUH

#include "kernels/backend.h"
#include "kernels/cuda/backend_recording.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/refresh.cuh"
#include "kernels/cuda/select.cuh"

enum { RA_CUDA_SELECTORS = 16 };

struct ra_cuda_layer {
    int32_t rows;                /* of C_f; the last is self */
    int32_t window;              /* 0: full attention */
    int slot;                    /* among the layers without a window; -1: it has one */
    char *k, *v;                 /* [B][Hkv][max_rows][D]; paged: the pool of all layers */
    const int32_t *pages;        /* [B][n_pages] its own; NULL: not paged */
    int32_t *page_of;            /* [B][n_pages] the same on the host */
    int32_t *n, *n_prompt;       /* [B][Hkv] rows, as the card knows them; those of `load` */
    char *self_k, *self_v;       /* [B][Hkv][D] room for the row last appended */
    const char *at_k, *at_v;     /* where that row is: there, or among recorded operands */
    double *reference;           /* [B][D] mean query */
    int32_t *has_reference;      /* [B] */
    struct ra_recycled recycled; /* [B][Hkv]; of cap 0 where there is no C_r */
    char *r_k, *r_v;             /* [B][Hkv][cap][D] rows of C_r; NULL when gathering */

    /* What the host knows of C_r, of one copy. */
    int32_t *held, *queued; /* [Hkv] entries, and those that may be evicted */
    bool *has_self;         /* [Hkv] */
    int32_t *next, *order;  /* [Hkv][cap] adopted: ascending, and first to be evicted first */
    int32_t *next_n;        /* [Hkv]; -1: nothing adopted */
    int32_t next_pinned;
};

/* What selects for so many layers in line at once. */
struct ra_cuda_selector {
    int n_layers;
    struct ra_select_plan plan;
    uint32_t *scratch;
};

/* Layers in line: `score` and `slot` number the first among those with scores of their own, and
 * among all without a window. */
struct ra_cuda_span {
    int score, slot, n;
};

struct ra_cuda {
    struct ra_backend_config config;
    struct ra_model model;
    int32_t cap; /* entries of a C_r */
    int B, rows; /* copies of the sequence; KV heads of a layer, of all copies */
    int n_sms;
    char *card_block, *host_block;
    cudaStream_t stream, beside;
    cudaEvent_t fork, join; /* between the two */
    struct ra_cuda_layer *layers;
    size_t row_bytes;

    /* Layers without a window, in line. */
    int n_slots;
    char *k, *v;                        /* [n_slots][B][Hkv][max_rows][D]; paged:
                                         * [n_slots * B * n_pages][Hkv][RA_PAGE][D] */
    struct ra_cuda_pair<int32_t> pages; /* [n_slots][B][n_pages]; none: in line */
    int32_t n_pages;                    /* of a layer of one copy */
    int32_t *n;                         /* [n_slots][B][Hkv] */
    struct ra_recycled recycled;        /* of all their C_r */
    char *r_k, *r_v;                    /* [n_slots][B][Hkv][cap][D] */
    int score_slots; /* layers that have scores of their own: all, or one at a time */

    /* What is given has one copy on the host and B on the card; what comes back, B on both. */
    struct ra_cuda_pair<float> q, out; /* [B][Hq][D] */
    struct ra_cuda_pair<char> self;    /* [2][Hkv][D]: K, V */
    float *logits;                     /* [score_slots][B][Hq][logit_stride] */
    float *lse;                        /* [score_slots][B][Hq] */
    int64_t logit_stride;
    int scores_layer; /* whose logits came last; -1: nobody's */
    enum ra_cuda_ahead ahead;
    float *partial, *partial_sums;
    uint32_t *ticket;
    struct ra_cuda_pair<int32_t> index;   /* [B][Hq][max_rows] sets from outside, all on the host */
    struct ra_cuda_pair<int32_t> index_n; /* [B][Hq] */
    struct ra_cuda_pair<int32_t> flags;   /* [B][Hkv] is self in C_r? */

    struct ra_cuda_selector selectors[RA_CUDA_SELECTORS]; /* ascending in layers */
    int n_selectors;
    uint32_t *keys, *raw_keys;           /* [score_slots][B][Hkv][logit_stride] */
    int32_t *chosen;                     /* [score_slots][B][Hkv][cap] ascending */
    struct ra_cuda_pair<int32_t> ranked; /* the same in order of eviction; one layer's comes back */
    struct ra_cuda_pair<int32_t> counted; /* [.][B][Hkv] chosen; entries moved; who was evicted */
    struct ra_cuda_pair<int32_t> set, order, set_n; /* [B][Hkv] what a refresh installs */
    struct ra_cuda_pair<int32_t> position;          /* [B][Hkv] of self */
    int2 *moves;                                    /* [score_slots][B][Hkv][cap] */
    struct ra_cuda_pair<double> cosine;             /* [B] */
    int32_t *fires;                                 /* [B] */

    char *filler; /* read between layers */
    size_t filler_bytes;
    uint32_t *never;

    struct ra_cuda_recording recording;
};

/* What cuda cannot run: RA_EUSAGE, the reason in `err`. */
enum ra_status ra_cuda_check(const struct ra_backend_config *config, struct ra_error *err);

/* Bytes of the card's block and of recorded rows; SIZE_MAX when they cannot be counted. */
size_t ra_cuda_memory(const struct ra_backend_config *config);

/* Zeroed blocks with every piece in its place. RA_ENOMEM, with bytes needed and free. */
enum ra_status ra_cuda_allocate(struct ra_cuda *cuda, struct ra_error *err);
void ra_cuda_release(struct ra_cuda *cuda);

/* RA_EDEVICE naming what was done, unless it went well. */
enum ra_status ra_cuda_done(cudaError_t error, const char *what, struct ra_error *err);

/* Launch in this stream of the two, now or as part of the step that is recorded. */
enum ra_status ra_cuda_launch(struct ra_cuda *cuda, cudaStream_t stream, const ra_cuda_work &work,
                              struct ra_error *err);

/* Something else than a launch that the streams do. */
enum ra_status ra_cuda_between(struct ra_cuda *cuda, const char *name,
                               const std::function<cudaError_t()> &run, struct ra_error *err);

/* A layer's part of the recorded step begins: what is between comes before it. */
enum ra_status ra_cuda_begin_layer(struct ra_cuda *cuda, struct ra_error *err);

/* Room among the recorded operands, with this one n times in line; NULL, and counted, unless a
 * recording is on. */
void *ra_cuda_keep(struct ra_cuda *cuda, const void *operand, size_t bytes, int n);

/* Where the output of an attention goes. */
float *ra_cuda_output(struct ra_cuda *cuda);

/* Give n elements of the host's side to every copy, for the launches to come: *at is where they
 * find them, [B][n]. */
template <class T>
enum ra_status ra_cuda_give(struct ra_cuda *cuda, const ra_cuda_pair<T> &pair, size_t n,
                            const T **at, struct ra_error *err)
{
    *at = static_cast<const T *>(ra_cuda_keep(cuda, pair.host, n * sizeof(T), cuda->B));
    if (*at)
        return RA_OK;
    *at = pair.card;
    for (size_t b = 0; b < (size_t)cuda->B; b++)
        RA_TRY(ra_cuda_done(cudaMemcpyAsync(pair.card + b * n, pair.host, n * sizeof(T),
                                            cudaMemcpyHostToDevice, cuda->stream),
                            "copy to the card", err));
    return RA_OK;
}

/* Fetch n elements of every copy; while steps are recorded, nothing. */
template <class T>
enum ra_status ra_cuda_fetch(struct ra_cuda *cuda, const ra_cuda_pair<T> &pair, size_t n,
                             struct ra_error *err)
{
    if (cuda->recording.is_on)
        return RA_OK;
    return ra_cuda_done(cudaMemcpyAsync(pair.host, pair.card, n * (size_t)cuda->B * sizeof(T),
                                        cudaMemcpyDeviceToHost, cuda->stream),
                        "copy from the card", err);
}

/* RA_EDIVERGED unless what was fetched, `bytes` of each copy, is the same of all. */
enum ra_status ra_cuda_same(const struct ra_cuda *cuda, const void *fetched, size_t bytes,
                            const char *what, struct ra_error *err);

/* Wait for what an operation launched and fetched; while steps are recorded, not. */
enum ra_status ra_cuda_wait(struct ra_cuda *cuda, const char *operation, struct ra_error *err);

/* Forget rows, C_r and reference of a layer, in the order of the stream. */
enum ra_status ra_cuda_clear(struct ra_cuda *cuda, const struct ra_cuda_layer *layer,
                             struct ra_error *err);

/* The layer alone. */
inline ra_cuda_span ra_cuda_span_of(const struct ra_cuda *cuda, int layer)
{
    int slot = cuda->layers[layer].slot;
    return {cuda->score_slots > 1 ? slot : 0, slot, 1};
}

/* Choose for the layers of a span, of which each chooses `most`; then bring their C_r to the given
 * lists, [n * Hkv][cap]. */
enum ra_status ra_cuda_choose(struct ra_cuda *cuda, const ra_cuda_span &span,
                              const struct ra_select_rule *rule, int32_t most, cudaStream_t stream,
                              struct ra_error *err);
enum ra_status ra_cuda_install(struct ra_cuda *cuda, const ra_cuda_span &span, ra_plan_args a,
                               cudaStream_t stream, struct ra_error *err);

/* What is due happens, and what happens beside is waited for: before the step ends, or C_r of a
 * layer concerned is used. */
enum ra_status ra_cuda_settle(struct ra_cuda *cuda, struct ra_error *err);

/* A run starts from nothing: count anew. And let go of everything recorded. */
void ra_cuda_recording_reset(struct ra_cuda *cuda);
void ra_cuda_recording_close(struct ra_cuda *cuda);

/* Operations of struct ra_backend_ops. */
enum ra_status ra_cuda_attend_full(void *self, int layer, const float *q, bool want_scores,
                                   float *out, struct ra_error *err);
enum ra_status ra_cuda_score(void *self, int layer, const float *q, struct ra_error *err);
enum ra_status ra_cuda_attend_recycled(void *self, int layer, const float *q, bool want_scores,
                                       float *out, struct ra_error *err);
enum ra_status ra_cuda_attend_sets(void *self, int layer, const float *q,
                                   const struct ra_positions *sets, int n_sets, float *out,
                                   struct ra_error *err);
enum ra_status ra_cuda_select(void *self, int layer, const struct ra_select_rule *rule,
                              struct ra_positions *order, struct ra_error *err);
void ra_cuda_adopt(void *self, int layer, int kv_head, const struct ra_retained *retained);
enum ra_status ra_cuda_refresh(void *self, int layer, int64_t *moved, struct ra_error *err);
enum ra_status ra_cuda_insert_evict(void *self, int layer, int32_t K, int32_t *evicted,
                                    struct ra_error *err);
enum ra_status ra_cuda_record_begin(void *self, struct ra_error *err);
enum ra_status ra_cuda_record_step(void *self, int32_t t, struct ra_error *err);
enum ra_status ra_cuda_play(void *self, struct ra_step_time *times, const float **out,
                            struct ra_error *err);
enum ra_status ra_cuda_count(void *self, struct ra_step_traffic *steps, struct ra_error *err);
enum ra_status ra_cuda_accumulate(void *self, int layer, enum ra_agg agg, bool keep,
                                  const float **scores, struct ra_error *err);

#endif
