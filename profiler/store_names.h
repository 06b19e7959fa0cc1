/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names in string_ids: each once. What was asked for lately is remembered, so that a million rows
 * of a few hundred names look up a few hundred times.
 */
#ifndef RA_PROFILER_STORE_NAMES_H
#define RA_PROFILER_STORE_NAMES_H

#include "profiler/store_internal.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The id of a name, which is added when it is new. RA_ENOMEM, RA_ESTORE. */
RA_MUST_CHECK enum ra_status ra_store_name(struct ra_store *store, const char *name, int64_t *id,
                                           struct ra_error *err);

/* Forget all; when a batch was rolled back their rows may be gone. */
void ra_store_names_clear(struct ra_store *store);

#ifdef __cplusplus
}
#endif

#endif
