/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows of layer_step. They come layer by layer, while the table is ordered by step: put in one by
 * one, each would land on another page. So a batch's rows wait in memory, are sorted by key, and go
 * in by many at a time; a statement a row costs about as much as the row.
 */
#include "profiler/store_steps.h"

#include <sqlite3.h>
#include <stdlib.h>

#include "profiler/store_row.h"

static int compare_keys(const void *left, const void *right)
{
    const struct ra_layer_step_row *a = left, *b = right;
    if (a->run_id != b->run_id)
        return a->run_id < b->run_id ? -1 : 1;
    if (a->step != b->step)
        return a->step < b->step ? -1 : 1;
    return (a->layer > b->layer) - (a->layer < b->layer);
}

static void sort_rows(struct ra_layer_step_row *rows, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (compare_keys(&rows[i - 1], &rows[i]) > 0) {
            qsort(rows, n, sizeof *rows, compare_keys);
            return;
        }
}

static void put_values(struct ra_row *row, const struct ra_layer_step_row *step)
{
    ra_row_int(row, step->run_id);
    ra_row_int(row, step->step);
    ra_row_int(row, step->layer);
    ra_row_int(row, step->is_full);
    ra_row_int(row, step->keys_read);
    ra_row_int(row, step->kv_read_bytes);
    ra_row_int(row, step->kv_write_bytes);
    ra_row_int(row, step->refresh_entries);
    ra_row_int(row, step->refresh_bytes);
    ra_row_int(row, step->selection_bytes);
    ra_row_real(row, step->mass_recovered_mean);
    ra_row_real(row, step->mass_recovered_min);
    ra_row_real(row, step->output_rel_err_mean);
    ra_row_real(row, step->output_rel_err_max);
    ra_row_real(row, step->topk_recall);
    ra_row_real(row, step->refresh_overlap);
    ra_row_real(row, step->query_cosine);
}

/* Rows from `from` on by one statement; *n are dealt with, the refused one included. */
static enum ra_status write_some(struct ra_store *store, size_t from, size_t *n,
                                 struct ra_error *err)
{
    struct ra_row row;
    bool many = store->n_steps - from >= RA_SQL_MANY;
    *n = many ? RA_SQL_MANY : 1;
    RA_TRY(ra_row_begin(store, many ? RA_SQL_LAYER_STEPS : RA_SQL_LAYER_STEP, &row, err));
    for (size_t i = 0; i < *n; i++)
        put_values(&row, &store->steps[from + i]);
    enum ra_status status = ra_row_run(&row, err);
    /* The statement stops at a refused row and keeps the rows before it. */
    if (status != RA_OK)
        *n = (size_t)sqlite3_changes(store->db) + 1;
    return status;
}

enum ra_status ra_store_steps_write(struct ra_store *store, struct ra_error *err)
{
    enum ra_status first = RA_OK;
    sort_rows(store->steps, store->n_steps);
    for (size_t from = 0, n = 0; from < store->n_steps; from += n) {
        enum ra_status status = write_some(store, from, &n, first == RA_OK ? err : NULL);
        if (store->lost_rows)
            return status;
        first = first == RA_OK ? status : first;
    }
    store->n_steps = 0;
    return first;
}

enum ra_status ra_store_layer_step(struct ra_store *store, const struct ra_layer_step_row *step,
                                   struct ra_error *err)
{
    RA_TRY(ra_row_allowed(store, err));
    if (!store->steps)
        store->steps = calloc(RA_BATCH_ROWS, sizeof *store->steps);
    if (!store->steps)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for %d rows", store->path, RA_BATCH_ROWS);
    ra_row_start_batch(store);
    store->steps[store->n_steps++] = *step;
    return ra_row_count(store, err);
}

enum ra_status ra_store_member_step(struct ra_store *store, const struct ra_layer_step_row *step,
                                    int member, int32_t visible, struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_MEMBER_STEP, &row, err));
    ra_row_int(&row, step->run_id);
    ra_row_int(&row, member);
    ra_row_int(&row, step->step);
    ra_row_int(&row, step->layer);
    ra_row_int(&row, visible);
    ra_row_int(&row, step->is_full);
    ra_row_int(&row, step->keys_read);
    ra_row_int(&row, step->kv_read_bytes);
    ra_row_int(&row, step->kv_write_bytes);
    ra_row_int(&row, step->refresh_entries);
    ra_row_int(&row, step->refresh_bytes);
    ra_row_int(&row, step->selection_bytes);
    ra_row_real(&row, step->refresh_overlap);
    ra_row_real(&row, step->query_cosine);
    return ra_row_write(&row, err);
}
