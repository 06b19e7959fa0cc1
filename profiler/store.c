/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing to the store: which columns each kind of row has, and which moments are committed at
 * once: a run or a pass that begins to exist, and its end together with its last rows.
 */
#include "profiler/store.h"

#include <errno.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "profiler/clock.h"
#include "profiler/store_index.h"
#include "profiler/store_names.h"
#include "profiler/store_row.h"
#include "profiler/store_steps.h"

const char *ra_run_state_name(enum ra_run_state state)
{
    static const char *const name[] = {"running", "complete", "failed", "aborted", "incomplete"};
    return name[state];
}

static enum ra_status make_uuid(char uuid[37], struct ra_error *err)
{
    unsigned char b[16];
    if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b)
        return ra_fail(err, RA_EIO, "uuid: no random bytes: %s", strerror(errno));
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40); /* version 4, variant 1: random */
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    char *out = uuid;
    for (int i = 0; i < 16; i++)
        out += sprintf(out, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", b[i]);
    return RA_OK;
}

/* Empty where the system has none. */
static void read_boot_id(char text[40])
{
    text[0] = '\0';
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!file)
        return;
    if (fgets(text, 40, file))
        text[strcspn(text, "\n")] = '\0';
    fclose(file);
}

static enum ra_status policy_id(struct ra_store *store, const struct ra_run_row *run, int64_t *id,
                                struct ra_error *err)
{
    struct ra_row row;
    *id = 0;
    if (!run->policy)
        return RA_OK;
    RA_BUG_ON(!run->policy_name || !run->policy_params_json);
    RA_TRY(ra_row_begin(store, RA_SQL_POLICY_FIND, &row, err));
    ra_row_text(&row, run->policy);
    RA_TRY(ra_row_find(&row, id, err));
    if (*id != 0)
        return RA_OK;
    RA_TRY(ra_row_begin(store, RA_SQL_POLICY_ADD, &row, err));
    ra_row_text(&row, run->policy);
    ra_row_text(&row, run->policy_name);
    ra_row_text(&row, run->policy_params_json);
    return ra_row_add(&row, id, err);
}

enum ra_status ra_store_run_begin(struct ra_store *store, const struct ra_run_row *run,
                                  int64_t *run_id, char uuid[37], struct ra_error *err)
{
    RA_BUG_ON(!run->kind || !run->tool_version || !run->config_json);
    struct ra_row row;
    int64_t policy = 0;
    char boot_id[40];
    read_boot_id(boot_id);
    RA_TRY(make_uuid(uuid, err));
    RA_TRY(policy_id(store, run, &policy, err));
    RA_TRY(ra_row_begin(store, RA_SQL_RUN_ADD, &row, err));
    ra_row_text(&row, uuid);
    ra_row_int(&row, ra_clock_unix_ns());
    ra_row_int(&row, getpid());
    ra_row_text(&row, boot_id[0] ? boot_id : NULL);
    ra_row_text(&row, run->tool_version);
    ra_row_text(&row, run->trace_sha256);
    ra_row_text(&row, run->config_json);
    ra_row_text(&row, run->invocation_uuid);
    ra_row_text(&row, run->command);
    ra_row_text(&row, run->argv_json);
    ra_row_text(&row, run->kind);
    ra_row_int_or_null(&row, policy, 0);
    ra_row_text(&row, run->trace_path);
    ra_row_int_or_null(&row, run->seq, -1);
    ra_row_text(&row, run->model_id);
    ra_row_text(&row, run->backend);
    ra_row_text(&row, run->device);
    ra_row_text(&row, run->scores);
    ra_row_text(&row, run->cache);
    ra_row_text(&row, run->dtype);
    ra_row_text(&row, run->method);
    ra_row_text(&row, run->launch_mode);
    ra_row_u64(&row, run->seed);
    ra_row_text(&row, run->schedule_of_trace);
    RA_TRY(ra_row_add(&row, run_id, err));
    return ra_store_flush(store, err);
}

/*
 * After a lost batch or row a run may still be called failed or aborted, never complete, nor, of a
 * pass, that it lacks only what the device dropped. Indexes that wait are made with the end.
 */
static enum ra_status begin_end(struct ra_store *store, enum ra_run_state state,
                                enum ra_store_sql which, struct ra_row *row, struct ra_error *err)
{
    RA_BUG_ON(state == RA_RUN_RUNNING);
    bool is_whole = state == RA_RUN_COMPLETE || state == RA_RUN_INCOMPLETE;
    enum ra_status status = ra_store_steps_write(store, is_whole ? err : NULL);
    if (status == RA_OK && !store->lost_rows)
        status = ra_store_index_restore(store, is_whole ? err : NULL);
    if (!is_whole)
        return ra_row_begin_end(store, which, row, err);
    return status == RA_OK ? ra_row_begin(store, which, row, err) : status;
}

static enum ra_status write_end(struct ra_row *row, const char *what, int64_t id,
                                struct ra_error *err)
{
    struct ra_store *store = row->store;
    RA_TRY(ra_row_write(row, err));
    if (sqlite3_changes(store->db) == 1)
        return RA_OK;
    return ra_fail(err, RA_ESTORE, "%s: there is no %s %lld", store->path, what, (long long)id);
}

enum ra_status ra_store_run_trace(struct ra_store *store, int64_t run_id, const char *sha256,
                                  struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_RUN_TRACE, &row, err));
    ra_row_text(&row, sha256);
    ra_row_int(&row, run_id);
    return write_end(&row, "run", run_id, err);
}

