/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain data that passes between the engine, a policy and a backend at one (layer, step).
 * Nothing here owns memory. Positions count tokens from the start of the sequence; step t of
 * 0..N-1 processes position P + t ("self") and may attend to 0..P+t. Step -1 is the prefill:
 * its self is the last prompt token, and nothing is attended or counted as a step.
 */
#ifndef RA_SIM_STEP_H
#define RA_SIM_STEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A list of positions, ascending and unique unless said otherwise. Borrowed. */
struct ra_positions {
    const int32_t *pos;
    int32_t n;
};

/* One (layer, step) as a policy sees it. */
struct ra_step {
    int32_t t;    /* decode step, or -1 for the prefill */
    int32_t self; /* position being processed: P + t */
    int layer;    /* index among the full-attention layers of this run, from 0 */
    int layer_id; /* that layer's number in the model */
};

/* Scores that a plan asked for, f64; see enum ra_scores_of. */
struct ra_scores {
    const double *prob; /* [Hq][L], row stride L */
    int32_t L;          /* keys: self + 1; of pages: their number */
};

enum ra_agg { RA_AGG_MAX, RA_AGG_MEAN, RA_AGG_FIRST, RA_AGG_SUM };
enum ra_current { RA_CURRENT_PSEUDO, RA_CURRENT_SNAPKV, RA_CURRENT_DROP };
enum ra_evict { RA_EVICT_POOLED, RA_EVICT_RAW };

/* What a pool takes of neighbours; of an average, zeros beyond the ends count. */
enum ra_pooling { RA_POOLING_MAX, RA_POOLING_AVG };

/* How C_r is chosen from scores, per KV head. Source: arXiv:2411.05787, Algorithm 1 and sec. 2.2;
 * the options name what the paper leaves open. */
struct ra_select_rule {
    int32_t K;               /* entries kept, >= 1; the largest of any head */
    const int32_t *K_heads;  /* [Hkv] where KV heads differ, else NULL */
    int pool;                /* odd length of the max-pool; 1: none */
    enum ra_agg agg;         /* over the query heads of a group */
    enum ra_current current; /* what becomes of the position whose query scored */
    enum ra_evict evict;     /* which scores order the evictions */
};

/* What is kept of a page of keys, so that pages can be told apart without reading their keys. */
enum ra_page_digest {
    RA_PAGE_BOUNDS, /* least and largest of each dimension; the score is a bound of q.k: the sum
                     * over dimensions of max(q * least, q * largest) */
    RA_PAGE_MEAN    /* mean key; the score is the softmax over pages of attn_scale * q.mean */
};

/* How pages are chosen, per KV head: max(least, floor(K / page)) of them. Page p holds positions
 * p * page .. p * page + page - 1; the newest may be cut short.
 * Sources: Quest, arXiv:2406.10774; TriForce, arXiv:2404.11912. */
struct ra_page_rule {
    int32_t K, page;
    const int32_t *K_heads; /* [Hkv] where KV heads differ, else NULL; K is the largest */
    int32_t least;          /* >= 1 */
    int32_t rows;           /* only the first `rows` keys lie in pages; 0: all, self's included */
    enum ra_page_digest digest;
    enum ra_agg agg;   /* over the query heads of a group */
    bool takes_newest; /* the newest page is among them, whatever its score */
    bool takes_first;  /* so is page 0, where there is room beside the newest */
};

/* How C_r is cut once self has entered it, per KV head: what `recent` highest positions leave goes
 * by its score, least first (ties: higher position first), while more than K remain. Sources: H2O,
 * arXiv:2306.14048; TOVA, arXiv:2401.06104. */
struct ra_cut_rule {
    int32_t K, recent;
    const int32_t *K_heads, *recent_heads; /* [Hkv] where KV heads differ, else NULL */
    enum ra_agg agg;                       /* over the query heads of a group */
    bool adds_up;  /* a score is the sum over all steps; else the last step's */
    bool of_layer; /* KV heads keep the same positions, by agg over all query heads */
};

/* The rule of one KV head, where they differ. */
static inline struct ra_select_rule ra_select_rule_of(const struct ra_select_rule *rule, int head)
{
    struct ra_select_rule own = *rule;
    own.K = rule->K_heads ? rule->K_heads[head] : rule->K;
    own.K_heads = NULL;
    return own;
}

static inline struct ra_page_rule ra_page_rule_of(const struct ra_page_rule *rule, int head)
{
    struct ra_page_rule own = *rule;
    own.K = rule->K_heads ? rule->K_heads[head] : rule->K;
    own.K_heads = NULL;
    return own;
}

