/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pass as a database that reads like an export of Nsight Systems: tables and columns by its
 * names, so that queries written for it run. Times, names and numbers are those of the store, and
 * what is not known stays NULL where Nsight Systems would have a default. Its tables for what was
 * not recorded here are not there, as it leaves them out itself.
 */
#ifndef RA_PROFILER_EXPORT_NSYS_H
#define RA_PROFILER_EXPORT_NSYS_H

#include "profiler/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Write `path` anew. It appears under its name when it is whole. A file that is there is replaced
 * only if it is such an export; anything else is refused: RA_EUSAGE naming it. RA_ESTORE, RA_EIO.
 */
RA_MUST_CHECK enum ra_status ra_export_nsys(struct ra_store *store, int64_t pass_id,
                                            const char *path, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
