/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQL inside a database runs when others read or write it: a view in place of a table may have no
 * end, a trigger may undo what is stored, an expression may ask for a gigabyte. A store has plain
 * tables and nothing that acts, so whatever would is refused before the first query. Tables, plain
 * indexes and views that somebody added beside them are let be: no query here touches them.
 */
#include <sqlite3.h>

#include "profiler/store_internal.h"
#include "profiler/store_migrate.h"

/* ?1: the text of the schema, which tells the names of tables. */
static const char active_sql[] =
    "SELECT type || ' ' || name FROM sqlite_schema WHERE type = 'trigger'"
    " OR ((type = 'view' OR sql LIKE 'CREATE VIRTUAL%')"
    "     AND instr(lower(?1), 'create table ' || lower(name) || '('))"
    " UNION ALL SELECT 'index ' || i.name FROM sqlite_schema i JOIN pragma_index_list(i.tbl_name) l"
    " WHERE i.type = 'index' AND i.sql IS NOT NULL AND l.name = i.name AND (l.partial OR EXISTS"
    " (SELECT 1 FROM pragma_index_xinfo(i.name) WHERE cid = -2))"
    " UNION ALL SELECT 'column ' || m.name || '.' || x.name FROM sqlite_schema m"
    " JOIN pragma_table_xinfo(m.name) x"
    " WHERE m.type = 'table' AND m.sql LIKE 'CREATE TABLE%' AND x.hidden LIMIT 1";

enum ra_status ra_store_check_shape(struct sqlite3 *db, const char *path,
                                    const struct ra_store_schema *schema, struct ra_error *err)
{
    struct sqlite3_stmt *find = NULL;
    int rc = sqlite3_prepare_v2(db, active_sql, -1, &find, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_text(find, 1, schema->create_sql, -1, SQLITE_STATIC);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(find);
    enum ra_status status = RA_OK;
    if (rc == SQLITE_ROW)
        status =
            ra_fail(err, RA_ESTORE, "%s: %.100s: would run by itself; a store has plain tables",
                    path, (const char *)sqlite3_column_text(find, 0));
    else if (rc != SQLITE_DONE)
        status = ra_store_sql_fail(db, path, "cannot be read", err);
    sqlite3_finalize(find);
    return status;
}