static inline struct ra_cut_rule ra_cut_rule_of(const struct ra_cut_rule *rule, int head)
{
    struct ra_cut_rule own = *rule;
    own.K = rule->K_heads ? rule->K_heads[head] : rule->K;
    own.recent = rule->recent_heads ? rule->recent_heads[head] : rule->recent;
    own.K_heads = own.recent_heads = NULL;
    return own;
}

/* What a layer attends to at this step. */
enum ra_attend {
    RA_ATTEND_ALL,   /* 0..self */
    RA_ATTEND_CACHE, /* the policy's retained set (ra_policy_view) and self */
    RA_ATTEND_SETS   /* plan->sets and self */
};

/* When a policy needs scores of this step. */
enum ra_scores_when {
    RA_SCORES_NONE,
    RA_SCORES_AFTER, /* learned from after attending */
    RA_SCORES_BEFORE /* learned from before attending: the answer changes what is attended */
};

/* What the scores are of. */
enum ra_scores_of {
    RA_SCORES_OF_ALL,      /* softmax of this step's query over 0..self */
    RA_SCORES_OF_ATTENDED, /* over what this step attends to, 0 elsewhere: the attention's own
                            * weights, so no key is read for them; after attending only */
    RA_SCORES_OF_PROMPT,   /* what each prompt position received, summed over all prompt queries; at
                            * the prefill only, where the trace has it (RA_NEEDS_ACC) */
    RA_SCORES_OF_WINDOW,   /* of each of the last plan.window prompt queries over what it sees,
                            * summed over them; at the prefill only */
    RA_SCORES_OF_PAGES     /* of each page, by plan.pages */
};

/* Filled by the policy for one (layer, step). */
struct ra_plan {
    bool is_full; /* a full step: all of C_f was looked at */
    enum ra_attend attend;
    enum ra_scores_when scores;
    enum ra_scores_of of;
    int32_t window;      /* queries of RA_SCORES_OF_WINDOW, at most the trace's W */
    int32_t window_pool; /* what each gives the positions before them is pooled first; 0: not */
    enum ra_pooling window_pooling;
    const struct ra_page_rule *pages; /* of RA_SCORES_OF_PAGES */
    bool scores_are_free;    /* scores come from an oracle: no bytes are charged for them */
    bool rebuilds;           /* the retained set is chosen anew from this step's scores */
    bool checks_query;       /* the schedule compared query means at this step */
    double query_cosine;     /* that cosine; NaN when not compared or a norm was zero */
    double sim;              /* the step is full unless it exceeds this; if compared */
    int32_t compared_step;   /* step whose query was compared with the reference */
    bool compares_unrotated; /* queries are compared as they were before RoPE */
    const struct ra_select_rule *rule; /* how positions are chosen from scores of all; NULL: by the
                                        * policy alone. Without `rebuilds`: for other layers */
    const struct ra_cut_rule *cut; /* self enters C_r, which is cut by scores of what is attended */
    bool per_query_head;           /* sets are per query head [Hq], else per KV head [Hkv] */
    const struct ra_positions *sets; /* attend = SETS: without self; borrowed until the next call */
    /* What the step were, had the comparison of this layer's own query of this step come out the
     * other way. NULL: it did not depend on it. Borrowed until the next call. */
    const struct ra_plan *otherwise;
};

/* What makes entries of a retained cache go. */
enum ra_evictions {
    RA_EVICTIONS_BY_ORDER, /* each that enters may push out the next of `evict` */
    RA_EVICTIONS_BY_SCORE, /* ra_cut_rule: `evict` says nothing */
    RA_EVICTIONS_NONE
};

/* A retained cache C_r of one (layer, KV head). Borrowed until the policy's next call. */
struct ra_retained {
    struct ra_positions set;   /* ascending */
    struct ra_positions evict; /* the same positions, first to be evicted first; pinned ones last */
    int32_t n_pinned;          /* the last n_pinned of `evict` are never evicted */
    const double *score;       /* [n] accumulated, in the order of `set`; NULL: none is kept */
    enum ra_evictions evictions;
};

/* Mean over query heads of each layer's query, f64, for schedules that compare queries. */
struct ra_queries {
    int n_layers, D;
    int32_t N;
    const double *mean; /* [n_layers][N + 1][D], post-RoPE; row 0 is the last prompt token's */
};

#ifdef __cplusplus
}
#endif

#endif
