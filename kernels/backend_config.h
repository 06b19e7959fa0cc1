/* SPDX-License-Identifier: Apache-2.0 */
/* What a backend is opened for: the shape of its caches, and in which of the ways that it knows its
 * operations are carried out. */
#ifndef RA_KERNELS_BACKEND_CONFIG_H
#define RA_KERNELS_BACKEND_CONFIG_H

#include "kernels/backend_watch.h"
#include "sim/step.h"

#ifdef __cplusplus
extern "C" {
#endif

enum ra_cache_mode { RA_CACHE_COMPACT, RA_CACHE_GATHER };
enum ra_scores_mode { RA_SCORES_FUSED, RA_SCORES_RECOMPUTE };

/* When a recorded full step chooses: for all layers together once they have attended, layer by
 * layer, or layer by layer beside the attention of the layers after it. The choice is the same. */
enum ra_select_mode { RA_SELECT_DEFERRED, RA_SELECT_INLINE, RA_SELECT_SIDE };

/* Where a recorded step learns whether a layer's query has turned away, so that its step is full:
 * it knew before, the host waits for the answer and launches what follows, or both ways are
 * launched and the device lets one do something. */
enum ra_decide_mode { RA_DECIDE_KNOWN, RA_DECIDE_HOST, RA_DECIDE_DEVICE };

/* Operations of a step that is full, or is not, by a decision of the device. */
enum ra_branch { RA_BRANCH_NONE, RA_BRANCH_FULL, RA_BRANCH_RECYCLED };

struct ra_backend_config {
    const struct ra_model *model; /* borrowed until close */
    int n_layers;
    const int32_t *window;            /* [n_layers] sliding window w, 0: full attention; borrowed */
    int32_t max_rows;                 /* P + N */
    int32_t n_steps;                  /* that will be recorded, the prefill among them; 0: none */
    const struct ra_page_rule *pages; /* [n_layers] for `select_pages`, .page 0: not of that layer;
                                       * NULL: of none; borrowed */
    int32_t max_retained;             /* largest C_r of a KV head, self included; 0: no C_r */
    enum ra_cache_mode cache;         /* how C_r is kept: copied rows, or an index list into C_f */
    int page;   /* C_f is kept in pages of so many rows, in no order; 0: in line */
    int batch;  /* so many copies of the sequence, each with memory of its own, go through every
                 * operation together; what comes back is the first's, and RA_EDIVERGED where
                 * another's differs. 0 or 1: one */
    bool apart; /* copies differ: each operation is of the one whose turn it is */
    enum ra_scores_mode scores;
    /* Of backends that record: where to decide; when to choose; launches that start before the one
     * ahead has ended; steps as launches one by one. */
    enum ra_decide_mode decide;
    enum ra_select_mode select;
    bool early, no_graph;
    bool between;  /* memory that is no cache is read between layers, outside the time of a step */
    int n_threads; /* 0: one per processor */
    const struct ra_backend_watch *watch; /* of `play`; optional; borrowed until close */
};

#ifdef __cplusplus
}
#endif

#endif
