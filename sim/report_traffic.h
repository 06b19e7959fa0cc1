/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traffic explained: of each run whose bytes of DRAM were counted, what sim/traffic.h says they are
 * of, and what is left. Read from a store into the results, where text, JSON and page find it.
 */
#ifndef RA_SIM_REPORT_TRAFFIC_H
#define RA_SIM_REPORT_TRAFFIC_H

#include <jansson.h>

#include "profiler/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Give each of the results, whose run.id stands at the same place in `ids`, a member "traffic" if
 * its run has counters; others have none afterwards:
 *   method             dram-counters; emulated: what kernels asked for, run on the host
 *   steps              counted and summed
 *   bytes_per_step     kv, rows, logits, choice, partial, queries, counts, between: predicted;
 *                      l2_hits: read but had by L2, negative, null where hits were not counted;
 *                      read, written, measured: of DRAM; unexplained: measured less all the former
 *   unexplained_share  of what was measured, less what was read between layers
 *   missing            why nothing was predicted, then those are null; null otherwise
 *   per_step           a list of the same bytes of each step
 * All are of all members of a batch and of all layers laid out; where the members are sequences,
 * the first one's run has it for all.
 *
 * Errors: RA_ESTORE naming the file, RA_ENOMEM.
 */
RA_MUST_CHECK enum ra_status ra_report_traffic(struct ra_store *store, const json_t *ids,
                                               json_t *results, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
