/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend owns the KV caches of all layers of one sequence and executes attention on them: the
 * complete cache C_f and, beside it, the recycled cache C_r of each layer. It decides nothing: the
 * engine says which operation comes next, and times each call from outside.
 *
 * Layers are indices 0..n_layers-1 of the run, rows are positions 0..P+N-1. Queries and outputs are
 * f32 in the caller's storage; K and V are in the stored dtype, [Hkv][rows][D] head-major.
 */
#ifndef RA_KERNELS_BACKEND_H
#define RA_KERNELS_BACKEND_H

#include "kernels/backend_config.h"
#include "sim/step.h"

#ifdef __cplusplus
extern "C" {
#endif

enum ra_backend_caps {
    RA_CAP_EXACT = 1,     /* outputs are attention, to the bound of ra_kernel_err_bound */
    RA_CAP_OWN_MEMORY = 2 /* what `memory` counts is the device's, not the host's */
};

/* Prompt rows of one layer: k [Hkv][P][D], v [Hkv][P][Dv], head h starting at h * k_stride
 * (v_stride) bytes. Borrowed. */
struct ra_prompt_rows {
    const void *k, *v;
    size_t k_stride, v_stride;
    int32_t P;
};

/* What the kernels of one recorded step asked global memory for. */
struct ra_step_traffic {
    uint64_t load_bytes, store_bytes;
    uint64_t sectors, min_sectors; /* of 32 bytes: touched by each instruction of a warp; that its
                                    * bytes would fill if packed */
    uint64_t launches;
};

struct ra_backend_ops {
    const char *name, *summary;
    unsigned caps;
    const char *method; /* of its times: cpu-wall, cuda-event, synthetic; NULL: none are kept */
    const char *launch_mode; /* what one launch covers: call, step-graph */

    /* RA_OK, or RA_ENODEV and the reason, which starts with the backend's name. */
    enum ra_status (*probe)(struct ra_error *err);

    /* One line naming the device, e.g. the processor's model name. Optional. */
    void (*device)(char *text, size_t size);

    /* Bytes of the cache between its processors and the memory that holds KV. Optional: the host's
     * last level. */
    size_t (*cache_bytes)(void);

    /* Bytes that open will take for this configuration, computed before anything is allocated; and
     * the rows, queries and outputs of n_steps recorded steps. Lists of recorded choices come to
     * it. */
    size_t (*memory)(const struct ra_backend_config *config);

    /* RA_EUSAGE for what it cannot run, RA_ENOMEM for what its memory does not hold; the reason
     * starts with the backend's name. Optional: anything that `open` finds memory for. */
    enum ra_status (*fits)(const struct ra_backend_config *config, struct ra_error *err);

    enum ra_status (*open)(void **self, const struct ra_backend_config *config,
                           struct ra_error *err);

    /* Untimed: forget all rows, C_r and references of every layer. */
    void (*reset)(void *self);

    /* What follows, `load` included, is of this copy alone, 0 to batch - 1. Optional: copies are
     * never apart. */
    void (*turn)(void *self, int copy);

    /* Untimed: rows 0..P-1 of C_f. */
    enum ra_status (*load)(void *self, int layer, const struct ra_prompt_rows *rows,
                           struct ra_error *err);

    /* Add one row to C_f: k [Hkv][D], v [Hkv][Dv]. It is "self" of what follows. */
    enum ra_status (*append)(void *self, int layer, const void *k, const void *v,
                             struct ra_error *err);

    /* q [Hq][D] attends to every row (the last `window` of a window layer); out [Hq][Dv].
     * want_scores, with RA_SCORES_FUSED, leaves the logits in scratch; with RA_SCORES_RECOMPUTE
     * they come from a pass of its own over K, which `score` runs. The scratch is shared by the
     * layers: it holds what the last such call left, until the layer's next append. */
    enum ra_status (*attend_full)(void *self, int layer, const float *q, bool want_scores,
                                  float *out, struct ra_error *err);

    /* Logits of q over every row, into the layer's scratch. The recompute path, and the way to
     * score before attending. */
    enum ra_status (*score)(void *self, int layer, const float *q, struct ra_error *err);

    /* Choose by `rule` from the logits in scratch. order [Hkv] are filled with positions, first to
     * be evicted first, borrowed until the next call for this layer. */
    enum ra_status (*select)(void *self, int layer, const struct ra_select_rule *rule,
                             struct ra_positions *order, struct ra_error *err);

    /* Untimed: make `retained` what the next refresh of this KV head will install. */
    void (*adopt)(void *self, int layer, int kv_head, const struct ra_retained *retained);

    /* Bring C_r of every KV head to what was adopted, moving only entries that are new. *moved
     * counts them over the heads. */
    enum ra_status (*refresh)(void *self, int layer, int64_t *moved, struct ra_error *err);

    /* q attends to C_r and self (once, where self is in C_r already). want_scores keeps the
     * softmax probabilities over A for `accumulate`. */
    enum ra_status (*attend_recycled)(void *self, int layer, const float *q, bool want_scores,
                                      float *out, struct ra_error *err);

    /* Put self, not yet in C_r, into it and evict others, first of the order first and never pinned
     * ones, while more than K [Hkv] remain. evicted [Hkv]: the first position that went, -1 where
     * none did; may be NULL. */
    enum ra_status (*insert_evict)(void *self, int layer, const int32_t *K, int32_t *evicted,
                                   struct ra_error *err);

    /* q attends to sets[i] (ascending, without self) and self, gathered from C_f; n_sets = Hkv or
     * Hq. */
    enum ra_status (*attend_sets)(void *self, int layer, const float *q,
                                  const struct ra_positions *sets, int n_sets, float *out,
                                  struct ra_error *err);

    /* Cosine of q's mean over heads with the layer's reference mean, clamped to [-1, 1]; NaN when a
     * norm is zero. The first call after reset has no reference and gives NaN. */
    enum ra_status (*cosine)(void *self, int layer, const float *q, double *cosine,
                             struct ra_error *err);

    /* Make q's mean over heads the layer's reference. */
    enum ra_status (*set_reference)(void *self, int layer, const float *q, struct ra_error *err);

    /* The same cosine; the step is full unless it exceeds sim, and then q's mean becomes the
     * reference. RA_EDIVERGED unless is_full says the same. Optional: what is decided is known. */
    enum ra_status (*decide)(void *self, int layer, const float *q, double sim, bool is_full,
                             double *cosine, struct ra_error *err);

    /* With RA_DECIDE_DEVICE, after `decide`: what follows is of the branch, until another is named.
     * Operations of both are called, of RA_BRANCH_FULL first; those of the one not taken find and
     * leave everything as it is, and return nothing. Optional, like `decide`. */
    void (*branch)(void *self, enum ra_branch branch, bool is_taken);

    /* Right after attend_recycled with want_scores: add agg over the group of the probabilities to
     * each entry's score (keep = true), or put it in its place (keep = false). Self enters with its
     * own. scores [Hkv] in the ascending order of C_r with self last; borrowed. */
    enum ra_status (*accumulate)(void *self, int layer, enum ra_agg agg, bool keep,
                                 const float **scores, struct ra_error *err);

    /* Right after `accumulate`: self enters C_r with its score, and where that makes more than
     * rule->K one position goes, by the rule. evicted [Hkv]: the one of the backend's own choice,
     * -1 where none goes. instead [Hkv], unless NULL: the one that goes in its place. */
    enum ra_status (*cut)(void *self, int layer, const struct ra_cut_rule *rule,
                          const int32_t *instead, int32_t *evicted, struct ra_error *err);

    /* Score pages of C_f, self's included, for q by what is kept of each page, and choose by
     * `rule`, one kind for a layer. order [Hkv] as from `select`: all positions of chosen pages,
     * first to be evicted first: the lowest-ranked page first, in it the highest position first;
     * pages that are always chosen rank best, the newest above page 0. Borrowed until the next call
     * for this layer. */
    enum ra_status (*select_pages)(void *self, int layer, const float *q,
                                   const struct ra_page_rule *rule, struct ra_positions *order,
                                   struct ra_error *err);

    /*
     * Steps timed apart from the calls that make them up. NULL: each call is timed from outside.
     * After a checked run from reset to the last step, the same calls are made once more between
     * record_begin and play: they do not run, return what they returned before where that decides
     * anything (select), and are recorded as steps. record_step opens step t, -1 first. play runs
     * all recorded steps from the state after `load`, without a copy or a wait between them:
     * times [1 + n_steps] is filled, out [n_steps][n_layers][Hq][Dv], where copies are apart
     * [n_steps][n_layers][batch][Hq][Dv], is borrowed until the next call.
     */
    enum ra_status (*record_begin)(void *self, struct ra_error *err);
    enum ra_status (*record_step)(void *self, int32_t t, struct ra_error *err);
    enum ra_status (*play)(void *self, struct ra_step_time *times, const float **out,
                           struct ra_error *err);

    /* What each step launched when it was first played, [1 + n_steps]; borrowed. NULL like `play`.
     */
    const struct ra_step_launches *(*launched)(void *self);

    /* The recorded steps once more, their traffic counted: steps [1 + n_steps]. NULL: there is
     * nothing that counts. */
    enum ra_status (*count)(void *self, struct ra_step_traffic *steps, struct ra_error *err);

    void (*close)(void *self); /* accepts NULL */
};

/* cpu, null and, where it is linked, cuda; NULL-terminated. */
extern const struct ra_backend_ops *const ra_backends[];

/* Spellings, in results and on the command line: deferred, inline, side; known, host, device. */
const char *ra_select_name(enum ra_select_mode mode);
const char *ra_decide_name(enum ra_decide_mode mode);

/* NULL when there is none of that name in the table. */
const struct ra_backend_ops *ra_backend_find(const char *name);

/* The same; where cuda is not linked it comes from librattn_cuda.so, beside the program or in
 * ../lib/rattn-sim. RA_ENODEV when that cannot be; RA_OK and *ops NULL for a name that is none. */
RA_MUST_CHECK enum ra_status ra_backend_load(const char *name, const struct ra_backend_ops **ops,
                                             struct ra_error *err);

/* What a library and the program must agree on: it has a uint64_t ra_backend_abi of this value. */
#define RA_BACKEND_ABI                                                                             \
    ((uint64_t)sizeof(struct ra_step_time) << 48 | (uint64_t)sizeof(struct ra_backend_ops) << 32 | \
     (uint64_t)sizeof(struct ra_backend_config) << 16 | (uint64_t)sizeof(struct ra_model))

/*
 * Largest ||o_backend - o||/||o|| that rounding explains: 1e-5 + 8 * 2^-24 * the largest over keys
 * of attn_scale * sum_d |q_d k_d|.
 */
double ra_kernel_err_bound(double max_abs_logit);

#ifdef __cplusplus
}
#endif

#endif
