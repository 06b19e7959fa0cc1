/* SPDX-License-Identifier: Apache-2.0 */
/* Devices, clocks and counts of passes. */
#include "profiler/store_pass.h"

#include <sqlite3.h>

#include "profiler/store_row.h"

enum ra_status ra_store_device(struct ra_store *store, const struct ra_device_row *device,
                               int64_t *device_id, struct ra_error *err)
{
    struct ra_row row;
    RA_BUG_ON(!device->uuid || !device->name);
    RA_TRY(ra_row_begin(store, RA_SQL_DEVICE_FIND, &row, err));
    ra_row_int(&row, device->run_id);
    ra_row_int(&row, device->ordinal);
    ra_row_text(&row, device->uuid);
    RA_TRY(ra_row_find(&row, device_id, err));
    if (*device_id != 0)
        return RA_OK;
    RA_TRY(ra_row_begin(store, RA_SQL_DEVICE_ADD, &row, err));
    ra_row_int(&row, device->run_id);
    ra_row_int(&row, device->ordinal);
    ra_row_text(&row, device->uuid);
    ra_row_text(&row, device->name);
    ra_row_text(&row, device->chip);
    ra_row_int_or_null(&row, device->cc_major, -1);
    ra_row_int_or_null(&row, device->cc_minor, -1);
    ra_row_int_or_null(&row, device->sm_count, -1);
    ra_row_int_or_null(&row, device->l2_bytes, -1);
    ra_row_int_or_null(&row, device->mem_bytes, -1);
    ra_row_int_or_null(&row, device->driver_version, -1);
    ra_row_int_or_null(&row, device->runtime_version, -1);
    ra_row_int_or_null(&row, device->cupti_version, -1);
    ra_row_int_or_null(&row, device->sm_clock_khz, -1);
    ra_row_int_or_null(&row, device->mem_clock_khz, -1);
    return ra_row_add(&row, device_id, err);
}

/* Of a pass that is not there nothing can be said. */
static enum ra_status update(struct ra_row *row, int64_t pass_id, struct ra_error *err)
{
    struct ra_store *store = row->store;
    ra_row_int(row, pass_id);
    RA_TRY(ra_row_run(row, err));
    if (sqlite3_changes(store->db) != 1)
        return ra_fail(err, RA_ESTORE, "%s: there is no pass %lld", store->path,
                       (long long)pass_id);
    return ra_row_count(store, err);
}

enum ra_status ra_store_pass_launches(struct ra_store *store, int64_t pass_id,
                                      const char *launch_mode, uint64_t launch_hash,
                                      struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_PASS_LAUNCHES, &row, err));
    ra_row_text(&row, launch_mode);
    ra_row_int_or_null(&row, (int64_t)launch_hash, 0);
    return update(&row, pass_id, err);
}

enum ra_status ra_store_pass_device(struct ra_store *store, int64_t pass_id, int64_t device_id,
                                    struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_PASS_DEVICE, &row, err));
    ra_row_int(&row, device_id);
    return update(&row, pass_id, err);
}

enum ra_status ra_store_pass_ranges(struct ra_store *store, int64_t pass_id, const char *range_mode,
                                    const char *replay_mode, struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_PASS_RANGES, &row, err));
    ra_row_text(&row, range_mode);
    ra_row_text(&row, replay_mode);
    return update(&row, pass_id, err);
}

static void put_clock(struct ra_row *row, uint64_t ns)
{
    if (ns == 0)
        ra_row_int_or_null(row, 0, 0);
    else
        ra_row_u64(row, ns);
}

static enum ra_status put_triple(struct ra_store *store, enum ra_store_sql which, int64_t pass_id,
                                 const struct ra_clock_triple *clocks, struct ra_error *err)
{
    struct ra_row row;
    if (!clocks)
        return RA_OK;
    RA_TRY(ra_row_begin(store, which, &row, err));
    put_clock(&row, clocks->realtime_ns);
    put_clock(&row, clocks->monotonic_ns);
    put_clock(&row, clocks->cupti_ns);
    return update(&row, pass_id, err);
}

enum ra_status ra_store_pass_clocks(struct ra_store *store, int64_t pass_id,
                                    const struct ra_clock_triple *begin,
                                    const struct ra_clock_triple *end, struct ra_error *err)
{
    RA_TRY(put_triple(store, RA_SQL_PASS_T0, pass_id, begin, err));
    return put_triple(store, RA_SQL_PASS_T1, pass_id, end, err);
}

enum ra_status ra_store_pass_counts(struct ra_store *store, int64_t pass_id,
                                    const struct ra_pass_counts *counts, struct ra_error *err)
{
    struct ra_row row;
    RA_TRY(ra_row_begin(store, RA_SQL_PASS_COUNTS, &row, err));
    ra_row_int_or_null(&row, counts->launches_expected, -1);
    ra_row_int_or_null(&row, counts->kernels_recorded, -1);
    ra_row_int_or_null(&row, counts->records_dropped, -1);
    ra_row_int_or_null(&row, counts->kernels_zero_time, -1);
    ra_row_int_or_null(&row, counts->ranges_dropped, -1);
    return update(&row, pass_id, err);
}
