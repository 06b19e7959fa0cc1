/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose file it is and which schema it has, making a new one, and lifting an older one step by
 * step. The current schema and its steps are a value, so a test can migrate to one of its own.
 */
#ifndef RA_PROFILER_STORE_MIGRATE_H
#define RA_PROFILER_STORE_MIGRATE_H

#include <stddef.h>

#include "profiler/store.h"

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3;

#define RA_STORE_APPLICATION_ID 1380013140 /* 'RATT' */

/* Lifts schema `from` to from + 1; the statement that sets user_version is not part of it. */
struct ra_migration {
    int from;
    const char *sql;
};

struct ra_store_schema {
    int version;
    const char *create_sql;
    const struct ra_migration *steps;
    size_t n_steps;
};

/* The schema this program writes. */
const struct ra_store_schema *ra_store_schema_current(void);

enum ra_store_age {
    RA_STORE_EMPTY, /* no tables yet, and nobody's */
    RA_STORE_OLDER,
    RA_STORE_CURRENT
};

/* RA_ESTORE unless `version` (as of sqlite3_libversion_number) knows STRICT tables. */
RA_MUST_CHECK enum ra_status ra_store_check_library(int version, struct ra_error *err);

/* RA_ESTORE for a file of another application (both ids), a newer schema (both numbers), or what
 * ra_store_check_shape refuses. */
RA_MUST_CHECK enum ra_status ra_store_identify(struct sqlite3 *db, const char *path,
                                               const struct ra_store_schema *schema,
                                               enum ra_store_age *age, struct ra_error *err);

/* RA_ESTORE naming what is in the file and would run by itself when the file is read or written:
 * triggers, views or virtual tables in place of a table, computed columns, computed indexes. */
RA_MUST_CHECK enum ra_status ra_store_check_shape(struct sqlite3 *db, const char *path,
                                                  const struct ra_store_schema *schema,
                                                  struct ra_error *err);

/* Make all tables, in one transaction. */
RA_MUST_CHECK enum ra_status ra_store_create(struct sqlite3 *db, const char *path,
                                             const struct ra_store_schema *schema,
                                             struct ra_error *err);

/*
 * Lift an older store: a backup PATH.vN.bak beside it first, then each step in a transaction of
 * its own that also sets user_version. A failing step leaves the store as the step before it did;
 * the backup goes when nothing was changed. The caller holds the writer lock.
 */
RA_MUST_CHECK enum ra_status ra_store_migrate(struct sqlite3 *db, const char *path,
                                              const struct ra_store_schema *schema,
                                              struct ra_error *err);

/* As ra_store_open, for a given schema. */
RA_MUST_CHECK enum ra_status ra_store_open_schema(struct ra_store **store, const char *path,
                                                  enum ra_store_mode mode,
                                                  const struct ra_store_schema *schema,
                                                  struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
