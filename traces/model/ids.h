/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of token ids, which is all that a decoder reads of a text. Both are safetensors
 * (traces/tools/README.md has the formats): `rattn-tokens`, one text, and `rattn-prompts`, many
 * prompts with the tokens that follow and which of these are judged.
 */
#ifndef RA_TRACES_MODEL_IDS_H
#define RA_TRACES_MODEL_IDS_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One text. Tensor `tokens` I32 [n]; every id is in 0..vocab-1. */
struct ra_ids {
    int32_t *tokens;
    size_t n;
    char *source, *source_sha256, *license, *tokenizer_sha256; /* metadata, "" where absent */
};

/* A token that is judged: of prompt `prompt`, the one at index `at` of its tokens. */
struct ra_probe {
    int32_t prompt;
    int32_t at; /* >= the prompt's P: it is predicted by a decode step or, at P, by the
                 * prefill */
    const int32_t *candidates; /* others of its form, to be ranked below it; ends at n_candidates */
    int n_candidates;
};

/*
 * Many prompts. Tensors: `tokens` I32 [sum of lengths]; `lengths` I32 [n] tokens of each, prompt
 * and continuation; `prompt_len` I32 [n], P of each, 1 <= P < length; `seed` I64 [n]; optional
 * `depth` F32 [n], 0 to 1; `probe` I32 [m, 2]: prompt, index of the token, ascending; optional
 * `candidates` I32 [m, c], -1 for none, never the token itself. Metadata: format=rattn-prompts,
 * version=1.0, task (spelling of what was generated), family, tokenizer.sha256, source,
 * source_sha256, license.
 */
struct ra_prompts {
    size_t n, n_probes;
    const int32_t **tokens; /* [n] */
    int32_t *length, *prompt_len;
    int64_t *seed;
    float *depth; /* NaN: none */
    struct ra_probe *probes;
    char *task, *family, *source, *source_sha256, *license, *tokenizer_sha256;
    void *memory;
};

/* Errors: RA_EIO, RA_EFORMAT naming file, tensor, element, expected and got; RA_ENOMEM. */
RA_MUST_CHECK enum ra_status ra_ids_open(struct ra_ids **ids, const char *path, int vocab,
                                         struct ra_error *err);
void ra_ids_close(struct ra_ids *ids);
RA_MUST_CHECK enum ra_status ra_prompts_open(struct ra_prompts **prompts, const char *path,
                                             int vocab, struct ra_error *err);
void ra_prompts_close(struct ra_prompts *prompts);

#ifdef __cplusplus
}
#endif

#endif
