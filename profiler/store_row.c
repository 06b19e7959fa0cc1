/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Statements and batches of the store's writer. A batch that cannot be written is rolled back as a
 * whole, and from then on nothing of this store may become complete.
 */
#include "profiler/store_row.h"

#include <assert.h>
#include <math.h>
#include <sqlite3.h>
#include <string.h>

#include "profiler/clock.h"
#include "profiler/store_names.h"
#include "profiler/store_steps.h"

static const uint64_t batch_ns = 500000000;

/*
 * OR FAIL: a refused row keeps those before it in the same statement, which then needs no copy of
 * every page it touches to be undone by.
 */
#define LAYER_STEP_INTO                                                                            \
    "INSERT OR FAIL INTO layer_step(run_id, step, layer, is_full, keys_read, kv_read_bytes,"       \
    " kv_write_bytes, refresh_entries, refresh_bytes, selection_bytes, mass_recovered_mean,"       \
    " mass_recovered_min, output_rel_err_mean, output_rel_err_max, topk_recall, refresh_overlap,"  \
    " query_cosine) VALUES"
#define LAYER_STEP_MARKS "(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
#define FOUR(row) row "," row "," row "," row
static_assert(RA_SQL_MANY == 4 * 4 * 4, "as many rows as RA_SQL_LAYER_STEPS spells");

