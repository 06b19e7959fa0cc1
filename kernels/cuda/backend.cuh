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

#include <deque>
#include <functional>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/refresh.cuh"
#include "kernels/cuda/select.cuh"

enum { RA_CUDA_SELECTORS = 16 };

struct ra_cuda_layer {
    int32_t rows;                /* of C_f; the last is self */
    int32_t window;              /* 0: full attention */
    int slot;                    /* among the layers without a window; -1: it has one */
    char *k, *v;                 /* [Hkv][max_rows][D]; paged: the pool of all layers */
    const int32_t *pages;        /* [n_pages] its own; NULL: not paged */
    int32_t *page_of;            /* [n_pages] the same on the host */
    int32_t *n, *n_prompt;       /* [Hkv] rows, as the card knows them; those of `load` */
    char *self_k, *self_v;       /* [Hkv][D] room for the row last appended */
    const char *at_k, *at_v;     /* where that row is: there, or among recorded operands */
    double *reference;           /* [D] mean query */
    int32_t *has_reference;      /* [1] */
    struct ra_recycled recycled; /* of cap 0 where there is no C_r */
    char *r_k, *r_v;             /* [Hkv][cap][D] rows of C_r; NULL when gathering */

    /* What the host knows of C_r. */
    int32_t *held, *queued; /* [Hkv] entries, and those that may be evicted */
    bool *has_self;         /* [Hkv] */
    int32_t *next, *order;  /* [Hkv][cap] adopted: ascending, and first to be evicted first */
    int32_t *next_n;        /* [Hkv]; -1: nothing adopted */
    int32_t next_pinned;
};

/* Pieces of one size on both sides: the host's is what is sent or what came back. */
template <class T> struct ra_cuda_pair {
    T *host, *card;
};

/* A choice that waits for the step's end. */
struct ra_cuda_due {
    int layer;
    struct ra_select_rule rule;
    bool refreshes;
};

/* One launch, or a few in line. */
struct ra_cuda_work {
    const char *name; /* for errors */
    std::function<cudaError_t(cudaStream_t)> launch;
    bool is_append; /* writes nothing but the end of C_f */
};

/* What the main stream was given last: launches may start early behind a kernel alone. */
enum ra_cuda_ahead { RA_CUDA_NO_KERNEL, RA_CUDA_APPEND, RA_CUDA_KERNEL };

/* A recorded launch, or wait between streams, where steps are not graphs. */
struct ra_cuda_recorded {
    const char *name;
    std::function<cudaError_t()> run;
};

/* Steps as graphs, or as lists of launches, with all they read and produce. */
struct ra_cuda_recording {
    bool is_on, is_capturing;
    bool is_open;      /* a step is recorded */
    size_t needed;     /* bytes of the operands of a run, counted while it is checked */
    size_t size, used; /* of the room for them, in both places */
    char *host, *card;
    size_t n_outputs, outputs_of_run;
    struct ra_cuda_pair<float> outputs; /* [outputs_of_run][Hq][D] */
    int n_steps;                        /* closed */
    std::vector<cudaGraphExec_t> steps;
    std::vector<std::vector<ra_cuda_recorded>> lists;
    std::vector<cudaEvent_t> marks; /* before each step, and after the last */
    std::deque<std::vector<int32_t>>
        choices; /* of `select`: for each KV head a count, then so many */
    std::vector<ra_cuda_due> due;
    bool is_beside; /* the other stream has work that this one has not waited for */
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
    int n_sms;
    char *card_block, *host_block;
    cudaStream_t stream, beside;
    cudaEvent_t fork, join; /* between the two */
    struct ra_cuda_layer *layers;
    size_t row_bytes;

    /* Layers without a window, in line. */
    int n_slots;
    char *k, *v;                        /* [n_slots][Hkv][max_rows][D]; paged:
                                         * [n_slots * n_pages][Hkv][RA_PAGE][D] */
    struct ra_cuda_pair<int32_t> pages; /* [n_slots][n_pages] pages of a layer; none: in line */
    int32_t n_pages;                    /* of a layer */
    int32_t *n;                         /* [n_slots][Hkv] */
    struct ra_recycled recycled;        /* of all their C_r */
    char *r_k, *r_v;                    /* [n_slots][Hkv][cap][D] */
    int score_slots; /* layers that have scores of their own: all, or one at a time */

    struct ra_cuda_pair<float> q, out; /* [Hq][D] */
    struct ra_cuda_pair<char> self;    /* [2][Hkv][D]: K, V */
    float *logits;                     /* [score_slots][Hq][logit_stride] */
    float *lse;                        /* [score_slots][Hq] */
    int64_t logit_stride;
    int scores_layer; /* whose logits came last; -1: nobody's */
    enum ra_cuda_ahead ahead;
    float *partial, *partial_sums;
    uint32_t *ticket;
    struct ra_cuda_pair<int32_t> index;   /* [Hq][max_rows] sets from outside */
    struct ra_cuda_pair<int32_t> index_n; /* [Hq] */
    struct ra_cuda_pair<int32_t> flags;   /* [Hkv] is self in C_r? */

    struct ra_cuda_selector selectors[RA_CUDA_SELECTORS]; /* ascending in layers */
    int n_selectors;
    uint32_t *keys, *raw_keys;           /* [score_slots][Hkv][logit_stride] */
    int32_t *chosen;                     /* [score_slots][Hkv][cap] ascending */
    struct ra_cuda_pair<int32_t> ranked; /* the same in order of eviction; one layer's comes back */
    struct ra_cuda_pair<int32_t> counted; /* [.][Hkv] chosen; entries moved; who was evicted */
    struct ra_cuda_pair<int32_t> set, order, set_n; /* [Hkv] what a refresh installs */
    struct ra_cuda_pair<int32_t> position;          /* [Hkv] of self */
    int2 *moves;                                    /* [score_slots][Hkv][cap] */
    struct ra_cuda_pair<double> cosine;             /* [1] */
    int32_t *fires;                                 /* [1] */

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

/* Room among the recorded operands, with a copy of this one; NULL, and counted, unless a recording
 * is on. */
void *ra_cuda_keep(struct ra_cuda *cuda, const void *operand, size_t bytes);

/* Where the output of an attention goes. */
float *ra_cuda_output(struct ra_cuda *cuda);

/* Give n elements of the host's side to the launches to come: *at is where they find them. */
template <class T>
enum ra_status ra_cuda_give(struct ra_cuda *cuda, const ra_cuda_pair<T> &pair, size_t n,
                            const T **at, struct ra_error *err)
{
    *at = static_cast<const T *>(ra_cuda_keep(cuda, pair.host, n * sizeof(T)));
    if (*at)
        return RA_OK;
    *at = pair.card;
    return ra_cuda_done(
        cudaMemcpyAsync(pair.card, pair.host, n * sizeof(T), cudaMemcpyHostToDevice, cuda->stream),
        "copy to the card", err);
}

/* Fetch n elements; while steps are recorded, nothing. */
template <class T>
enum ra_status ra_cuda_fetch(struct ra_cuda *cuda, const ra_cuda_pair<T> &pair, size_t n,
                             struct ra_error *err)
{
    if (cuda->recording.is_on)
        return RA_OK;
    return ra_cuda_done(
        cudaMemcpyAsync(pair.host, pair.card, n * sizeof(T), cudaMemcpyDeviceToHost, cuda->stream),
        "copy from the card", err);
}

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
