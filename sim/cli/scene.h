/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `explain` shows a policy: one sequence as positions, scores and queries. Two scenes: a few
 * words with the scores of the worked example or with drawn ones, and one layer of a trace with
 * scores recomputed in f64. The policy cannot tell them from a replay.
 */
#ifndef RA_SIM_CLI_SCENE_H
#define RA_SIM_CLI_SCENE_H

#include "sim/policy.h"
#include "sim/scores.h"

enum { RA_SCENE_NAME = 64 };

struct ra_scene {
    struct ra_policy_env env;
    int layer;   /* index of the layer that is shown; the ones before it are only run */
    int kv_head; /* that is shown */
    bool has_acc;
    bool has_truth;     /* scores of every step mean something, not only those a policy asks for */
    int row_bytes;      /* of K and V of one position and KV head; 0: they do not exist */
    const char *title;  /* borrowed: the text, or the trace's name */
    const char *scores; /* borrowed: where the scores come from */

    /* Forget the rows of the last layer and make those of another one ready. */
    enum ra_status (*enter)(struct ra_scene *scene, int layer, struct ra_error *err);
    /* prob [Hq][L] of step t of the layer entered, L = P + t + 1. */
    void (*score)(struct ra_scene *scene, int32_t t, double *prob);
    /* Queries and keys of step t of the layer entered, for scores of other things than all keys.
     * NULL: there are none. */
    void (*rows)(struct ra_scene *scene, int32_t t, struct ra_scores_input *input);
    /* acc [Hq][P] of the layer entered; only with has_acc. */
    enum ra_status (*acc)(struct ra_scene *scene, float *acc, struct ra_error *err);
    /* How people call a position: a word, a token number, or "" */
    void (*name)(const struct ra_scene *scene, int32_t pos, char name[RA_SCENE_NAME]);
    void (*close)(struct ra_scene *scene);
    void *self;
};

/*
 * The words of `text`, of which the last four are decoded; NULL: nine words with the scores of the
 * worked example where it states them (seed 0), drawn ones elsewhere. RA_EUSAGE for fewer than
 * five words or more than 200.
 */
RA_MUST_CHECK enum ra_status ra_scene_words(struct ra_scene *scene, const char *text, uint64_t seed,
                                            struct ra_error *err);

/*
 * One layer (number in the model; -1: the middle recorded full-attention one) and KV head of a
 * trace's first sequence. `needs` are the policy's. RA_EUSAGE for a layer or head that is not
 * there.
 */
RA_MUST_CHECK enum ra_status ra_scene_trace(struct ra_scene *scene, const char *name, int layer_id,
                                            int kv_head, unsigned needs, struct ra_error *err);

void ra_scene_close(struct ra_scene *scene);

#endif
