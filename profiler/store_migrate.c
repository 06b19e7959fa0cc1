/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identity and versions of a store. application_id guards against foreign files, user_version is
 * the number of the schema. Released migrations are never edited; the next one is added below.
 */
#include "profiler/store_migrate.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "profiler/store_internal.h"
#include "schema_sql.h"

enum { strict_tables_since = 3037000, max_backups = 100 };

const struct ra_store_schema *ra_store_schema_current(void)
{
    static const struct ra_migration steps[] = {
        {1, "ALTER TABLE pass ADD COLUMN launch_mode TEXT;"
            "ALTER TABLE pass ADD COLUMN launch_hash INTEGER;"
            "ALTER TABLE scope_exec ADD COLUMN launch_hash INTEGER;"},
        {2, "ALTER TABLE kernel ADD COLUMN mangled_id INTEGER REFERENCES string_ids(id);"
            "DROP VIEW IF EXISTS CUPTI_ACTIVITY_KIND_KERNEL;"
            "CREATE VIEW CUPTI_ACTIVITY_KIND_KERNEL AS "
            "SELECT k.start_ns AS start, k.end_ns AS \"end\", d.ordinal AS "
            "deviceId, k.context_id AS contextId, "
            "k.stream_id AS streamId, k.correlation_id AS correlationId, r.pid << "
            "24 AS globalPid, "
            "k.name_id AS demangledName, k.name_id AS shortName, k.mangled_id AS "
            "mangledName, "
            "k.registers AS registersPerThread, "
            "k.grid_x AS gridX, k.grid_y AS gridY, k.grid_z AS gridZ, "
            "k.block_x AS blockX, k.block_y AS blockY, k.block_z AS blockZ, "
            "k.smem_static_bytes AS staticSharedMemory, k.smem_dynamic_bytes AS "
            "dynamicSharedMemory, "
            "k.smem_executed_bytes AS sharedMemoryExecuted, k.local_total_bytes AS "
            "localMemoryTotal, "
            "k.graph_id AS graphId, k.graph_node_id AS graphNodeId "
            "FROM kernel k JOIN pass p ON p.id = k.pass_id JOIN run r ON r.id = "
            "p.run_id LEFT JOIN device d ON d.id = p.device_id "
            "WHERE p.id = (SELECT max(id) FROM pass WHERE mode = 'timing' AND "
            "state = 'complete');"
            "CREATE TABLE member_step( run_id INTEGER NOT NULL REFERENCES run(id), "
            "member INTEGER NOT NULL CHECK(member > 0), step INTEGER NOT NULL, layer "
            "INTEGER NOT NULL, visible_tokens INTEGER NOT NULL, is_full INTEGER NOT "
            "NULL CHECK(is_full IN(0,1)), keys_read INTEGER NOT NULL, kv_read_bytes "
            "INTEGER NOT NULL, kv_write_bytes INTEGER NOT NULL, refresh_entries "
            "INTEGER NOT NULL, refresh_bytes INTEGER NOT NULL, selection_bytes "
            "INTEGER NOT NULL, refresh_overlap REAL, query_cosine REAL, PRIMARY "
            "KEY(run_id, step, member, layer)) STRICT, WITHOUT ROWID;"},
        {3,
         "CREATE TABLE eval_sample( run_id INTEGER NOT NULL REFERENCES run(id), task TEXT NOT "
         "NULL, sample INTEGER NOT NULL, name TEXT NOT NULL, seed INTEGER, depth REAL, "
         "prompt_len INTEGER NOT NULL, steps INTEGER NOT NULL, nll REAL, kl REAL, correct INTEGER "
         "CHECK(correct IN(0,1)), hits REAL, margin REAL, PRIMARY KEY(run_id, task, sample)) "
         "STRICT, WITHOUT ROWID;"}};
    static const struct ra_store_schema current = {.version = 4,
                                                   .create_sql = ra_schema_sql,
                                                   .steps = steps,
                                                   .n_steps = sizeof steps / sizeof *steps};
    return &current;
}

enum ra_status ra_store_check_library(int version, struct ra_error *err)
{
    if (version >= strict_tables_since)
        return RA_OK;
    return ra_fail(err, RA_ESTORE, "sqlite: need 3.37.0 or newer, this is %d.%d.%d",
                   version / 1000000, version / 1000 % 1000, version % 1000);
}

/* An id as four letters where it is that, such as 'GPKG'. */
static void spell_id(int64_t id, char text[8])
{
    text[0] = '\0';
    char letters[5] = {(char)(id >> 24 & 127), (char)(id >> 16 & 127), (char)(id >> 8 & 127),
                       (char)(id & 127), '\0'};
    for (int i = 0; i < 4; i++)
        if (letters[i] < ' ' || letters[i] > '~')
            return;
    snprintf(text, 8, " '%s'", letters);
}

enum ra_status ra_store_identify(struct sqlite3 *db, const char *path,
                                 const struct ra_store_schema *schema, enum ra_store_age *age,
                                 struct ra_error *err)
{
    int64_t application = 0, version = 0, n_objects = 0;
    RA_TRY(ra_store_sql_int(db, path, "SELECT count(*) FROM sqlite_schema", 0, &n_objects, err));
    RA_TRY(ra_store_sql_int(db, path, "PRAGMA application_id", 0, &application, err));
    RA_TRY(ra_store_sql_int(db, path, "PRAGMA user_version", 0, &version, err));
    if (application == 0 && version == 0 && n_objects == 0) {
        *age = RA_STORE_EMPTY;
        return RA_OK;
    }
    if (application != RA_STORE_APPLICATION_ID) {
        char spelled[8];
        spell_id(application, spelled);
        return ra_fail(err, RA_ESTORE,
                       "%s: a database of another application: application_id %lld%s, a store has "
                       "%d 'RATT'",
                       path, (long long)application, spelled, RA_STORE_APPLICATION_ID);
    }
    if (version > schema->version)
        return ra_fail(err, RA_ESTORE, "%s: schema %lld is newer than this program, which knows %d",
                       path, (long long)version, schema->version);
    *age = version == schema->version ? RA_STORE_CURRENT : RA_STORE_OLDER;
    return ra_store_check_shape(db, path, schema, err);
}

