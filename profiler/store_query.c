/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the store: runs, by id or by the beginning of a uuid, and what was counted for one. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "profiler/store_internal.h"
#include "profiler/store_steps.h"

enum { shortest_prefix = 4, uuid_length = 36, names_shown = 4 };

static enum ra_status prepare(struct ra_store *store, const char *sql,
                              struct sqlite3_stmt **statement, struct ra_error *err)
{
    RA_TRY(ra_store_steps_write(store, err));
    if (sqlite3_prepare_v2(store->db, sql, -1, statement, NULL) != SQLITE_OK)
        return ra_store_sql_fail(store->db, store->path, "cannot be read", err);
    return RA_OK;
}

static const char *text(struct sqlite3_stmt *statement, int column)
{
    return (const char *)sqlite3_column_text(statement, column);
}

static double real_or_nan(struct sqlite3_stmt *statement, int column)
{
    return sqlite3_column_type(statement, column) == SQLITE_NULL
               ? NAN
               : sqlite3_column_double(statement, column);
}

static enum ra_status id_exists(struct ra_store *store, int64_t id, bool *exists,
                                struct ra_error *err)
{
    struct sqlite3_stmt *find = NULL;
    RA_TRY(prepare(store, "SELECT 1 FROM run WHERE id = ?", &find, err));
    sqlite3_bind_int64(find, 1, id);
    int rc = sqlite3_step(find);
    *exists = rc == SQLITE_ROW;
    enum ra_status status = RA_OK;
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        status = ra_store_sql_fail(store->db, store->path, "cannot be read", err);
    sqlite3_finalize(find);
    return status;
}

/* Lower-case copy; false when it cannot be the beginning of a uuid. */
static bool is_prefix(const char *which, char prefix[uuid_length + 1])
{
    size_t length = strlen(which);
    if (length < shortest_prefix || length > uuid_length)
        return false;
    for (size_t i = 0; i <= length; i++)
        prefix[i] = (char)tolower((unsigned char)which[i]);
    return strspn(prefix, "0123456789abcdef-") == length;
}

/* The runs whose uuid begins so: their number, the first id, and their names for a message. */
static enum ra_status match_prefix(struct ra_store *store, const char *prefix, int *n_found,
                                   int64_t *id, char *names, size_t names_size,
                                   struct ra_error *err)
{
    struct sqlite3_stmt *find = NULL;
    RA_TRY(prepare(store,
                   "SELECT id, uuid FROM run WHERE substr(uuid, 1, length(?1)) = ?1 ORDER BY id",
                   &find, err));
    sqlite3_bind_text(find, 1, prefix, -1, SQLITE_STATIC);
    int rc;
    size_t used = 0;
    for (*n_found = 0; (rc = sqlite3_step(find)) == SQLITE_ROW; ++*n_found) {
        if (*n_found == 0)
            *id = sqlite3_column_int64(find, 0);
        if (*n_found < names_shown)
            used += (size_t)snprintf(names + used, names_size - used, "%s%lld (%.36s)",
                                     *n_found ? ", " : "", sqlite3_column_int64(find, 0),
                                     text(find, 1));
    }
    enum ra_status status = RA_OK;
    if (rc != SQLITE_DONE)
        status = ra_store_sql_fail(store->db, store->path, "cannot be read", err);
    sqlite3_finalize(find);
    return status;
}

/* An id wins over the prefix of a uuid that is spelled the same. */
static enum ra_status resolve(struct ra_store *store, const char *which, int64_t *id,
                              struct ra_error *err)
{
    char *end = NULL;
    errno = 0;
    long long number = strtoll(which, &end, 10);
    if (isdigit((unsigned char)which[0]) && *end == '\0' && errno == 0) {
        bool exists = false;
        RA_TRY(id_exists(store, number, &exists, err));
        *id = number;
        if (exists)
            return RA_OK;
    }
    char prefix[uuid_length + 1];
    char names[names_shown * (uuid_length + 26)] = "";
    int n_found = 0;
    if (is_prefix(which, prefix))
        RA_TRY(match_prefix(store, prefix, &n_found, id, names, sizeof names, err));
    if (n_found == 1)
        return RA_OK;
    if (n_found == 0)
        return ra_fail(err, RA_EUSAGE,
                       "%s: no run '%s': expected an id or at least %d characters of a uuid",
                       store->path, which, shortest_prefix);
    return ra_fail(err, RA_EUSAGE, "%s: run '%s' is not unique: %s%s", store->path, which, names,
                   n_found > names_shown ? ", ..." : "");
}

static const char list_sql[] =
    "SELECT r.id, r.uuid, r.state, r.kind, p.canonical, r.trace_path, r.trace_sha256, r.model_id,"
    " r.backend, r.device, r.method, r.fingerprint, r.output_hash, r.result_json, r.argv_json,"
    " r.command, r.invocation_uuid, r.tool_version, r.seq, r.started_unix_ns, r.ended_unix_ns,"
    " (SELECT count(*) FROM pass WHERE run_id = r.id AND state = 'complete'),"
    " (SELECT count(*) FROM layer_step WHERE run_id = r.id)"
    " FROM run r LEFT JOIN policy p ON p.id = r.policy_id"
    " WHERE ?1 IS NULL OR r.id = ?1 ORDER BY r.id";

