/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pass that counts: the recorded steps once more, where the backend can tell what its kernels
 * asked memory for. Its times mean nothing and are not kept.
 */
#include <stdlib.h>

#include "sim/engine_beat.h"

enum { METRICS = 5 };

static enum ra_status find_metrics(struct ra_store *store, int64_t ids[METRICS],
                                   struct ra_error *err)
{
    static const struct ra_metric_row rows[METRICS] = {
        {"global_load_bytes", "emulated", "emu.load_bytes", "byte", "bytes", true},
        {"global_store_bytes", "emulated", "emu.store_bytes", "byte", "bytes", true},
        {"global_sectors", "emulated", "emu.sectors", "sector", "sectors", true},
        {"global_min_sectors", "emulated", "emu.min_sectors", "sector", "sectors", true},
        {"launches", "emulated", "emu.launches", "launch", "kernels", true},
    };
    for (int i = 0; i < METRICS; i++)
        RA_TRY(ra_store_metric(store, &rows[i], &ids[i], err));
    return RA_OK;
}

static enum ra_status store_step(const struct ra_stored_pass *pass, int number, int32_t t,
                                 const struct ra_step_traffic *traffic, const int64_t *metrics,
                                 struct ra_error *err)
{
    const double values[METRICS] = {(double)traffic->load_bytes, (double)traffic->store_bytes,
                                    (double)traffic->sectors, (double)traffic->min_sectors,
                                    (double)traffic->launches};
    const struct ra_scope_row scope = {.run_id = pass->runs[number],
                                       .kind = "step",
                                       .step = t,
                                       .layer = RA_SCOPE_NONE,
                                       .name = t < 0 ? "prefill" : "step"};
    struct ra_value_row row = {.pass_id = pass->ids[number]};
    RA_TRY(ra_store_scope(pass->store, &scope, &row.scope_id, err));
    for (int i = 0; i < METRICS; i++) {
        row.metric_id = metrics[i];
        row.value = values[i];
        RA_TRY(ra_store_value(pass->store, &row, err));
    }
    return RA_OK;
}

static enum ra_status count_into(const struct ra_beat *b, const struct ra_stored_pass *pass,
                                 struct ra_step_traffic *steps, struct ra_error *err)
{
    int64_t metrics[METRICS];
    RA_TRY(b->ops->count(b->dev, steps, err));
    RA_TRY(find_metrics(pass->store, metrics, err));
    for (int i = 0; i < pass->n; i++) {
        RA_TRY(ra_store_pass_metrics(pass->store, pass->ids[i], "emu-count", err));
        for (int32_t t = -1; t < b->shape->run_steps; t++)
            if (t < 0 || ra_shape_counts(b->shape, t))
                RA_TRY(store_step(pass, i, t, &steps[t + 1], metrics, err));
    }
    return RA_OK;
}

enum ra_status ra_beat_count(struct ra_beat *b, struct ra_stored_pass *pass, int ordinal,
                             struct ra_error *err)
{
    if (!pass->store || !b->ops->count)
        return RA_OK;
    struct ra_step_traffic *steps = calloc((size_t)b->shape->run_steps + 1, sizeof *steps);
    if (!steps)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the traffic of %d steps",
                       b->shape->run_steps);
    enum ra_status st = ra_stored_pass_begin(pass, ordinal, "counter", err);
    if (st == RA_OK)
        st = ra_stored_pass_end(pass, count_into(b, pass, steps, err), true, err);
    free(steps);
    return st;
}
