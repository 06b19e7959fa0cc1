/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the store by query: rows as text, for figures, whose definition is their query. Only
 * statements that cannot write are run.
 */
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/store_internal.h"
#include "profiler/store_steps.h"

static enum ra_status read_rows(struct ra_store *store, struct sqlite3_stmt *statement,
                                const char **cells, ra_store_cells_fn each, void *context,
                                struct ra_error *err)
{
    RA_BUG_ON(!cells);
    struct ra_store_cells row = {sqlite3_column_count(statement), cells, cells};
    row.text = cells + row.n;
    for (int i = 0; i < row.n; i++)
        cells[i] = sqlite3_column_name(statement, i);
    int rc;
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
        for (int i = 0; i < row.n; i++)
            cells[row.n + i] = (const char *)sqlite3_column_text(statement, i);
        RA_TRY(each(context, &row, err));
    }
    if (rc != SQLITE_DONE)
        return ra_store_sql_fail(store->db, store->path, "cannot be read", err);
    return RA_OK;
}

enum ra_status ra_store_select(struct ra_store *store, const char **sql, const char *runs,
                               ra_store_cells_fn each, void *context, struct ra_error *err)
{
    struct sqlite3_stmt *statement = NULL;
    RA_TRY(ra_store_steps_write(store, err));
    if (sqlite3_prepare_v2(store->db, *sql, -1, &statement, sql) != SQLITE_OK)
        return ra_store_sql_fail(store->db, store->path, "cannot be queried", err);
    if (!statement)
        return RA_END;
    enum ra_status status = RA_OK;
    const char **cells = NULL;
    int index = sqlite3_bind_parameter_index(statement, ":runs");
    if (!sqlite3_stmt_readonly(statement))
        status = ra_fail(err, RA_ESTORE, "%s: the query would write", store->path);
    else if (index > 0 && sqlite3_bind_text(statement, index, runs, -1, SQLITE_STATIC) != SQLITE_OK)
        status = ra_store_sql_fail(store->db, store->path, "cannot be queried", err);
    else if (!(cells = calloc((size_t)sqlite3_column_count(statement) * 2 + 1, sizeof *cells)))
        status = ra_fail(err, RA_ENOMEM, "%s: no memory for a row", store->path);
    if (status == RA_OK)
        status = read_rows(store, statement, cells, each, context, err);
    free((void *)cells);
    sqlite3_finalize(statement);
    return status;
}
