/* SPDX-License-Identifier: Apache-2.0 */
/* SQLite calls of the store that turn a result code into a message naming the file. */
#include "profiler/store_internal.h"

#include <errno.h>
#include <sqlite3.h>
#include <string.h>

/* Words for what happens to users; everything else keeps SQLite's own. */
static const char *reason(struct sqlite3 *db)
{
    if (sqlite3_extended_errcode(db) == SQLITE_IOERR_WRITE)
        return "a write failed (broken disk, or a limit of file size); what was committed before "
               "is kept";
    switch (sqlite3_errcode(db)) {
    case SQLITE_FULL:
        return "the disk is full; what was committed before is kept";
    case SQLITE_READONLY:
        return "it is read-only";
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return "another program has it locked";
    case SQLITE_NOTADB:
        return "it is not an SQLite file";
    default:
        return sqlite3_errmsg(db);
    }
}

enum ra_status ra_store_sql_fail(struct sqlite3 *db, const char *path, const char *doing,
                                 struct ra_error *err)
{
    if (!db || sqlite3_errcode(db) == SQLITE_NOMEM)
        return ra_fail(err, RA_ENOMEM, "%s: %s: out of memory", path, doing);
    int primary = sqlite3_errcode(db);
    int system = sqlite3_system_errno(db);
    if ((primary == SQLITE_CANTOPEN || primary == SQLITE_IOERR) && system != 0)
        return ra_fail(err, RA_ESTORE, "%s: %s: %s (%s)", path, doing, reason(db),
                       strerror(system));
    return ra_fail(err, RA_ESTORE, "%s: %s: %s", path, doing, reason(db));
}

enum ra_status ra_store_sql_exec(struct sqlite3 *db, const char *path, const char *doing,
                                 const char *sql, struct ra_error *err)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        return ra_store_sql_fail(db, path, doing, err);
    return RA_OK;
}

enum ra_status ra_store_sql_int(struct sqlite3 *db, const char *path, const char *sql, int64_t none,
                                int64_t *value, struct ra_error *err)
{
    struct sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(statement);
    *value = rc == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : none;
    enum ra_status status = RA_OK;
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        status = ra_store_sql_fail(db, path, "cannot be read", err);
    sqlite3_finalize(statement);
    return status;
}

void ra_store_sql_finalize(struct ra_store *store)
{
    for (int i = 0; i < RA_SQL_COUNT; i++) {
        sqlite3_finalize(store->statements[i]);
        store->statements[i] = NULL;
    }
}
