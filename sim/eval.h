/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Closed loop: the model itself decodes a text under schedules, token by token, told what comes
 * next; what each thought of the true token is what is judged. All schedules start from the same
 * dense prefill.
 */
#ifndef RA_SIM_EVAL_H
#define RA_SIM_EVAL_H

#include "traces/model/ids.h"
#include "traces/model/loop.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A text: the prompt is tokens 0..P-1; step t processes token P + t and is judged by P + t + 1. */
struct ra_eval_text {
    const int32_t *tokens; /* [P + N + 1] */
    int32_t P, N;
    const struct ra_probe *probes; /* [n_probes], ascending; their `prompt` is not looked at */
    int n_probes;
};

/* A judged token under one schedule. */
struct ra_eval_answer {
    double margin; /* its logit less the best candidate's, or, without candidates, less the best
                    * other token's: right when positive */
};

/* One schedule over one text; arrays are the caller's. */
struct ra_eval_score {
    double *nll;       /* [N] natural, of the true tokens */
    double *kl;        /* [N] Kullback-Leibler divergence of full attention's prediction
                        * from this one's, nats: sum p_full log(p_full / p) */
    float *since_full; /* [N] mean over layers of steps since the last full step */
    struct ra_eval_answer *answers;      /* [n_probes]; NULL without */
    int64_t full_layer_steps, keys_read; /* over the N steps */
};

struct ra_eval_config {
    struct ra_lm *lm; /* with room for n rows */
    struct ra_pool *pool;
    const struct ra_backend_ops *backend;
    int n, full;                               /* schedules; which of them is `full` */
    const struct ra_policy_spec *const *specs; /* [n] */
    int32_t W;                                 /* prompt queries kept, at most; clipped to P */
    /* Show progress, and return false to stop: RA_EINTERRUPTED. NULL: nobody listens. */
    bool (*progress)(void *context, const char *what, int32_t done, int32_t total);
    void *context;
};

/* Fill scores [n]. As many schedules decode together as fit in 4 GiB. Errors: as of
 * ra_lm_prompt_open, ra_lm_loop_open and ra_lm_loop_step. */
RA_MUST_CHECK enum ra_status ra_eval_text_run(const struct ra_eval_config *config,
                                              const struct ra_eval_text *text,
                                              struct ra_eval_score *scores, struct ra_error *err);

/* A mean and the middle 95 % of means of resamples. */
struct ra_eval_interval {
    double mean, low, high; /* low, high: NaN for fewer than two values */
    size_t n;
};

/* Paired bootstrap over values [n] (differences, one of each text): 2,000 resamples with
 * replacement, drawn from `seed`. Errors: RA_ENOMEM. Source: Efron, Annals of Statistics 7, 1979.
 */
RA_MUST_CHECK enum ra_status ra_eval_bootstrap(const double *values, size_t n, uint64_t seed,
                                               struct ra_eval_interval *interval,
                                               struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
