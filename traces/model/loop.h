/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences that decode from one prompt in lock step, each under a schedule of its own: weights are
 * read once for all of them, and what differs is what their schedules did.
 */
#ifndef RA_TRACES_MODEL_LOOP_H
#define RA_TRACES_MODEL_LOOP_H

#include "traces/model/sequence.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_lm_loop_config {
    struct ra_lm *lm; /* with room for n rows */
    const struct ra_lm_prompt *prompt;
    int n;
    const struct ra_policy_spec *const *specs; /* [n] */
    const struct ra_backend_ops *backend;
    int32_t N;
    struct ra_pool *pool; /* NULL: the caller alone */
    /* Sees every layer's rows and outputs once they are attended to; row i is sequence i's. NULL:
     * nobody. */
    enum ra_status (*observe)(void *context, const struct ra_lm_rows *rows, struct ra_error *err);
    void *context;
};

struct ra_lm_loop;

/* Borrows all that the config names until close. Errors: RA_ENOMEM, of policies, naming which, and
 * of the backend. */
RA_MUST_CHECK enum ra_status ra_lm_loop_open(struct ra_lm_loop **loop,
                                             const struct ra_lm_loop_config *config,
                                             struct ra_error *err);
void ra_lm_loop_close(struct ra_lm_loop *loop); /* accepts NULL */

/* The next step: tokens [n], one of each sequence. *hidden [n][hidden] is borrowed until the
 * model's next call. */
RA_MUST_CHECK enum ra_status ra_lm_loop_step(struct ra_lm_loop *loop, const int32_t *tokens,
                                             const float **hidden, struct ra_error *err);

struct ra_lm_step_counts ra_lm_loop_counts(const struct ra_lm_loop *loop, int i);

#ifdef __cplusplus
}
#endif

#endif
