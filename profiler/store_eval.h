/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a model scored in closed loop: figures of a task under the run's schedule, and what they
 * come from, one row for each text or prompt. NaN is stored as NULL. Text is borrowed for the call.
 */
#ifndef RA_PROFILER_STORE_EVAL_H
#define RA_PROFILER_STORE_EVAL_H

#include "profiler/store.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_eval_result_row {
    int64_t run_id;
    const char *task, *metric, *unit; /* unit "1": a share or a plain number */
    double value, low, high;          /* low, high: of an interval; NaN: none */
    int64_t n_samples;                /* texts or prompts behind it */
};
/* RA_ESTORE for a second row of the same run, task and metric. */
RA_MUST_CHECK enum ra_status ra_store_eval_result(struct ra_store *store,
                                                  const struct ra_eval_result_row *row,
                                                  struct ra_error *err);

#define RA_EVAL_NO_SEED INT64_MIN

struct ra_eval_sample_row {
    int64_t run_id;
    const char *task;
    int64_t sample;            /* from 0, in the order of the task */
    const char *name;          /* of the text, or the prompt's number */
    int64_t seed;              /* of a prompt; RA_EVAL_NO_SEED */
    double depth;              /* of what is to be found, 0 to 1 */
    int64_t prompt_len, steps; /* P, N */
    double nll, kl;            /* means over the steps, nats; kl: from full attention */
    int correct;               /* all answers right: 1; 0; -1: nothing is asked */
    double hits, margin;       /* share of answers right; mean margin of logits */
};
/* RA_ESTORE for a second row of the same run, task and sample. */
RA_MUST_CHECK enum ra_status ra_store_eval_sample(struct ra_store *store,
                                                  const struct ra_eval_sample_row *row,
                                                  struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
