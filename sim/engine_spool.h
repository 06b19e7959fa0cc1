/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What phase 1 leaves for phase 2 and for exports: records addressed by slot, in an unlinked
 * temporary file, so that memory does not grow with the number of steps. Internal to the engine.
 */
#ifndef RA_SIM_ENGINE_SPOOL_H
#define RA_SIM_ENGINE_SPOOL_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

/* Memory of one, its index aside. */
enum { RA_SPOOL_BYTES = 1 << 18 };

struct ra_spool;

/* Slots 0..n_slots-1, all empty. The file goes to TMPDIR (default /tmp). */
RA_MUST_CHECK enum ra_status ra_spool_open(struct ra_spool **spool, size_t n_slots,
                                           struct ra_error *err);
/* Write a slot once. Calls for one spool must not overlap in time. */
RA_MUST_CHECK enum ra_status ra_spool_put(struct ra_spool *spool, size_t slot, const void *bytes,
                                          size_t n, struct ra_error *err);
/* Bytes of a slot; 0 when it was never written. */
size_t ra_spool_size(const struct ra_spool *spool, size_t slot);
/* Read a whole slot into `out`, which has room for ra_spool_size. */
RA_MUST_CHECK enum ra_status ra_spool_get(struct ra_spool *spool, size_t slot, void *out,
                                          struct ra_error *err);
/* NULL is allowed. */
void ra_spool_close(struct ra_spool *spool);

#endif
