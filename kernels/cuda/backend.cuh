/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of the cuda backend, and its operations by file: backend_memory.cu sizes and places the
 * two blocks that hold everything (operations allocate nothing), backend.cu keeps C_f,
 * backend_decide.cu the reference queries, backend_attend.cu attends and scores, backend_select.cu
 * chooses, backend_cache.cu keeps C_r, backend_scores.cu what its entries received,
 * backend_pages.cu tells pages of keys apart; backend_call.cu brings them to launches.
 *
 * An operation copies what it is given to the card, launches, copies back what it returns, and
 * waits. For times, backend_record.cu records the launches of whole steps as graphs, with
 * everything they are given already on the card.
 */
#ifndef RA_KERNELS_CUDA_BACKEND_CUH
#define RA_KERNELS_CUDA_BACKEND_CUH

#include "kernels/cuda/backend_call.cuh"
#include "kernels/cuda/backend_ops.cuh"
#include "kernels/cuda/backend_recording.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/refresh.cuh"
#include "kernels/cuda/select.cuh"

/* What the host knows of a copy of a layer. */
struct ra_cuda_known {
    int32_t rows;            /* of C_f; the last is self */
    const char *at_k, *at_v; /* [Hkv][D] the row last appended: in self_k, self_v or recorded */
    int32_t *held, *queued;  /* [Hkv] entries of C_r, and those that may be evicted */
    bool *has_self;          /* [Hkv] */
    int32_t *next, *order;   /* [Hkv][cap] adopted: ascending, and first to be evicted first */
    int32_t *next_n;         /* [Hkv]; -1: nothing adopted */
    int32_t next_pinned;
    double *next_score; /* [Hkv][cap] adopted, ascending by position */
    bool is_scored;     /* next_score is filled */
    bool keeps_scores;  /* of entries: they were given some, or asked for */
};

struct ra_cuda_layer {
    int32_t window;              /* 0: full attention */
    int slot;                    /* among the layers without a window; -1: it has one */
    char *k, *v;                 /* [B][Hkv][max_rows][D]; paged: the pool of all layers */
    const int32_t *pages;        /* [B][n_pages] its own; NULL: not paged */
    int32_t *page_of;            /* [B][n_pages] the same on the host */
    int32_t *n, *n_prompt;       /* [B][Hkv] rows, as the card knows them; those of `load` */
    char *self_k, *self_v;       /* [B][Hkv][D] room for the row last appended */
    double *reference;           /* [B][D] mean query */
    int32_t *has_reference;      /* [B] */
    int32_t *fires;              /* [B] of a decision; NULL: it has a window */
    struct ra_recycled recycled; /* [B][Hkv]; of cap 0 where there is no C_r */
    char *r_k, *r_v;             /* [B][Hkv][cap][D] rows of C_r; NULL when gathering */
    struct ra_page_rule rule;    /* of pages of keys; .page 0: none are told apart */
    char *digest;                /* [B][Hkv][pages][..] of each page; NULL: as above */
    int32_t *page_positions;     /* host: [Hkv][..] what was chosen last */
    struct ra_cuda_known *known; /* [B] where copies are apart, else [1], of all */
};

/* Layers in line, and of each the copies first..first + copies - 1: `score` and `slot` number the
 * first layer among those with scores of their own, and among all without a window. */
struct ra_cuda_span {
    int score, slot, n;
    int first, copies;
};

struct ra_cuda {
    struct ra_backend_config config;
    struct ra_model model;
    int32_t cap;       /* entries of a C_r */
    int B, rows;       /* copies of the sequence; KV heads of a layer, of all copies */
    int turn, at_hand; /* copies that operations are of: turn..turn + at_hand - 1 */
    enum ra_branch branch;
    bool is_passed_over; /* the branch is not taken */
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

