/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One sequence that decodes under a schedule: the policy and the backend of a replay, driven by the
 * queries, keys and values that the model makes as it goes. What an earlier step left out of its
 * attention is in every later one's: the drift that a recording does not show.
 *
 * The policy's scores are formed in f64 from the sequence's own keys (sim/scores.h), as in a
 * replay; the backend attends to the sets that follow.
 */
#ifndef RA_TRACES_MODEL_SEQUENCE_H
#define RA_TRACES_MODEL_SEQUENCE_H

#include "kernels/backend.h"
#include "sim/policy.h"
#include "traces/model/prompt.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Borrowed until close, but for the struct itself. */
struct ra_lm_sequence_config {
    const struct ra_lm *lm;
    const struct ra_lm_prompt *prompt; /* needs acc where the policy does */
    const struct ra_policy_spec *spec;
    const struct ra_backend_ops *backend;
    int32_t N;     /* steps at most, from each start */
    int n_threads; /* of the backend */
};

/* What a step did, over the layers with full attention. */
struct ra_lm_step_counts {
    int full_layers;   /* that ran a full step */
    int64_t keys_read; /* over layers and KV heads; a shared row of a group once */
    double since_full; /* mean over layers of steps since the last full step; 0: it was one; since
                        * the prefill where there was none */
};

struct ra_lm_sequence;

/* Errors: RA_EUSAGE for transformations, which change recordings only, for models of window layers
 * only, which have nothing to schedule, and for what the policy lacks; RA_ENOMEM; of the backend.
 */
RA_MUST_CHECK enum ra_status ra_lm_sequence_open(struct ra_lm_sequence **sequence,
                                                 const struct ra_lm_sequence_config *config,
                                                 struct ra_error *err);
void ra_lm_sequence_close(struct ra_lm_sequence *sequence); /* accepts NULL */

/* Start anew from the prompt as it is now, which may have grown: the policy is opened again, and of
 * the steps so far nothing remains. Rows of the prompt below `first` are as they were at the last
 * start. Errors: as of open. */
RA_MUST_CHECK enum ra_status ra_lm_sequence_restart(struct ra_lm_sequence *sequence, int32_t first,
                                                    struct ra_error *err);

/* One layer of step t. */
struct ra_lm_row {
    int layer;
    int32_t t;
    const float *q;    /* [Hq][D] as attention sees it */
    const void *k, *v; /* [Hkv][D] as stored */
    float *out;        /* [Hq][D], filled */
};

/* Layers in their order from 0, steps from 0. Errors: of policy and backend. */
RA_MUST_CHECK enum ra_status ra_lm_sequence_attend(struct ra_lm_sequence *sequence,
                                                   const struct ra_lm_row *row,
                                                   struct ra_error *err);

/* Of the last whole step. */
struct ra_lm_step_counts ra_lm_sequence_counts(const struct ra_lm_sequence *sequence);

#ifdef __cplusplus
}
#endif

#endif
