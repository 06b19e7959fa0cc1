/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each table is made, and filled by a query over the store. Columns are those of schema 3.24 that a
 * pass can fill; Nsight Systems packs process and thread into one number, process * 2^24 + thread.
 */
#include "profiler/export_nsys.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "profiler/store_internal.h"

struct table {
    const char *name, *columns, *select; /* ?1: the pass */
};

/* Scopes do not say on which thread they ran: on the one that made most calls. */
#define RANGE_THREAD                                                                               \
    "(r.pid << 24) + coalesce((SELECT thread_id & 0xffffff FROM api_call WHERE pass_id = ?1"       \
    " GROUP BY thread_id ORDER BY count(*) DESC, thread_id LIMIT 1), r.pid & 0xffffff)"

#define OF_PASS                                                                                    \
    " JOIN pass p ON p.id = ?1 JOIN run r ON r.id = p.run_id LEFT JOIN device d ON d.id ="         \
    " p.device_id"

static const struct table tables[] = {
    {"StringIds", "id INTEGER NOT NULL PRIMARY KEY, value TEXT",
     "SELECT id, value FROM string_ids ORDER BY id"},
    {"CUPTI_ACTIVITY_KIND_KERNEL",
     "start INTEGER, \"end\" INTEGER, deviceId INTEGER, contextId INTEGER, streamId INTEGER,"
     " correlationId INTEGER, globalPid INTEGER, demangledName INTEGER NOT NULL,"
     " shortName INTEGER NOT NULL, mangledName INTEGER, registersPerThread INTEGER,"
     " gridX INTEGER, gridY INTEGER, gridZ INTEGER, blockX INTEGER, blockY INTEGER,"
     " blockZ INTEGER, staticSharedMemory INTEGER, dynamicSharedMemory INTEGER,"
     " localMemoryTotal INTEGER, sharedMemoryExecuted INTEGER, graphId INTEGER,"
     " graphNodeId INTEGER",
     "SELECT k.start_ns, k.end_ns, d.ordinal, k.context_id, k.stream_id, k.correlation_id,"
     " r.pid << 24, k.name_id, k.name_id, k.mangled_id, k.registers, k.grid_x, k.grid_y, k.grid_z,"
     " k.block_x, k.block_y, k.block_z, k.smem_static_bytes, k.smem_dynamic_bytes,"
     " k.local_total_bytes, k.smem_executed_bytes, k.graph_id, k.graph_node_id"
     " FROM kernel k" OF_PASS " WHERE k.pass_id = ?1 ORDER BY k.start_ns, k.id"},
    {"CUPTI_ACTIVITY_KIND_RUNTIME",
     "start INTEGER, \"end\" INTEGER, eventClass INTEGER, globalTid INTEGER,"
     " correlationId INTEGER, nameId INTEGER, returnValue INTEGER, callchainId INTEGER",
     "SELECT a.start_ns, a.end_ns, a.domain = 'driver', (r.pid << 24) + (a.thread_id & 0xffffff),"
     " a.correlation_id, a.name_id, a.result, NULL FROM api_call a" OF_PASS
     " WHERE a.pass_id = ?1 ORDER BY a.start_ns, a.id"},
    {"CUPTI_ACTIVITY_KIND_MEMCPY",
     "start INTEGER, \"end\" INTEGER, deviceId INTEGER, contextId INTEGER, streamId INTEGER,"
     " correlationId INTEGER, globalPid INTEGER, bytes INTEGER NOT NULL, copyKind INTEGER",
     "SELECT m.start_ns, m.end_ns, d.ordinal, NULL, m.stream_id, m.correlation_id, r.pid << 24,"
     " m.bytes, m.copy_kind FROM memop m" OF_PASS
     " WHERE m.pass_id = ?1 AND m.op = 'memcpy' ORDER BY m.start_ns, m.id"},
    {"CUPTI_ACTIVITY_KIND_MEMSET",
     "start INTEGER, \"end\" INTEGER, deviceId INTEGER, contextId INTEGER, streamId INTEGER,"
     " correlationId INTEGER, globalPid INTEGER, value INTEGER, bytes INTEGER NOT NULL",
     "SELECT m.start_ns, m.end_ns, d.ordinal, NULL, m.stream_id, m.correlation_id, r.pid << 24,"
     " NULL, m.bytes FROM memop m" OF_PASS
     " WHERE m.pass_id = ?1 AND m.op = 'memset' ORDER BY m.start_ns, m.id"},
    {"ENUM_CUDA_MEMCPY_OPER", "id INTEGER NOT NULL PRIMARY KEY, name TEXT, label TEXT",
     "VALUES (0, 'CUDA_MEMCPY_KIND_UNKNOWN', 'Unknown'), (1, 'CUDA_MEMCPY_KIND_HTOD',"
     " 'Host-to-Device'), (2, 'CUDA_MEMCPY_KIND_DTOH', 'Device-to-Host'), (8,"
     " 'CUDA_MEMCPY_KIND_DTOD', 'Device-to-Device'), (9, 'CUDA_MEMCPY_KIND_HTOH',"
     " 'Host-to-Host'), (10, 'CUDA_MEMCPY_KIND_PTOP', 'Peer-to-Peer')"},
    /* As the store's view has them: host times moved to the clock of the kernels. */
    {"NVTX_EVENTS",
     "start INTEGER NOT NULL, \"end\" INTEGER, eventType INTEGER NOT NULL, rangeId INTEGER,"
     " category INTEGER, color INTEGER, text TEXT, globalTid INTEGER, endGlobalTid INTEGER,"
     " textId INTEGER, domainId INTEGER",
     "SELECT e.host_start_ns + coalesce(p.t0_cupti_ns - p.t0_monotonic_ns, 0),"
     " e.host_end_ns + coalesce(p.t0_cupti_ns - p.t0_monotonic_ns, 0), 59, NULL, NULL, NULL,"
     " n.value, " RANGE_THREAD ", NULL, s.name_id, 0 FROM scope_exec e"
     " JOIN scope s ON s.id = e.scope_id JOIN string_ids n ON n.id = s.name_id" OF_PASS
     " WHERE e.pass_id = ?1 ORDER BY e.host_start_ns, s.id"},
    {"TARGET_INFO_GPU",
     "id INTEGER NOT NULL, name TEXT, l2CacheSize INTEGER, totalMemory INTEGER,"
     " clockRate INTEGER, smCount INTEGER, uuid TEXT, chipName TEXT, cuDevice INTEGER,"
     " computeMajor INTEGER, computeMinor INTEGER",
     "SELECT d.ordinal, d.name, d.l2_bytes, d.mem_bytes, d.sm_clock_khz * 1000, d.sm_count,"
     " d.uuid, d.chip, d.ordinal, d.cc_major, d.cc_minor FROM pass p JOIN device d"
     " ON d.id = p.device_id WHERE p.id = ?1"},
    {"META_DATA_EXPORT", "name TEXT NOT NULL, value TEXT",
     "VALUES ('EXPORTED_BY', 'rattn-sim " RA_VERSION "'), ('EXPORT_SCHEMA_VERSION', '3.24.14'),"
     " ('EXPORT_SCHEMA_VERSION_MAJOR', '3'), ('EXPORT_SCHEMA_VERSION_MINOR', '24'),"
     " ('EXPORT_SCHEMA_VERSION_MICRO', '14') UNION ALL"
     " SELECT 'RATTN_RUN_UUID', r.uuid FROM pass p JOIN run r ON r.id = p.run_id WHERE p.id = ?1"
     " UNION ALL SELECT 'RATTN_PASS', CAST(ordinal AS TEXT) FROM pass WHERE id = ?1"},
};
enum { N_TABLES = sizeof tables / sizeof tables[0] };