    float *q;                       /* [B][Hq][D] */
    struct ra_cuda_pair<float> out; /* [B][Hq][D] */
    float *logits;                  /* [score_slots][B][Hq][logit_stride] */
    float *lse;                     /* [score_slots][B][Hq] */
    int64_t logit_stride;
    int scores_layer, scores_turn; /* whose logits came last; layer -1: nobody's */
    bool scores_of_cache;          /* they are of C_r, else of all rows */
    enum ra_cuda_ahead ahead;
    float *partial, *partial_sums;
    uint32_t *ticket;
    int32_t *index;   /* [B][Hq][max_rows] sets from outside */
    int32_t *index_n; /* [B][Hq] */
    int32_t *flags;   /* [B][Hkv] is self in C_r? */

    uint32_t *select_zeros, *select_lists; /* for as many rows as one launch may have */
    uint32_t *keys, *raw_keys;             /* [score_slots][B][Hkv][logit_stride] */
    int32_t *chosen;                       /* [score_slots][B][Hkv][cap] ascending */
    struct ra_cuda_pair<int32_t> ranked; /* the same in order of eviction; one layer's comes back */
    struct ra_cuda_pair<int32_t> counted; /* [.][B][Hkv] chosen; entries moved; who was evicted */
    int32_t *set, *order, *set_n;         /* [B][Hkv][cap], counts: what a refresh installs */
    double *given_score;                  /* [B][Hkv][cap] of the set */
    int32_t *instead, *cut_each;          /* [B][Hkv] who goes in a cut; [B][Hkv][2] its rules */
    int32_t *slot_pos;                    /* host: [B][Hkv][cap] positions and scores by slot */
    double *score, *self_score;           /* host: and of self, [B][Hkv] */
    float *entry_scores;                  /* host: [Hkv][cap + 1] by position, self last */
    int32_t *position, *most;             /* [B][Hkv] of self; entries kept */
    int2 *moves;                          /* [score_slots][B][Hkv][cap], counts: of a refresh */
    int32_t *n_moves;
    struct ra_cuda_pair<double> cosine; /* [B] */
    struct ra_cuda_pair<int32_t> fires; /* card: [n_slots][B], host: [B] */

