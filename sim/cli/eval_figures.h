/* SPDX-License-Identifier: Apache-2.0 */
/* What the scores of a task come to, as one JSON object for each schedule: text, JSON and store
 * take their figures from here. */
#ifndef RA_SIM_CLI_EVAL_FIGURES_H
#define RA_SIM_CLI_EVAL_FIGURES_H

#include <jansson.h>

#include "sim/cli/eval_task.h"

/* A task that was run. Borrowed. */
struct ra_eval_done {
    const struct ra_eval_task *task;
    const struct ra_language_model *model;
    int n;                                     /* schedules */
    const struct ra_policy_spec *const *specs; /* [n] */
    int full;                                  /* which of them is `full` */
    const struct ra_eval_score *scores;        /* [task->n][n] */
    uint64_t seed;                             /* of resamples */
    bool per_token;                            /* every text's list of NLL too */
};

/*
 * The object of schedule `number`; the caller owns it. Members: task, family, spelling, model,
 * policy, texts, steps (of all texts), nll, ppl and delta_nll; kl, of full attention's prediction
 * from this one's, {"mean","low","high"}; prompts,
 * accuracy, hits, margin, baseline_accuracy, gate and delta_accuracy of tasks with prompts; a delta
 * is against `full`, {"mean","low","high"} by paired bootstrap over texts or prompts;
 * effective_stride, keys_share (of what full attention reads), full_layer_steps; by_since: NLL
 * above full's by steps since the last full step; documents. What is not known is null. Errors:
 * RA_ENOMEM.
 */
RA_MUST_CHECK enum ra_status ra_eval_figures(const struct ra_eval_done *done, int number,
                                             json_t **object, struct ra_error *err);

/* The same as text on stdout: a heading once for each task, two lines for each schedule. */
void ra_eval_heading(const struct ra_eval_done *done);
void ra_eval_line(const json_t *object);

#endif
