/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a decoding run as a trace (traces/FORMAT.md) while it runs: rows go to a temporary file as
 * they come, so that memory does not grow with the run, and the trace has its name only when it is
 * whole.
 */
#ifndef RA_TRACES_MODEL_RECORDER_H
#define RA_TRACES_MODEL_RECORDER_H

#include "traces/model/ids.h"
#include "traces/model/origin.h"
#include "traces/model/prompt.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is recorded. Borrowed until close. */
struct ra_lm_recording {
    const struct ra_lm *lm;
    const char *path;
    int32_t P, N, W;
    const int *layers; /* [n_layers] ascending model layers */
    int n_layers;
    const int32_t *check_steps; /* [n_check] ascending, below N */
    int n_check;
    int top_k;      /* likeliest tokens kept of each step; 0: none */
    bool is_full;   /* recorded under full attention: its outputs are the check rows. Else these are
                     * full attention over what was recorded, formed at the end in f64 */
    bool is_greedy; /* else teacher-forced */
    const char *policy, *attention; /* canonical spelling; whose attention it was */
    const struct ra_lm_origin *origin;
    const struct ra_ids *ids;
};

struct ra_lm_recorder;

/* Errors of all: RA_EIO, RA_ENOMEM. */
RA_MUST_CHECK enum ra_status ra_lm_recorder_open(struct ra_lm_recorder **recorder,
                                                 const struct ra_lm_recording *recording,
                                                 struct ra_error *err);
/* Without commit, the temporary file is removed. Accepts NULL. */
void ra_lm_recorder_close(struct ra_lm_recorder *recorder);

/* The prompt's rows, and acc where it has it, which it then has of every layer. */
RA_MUST_CHECK enum ra_status ra_lm_recorder_prompt(struct ra_lm_recorder *recorder,
                                                   const struct ra_lm_prompt *prompt,
                                                   struct ra_error *err);

/* One layer of a step: row 0. */
RA_MUST_CHECK enum ra_status ra_lm_recorder_row(struct ra_lm_recorder *recorder,
                                                const struct ra_lm_rows *rows,
                                                struct ra_error *err);

/* Step t is over: its logits [vocab], and the token that followed. *logprob is the latter's. */
RA_MUST_CHECK enum ra_status ra_lm_recorder_step(struct ra_lm_recorder *recorder, int32_t t,
                                                 const float *logits, int32_t target,
                                                 double *logprob, struct ra_error *err);

/* tokens [P + N + 1]. */
RA_MUST_CHECK enum ra_status ra_lm_recorder_commit(struct ra_lm_recorder *recorder,
                                                   const int32_t *tokens, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
