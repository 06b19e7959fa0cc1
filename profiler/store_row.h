/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A row on its way into the store: a prepared statement, its values in order, and the batch it
 * becomes part of. A batch is one transaction, committed every 10,000 rows or half a second.
 */
#ifndef RA_PROFILER_STORE_ROW_H
#define RA_PROFILER_STORE_ROW_H

#include "profiler/store_internal.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Values are put in the order of the statement's marks and borrowed until it has run. */
struct ra_row {
    struct ra_store *store;
    struct sqlite3_stmt *statement;
    int at, rc;
};

/*
 * Ready a statement inside the open batch. After a lost batch RA_ESTORE; `begin_end` goes on even
 * then, for the rows that say that a run failed.
 */
RA_MUST_CHECK enum ra_status ra_row_begin(struct ra_store *store, enum ra_store_sql which,
                                          struct ra_row *row, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_row_begin_end(struct ra_store *store, enum ra_store_sql which,
                                              struct ra_row *row, struct ra_error *err);

/* RA_ESTORE after a lost batch. */
RA_MUST_CHECK enum ra_status ra_row_allowed(struct ra_store *store, struct ra_error *err);
/* Open a transaction unless one is; give it up, and with it all writing of results. */
RA_MUST_CHECK enum ra_status ra_row_open_batch(struct ra_store *store, struct ra_error *err);
enum ra_status ra_row_lose_batch(struct ra_store *store, struct ra_error *err);
/* Start the clock of a batch unless one is under way. */
void ra_row_start_batch(struct ra_store *store);

void ra_row_int(struct ra_row *row, int64_t value);
void ra_row_int_or_null(struct ra_row *row, int64_t value, int64_t none);
void ra_row_u64(struct ra_row *row, uint64_t value); /* the same bits, signed */
void ra_row_real(struct ra_row *row, double value);  /* NaN: NULL */
void ra_row_text(struct ra_row *row, const char *text);

/*
 * Write it, and the batch when it is large or old enough. RA_ESTORE: a row that breaks a
 * constraint is left out; any other failure rolls the batch back and ends all writing of results.
 */
RA_MUST_CHECK enum ra_status ra_row_write(struct ra_row *row, struct ra_error *err);

/* Its two halves: run the statement; count a row and commit when the batch is large or old. */
RA_MUST_CHECK enum ra_status ra_row_run(struct ra_row *row, struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_row_count(struct ra_store *store, struct ra_error *err);

/* Write it; *id is its row id. */
RA_MUST_CHECK enum ra_status ra_row_add(struct ra_row *row, int64_t *id, struct ra_error *err);

/* Run a look-up; *id is 0 when nothing is found. */
RA_MUST_CHECK enum ra_status ra_row_find(struct ra_row *row, int64_t *id, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
