/* SPDX-License-Identifier: Apache-2.0 */
/* A model directory opened for a command that decodes: configuration, weights, products, threads.
 */
#ifndef RA_SIM_CLI_LANGUAGE_MODEL_H
#define RA_SIM_CLI_LANGUAGE_MODEL_H

#include "sim/cli/options.h"
#include "sim/cli/progress.h"
#include "traces/model/decoder.h"
#include "traces/model/origin.h"

/* Rows that commands with a model share; `values` is the struct that their tables fill. */
#define RA_MODEL_OPERAND(values)                                                                   \
    {                                                                                              \
        "MODEL_DIR", 1, 1, offsetof(values, model),                                                \
            .help =                                                                                \
                "a Hugging Face model: config.json and model.safetensors, or its shards and index" \
    }
#define RA_MODEL_TOKENS(values)                                                                    \
    {                                                                                              \
        .name = "tokens", .kind = RA_OPTION_TEXT, .offset = offsetof(values, tokens),              \
        .argument = "FILE", .is_required = true,                                                   \
        .help = "token ids of the text (traces/tools/tokenize.py makes them)"                      \
    }
#define RA_MODEL_STEPS(values)                                                                     \
    {                                                                                              \
        .name = "steps", .letter = 'n', .kind = RA_OPTION_INT, .offset = offsetof(values, steps),  \
        .argument = "N", .is_required = true, .min = 1, .max = 1 << 24, .help = "tokens to decode" \
    }
#define RA_MODEL_DTYPE(values)                                                                     \
    {                                                                                              \
        .name = "dtype", .kind = RA_OPTION_CHOICE, .offset = offsetof(values, dtype),              \
        .argument = "TYPE", .fallback = "f16", .choices = "f16|bf16|f32",                          \
        .help = "queries, keys and values are rounded to it before they are attended to"           \
    }
#define RA_MODEL_THREADS(values)                                                                   \
    {                                                                                              \
        .name = "threads", .letter = 'j', .kind = RA_OPTION_INT,                                   \
        .offset = offsetof(values, threads), .argument = "THREADS", .min = 0, .max = 1024,         \
        .fallback = "0", .help = "0: one per processor"                                            \
    }

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

/* Refuse P + N positions where the model has fewer. `path` opens the message. */
RA_MUST_CHECK enum ra_status ra_language_model_reaches(const struct ra_language_model *model,
                                                       const char *path, int64_t P, int64_t N,
                                                       struct ra_error *err);

/* For struct ra_lm_prompt_config: shows "prefill"; context is the model. */
bool ra_language_model_prefill(void *context, int32_t done, int32_t P);

#endif
