/* SPDX-License-Identifier: Apache-2.0 */
#include "profiler/store_eval.h"

#include "profiler/store_row.h"

enum ra_status ra_store_eval_result(struct ra_store *store, const struct ra_eval_result_row *result,
                                    struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_EVAL_RESULT, &row, err));
    ra_row_int(&row, result->run_id);
    ra_row_text(&row, result->task);
    ra_row_text(&row, result->metric);
    ra_row_text(&row, result->unit);
    ra_row_real(&row, result->value);
    ra_row_real(&row, result->low);
    ra_row_real(&row, result->high);
    ra_row_int(&row, result->n_samples);
    return ra_row_write(&row, err);
}

enum ra_status ra_store_eval_sample(struct ra_store *store, const struct ra_eval_sample_row *sample,
                                    struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_EVAL_SAMPLE, &row, err));
    ra_row_int(&row, sample->run_id);
    ra_row_text(&row, sample->task);
    ra_row_int(&row, sample->sample);
    ra_row_text(&row, sample->name);
    ra_row_int_or_null(&row, sample->seed, RA_EVAL_NO_SEED);
    ra_row_real(&row, sample->depth);
    ra_row_int(&row, sample->prompt_len);
    ra_row_int(&row, sample->steps);
    ra_row_real(&row, sample->nll);
    ra_row_real(&row, sample->kl);
    ra_row_int_or_null(&row, sample->correct, -1);
    ra_row_real(&row, sample->hits);
    ra_row_real(&row, sample->margin);
    return ra_row_write(&row, err);
}
