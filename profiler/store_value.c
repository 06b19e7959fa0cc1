/* SPDX-License-Identifier: Apache-2.0 */
/* Counted values: what a pass counts, the metrics it has values of, and the values. */
#include "profiler/store_row.h"

enum ra_status ra_store_pass_metrics(struct ra_store *store, int64_t pass_id,
                                     const char *metric_set, struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_PASS_METRICS, &row, err));
    ra_row_text(&row, metric_set);
    ra_row_int(&row, pass_id);
    return ra_row_write(&row, err);
}

enum ra_status ra_store_metric(struct ra_store *store, const struct ra_metric_row *metric,
                               int64_t *metric_id, struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_METRIC_FIND, &row, err));
    ra_row_text(&row, metric->name);
    ra_row_text(&row, metric->chip);
    RA_TRY(ra_row_find(&row, metric_id, err));
    if (*metric_id != 0)
        return RA_OK;
    RA_TRY(ra_row_begin(store, RA_SQL_METRIC_ADD, &row, err));
    ra_row_text(&row, metric->name);
    ra_row_text(&row, metric->chip);
    ra_row_text(&row, metric->counter);
    ra_row_text(&row, metric->hw_unit);
    ra_row_text(&row, metric->unit);
    ra_row_int(&row, metric->is_additive);
    return ra_row_add(&row, metric_id, err);
}

enum ra_status ra_store_value(struct ra_store *store, const struct ra_value_row *value,
                              struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_METRIC_VALUE, &row, err));
    ra_row_int(&row, value->pass_id);
    ra_row_int(&row, value->scope_id);
    ra_row_int(&row, value->metric_id);
    ra_row_real(&row, value->value);
    return ra_row_write(&row, err);
}
