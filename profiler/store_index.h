/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Indexes over the tables that take many rows at once: put in with the rows they cost about as much
 * as the rows, made afterwards less. They may be missing only while a writer is at work.
 */
#ifndef RA_PROFILER_STORE_INDEX_H
#define RA_PROFILER_STORE_INDEX_H

#include "profiler/store_internal.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Make those that are missing, inside the caller's transaction. `path` is for messages. */
RA_MUST_CHECK enum ra_status ra_store_index_make(struct sqlite3 *db, const char *path,
                                                 struct ra_error *err);

/* If they are dropped, make them in the open batch. A failure loses the batch. */
RA_MUST_CHECK enum ra_status ra_store_index_restore(struct ra_store *store, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