static const char *const sql[RA_SQL_COUNT] = {
    [RA_SQL_POLICY_FIND] = "SELECT id FROM policy WHERE canonical = ?",
    [RA_SQL_POLICY_ADD] = "INSERT INTO policy(canonical, name, params_json) VALUES(?,?,?)",
    [RA_SQL_RUN_ADD] =
        "INSERT INTO run(uuid, state, started_unix_ns, pid, boot_id, tool_version, trace_sha256,"
        " config_json, invocation_uuid, command, argv_json, kind, policy_id, trace_path, seq,"
        " model_id, backend, device, scores, cache, dtype, method, launch_mode, seed,"
        " schedule_of_trace)"
        " VALUES(?,'running',?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [RA_SQL_RUN_TRACE] = "UPDATE run SET trace_sha256 = ? WHERE id = ?",
    [RA_SQL_RUN_END] = "UPDATE run SET state = ?, ended_unix_ns = ?, fingerprint = ?,"
                       " output_hash = ?, result_json = ? WHERE id = ?",
    [RA_SQL_RUN_END_PASSES] =
        "UPDATE pass SET state = 'aborted' WHERE run_id = ? AND state = 'running'",
    [RA_SQL_PASS_ADD] = "INSERT INTO pass(run_id, ordinal, mode, state, t0_realtime_ns,"
                        " t0_monotonic_ns) VALUES(?,?,?,'running',?,?)",
    [RA_SQL_PASS_END] = "UPDATE pass SET state = ?, t1_realtime_ns = coalesce(t1_realtime_ns, ?),"
                        " t1_monotonic_ns = coalesce(t1_monotonic_ns, ?) WHERE id = ?",
    [RA_SQL_STRING_FIND] = "SELECT id FROM string_ids WHERE value = ?",
    [RA_SQL_STRING_ADD] = "INSERT INTO string_ids(value) VALUES(?)",
    [RA_SQL_SCOPE_FIND] = "SELECT id FROM scope WHERE run_id = ? AND kind = ? AND step IS ?"
                          " AND layer IS ? AND name_id = ?",
    [RA_SQL_SCOPE_ADD] = "INSERT INTO scope(run_id, kind, step, layer, name_id, parent_id)"
                         " VALUES(?,?,?,?,?,?)",
    [RA_SQL_SCOPE_EXEC] = "INSERT INTO scope_exec(pass_id, scope_id, host_start_ns, host_end_ns,"
                          " event_us, output_hash, launch_hash) VALUES(?,?,?,?,?,?,?)",
    [RA_SQL_PASS_LAUNCHES] = "UPDATE pass SET launch_mode = ?, launch_hash = ? WHERE id = ?",
    [RA_SQL_PASS_METRICS] = "UPDATE pass SET metric_set = ? WHERE id = ?",
    [RA_SQL_PASS_RANGES] = "UPDATE pass SET range_mode = ?, replay_mode = ? WHERE id = ?",
    [RA_SQL_METRIC_FIND] = "SELECT id FROM metric_def WHERE name = ? AND chip = ?",
    [RA_SQL_METRIC_ADD] = "INSERT INTO metric_def(name, chip, cupti_name, hw_unit, unit, additive)"
                          " VALUES(?,?,?,?,?,?)",
    [RA_SQL_METRIC_VALUE] =
        "INSERT INTO metric_value(pass_id, scope_id, metric_id, value) VALUES(?,?,?,?)",
    [RA_SQL_LAYER_STEP] = LAYER_STEP_INTO LAYER_STEP_MARKS,
    [RA_SQL_LAYER_STEPS] = LAYER_STEP_INTO FOUR(FOUR(FOUR(LAYER_STEP_MARKS))),
    [RA_SQL_MEMBER_STEP] =
        "INSERT INTO member_step(run_id, member, step, layer, visible_tokens, is_full, keys_read,"
        " kv_read_bytes, kv_write_bytes, refresh_entries, refresh_bytes, selection_bytes,"
        " refresh_overlap, query_cosine) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [RA_SQL_RETAINED] = "INSERT INTO retained(run_id, layer, head, pos, first_step, last_step)"
                        " VALUES(?,?,?,?,?,?)",
    [RA_SQL_EVAL_RESULT] = "INSERT INTO eval_result(run_id, task, metric, unit, value, low, high,"
                           " n_samples) VALUES(?,?,?,?,?,?,?,?)",
    [RA_SQL_EVAL_SAMPLE] =
        "INSERT INTO eval_sample(run_id, task, sample, name, seed, depth, prompt_len, steps, nll,"
        " kl, correct, hits, margin) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [RA_SQL_DIAGNOSTIC] = "INSERT INTO diagnostic(run_id, unix_ns, severity, source, message)"
                          " VALUES(?,?,?,?,?)",
    [RA_SQL_KERNEL] =
        "INSERT INTO kernel(pass_id, scope_id, correlation_id, start_ns, end_ns, context_id,"
        " stream_id, name_id, grid_x, grid_y, grid_z, block_x, block_y, block_z, cluster_x,"
        " cluster_y, cluster_z, registers, smem_static_bytes, smem_dynamic_bytes,"
        " smem_executed_bytes, local_total_bytes, graph_id, graph_node_id,"
        " mangled_id) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [RA_SQL_MEMOP] = "INSERT INTO memop(pass_id, scope_id, correlation_id, op, copy_kind, bytes,"
                     " start_ns, end_ns, stream_id) VALUES(?,?,?,?,?,?,?,?,?)",
    [RA_SQL_API_CALL] = "INSERT INTO api_call(pass_id, correlation_id, domain, cbid, name_id,"
                        " thread_id, start_ns, end_ns, result) VALUES(?,?,?,?,?,?,?,?,?)",
    [RA_SQL_OVERHEAD] = "INSERT INTO overhead(pass_id, kind, start_ns, end_ns) VALUES(?,?,?,?)",
    [RA_SQL_DEVICE_FIND] = "SELECT id FROM device WHERE run_id = ? AND ordinal = ? AND uuid = ?",
    [RA_SQL_DEVICE_ADD] =
        "INSERT INTO device(run_id, ordinal, uuid, name, chip, cc_major, cc_minor, sm_count,"
        " l2_bytes, mem_bytes, driver_version, runtime_version, cupti_version, sm_clock_khz,"
        " mem_clock_khz) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    [RA_SQL_PASS_DEVICE] = "UPDATE pass SET device_id = ? WHERE id = ?",
    [RA_SQL_PASS_T0] = "UPDATE pass SET t0_realtime_ns = ?, t0_monotonic_ns = ?, t0_cupti_ns = ?"
                       " WHERE id = ?",
    [RA_SQL_PASS_T1] = "UPDATE pass SET t1_realtime_ns = ?, t1_monotonic_ns = ?, t1_cupti_ns = ?"
                       " WHERE id = ?",
    [RA_SQL_PASS_COUNTS] =
        "UPDATE pass SET launches_expected = ?, kernels_recorded = ?, records_dropped = ?,"
        " kernels_zero_time = ?, ranges_dropped = ? WHERE id = ?",
};

void ra_row_int(struct ra_row *row, int64_t value)
{
    row->rc |= sqlite3_bind_int64(row->statement, ++row->at, value);
}

void ra_row_u64(struct ra_row *row, uint64_t value)
{
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    ra_row_int(row, bits);
}

static void put_null(struct ra_row *row)
{
    row->rc |= sqlite3_bind_null(row->statement, ++row->at);
}

void ra_row_int_or_null(struct ra_row *row, int64_t value, int64_t none)
{
    if (value == none)
        put_null(row);
    else
        ra_row_int(row, value);
}

void ra_row_real(struct ra_row *row, double value)
{
    if (isnan(value))
        put_null(row);
    else
        row->rc |= sqlite3_bind_double(row->statement, ++row->at, value);
}

void ra_row_text(struct ra_row *row, const char *text)
{
    row->rc |= sqlite3_bind_text(row->statement, ++row->at, text, -1, SQLITE_STATIC);
}

enum ra_status ra_row_lose_batch(struct ra_store *store, struct ra_error *err)
{
    enum ra_status status = ra_store_sql_fail(store->db, store->path, "cannot be written", err);
    if (!sqlite3_get_autocommit(store->db))
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    store->in_batch = false;
    store->n_steps = 0;
    store->lost_rows = true;
    ra_store_names_clear(store);
    return status;
}

static enum ra_status refuse(struct ra_store *store, struct ra_error *err)
{
    if (sqlite3_errcode(store->db) == SQLITE_CONSTRAINT)
        return ra_store_sql_fail(store->db, store->path, "row refused", err);
    return ra_row_lose_batch(store, err);
}

void ra_row_start_batch(struct ra_store *store)
{
    RA_BUG_ON(store->mode != RA_STORE_APPEND);
    if (store->in_batch || store->n_steps > 0)
        return;
    store->n_pending = 0;
    store->batch_from_ns = ra_clock_ns();
}

enum ra_status ra_row_open_batch(struct ra_store *store, struct ra_error *err)
{
    ra_row_start_batch(store);
    if (store->in_batch)
        return RA_OK;
    if (sqlite3_exec(store->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
        return ra_row_lose_batch(store, err);
    store->in_batch = true;
    return RA_OK;
}

enum ra_status ra_store_flush(struct ra_store *store, struct ra_error *err)
{
    RA_BUG_ON(store->mode != RA_STORE_APPEND);
    enum ra_status status = ra_store_steps_write(store, err);
    if (!store->in_batch)
        return status;
    if (sqlite3_exec(store->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        return ra_row_lose_batch(store, err);
    store->in_batch = false;
    return status;
}

enum ra_status ra_row_begin_end(struct ra_store *store, enum ra_store_sql which, struct ra_row *row,
                                struct ra_error *err)
{
    RA_TRY(ra_row_open_batch(store, err));
    struct sqlite3_stmt **statement = &store->statements[which];
    if (!*statement && sqlite3_prepare_v3(store->db, sql[which], -1, SQLITE_PREPARE_PERSISTENT,
                                          statement, NULL) != SQLITE_OK)
        return ra_row_lose_batch(store, err);
    *row = (struct ra_row){.store = store, .statement = *statement};
    return RA_OK;
}

enum ra_status ra_row_allowed(struct ra_store *store, struct ra_error *err)
{
    if (!store->lost_rows)
        return RA_OK;
    return ra_fail(err, RA_ESTORE,
                   "%s: cannot be written: an earlier batch was lost; what was committed before is "
                   "kept",
                   store->path);
}

enum ra_status ra_row_begin(struct ra_store *store, enum ra_store_sql which, struct ra_row *row,
                            struct ra_error *err)
{
    RA_TRY(ra_row_allowed(store, err));
    return ra_row_begin_end(store, which, row, err);
}

/*
 * Step the statement and free it for the next row; SQLITE_ROW leaves its first column in *id. Its
 * marks need no clearing: each is bound anew before it runs again.
 */
static enum ra_status run(struct ra_row *row, int expected, int64_t *id, struct ra_error *err)
{
    RA_BUG_ON(row->at != sqlite3_bind_parameter_count(row->statement));
    int rc = row->rc == SQLITE_OK ? sqlite3_step(row->statement) : row->rc;
    enum ra_status status = RA_OK;
    if (rc == SQLITE_ROW)
        *id = sqlite3_column_int64(row->statement, 0);
    if (rc != SQLITE_DONE && rc != expected)
        status = refuse(row->store, err);
    sqlite3_reset(row->statement);
    return status;
}

enum ra_status ra_row_find(struct ra_row *row, int64_t *id, struct ra_error *err)
{
    *id = 0;
    return run(row, SQLITE_ROW, id, err);
}

enum ra_status ra_row_run(struct ra_row *row, struct ra_error *err)
{
    int64_t no_id = 0;
    return run(row, SQLITE_DONE, &no_id, err);
}

enum ra_status ra_row_count(struct ra_store *store, struct ra_error *err)
{
    store->n_pending++;
    if (store->n_pending < RA_BATCH_ROWS && ra_clock_ns() - store->batch_from_ns < batch_ns)
        return RA_OK;
    return ra_store_flush(store, err);
}

enum ra_status ra_row_write(struct ra_row *row, struct ra_error *err)
{
    RA_TRY(ra_row_run(row, err));
    return ra_row_count(row->store, err);
}

enum ra_status ra_row_add(struct ra_row *row, int64_t *id, struct ra_error *err)
{
    RA_TRY(ra_row_write(row, err));
    *id = sqlite3_last_insert_rowid(row->store->db);
    return RA_OK;
}
