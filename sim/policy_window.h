/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Caches chosen once, by what the end of the prompt looks at: what SnapKV and its descendants have
 * in common. The last `window` prompt queries vote: a position of the prefix gets the sum of the
 * probabilities they give it, made one score of a group's by agg and pooled along the prefix. How
 * many votes win in each KV head is the policy's; the window itself is always kept.
 */
#ifndef RA_SIM_POLICY_WINDOW_H
#define RA_SIM_POLICY_WINDOW_H

#include "sim/policy.h"

#ifdef __cplusplus
extern "C" {
#endif

/* First member of the parameters of each such policy. */
struct ra_window_params {
    struct ra_fraction k;
    int32_t window, pool, pooling, agg, evict;
};

enum ra_window_evict { RA_WINDOW_EVICT_NONE, RA_WINDOW_EVICT_FIFO };

/* Rows of the option table for a struct `OWNER` whose member `common` is the above. */
#define RA_WINDOW_FIELD(OWNER, field, kind)                                                        \
    .name = #field, .type = RA_PARAM_##kind, .offset = offsetof(struct OWNER, common.field)
#define RA_WINDOW_TABLE(OWNER, REACH)                                                              \
    {RA_WINDOW_FIELD(OWNER, k, FRACTION), .min = 1, .max = INT32_MAX, .reach = REACH,              \
     .help = "positions kept of each KV head on average, window included"},                        \
        {RA_WINDOW_FIELD(OWNER, window, INT), .min = 1, .max = 65536, .fallback = "32",            \
         .help = "last prompt positions, whose queries choose; below k"},                          \
        {RA_WINDOW_FIELD(OWNER, pool, INT), .min = 1, .max = 1023, .fallback = "7",                \
         .help = "odd length of the pool along the prefix"},                                       \
        {RA_WINDOW_FIELD(OWNER, pooling, CHOICE), .choices = "max|avg", .fallback = "max",         \
         .help = "what the pool takes of neighbours"},                                             \
        {RA_WINDOW_FIELD(OWNER, agg, CHOICE), .choices = "max|mean|first|sum", .fallback = "max",  \
         .help = "how a group's query heads become one score"},                                    \
    {                                                                                              \
        RA_WINDOW_FIELD(OWNER, evict, CHOICE),                                                     \
            .choices = "none|fifo", .fallback = "none",                                            \
            .help = "decoded tokens are added, or the lowest position goes for each"               \
    }

/* The votes of one layer. */
struct ra_window_votes {
    double *score; /* [Hkv][n] pooled; may be changed */
    int Hkv;
    int32_t n;           /* positions of the prefix */
    const int32_t *room; /* [Hkv] k - window */
    int layer_id;        /* number in the model */
    const struct ra_policy_env *env;
    const void *params; /* the policy's, of this layer */
    int32_t *won;       /* [Hkv][n] filled: positions kept of each KV head, ascending */
    int32_t *n_won;     /* [Hkv] filled */
    int32_t *cap;       /* [Hkv] filled: entries, window included, that evict=fifo keeps */
    uint64_t *scratch;  /* [Hkv * n] */
};

/* How the votes of a layer are decided. */
typedef void (*ra_window_decide)(const struct ra_window_votes *votes);

/* The n best of a head, all if there are fewer; cap n + window. */
void ra_window_take(const struct ra_window_votes *votes, int head, int32_t n);

/* Hooks of struct ra_policy_ops, but for `open`, which names the policy and gives its params_size;
 * `early` pools each query's probabilities before they are summed. */
RA_MUST_CHECK enum ra_status ra_window_check(const char *name, const void *params,
                                             struct ra_error *err);
unsigned ra_window_needs(const void *params);
enum ra_caches ra_window_caches(const void *params);
RA_MUST_CHECK enum ra_status ra_window_open(void **self, const char *name,
                                            const struct ra_policy_env *env, const void *params,
                                            size_t params_size, ra_window_decide decide,
                                            struct ra_error *err);
void ra_window_pool_early(void *self, int layer);
RA_MUST_CHECK enum ra_status ra_window_plan(void *self, const struct ra_step *step,
                                            struct ra_plan *plan, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_window_learn(void *self, const struct ra_step *step,
                                             const struct ra_scores *scores, struct ra_plan *plan,
                                             struct ra_error *err);
void ra_window_install(void *self, const struct ra_step *step, int kv_head,
                       const struct ra_positions *evict_order);
void ra_window_advance(void *self, const struct ra_step *step);
void ra_window_view(const void *self, int layer, int kv_head, struct ra_retained *view);
void ra_window_close(void *self);

#ifdef __cplusplus
}
#endif

#endif
