/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the store share: the handle, and SQLite calls that turn a result code into a
 * message naming the store. Included by store*.c only; SQLite's own header stays out of it.
 */
#ifndef RA_PROFILER_STORE_INTERNAL_H
#define RA_PROFILER_STORE_INTERNAL_H

#include "profiler/store.h"
#include "profiler/store_lock.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3;
struct sqlite3_stmt;

/* The prepared statements of the writer; their text stands in store_row.c. */
enum ra_store_sql {
    RA_SQL_POLICY_ADD,
    RA_SQL_POLICY_FIND,
    RA_SQL_RUN_ADD,
    RA_SQL_RUN_TRACE,
    RA_SQL_RUN_END,
    RA_SQL_RUN_END_PASSES,
    RA_SQL_PASS_ADD,
    RA_SQL_PASS_END,
    RA_SQL_STRING_FIND,
    RA_SQL_STRING_ADD,
    RA_SQL_SCOPE_FIND,
    RA_SQL_SCOPE_ADD,
    RA_SQL_SCOPE_EXEC,
    RA_SQL_PASS_METRICS,
    RA_SQL_PASS_RANGES,
    RA_SQL_PASS_LAUNCHES,
    RA_SQL_METRIC_FIND,
    RA_SQL_METRIC_ADD,
    RA_SQL_METRIC_VALUE,
    RA_SQL_LAYER_STEP,
    RA_SQL_LAYER_STEPS, /* RA_SQL_MANY rows */
    RA_SQL_MEMBER_STEP,
    RA_SQL_RETAINED,
    RA_SQL_EVAL_RESULT,
    RA_SQL_EVAL_SAMPLE,
    RA_SQL_DIAGNOSTIC,
    RA_SQL_KERNEL,
    RA_SQL_MEMOP,
    RA_SQL_API_CALL,
    RA_SQL_OVERHEAD,
    RA_SQL_DEVICE_FIND,
    RA_SQL_DEVICE_ADD,
    RA_SQL_PASS_DEVICE,
    RA_SQL_PASS_T0,
    RA_SQL_PASS_T1,
    RA_SQL_PASS_COUNTS,
    RA_SQL_COUNT
};
enum { RA_SQL_MANY = 64, RA_BATCH_ROWS = 10000 };

struct ra_store_names;

struct ra_store {
    struct sqlite3 *db;
    char *path; /* as given, for messages */
    char *file; /* as opened: links followed, so that two names of one store share one lock */
    enum ra_store_mode mode;
    struct ra_lock_file lock;
    struct sqlite3_stmt *statements[RA_SQL_COUNT]; /* prepared at first use */
    bool in_batch;                                 /* a transaction is open */
    struct ra_layer_step_row
        *steps; /* [RA_BATCH_ROWS] wait for the end of the batch; NULL: none yet */
    size_t n_steps;
    struct ra_store_names *names; /* ids of names asked for lately; NULL: none yet */
    int n_pending;                /* rows of the batch, those that wait included */
    uint64_t batch_from_ns;       /* CLOCK_MONOTONIC at its first row */
    bool lost_rows;     /* a batch was rolled back: nothing may become complete any more */
    bool lacks_indexes; /* dropped for a pass of many rows; see store_index.h */
    bool had_log;       /* a -wal file stood beside the file before it was opened */
    bool shows_aborted; /* `running` rows are abandoned, but the file cannot be written */
};

/*
 * RA_ESTORE (RA_ENOMEM when memory ran out) with "PATH: DOING: reason"; the reason is that of the
 * last call on `db`, which may be NULL.
 */
enum ra_status ra_store_sql_fail(struct sqlite3 *db, const char *path, const char *doing,
                                 struct ra_error *err);

/* Run statements that return no rows. */
RA_MUST_CHECK enum ra_status ra_store_sql_exec(struct sqlite3 *db, const char *path,
                                               const char *doing, const char *sql,
                                               struct ra_error *err);

/* First column of the first row; `none` when there is no row. */
RA_MUST_CHECK enum ra_status ra_store_sql_int(struct sqlite3 *db, const char *path, const char *sql,
                                              int64_t none, int64_t *value, struct ra_error *err);

/* Finalise the prepared statements. */
void ra_store_sql_finalize(struct ra_store *store);

#ifdef __cplusplus
}
#endif

#endif
