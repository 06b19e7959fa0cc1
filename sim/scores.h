/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scores that a policy asks for at one (layer, step), formed in f64 from keys, queries and the
 * softmax over everything: whoever drives a policy (a replay, `explain`) has them from here.
 */
#ifndef RA_SIM_SCORES_H
#define RA_SIM_SCORES_H

#include "sim/step.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is at hand at one (layer, step). Borrowed. */
struct ra_scores_input {
    const struct ra_step *step;
    const double *prob; /* [Hq][self + 1] softmax over everything; NULL: not formed, which does for
                         * scores of what is attended, where that is not everything */
    const float *q;     /* [Hq][D]; NULL: there are none, nor keys */
    const char *k;      /* as stored, head h at k + h * k_stride, [rows][D] */
    size_t k_stride;    /* bytes */
    const float *acc;   /* [Hq][P] probability each prompt position received over the prompt's
                         * queries; at the prefill, where it is known */
    const struct ra_positions *attended; /* [Hkv] self included; pos NULL: everything; after
                                          * attending */
    /* Fill q [n][D] with the last n prompt queries of a query head. */
    enum ra_status (*tail)(void *context, int head, int32_t n, float *q, struct ra_error *err);
    void *context;
};

struct ra_scorer;

/* For prompts of P and at most `rows` keys. Room is taken when it is first needed. */
RA_MUST_CHECK enum ra_status ra_scorer_open(struct ra_scorer **scorer, const struct ra_model *model,
                                            int32_t P, int32_t rows, struct ra_error *err);
void ra_scorer_close(struct ra_scorer *scorer); /* accepts NULL */

/*
 * Fill *scores with what plan->of names; borrowed until the next call. Steps of a layer come in
 * order. RA_EUSAGE, opening with "needs", where the input lacks what that takes; RA_ENOMEM.
 */
RA_MUST_CHECK enum ra_status ra_scorer_form(struct ra_scorer *scorer, const struct ra_plan *plan,
                                            const struct ra_scores_input *input,
                                            struct ra_scores *scores, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
