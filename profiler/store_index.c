/* SPDX-License-Identifier: Apache-2.0 */
/* The same indexes as in schema.sql, by name. */
#include "profiler/store_index.h"

#include <sqlite3.h>

#include "profiler/store_pass.h"
#include "profiler/store_row.h"

/*
 * Making an index reads every row there is, and costs a row about 0.8 of what putting it in with
 * the row costs more: bench_kernels.c. So the rows that were there must be few.
 */
enum { worth_it = 4 };

static const char make_sql[] =
    "CREATE INDEX IF NOT EXISTS kernel_scope ON kernel(pass_id, scope_id);"
    "CREATE INDEX IF NOT EXISTS kernel_corr  ON kernel(pass_id, correlation_id);"
    "CREATE INDEX IF NOT EXISTS kernel_time  ON kernel(pass_id, start_ns);"
    "CREATE INDEX IF NOT EXISTS api_corr     ON api_call(pass_id, correlation_id);";
static const char drop_sql[] =
    "DROP INDEX IF EXISTS kernel_scope; DROP INDEX IF EXISTS kernel_corr;"
    "DROP INDEX IF EXISTS kernel_time; DROP INDEX IF EXISTS api_corr;";

enum ra_status ra_store_index_make(struct sqlite3 *db, const char *path, struct ra_error *err)
{
    return ra_store_sql_exec(db, path, "its indexes cannot be made", make_sql, err);
}

enum ra_status ra_store_index_restore(struct ra_store *store, struct ra_error *err)
{
    if (!store->lacks_indexes)
        return RA_OK;
    RA_TRY(ra_row_open_batch(store, err));
    if (sqlite3_exec(store->db, make_sql, NULL, NULL, NULL) != SQLITE_OK)
        return ra_row_lose_batch(store, err);
    store->lacks_indexes = false;
    return RA_OK;
}

enum ra_status ra_store_expect_rows(struct ra_store *store, int64_t n_rows, struct ra_error *err)
{
    int64_t n_there = 0;
    RA_TRY(ra_row_allowed(store, err));
    if (store->lacks_indexes)
        return RA_OK;
    RA_TRY(ra_store_sql_int(store->db, store->path,
                            "SELECT max((SELECT coalesce(max(id), 0) FROM kernel),"
                            " (SELECT coalesce(max(id), 0) FROM api_call))",
                            0, &n_there, err));
    if (n_rows / worth_it < n_there)
        return RA_OK;
    RA_TRY(ra_row_open_batch(store, err));
    if (sqlite3_exec(store->db, drop_sql, NULL, NULL, NULL) != SQLITE_OK)
        return ra_row_lose_batch(store, err);
    store->lacks_indexes = true;
    return RA_OK;
}
