/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cli/language_model.h"

#include <inttypes.h>
#include <string.h>

#include "sim/cli/interrupt.h"
#include "traces/model/gemm.h"
#include "traces/model/prompt.h"

static void on_weights(void *context, uint64_t done, uint64_t total)
{
    ra_progress_show(context, "loading", done >> 20, total >> 20);
}

static enum ra_status open_weights(struct ra_language_model *model, const char *dir,
                                   const struct ra_cli *cli, struct ra_error *err)
{
    struct ra_progress progress;
    RA_TRY(ra_lm_config_open(&model->config, dir, err));
    RA_TRY(ra_lm_origin_open(&model->origin, dir, err));
    ra_progress_init(&progress, "MiB", cli->is_quiet);
    enum ra_status st =
        ra_lm_weights_open(&model->weights, model->config, dir, on_weights, &progress, err);
    ra_progress_fini(&progress);
    return st;
}

enum ra_status ra_language_model_open(struct ra_language_model *model, const char *dir,
                                      enum ra_dtype dtype, int rows, int n_threads,
                                      const struct ra_cli *cli, struct ra_error *err)
{
    *model = (struct ra_language_model){0};
    ra_progress_init(&model->progress, "tokens", cli->is_quiet);
    RA_TRY(ra_pool_open(&model->pool, n_threads, err));
    RA_TRY(ra_gemm_open(RA_GEMM_BLAS, ra_pool_threads(model->pool), err));
    RA_TRY(open_weights(model, dir, cli, err));
    return ra_lm_open(&model->lm, model->config, model->weights, dtype,
                      rows > RA_LM_CHUNK ? rows : RA_LM_CHUNK, err);
}

void ra_language_model_close(struct ra_language_model *model)
{
    ra_progress_fini(&model->progress);
    ra_lm_close(&model->lm);
    ra_lm_weights_close(model->weights);
    ra_lm_config_close(model->config);
    ra_lm_origin_close(&model->origin);
    ra_pool_close(model->pool);
}

enum ra_status ra_language_model_speaks(const struct ra_language_model *model, const char *path,
                                        const char *tokenizer, struct ra_error *err)
{
    const char *own = model->origin.tokenizer_sha256;
    if (!own[0] || !tokenizer[0] || strcmp(own, tokenizer) == 0)
        return RA_OK;
    return ra_fail(err, RA_EUSAGE, "%s: expected ids of the model's tokenizer %.12s…, got %.12s…",
                   path, own, tokenizer);
}

enum ra_status ra_language_model_reaches(const struct ra_language_model *model, const char *path,
                                         int64_t P, int64_t N, struct ra_error *err)
{
    if (P + N <= model->config->max_positions)
        return RA_OK;
    return ra_fail(err, RA_EUSAGE,
                   "%s: expected at most %d positions (max_position_embeddings), got %" PRId64
                   " + %" PRId64,
                   path, model->config->max_positions, P, N);
}

bool ra_language_model_prefill(void *context, int32_t done, int32_t P)
{
    struct ra_language_model *model = context;
    ra_progress_show(&model->progress, "prefill", (uint64_t)done, (uint64_t)P);
    return !ra_interrupt_requested();
}
