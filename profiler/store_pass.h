/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of a pass beside its rows: the device it ran on, the clocks at its ends, how many
 * records came and how many were lost; and passes of so many rows that their indexes wait.
 */
#ifndef RA_PROFILER_STORE_PASS_H
#define RA_PROFILER_STORE_PASS_H

#include "profiler/store.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A device of a run. Text is borrowed; numbers that are not known are -1 and stored as NULL. */
struct ra_device_row {
    int64_t run_id;
    int ordinal;
    const char *uuid, *name; /* never NULL */
    const char *chip;        /* "GH100"; NULL: not known */
    int32_t cc_major, cc_minor, sm_count;
    int64_t l2_bytes, mem_bytes;
    int32_t driver_version, runtime_version, cupti_version;
    int64_t sm_clock_khz, mem_clock_khz;
};
/* Found again by (run, ordinal, uuid). */
RA_MUST_CHECK enum ra_status ra_store_device(struct ra_store *store,
                                             const struct ra_device_row *row, int64_t *device_id,
                                             struct ra_error *err);
RA_MUST_CHECK enum ra_status ra_store_pass_device(struct ra_store *store, int64_t pass_id,
                                                  int64_t device_id, struct ra_error *err);

/* How a pass that counts in ranges had them: "UserRange"; and how often what is in one ran:
 * "UserReplay". */
RA_MUST_CHECK enum ra_status ra_store_pass_ranges(struct ra_store *store, int64_t pass_id,
                                                  const char *range_mode, const char *replay_mode,
                                                  struct ra_error *err);

/* Three clocks read together; a clock that was not read is 0. */
struct ra_clock_triple {
    uint64_t realtime_ns, monotonic_ns, cupti_ns;
};
/*
 * The clocks at the pass's beginning and end; NULL leaves what is there. Without a call a pass has
 * the host's two clocks as they were at ra_store_pass_begin and ra_store_pass_end, none of the
 * device. A triple replaces all three, and an end given here stays when the pass ends.
 */
RA_MUST_CHECK enum ra_status ra_store_pass_clocks(struct ra_store *store, int64_t pass_id,
                                                  const struct ra_clock_triple *begin,
                                                  const struct ra_clock_triple *end,
                                                  struct ra_error *err);

/* -1: not counted, stored as NULL. */
struct ra_pass_counts {
    int64_t launches_expected, kernels_recorded, records_dropped, kernels_zero_time, ranges_dropped;
};
RA_MUST_CHECK enum ra_status ra_store_pass_counts(struct ra_store *store, int64_t pass_id,
                                                  const struct ra_pass_counts *counts,
                                                  struct ra_error *err);

/*
 * Say that about so many rows of kernel or api_call will follow. Where the store has few of them
 * against that (less than a quarter), its indexes over both are dropped until the next end of a
 * pass or run, or the close, makes them again, for a pass in the transaction that ends it. Else
 * this does nothing: indexes are made from all rows there are. A store whose writer was killed has
 * them back once it is opened for writing.
 */
RA_MUST_CHECK enum ra_status ra_store_expect_rows(struct ra_store *store, int64_t n_rows,
                                                  struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