/* What queries join by; Nsight Systems leaves it to the reader. */
static const char indexes[] =
    "CREATE INDEX rattn_kernel ON CUPTI_ACTIVITY_KIND_KERNEL(correlationId);"
    "CREATE INDEX rattn_runtime ON CUPTI_ACTIVITY_KIND_RUNTIME(correlationId);"
    "CREATE INDEX rattn_range ON NVTX_EVENTS(start)";

static const char has_mark[] =
    "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'META_DATA_EXPORT'";
static const char is_ours[] = "SELECT 1 FROM META_DATA_EXPORT WHERE name = 'EXPORTED_BY' AND value"
                              " LIKE 'rattn-sim %'";

static bool is_true(struct sqlite3 *db, const char *path, const char *sql)
{
    int64_t found = 0;
    return ra_store_sql_int(db, path, sql, 0, &found, NULL) == RA_OK && found == 1;
}

/* Whether the file may be replaced: it is not there, or an earlier export. */
static bool is_replaceable(const char *path)
{
    struct stat info;
    struct sqlite3 *db = NULL;
    if (lstat(path, &info) != 0)
        return true;
    if (!S_ISREG(info.st_mode))
        return false;
    char *name = sqlite3_mprintf("%s%s", *path == '/' ? "" : "./", path);
    bool is_export = name && sqlite3_open_v2(name, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK &&
                     is_true(db, path, has_mark) && is_true(db, path, is_ours);
    sqlite3_close(db);
    sqlite3_free(name);
    return is_export;
}

/* A statement that puts in a row of as many values as the query gives; caller finalises. */
static enum ra_status prepare_insert(struct sqlite3 *target, const char *path,
                                     const struct table *table, int n, struct sqlite3_stmt **insert,
                                     struct ra_error *err)
{
    char marks[128] = "?";
    RA_BUG_ON(n < 1 || 2 * (size_t)n > sizeof marks);
    for (size_t i = 1; i < (size_t)n; i++)
        memcpy(marks + 2 * i - 1, ",?", sizeof ",?");
    char *sql = sqlite3_mprintf("INSERT INTO %s VALUES(%s)", table->name, marks);
    int rc = sql ? sqlite3_prepare_v2(target, sql, -1, insert, NULL) : SQLITE_NOMEM;
    sqlite3_free(sql);
    if (rc == SQLITE_NOMEM)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for its rows", path);
    return rc == SQLITE_OK ? RA_OK : ra_store_sql_fail(target, path, "cannot be written", err);
}

static enum ra_status copy_rows(struct ra_store *store, struct sqlite3_stmt *rows,
                                struct sqlite3 *target, struct sqlite3_stmt *insert,
                                const char *path, struct ra_error *err)
{
    int rc, n = sqlite3_column_count(rows);
    while ((rc = sqlite3_step(rows)) == SQLITE_ROW) {
        int bad = 0;
        for (int i = 0; i < n; i++)
            bad |= sqlite3_bind_value(insert, i + 1, sqlite3_column_value(rows, i));
        if (bad || sqlite3_step(insert) != SQLITE_DONE)
            return ra_store_sql_fail(target, path, "cannot be written", err);
        sqlite3_reset(insert);
    }
    return rc == SQLITE_DONE ? RA_OK
                             : ra_store_sql_fail(store->db, store->path, "cannot be read", err);
}

static enum ra_status fill(struct ra_store *store, int64_t pass_id, const struct table *table,
                           struct sqlite3 *target, const char *path, struct ra_error *err)
{
    struct sqlite3_stmt *rows = NULL, *insert = NULL;
    char *create = sqlite3_mprintf("CREATE TABLE %s(%s)", table->name, table->columns);
    enum ra_status status = RA_OK;
    if (!create)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for its tables", path);
    status = ra_store_sql_exec(target, path, "cannot be written", create, err);
    sqlite3_free(create);
    if (status == RA_OK &&
        (sqlite3_prepare_v2(store->db, table->select, -1, &rows, NULL) != SQLITE_OK ||
         (sqlite3_bind_parameter_count(rows) > 0 &&
          sqlite3_bind_int64(rows, 1, pass_id) != SQLITE_OK)))
        status = ra_store_sql_fail(store->db, store->path, "cannot be read", err);
    if (status == RA_OK)
        status = prepare_insert(target, path, table, sqlite3_column_count(rows), &insert, err);
    if (status == RA_OK)
        status = copy_rows(store, rows, target, insert, path, err);
    sqlite3_finalize(rows);
    sqlite3_finalize(insert);
    return status;
}

/* Until it has its name nobody reads the file: it needs no journal. */
static enum ra_status write_file(struct ra_store *store, int64_t pass_id, const char *part,
                                 const char *path, struct ra_error *err)
{
    struct sqlite3 *target = NULL;
    enum ra_status status = RA_OK;
    if (sqlite3_open_v2(part, &target, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
        SQLITE_OK)
        status = ra_store_sql_fail(target, path, "cannot be written", err);
    if (status == RA_OK)
        status =
            ra_store_sql_exec(target, path, "cannot be written",
                              "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN", err);
    for (int i = 0; i < N_TABLES && status == RA_OK; i++)
        status = fill(store, pass_id, &tables[i], target, path, err);
    if (status == RA_OK)
        status = ra_store_sql_exec(target, path, "cannot be written", indexes, err);
    if (status == RA_OK)
        status = ra_store_sql_exec(target, path, "cannot be written", "COMMIT", err);
    sqlite3_close(target);
    return status;
}

enum ra_status ra_export_nsys(struct ra_store *store, int64_t pass_id, const char *path,
                              struct ra_error *err)
{
    char *part = NULL;
    if (!is_replaceable(path))
        return ra_fail(err, RA_EUSAGE,
                       "%s: is there already and no earlier export: remove it, or name another",
                       path);
    if (asprintf(&part, "%s%s.tmp-%ld", *path == '/' ? "" : "./", path, (long)getpid()) < 0)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for its name", path);
    unlink(part);
    enum ra_status status = write_file(store, pass_id, part, path, err);
    if (status == RA_OK && rename(part, path) != 0)
        status = ra_fail(err, RA_EIO, "%s: %s", path, strerror(errno));
    if (status != RA_OK)
        unlink(part);
    free(part);
    return status;
}
