/* SPDX-License-Identifier: Apache-2.0 */
/* What is predicted of traffic, for the figure that stands it beside what was counted. */
#ifndef RA_SIM_CLI_PLOT_TRAFFIC_H
#define RA_SIM_CLI_PLOT_TRAFFIC_H

#include <jansson.h>

#include "profiler/store.h"

/*
 * Give each of `runs`, objects with an id, that has counters of DRAM what plots/waterfall.sql asks
 * for: parts, a list of {words, bytes} per step, empty when nothing is predicted; between_bytes;
 * is_emulated. Others are left as they are. RA_ESTORE, RA_ENOMEM.
 */
RA_MUST_CHECK enum ra_status ra_plot_explain(struct ra_store *store, json_t *runs,
                                             struct ra_error *err);

#endif