enum ra_status ra_store_run_end(struct ra_store *store, int64_t run_id, enum ra_run_state state,
                                const char *fingerprint, const char *output_hash,
                                const char *result_json, struct ra_error *err)
{
    struct ra_row row;
    RA_BUG_ON(state == RA_RUN_INCOMPLETE);
    RA_TRY(begin_end(store, state, RA_SQL_RUN_END_PASSES, &row, err));
    ra_row_int(&row, run_id);
    RA_TRY(ra_row_write(&row, err));
    RA_TRY(begin_end(store, state, RA_SQL_RUN_END, &row, err));
    ra_row_text(&row, ra_run_state_name(state));
    ra_row_int(&row, ra_clock_unix_ns());
    ra_row_text(&row, fingerprint);
    ra_row_text(&row, output_hash);
    ra_row_text(&row, result_json);
    ra_row_int(&row, run_id);
    RA_TRY(write_end(&row, "run", run_id, err));
    return ra_store_flush(store, err);
}

enum ra_status ra_store_retained(struct ra_store *store, const struct ra_retained_row *retained,
                                 struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_RETAINED, &row, err));
    ra_row_int(&row, retained->run_id);
    ra_row_int(&row, retained->layer);
    ra_row_int(&row, retained->head);
    ra_row_int(&row, retained->pos);
    ra_row_int(&row, retained->first_step);
    ra_row_int(&row, retained->last_step);
    return ra_row_write(&row, err);
}

enum ra_status ra_store_pass_begin(struct ra_store *store, int64_t run_id, int ordinal,
                                   const char *mode, int64_t *pass_id, struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_PASS_ADD, &row, err));
    ra_row_int(&row, run_id);
    ra_row_int(&row, ordinal);
    ra_row_text(&row, mode);
    ra_row_int(&row, ra_clock_unix_ns());
    ra_row_u64(&row, ra_clock_ns());
    RA_TRY(ra_row_add(&row, pass_id, err));
    return ra_store_flush(store, err);
}

enum ra_status ra_store_pass_end(struct ra_store *store, int64_t pass_id, enum ra_run_state state,
                                 struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(begin_end(store, state, RA_SQL_PASS_END, &row, err));
    ra_row_text(&row, ra_run_state_name(state));
    ra_row_int(&row, ra_clock_unix_ns());
    ra_row_u64(&row, ra_clock_ns());
    ra_row_int(&row, pass_id);
    RA_TRY(write_end(&row, "pass", pass_id, err));
    return ra_store_flush(store, err);
}

static enum ra_status add_scope(struct ra_store *store, const struct ra_scope_row *scope,
                                int64_t name_id, int64_t *scope_id, struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_SCOPE_ADD, &row, err));
    ra_row_int(&row, scope->run_id);
    ra_row_text(&row, scope->kind);
    ra_row_int_or_null(&row, scope->step, RA_SCOPE_NONE);
    ra_row_int_or_null(&row, scope->layer, RA_SCOPE_NONE);
    ra_row_int(&row, name_id);
    ra_row_int_or_null(&row, scope->parent_id, 0);
    return ra_row_add(&row, scope_id, err);
}

enum ra_status ra_store_scope(struct ra_store *store, const struct ra_scope_row *scope,
                              int64_t *scope_id, struct ra_error *err)
{
    struct ra_row row;
    int64_t name_id = 0;
    RA_TRY(ra_store_name(store, scope->name, &name_id, err));
    RA_TRY(ra_row_begin(store, RA_SQL_SCOPE_FIND, &row, err));
    ra_row_int(&row, scope->run_id);
    ra_row_text(&row, scope->kind);
    ra_row_int_or_null(&row, scope->step, RA_SCOPE_NONE);
    ra_row_int_or_null(&row, scope->layer, RA_SCOPE_NONE);
    ra_row_int(&row, name_id);
    RA_TRY(ra_row_find(&row, scope_id, err));
    return *scope_id != 0 ? RA_OK : add_scope(store, scope, name_id, scope_id, err);
}

enum ra_status ra_store_scope_new(struct ra_store *store, const struct ra_scope_row *scope,
                                  int64_t *scope_id, struct ra_error *err)
{
    int64_t name_id = 0;
    RA_TRY(ra_store_name(store, scope->name, &name_id, err));
    return add_scope(store, scope, name_id, scope_id, err);
}

enum ra_status ra_store_scope_exec(struct ra_store *store, const struct ra_scope_exec_row *exec,
                                   struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_SCOPE_EXEC, &row, err));
    ra_row_int(&row, exec->pass_id);
    ra_row_int(&row, exec->scope_id);
    ra_row_u64(&row, exec->start_ns);
    ra_row_u64(&row, exec->end_ns);
    ra_row_real(&row, exec->event_ns ? (double)exec->event_ns / 1e3 : NAN);
    ra_row_text(&row, exec->output_hash);
    ra_row_int_or_null(&row, (int64_t)exec->launch_hash, 0);
    return ra_row_write(&row, err);
}

enum ra_status ra_store_diagnostic(struct ra_store *store, int64_t run_id, const char *severity,
                                   const char *source, const char *message, struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_DIAGNOSTIC, &row, err));
    ra_row_int_or_null(&row, run_id, 0);
    ra_row_int(&row, ra_clock_unix_ns());
    ra_row_text(&row, severity);
    ra_row_text(&row, source);
    ra_row_text(&row, message);
    return ra_row_write(&row, err);
}