enum ra_status ra_store_create(struct sqlite3 *db, const char *path,
                               const struct ra_store_schema *schema, struct ra_error *err)
{
    RA_TRY(ra_store_sql_exec(db, path, "cannot be written", "BEGIN IMMEDIATE", err));
    enum ra_status status =
        ra_store_sql_exec(db, path, "its tables cannot be made", schema->create_sql, err);
    if (status == RA_OK)
        status = ra_store_sql_exec(db, path, "its tables cannot be made", "COMMIT", err);
    if (status != RA_OK && !sqlite3_get_autocommit(db))
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

static const struct ra_migration *step_from(const struct ra_store_schema *schema, int64_t version)
{
    for (size_t i = 0; i < schema->n_steps; i++)
        if (schema->steps[i].from == version)
            return &schema->steps[i];
    return NULL;
}

/* The first free name PATH.vN.bak, PATH.vN.bak.1, ...; caller frees. */
static char *backup_name(const char *path, int64_t version)
{
    char *name = NULL;
    if (asprintf(&name, "%s.v%lld.bak", path, (long long)version) < 0)
        return NULL;
    for (int i = 1; i < max_backups && access(name, F_OK) == 0; i++) {
        free(name);
        if (asprintf(&name, "%s.v%lld.bak.%d", path, (long long)version, i) < 0)
            return NULL;
    }
    return name;
}

/* Copied under another name first: an interrupted copy never looks like a backup. */
static enum ra_status write_backup(struct sqlite3 *db, const char *path, const char *backup,
                                   struct ra_error *err)
{
    char *part = NULL;
    if (asprintf(&part, "%s.part", backup) < 0)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for the name of its backup", path);
    unlink(part);
    enum ra_status status = RA_OK;
    char *sql = sqlite3_mprintf("VACUUM INTO %Q", part);
    if (!sql)
        status = ra_fail(err, RA_ENOMEM, "%s: no memory for its backup", path);
    else
        status = ra_store_sql_exec(db, path, "no backup before the migration", sql, err);
    sqlite3_free(sql);
    if (status == RA_OK && rename(part, backup) != 0)
        status = ra_fail(err, RA_ESTORE, "%s: no backup before the migration: %s: %s", path, backup,
                         strerror(errno));
    if (status != RA_OK)
        unlink(part);
    free(part);
    return status;
}

static enum ra_status apply(struct sqlite3 *db, const char *path, const struct ra_migration *step,
                            struct ra_error *err)
{
    char set_version[64];
    snprintf(set_version, sizeof set_version, "PRAGMA user_version = %d", step->from + 1);
    RA_TRY(ra_store_sql_exec(db, path, "cannot be written", "BEGIN IMMEDIATE", err));
    int64_t dangling = 0;
    enum ra_status status = ra_store_sql_exec(db, path, "statement refused", step->sql, err);
    if (status == RA_OK)
        status = ra_store_sql_int(db, path, "SELECT count(*) FROM pragma_foreign_key_check", 0,
                                  &dangling, err);
    if (status == RA_OK && dangling > 0)
        status =
            ra_fail(err, RA_ESTORE, "%s: %lld references would dangle", path, (long long)dangling);
    if (status == RA_OK)
        status = ra_store_sql_exec(db, path, "cannot be written", set_version, err);
    if (status == RA_OK)
        status = ra_store_sql_exec(db, path, "cannot be written", "COMMIT", err);
    if (status == RA_OK)
        return RA_OK;
    if (!sqlite3_get_autocommit(db))
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return ra_fail_context(err, status, "migration from schema %d to %d undone", step->from,
                           step->from + 1);
}

enum ra_status ra_store_migrate(struct sqlite3 *db, const char *path,
                                const struct ra_store_schema *schema, struct ra_error *err)
{
    int64_t from = 0;
    RA_TRY(ra_store_sql_int(db, path, "PRAGMA user_version", 0, &from, err));
    for (int64_t version = from; version < schema->version; version++)
        if (!step_from(schema, version))
            return ra_fail(err, RA_ESTORE, "%s: no migration from schema %lld to %lld", path,
                           (long long)version, (long long)version + 1);
    char *backup = backup_name(path, from);
    if (!backup)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for the name of its backup", path);
    enum ra_status status = write_backup(db, path, backup, err);
    bool has_backup = status == RA_OK;
    int64_t version = from;
    if (status == RA_OK)
        status = ra_store_sql_exec(db, path, "cannot be migrated", "PRAGMA foreign_keys = ON", err);
    while (status == RA_OK && version < schema->version) {
        status = apply(db, path, step_from(schema, version), err);
        if (status == RA_OK)
            version++;
    }
    if (has_backup && version == from)
        unlink(backup);
    free(backup);
    sqlite3_exec(db, "PRAGMA foreign_keys = OFF", NULL, NULL, NULL);
    return status;
}
