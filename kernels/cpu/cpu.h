/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of the cpu backend, and its operations by file: memory.c sizes and places the one
 * block that holds everything (operations allocate nothing), cpu.c keeps C_f, attend.c runs splits
 * on threads, scores.c turns logits into choices.
 */
#ifndef RA_KERNELS_CPU_CPU_H
#define RA_KERNELS_CPU_CPU_H

#include "kernels/backend.h"
#include "kernels/cpu/retained.h"
#include "kernels/cpu/select.h"
#include "kernels/cpu/split.h"
#include "sim/base/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RA_CPU_DIGESTS = 2 };

/* A page among those that are ranked. */
struct ra_cpu_page {
    double score;
    int32_t number;
};

struct ra_cpu_layer {
    int32_t rows;                     /* of C_f; the last is self */
    int32_t window;                   /* 0: full attention */
    char *k, *v;                      /* [Hkv][max_rows][D], [Dv], stored dtype */
    struct ra_cpu_retained *retained; /* [Hkv]; NULL when there is no C_r */
    int32_t *order;                   /* [Hkv][cap] the last selection */
    struct ra_page_rule pages;        /* .page 0: keys are not kept in pages */
    double *digest;                   /* [Hkv][pages][RA_CPU_DIGESTS][D] */
    int32_t *page_order;              /* [Hkv][ra_cpu_page_most] the last choice among pages */
    double *reference;                /* [D] mean query */
    bool has_reference;
};

/* What the score scratch holds; it belongs to one layer at a time. */
enum ra_cpu_scores { RA_CPU_NOTHING, RA_CPU_FULL, RA_CPU_RECYCLED };

struct ra_cpu {
    struct ra_backend_config config;
    struct ra_model model;
    const struct ra_cpu_kernels *kernels;
    int32_t cap; /* entries of a C_r */
    struct ra_pool *pool;
    struct ra_cpu_layer *layers;

    double *scores; /* [Hq][score_stride] logits, or probabilities once `softmaxed` */
    size_t score_stride;
    enum ra_cpu_scores holds;
    int scores_layer;
    bool softmaxed;

    struct ra_cpu_keys *keys; /* [Hq] of the attention in progress; kept for `accumulate` */
    double *partial;          /* [Hq][max_splits][2 + Dv] */
    int32_t max_splits;
    struct ra_cpu_select *select;   /* [Hkv] */
    int32_t *moved;                 /* [Hkv] */
    float *accumulated;             /* [Hkv][cap + 1] */
    int32_t max_pages;              /* of any layer; 0: none */
    double *page_scores;            /* [Hq][max_pages] */
    struct ra_cpu_page *page_ranks; /* [Hkv][max_pages] */
};

/* Bytes of the block; SIZE_MAX when they cannot be counted. Threads are not in it. */
size_t ra_cpu_memory(const struct ra_backend_config *config);

/* A zeroed block with every piece in its place; free() releases it. RA_ENOMEM. */
RA_MUST_CHECK enum ra_status
ra_cpu_allocate(struct ra_cpu **cpu, const struct ra_backend_config *config, struct ra_error *err);

/* Operations of struct ra_backend_ops. */
enum ra_status ra_cpu_attend_full(void *self, int layer, const float *q, bool want_scores,
                                  float *out, struct ra_error *err);
enum ra_status ra_cpu_score(void *self, int layer, const float *q, struct ra_error *err);
enum ra_status ra_cpu_attend_recycled(void *self, int layer, const float *q, bool want_scores,
                                      float *out, struct ra_error *err);
enum ra_status ra_cpu_attend_sets(void *self, int layer, const float *q,
                                  const struct ra_positions *sets, int n_sets, float *out,
                                  struct ra_error *err);
enum ra_status ra_cpu_op_select(void *self, int layer, const struct ra_select_rule *rule,
                                struct ra_positions *order, struct ra_error *err);
enum ra_status ra_cpu_op_accumulate(void *self, int layer, enum ra_agg agg, bool keep,
                                    const float **scores, struct ra_error *err);

enum ra_status ra_cpu_op_cut(void *self, int layer, const struct ra_cut_rule *rule,
                             const int32_t *instead, int32_t *evicted, struct ra_error *err);
enum ra_status ra_cpu_op_select_pages(void *self, int layer, const float *q,
                                      const struct ra_page_rule *rule, struct ra_positions *order,
                                      struct ra_error *err);

/* Pages that so many rows fill, the last perhaps in part; the most positions that a choice has. */
int32_t ra_cpu_page_count(int32_t rows, const struct ra_page_rule *rule);
int32_t ra_cpu_page_most(int32_t rows, const struct ra_page_rule *rule);

/* Take rows from `from` on into the digests of a layer's pages, if it has any. */
void ra_cpu_extend_pages(const struct ra_cpu *cpu, int layer, int32_t from);

/* First row of C_f of a KV head. */
const char *ra_cpu_rows_k(const struct ra_cpu *cpu, int layer, int head);
const char *ra_cpu_rows_v(const struct ra_cpu *cpu, int layer, int head);

/* Bytes of a row. */
size_t ra_cpu_k_bytes(const struct ra_cpu *cpu);
size_t ra_cpu_v_bytes(const struct ra_cpu *cpu);

#ifdef __cplusplus
}
#endif

#endif