static struct ra_run_listing listing(const struct ra_store *store, struct sqlite3_stmt *row)
{
    struct ra_run_listing run = {
        .id = sqlite3_column_int64(row, 0),
        .uuid = text(row, 1),
        .state = text(row, 2),
        .kind = text(row, 3),
        .policy = text(row, 4),
        .trace_path = text(row, 5),
        .trace_sha256 = text(row, 6),
        .model_id = text(row, 7),
        .backend = text(row, 8),
        .device = text(row, 9),
        .method = text(row, 10),
        .fingerprint = text(row, 11),
        .output_hash = text(row, 12),
        .result_json = text(row, 13),
        .argv_json = text(row, 14),
        .command = text(row, 15),
        .invocation_uuid = text(row, 16),
        .tool_version = text(row, 17),
        .seq = sqlite3_column_type(row, 18) == SQLITE_NULL ? -1 : sqlite3_column_int(row, 18),
        .started_unix_ns = sqlite3_column_int64(row, 19),
        .ended_unix_ns = sqlite3_column_int64(row, 20),
        .n_passes_complete = sqlite3_column_int64(row, 21),
        .n_layer_steps = sqlite3_column_int64(row, 22),
    };
    if (store->shows_aborted && run.state && strcmp(run.state, "running") == 0)
        run.state = ra_run_state_name(RA_RUN_ABORTED);
    return run;
}

enum ra_status ra_store_runs(struct ra_store *store, const char *which,
                             enum ra_status (*each)(void *context, const struct ra_run_listing *run,
                                                    struct ra_error *err),
                             void *context, struct ra_error *err)
{
    int64_t id = 0;
    struct sqlite3_stmt *row = NULL;
    if (which)
        RA_TRY(resolve(store, which, &id, err));
    RA_TRY(prepare(store, list_sql, &row, err));
    if (which)
        sqlite3_bind_int64(row, 1, id);
    enum ra_status status = RA_OK;
    int rc;
    while (status == RA_OK && (rc = sqlite3_step(row)) != SQLITE_DONE) {
        if (rc != SQLITE_ROW) {
            status = ra_store_sql_fail(store->db, store->path, "cannot be read", err);
            break;
        }
        struct ra_run_listing run = listing(store, row);
        /* The schema has them NOT NULL, which binds writers but not a damaged file. */
        if (!run.uuid || !run.state || !run.kind)
            status = ra_fail(err, RA_ESTORE, "%s: run %lld has no uuid, state or kind: damaged",
                             store->path, (long long)run.id);
        else
            status = each(context, &run, err);
    }
    sqlite3_finalize(row);
    return status;
}

static const char layer_steps_sql[] =
    "SELECT run_id, step, layer, is_full, keys_read, kv_read_bytes, kv_write_bytes,"
    " refresh_entries, refresh_bytes, selection_bytes, mass_recovered_mean, mass_recovered_min,"
    " output_rel_err_mean, output_rel_err_max, topk_recall, refresh_overlap, query_cosine"
    " FROM layer_step WHERE run_id = ? ORDER BY step, layer";

static struct ra_layer_step_row layer_step(struct sqlite3_stmt *row)
{
    return (struct ra_layer_step_row){
        .run_id = sqlite3_column_int64(row, 0),
        .step = sqlite3_column_int(row, 1),
        .layer = sqlite3_column_int(row, 2),
        .is_full = sqlite3_column_int(row, 3) != 0,
        .keys_read = sqlite3_column_int64(row, 4),
        .kv_read_bytes = sqlite3_column_int64(row, 5),
        .kv_write_bytes = sqlite3_column_int64(row, 6),
        .refresh_entries = sqlite3_column_int64(row, 7),
        .refresh_bytes = sqlite3_column_int64(row, 8),
        .selection_bytes = sqlite3_column_int64(row, 9),
        .mass_recovered_mean = real_or_nan(row, 10),
        .mass_recovered_min = real_or_nan(row, 11),
        .output_rel_err_mean = real_or_nan(row, 12),
        .output_rel_err_max = real_or_nan(row, 13),
        .topk_recall = real_or_nan(row, 14),
        .refresh_overlap = real_or_nan(row, 15),
        .query_cosine = real_or_nan(row, 16),
    };
}

enum ra_status ra_store_layer_steps(struct ra_store *store, int64_t run_id,
                                    enum ra_status (*each)(void *context,
                                                           const struct ra_layer_step_row *row,
                                                           struct ra_error *err),
                                    void *context, struct ra_error *err)
{
    struct sqlite3_stmt *row = NULL;
    RA_TRY(prepare(store, layer_steps_sql, &row, err));
    sqlite3_bind_int64(row, 1, run_id);
    enum ra_status status = RA_OK;
    int rc;
    while (status == RA_OK && (rc = sqlite3_step(row)) != SQLITE_DONE) {
        if (rc != SQLITE_ROW) {
            status = ra_store_sql_fail(store->db, store->path, "cannot be read", err);
            break;
        }
        struct ra_layer_step_row values = layer_step(row);
        status = each(context, &values, err);
    }
    sqlite3_finalize(row);
    return status;
}
