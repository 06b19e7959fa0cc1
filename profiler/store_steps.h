/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of layer_step that wait for the end of their batch. Included by store*.c only. */
#ifndef RA_PROFILER_STORE_STEPS_H
#define RA_PROFILER_STORE_STEPS_H

#include "profiler/store_internal.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Put the waiting rows into the open batch, which is begun if need be; nothing is committed.
 * Whoever reads through the writer's own connection, or calls something complete, does this first.
 * RA_ESTORE for the first refused row, the others being in; or when the batch is lost.
 */
RA_MUST_CHECK enum ra_status ra_store_steps_write(struct ra_store *store, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