    /* Of one layer at a time; n: the most pages of any. */
    float *page_scores;                      /* [B][Hq][n] */
    uint32_t *page_keys;                     /* [B][Hkv][n] */
    struct ra_cuda_pair<int32_t> page_order; /* [B][Hkv][n] */
    int32_t *page_ranked;                    /* [B][Hkv] */

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

enum ra_status ra_cuda_between(struct ra_cuda *cuda, const char *name,
                               const std::function<cudaError_t()> &run, struct ra_error *err);

/* A layer's part of the recorded step begins: what is between comes before it. */
enum ra_status ra_cuda_begin_layer(struct ra_cuda *cuda, struct ra_error *err);

/* Room among the recorded operands, with this one in it; NULL, and counted, unless a recording is
 * on. */
void *ra_cuda_keep(struct ra_cuda *cuda, const void *operand, size_t bytes);

/* Where the output of an attention of the copies at hand goes. */
float *ra_cuda_output(struct ra_cuda *cuda);

/* Fetch n elements of every copy at hand. */
template <class T>
enum ra_status ra_cuda_fetch(struct ra_cuda *cuda, const ra_cuda_pair<T> &pair, size_t n,
                             struct ra_error *err)
{
    return ra_cuda_done(cudaMemcpyAsync(pair.host, pair.card, n * (size_t)cuda->at_hand * sizeof(T),
                                        cudaMemcpyDeviceToHost, cuda->stream),
                        "copy from the card", err);
}

/* Does an operation run now, and return something? */
inline bool ra_cuda_runs(const struct ra_cuda *cuda)
{
    return !cuda->recording.is_on && !cuda->is_passed_over;
}

/* RA_EDIVERGED unless what was fetched, `bytes` of each copy at hand, is the same of all. */
enum ra_status ra_cuda_same(const struct ra_cuda *cuda, const void *fetched, size_t bytes,
                            const char *what, struct ra_error *err);

/* Wait for what an operation launched and fetched; while steps are recorded, not. */
enum ra_status ra_cuda_wait(struct ra_cuda *cuda, const char *operation, struct ra_error *err);

/* Forget rows, C_r and reference of a layer, in the order of the stream. */
enum ra_status ra_cuda_clear(struct ra_cuda *cuda, const struct ra_cuda_layer *layer,
                             struct ra_error *err);

/* What is known of a copy; of the one at hand. */
inline ra_cuda_known *ra_cuda_known_of(const struct ra_cuda *cuda, int layer, int copy)
{
    return &cuda->layers[layer].known[cuda->config.apart ? copy : 0];
}
inline ra_cuda_known *ra_cuda_at_hand(const struct ra_cuda *cuda, int layer)
{
    return ra_cuda_known_of(cuda, layer, cuda->turn);
}

/* Of the first copy of a call, whose appended rows lie in line. */
const ra_cuda_known *ra_cuda_self(const struct ra_cuda *cuda, const ra_cuda_call &call);

/* The layer alone. */
inline ra_cuda_span ra_cuda_span_of(const struct ra_cuda *cuda, int layer, int first, int copies)
{
    int slot = cuda->layers[layer].slot;
    return {cuda->score_slots > 1 ? slot : 0, slot, 1, first, copies};
}

/* KV heads before a span's first: among those with scores, and among all. */
inline size_t ra_cuda_score_row(const struct ra_cuda *cuda, const ra_cuda_span &span)
{
    return (size_t)(span.score * cuda->B + span.first) * (size_t)cuda->model.Hkv;
}
inline size_t ra_cuda_row(const struct ra_cuda *cuda, const ra_cuda_span &span)
{
    return (size_t)(span.slot * cuda->B + span.first) * (size_t)cuda->model.Hkv;
}

/* Those of a launch for the span. Of a branch that the card decides on, where it takes it. */
ra_rows ra_cuda_rows(const struct ra_cuda *cuda, const ra_cuda_span &span, enum ra_branch branch);

/* C_r of a span, with scores where they are kept. */
ra_recycled ra_cuda_recycled(const struct ra_cuda *cuda, const ra_cuda_span &span,
                             bool keeps_scores);

/* Keys that lie in pages, of `rows`; the pages; positions of chosen pages, at most; and bytes of
 * what is kept of a page of a KV head. */
int32_t ra_cuda_paged_rows(const struct ra_page_rule *rule, int32_t rows);
int32_t ra_cuda_page_count(const struct ra_page_rule *rule, int32_t rows);
int32_t ra_cuda_page_most(const struct ra_page_rule *rule, int32_t rows);
size_t ra_cuda_digest_bytes(const struct ra_model *model, const struct ra_page_rule *rule);

/* Launch what takes the last `fresh` rows of C_f, or all of them for -1, into the pages' digests.
 */
cudaError_t ra_cuda_digest(const struct ra_cuda *cuda, const struct ra_cuda_layer *layer, int first,
                           int copies, int32_t fresh, cudaStream_t stream);

/* Choose for a span; bring its C_r to the lists that are given, [rows][cap]. */
enum ra_status ra_cuda_choose(struct ra_cuda *cuda, const ra_cuda_span &span,
                              const ra_cuda_call &call, cudaStream_t stream, struct ra_error *err);
enum ra_status ra_cuda_install(struct ra_cuda *cuda, const ra_cuda_span &span,
                               const ra_cuda_call &call, cudaStream_t stream, struct ra_error *err);

/* What is due happens, and what happens beside is waited for, before the step ends. And before C_r
 * of a call's copies is used, if it concerns them. */
enum ra_status ra_cuda_settle(struct ra_cuda *cuda, struct ra_error *err);
enum ra_status ra_cuda_settle_for(struct ra_cuda *cuda, const ra_cuda_call &call,
                                  struct ra_error *err);

/* What is beside is waited for. */
enum ra_status ra_cuda_join(struct ra_cuda *cuda, struct ra_error *err);

/* The host learns what the card decided for the call's copies, before anything that follows is
 * launched; it must be as expected. */
enum ra_status ra_cuda_ask(struct ra_cuda *cuda, const ra_cuda_call &call, struct ra_error *err);

bool ra_cuda_same_rule(const struct ra_select_rule &a, const struct ra_select_rule &b);

/* A run starts from nothing: count anew. And let go of everything recorded. */
void ra_cuda_recording_reset(struct ra_cuda *cuda);
void ra_cuda_recording_close(struct ra_cuda *cuda);

#endif
