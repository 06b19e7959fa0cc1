/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counter passes: what the device counts between two points of a run, as CUPTI's Range Profiler
 * tells it. User ranges on one level, of metrics that fit one execution; nothing is replayed, so
 * that caches are as the run leaves them. Only where the whole gate holds; one at a time.
 */
#ifndef RA_PROFILER_RANGES_H
#define RA_PROFILER_RANGES_H

#include "profiler/counters.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_ranges;

/*
 * Metrics of the chip, by CUPTI names, for at most so many ranges. RA_EUSAGE where they need more
 * than one execution; RA_ENODEV or RA_EPERM naming what CUPTI refused.
 */
RA_MUST_CHECK enum ra_status ra_ranges_open(struct ra_ranges **ranges, const char *chip,
                                            const char *const *cupti_names, size_t n_metrics,
                                            size_t max_ranges, struct ra_error *err);

/* How CUPTI was asked for ranges and passes, in its own words: "UserRange", "UserReplay". */
void ra_ranges_modes(const struct ra_ranges *ranges, const char **range, const char **replay);

/* Counting begins; after it ranges may be pushed and popped, in the order of the device's work. */
RA_MUST_CHECK enum ra_status ra_ranges_start(struct ra_ranges *ranges, struct ra_error *err);

/* What this thread launches between the two is counted together, under a number of the caller's. */
RA_MUST_CHECK enum ra_status ra_ranges_push(struct ra_ranges *ranges, int64_t number,
                                            struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_ranges_pop(struct ra_ranges *ranges, struct ra_error *err);

/* The work is over: stop and decode. *n ranges came, *n_dropped did not. */
RA_MUST_CHECK enum ra_status ra_ranges_stop(struct ra_ranges *ranges, size_t *n, size_t *n_dropped,
                                            struct ra_error *err);

/* Values [n_metrics] of the i-th range and its number; NaN where CUPTI has none. */
RA_MUST_CHECK enum ra_status ra_ranges_values(const struct ra_ranges *ranges, size_t i,
                                              int64_t *number, double *values,
                                              struct ra_error *err);

void ra_ranges_close(struct ra_ranges *ranges); /* accepts NULL */

#ifdef __cplusplus
}
#endif

#endif
