/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Schedules: what a layer attends to at a step, what it keeps, what it evicts.
 *
 * A policy sees positions, scores and queries; never a file, a clock or a device. One instance
 * covers all layers of one sequence. The engine may go layer by layer or step by step; it
 * promises that (layer, t) comes after (layer, t-1), and after (layer', t) for every layer' <
 * layer.
 *
 * One (layer, t) is: plan; learn if plan.scores is BEFORE; the attention; learn if AFTER; advance.
 * t = -1, the prefill, is the same without attention. Adding a policy: one file in sim/policy and
 * one line in sim/policy/policies.def.
 */
#ifndef RA_SIM_POLICY_H
#define RA_SIM_POLICY_H

#include "sim/base/params.h"
#include "sim/step.h"
#include "sim/transform.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a policy needs; matched with what the trace offers before step 0. */
enum ra_needs {
    RA_NEEDS_QUERIES = 1,   /* ra_policy_env.queries */
    RA_NEEDS_TRUTH = 2,     /* exact scores before each step: exists offline only */
    RA_NEEDS_ACC = 4,       /* RA_SCORES_OF_PROMPT */
    RA_NEEDS_TAIL = 8,      /* queries of the prompt's end, ra_policy_env.W of them */
    RA_NEEDS_REFERENCE = 16 /* choices that no backend makes by itself */
};

/* Which caches a policy keeps; decides what a new token costs to write. */
enum ra_caches {
    RA_CACHES_FULL,    /* C_f alone, or C_f read through index lists */
    RA_CACHES_REDUCED, /* C_r alone: what is evicted is gone */
    RA_CACHES_BOTH     /* C_f, and C_r beside it */
};

/* Borrowed by the policy until close. */
struct ra_policy_env {
    const struct ra_model *model;
    int32_t P, N;
    int32_t W;             /* last prompt queries that are recorded */
    int n_layers;          /* full-attention layers the policy will see */
    const int *layer_ids;  /* [n_layers] ascending model layer numbers */
    const int32_t *head_k; /* [n_layers][Hkv] budgets, where some are given by KV head; NULL: those
                            * of the layers' parameters */
    const struct ra_queries *queries; /* NULL unless needs() has RA_NEEDS_QUERIES */
    int phase, of; /* the sequence is phase/of of a stride ahead: member `phase` of `of` that share
                    * a batch; 0 of 0: not */
};

struct ra_policy_ops {
    const char *name;       /* spelling on the command line and in results: "recycled" */
    const char *summary;    /* one line, at most 72 columns */
    const char *source;     /* paper and section the rule follows, or "baseline" */
    const char *deviations; /* where paper, public code and this differ, and which option is which;
                             * NULL: nowhere */
    const struct ra_param *params; /* option table, ends with a zero entry; NULL if none */
    size_t params_size;            /* bytes of the struct that the table fills */

    /* Refuse combinations the table cannot express. Optional. */
    enum ra_status (*check)(const void *params, struct ra_error *err);
    /* RA_NEEDS_* bits for these parameters. Optional: none. */
    unsigned (*needs)(const void *params);
    enum ra_caches (*caches)(const void *params);
    bool cuts; /* its plans have ra_plan.cut */
    /* How pages of keys are chosen, where they are. Optional: no keys are kept in pages. */
    void (*pages)(const void *params, int32_t P, struct ra_page_rule *rule);
    /* The most positions that C_r or a set can hold after a step. Optional: k. */
    int32_t (*most)(const void *params, int32_t P, int32_t N);

    /* params: [env->n_layers] structs, one per layer (they differ only through "key@layers"),
     * borrowed until close. After a failure, close is called with what *self is then; it was
     * NULL. */
    enum ra_status (*open)(void **self, const struct ra_policy_env *env, const void *params,
                           struct ra_error *err);
    /* Fill *plan, which the engine zeroed. */
    enum ra_status (*plan)(void *self, const struct ra_step *step, struct ra_plan *plan,
                           struct ra_error *err);
    /* Take the scores that plan asked for; may set plan->sets. Optional. */
    enum ra_status (*learn)(void *self, const struct ra_step *step, const struct ra_scores *scores,
                            struct ra_plan *plan, struct ra_error *err);
    /* In place of learn, when what one KV head keeps was chosen elsewhere: take over its eviction
     * order. Optional; needed by policies with a cache that learn. */
    void (*install)(void *self, const struct ra_step *step, int kv_head,
                    const struct ra_positions *evict_order);
    /* The step is over: insert self, evict. Optional. */
    void (*advance)(void *self, const struct ra_step *step);
    /* The retained cache now. NULL for policies without one. */
    void (*view)(const void *self, int layer, int kv_head, struct ra_retained *view);
    void (*close)(void *self); /* accepts NULL */
};

/* The budget of a KV head of layer `layer`, whose parameters say `k`; the largest of its heads; all
 * of them [Hkv] where they differ, else NULL. */
int32_t ra_policy_head_k(const struct ra_policy_env *env, struct ra_fraction k, int layer,
                         int kv_head);
int32_t ra_policy_layer_k(const struct ra_policy_env *env, struct ra_fraction k, int layer);
const int32_t *ra_policy_heads(const struct ra_policy_env *env, int layer);

/* Every policy, in the order of policies.def; NULL-terminated. */
extern const struct ra_policy_ops *const ra_policies[];

/* A parsed spelling: the policy's row and its parameters. */
struct ra_policy_spec;

/*
 * Parse "NAME[:key=value[,key=value...]]"; "key@0-3=value" or "key@5=value" gives layers 0 to 3,
 * or 5, another value, "key@0-3.1=value" KV head 1 of each; "+TRANSFORMATION..." may follow.
 * RA_EUSAGE naming the word, what was
 * expected and the nearest name.
 */
RA_MUST_CHECK enum ra_status ra_policy_parse(struct ra_policy_spec **spec, const char *text,
                                             struct ra_error *err);
void ra_policy_spec_close(struct ra_policy_spec *spec);

const struct ra_policy_ops *ra_policy_spec_ops(const struct ra_policy_spec *spec);

/* The one spelling that results carry: all parameters, in table order. Parses back to itself. */
const char *ra_policy_spec_canonical(const struct ra_policy_spec *spec);

/* What is done to K and V before the policy sees them; NULL: nothing. Borrowed. */
const struct ra_transform_chain *ra_policy_spec_transform(const struct ra_policy_spec *spec);

/* RA_NEEDS_* bits and caches of the parsed policy. */
unsigned ra_policy_spec_needs(const struct ra_policy_spec *spec);
enum ra_caches ra_policy_spec_caches(const struct ra_policy_spec *spec);

/* The budget "k" for a prompt of P tokens where no "@layers" overrides it; -1: it has no k. */
int32_t ra_policy_spec_k(const struct ra_policy_spec *spec, int32_t P);

/* The largest "k" of any layer; -1: it has no k. */
int32_t ra_policy_spec_k_max(const struct ra_policy_spec *spec, int32_t P);

/* The most positions that C_r or a set of any layer can hold in N steps; -1: there are none. */
int32_t ra_policy_spec_most(const struct ra_policy_spec *spec, int32_t P, int32_t N);

/* How a layer's pages of keys are chosen; false, and *rule as it was, where they are not. */
bool ra_policy_spec_pages(const struct ra_policy_spec *spec, int layer_id, int32_t P,
                          struct ra_page_rule *rule);

/* An open policy; calls the row's hooks and checks the engine's promises in debug builds. */
struct ra_policy;

/* Open for one sequence. Errors: RA_EUSAGE when the trace lacks what it needs, RA_ENOMEM. */
RA_MUST_CHECK enum ra_status ra_policy_open(struct ra_policy **policy,
                                            const struct ra_policy_spec *spec,
                                            const struct ra_policy_env *env, struct ra_error *err);
void ra_policy_close(struct ra_policy *policy);

RA_MUST_CHECK enum ra_status ra_policy_plan(struct ra_policy *policy, const struct ra_step *step,
                                            struct ra_plan *plan, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_policy_learn(struct ra_policy *policy, const struct ra_step *step,
                                             const struct ra_scores *scores, struct ra_plan *plan,
                                             struct ra_error *err);
void ra_policy_install(struct ra_policy *policy, const struct ra_step *step, int kv_head,
                       const struct ra_positions *evict_order);
void ra_policy_advance(struct ra_policy *policy, const struct ra_step *step);

/* False, and an empty view, for policies without a retained cache. */
bool ra_policy_view(const struct ra_policy *policy, int layer, int kv_head,
                    struct ra_retained *view);

#ifdef __cplusplus
}
#endif

#endif
