/* SPDX-License-Identifier: Apache-2.0 */
/* A model directory opened for a command that decodes: configuration, weights, products, threads.
 */
#ifndef RA_SIM_CLI_LANGUAGE_MODEL_H
#define RA_SIM_CLI_LANGUAGE_MODEL_H

#include "sim/cli/options.h"
#include "sim/cli/progress.h"
#include "traces/model/decoder.h"
#include "traces/model/origin.h"

struct ra_language_model {
    struct ra_lm_config *config;
    struct ra_lm_weights *weights;
    struct ra_lm_origin origin;
    struct ra_pool *pool;
    struct ra_lm lm;
    struct ra_progress progress; /* of tokens */
};

/* Rows: as many as run through the model at once, at least. Says on stderr, unless quiet, what it
 * loads. Errors: of the parts, each naming its file. Close after failures too. */
RA_MUST_CHECK enum ra_status ra_language_model_open(struct ra_language_model *model,
                                                    const char *dir, enum ra_dtype dtype, int rows,
                                                    int n_threads, const struct ra_cli *cli,
                                                    struct ra_error *err);
void ra_language_model_close(struct ra_language_model *model);

/* Refuse ids of another tokenizer, where both name theirs. `path` opens the message. */
RA_MUST_CHECK enum ra_status ra_language_model_speaks(const struct ra_language_model *model,
                                                      const char *path, const char *tokenizer,
                                                      struct ra_error *err);

/* For struct ra_lm_prompt_config: shows "prefill"; context is the model. */
bool ra_language_model_prefill(void *context, int32_t done, int32_t P);

#endif
