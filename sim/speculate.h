/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Self-speculation: the model drafts tokens while it attends to what a schedule keeps, and one pass
 * over all of them under full attention says which it would have chosen. What comes out is what
 * greedy decoding under full attention gives, whatever was drafted; the schedule decides how many
 * drafts are right, and so how often all keys are read.
 *
 * A round starts from verified rows alone: the schedule is opened on them as on a prompt, its
 * prefill being the refresh by the last verified token's query, and drafts at most gamma tokens.
 * Keys and values of verified tokens take the place of drafted ones; of rejected ones nothing
 * remains. In a hierarchy the drafts are themselves checked guesses: a schedule below guesses a few
 * tokens, and the one above checks them by its own set.
 *
 * Sources: Leviathan, Kalman, Matias, arXiv:2211.17192, for greedy decoding; the hierarchy:
 * TriForce, Sun et al., arXiv:2404.11912, whose lowest level is another, smaller model.
 */
#ifndef RA_SIM_SPECULATE_H
#define RA_SIM_SPECULATE_H

#include "traces/model/sequence.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Two logits that are nearer than this may change places when rows go through the model together:
 * sums are formed in another order. */
#define RA_SPECULATE_NEAR 1e-3

struct ra_speculate_config {
    struct ra_lm *lm;            /* with room for gamma + 1 rows */
    struct ra_lm_prompt *prompt; /* with room for N tokens; left as it was opened */
    struct ra_pool *pool;
    const struct ra_backend_ops *backend;
    int32_t N; /* tokens to decode, behind the one that the prompt's logits give */
    /* [N + 1] from position P on: each round starts from the text and not from what was decoded, as
     * teacher forcing does; the output is then the model's choice at each token of the text. NULL:
     * greedy decoding. */
    const int32_t *text;
    /* Show progress, and return false to stop: RA_EINTERRUPTED. NULL: nobody listens. */
    bool (*progress)(void *context, int32_t done, int32_t N);
    void *context;
};

struct ra_speculate_draft {
    const struct ra_policy_spec *spec;
    int32_t gamma;                      /* drafts of a round, 1 to RA_LM_CHUNK - 1 */
    const struct ra_policy_spec *below; /* guesses first; NULL: nobody */
    int32_t below_gamma;                /* guesses at once */
};

/*
 * What a decoding run did. `rows` counts keys with their values, over layers and KV heads: a row
 * that several queries of one pass attend to counts once, as a kernel for all of them reads it;
 * full steps of a schedule inside a round read everything. A pass is one way through all weights.
 */
struct ra_speculate_score {
    int32_t *tokens;                   /* [N + 1], the caller's */
    int64_t passes;                    /* drafting, checking and verifying */
    int64_t verifications;             /* passes under full attention */
    int64_t drafted, accepted;         /* tokens */
    int64_t guessed, guesses_accepted; /* by the schedule below, checked by the one above */
    int64_t rows;
    int32_t first_difference; /* index of the first token that is not plain decoding's; -1: none */
    int32_t near_ties;        /* tokens that are not the likeliest given those before, row by row,
                               * but within RA_SPECULATE_NEAR of it */
    int32_t wrong;            /* that are further from it: there must be none */
    double furthest;          /* logits between such a token and the likeliest, at most; 0 */
};

/* Errors: RA_EUSAGE for policies that need what is not kept up while tokens are verified. */
RA_MUST_CHECK enum ra_status ra_speculate_accepts(const struct ra_policy_spec *spec,
                                                  struct ra_error *err);

/* Greedy decoding, or what would follow each token of the text, under full attention, one token at
 * a time. Errors: RA_ENOMEM, RA_ERANGE, RA_EINTERRUPTED. */
RA_MUST_CHECK enum ra_status ra_speculate_plain(const struct ra_speculate_config *config,
                                                struct ra_speculate_score *score,
                                                struct ra_error *err);

/* The same by speculation; compared with `plain` tokens [N + 1], and where these differ with the
 * model's own choice given the tokens before; of rounds that start from a text, the first token is.
 * Errors: as of ra_speculate_accepts, of
 * ra_lm_sequence_open, of the policies, and as above. */
RA_MUST_CHECK enum ra_status
ra_speculate_run(const struct ra_speculate_config *config, const struct ra_speculate_draft *draft,
                 const int32_t *plain, struct ra_speculate_score *score, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
