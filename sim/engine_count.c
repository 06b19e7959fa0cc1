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

static enum ra_status store_step(const struct ra_beat *b, int64_t pass_id, int32_t t,
                                 const struct ra_step_traffic *traffic, const int64_t *metrics,
                                 struct ra_error *err)
{
    const double values[METRICS] = {(double)traffic->load_bytes, (double)traffic->store_bytes,
                                    (double)traffic->sectors, (double)traffic->min_sectors,
                                    (double)traffic->launches};
    const struct ra_scope_row scope = {.run_id = b->config->run_ids[b->track->number],
                                       .kind = "step",
                                       .step = t,
                                       .layer = RA_SCOPE_NONE,
                                       .name = t < 0 ? "prefill" : "step"};
    struct ra_value_row row = {.pass_id = pass_id};
    RA_TRY(ra_store_scope(b->config->store, &scope, &row.scope_id, err));
    for (int i = 0; i < METRICS; i++) {
        row.metric_id = metrics[i];
        row.value = values[i];
        RA_TRY(ra_store_value(b->config->store, &row, err));
    }
    return RA_OK;
}

static enum ra_status count_into(const struct ra_beat *b, int64_t pass_id,
                                 struct ra_step_traffic *steps, struct ra_error *err)
{
    int64_t metrics[METRICS];
    RA_TRY(b->ops->count(b->dev, steps, err));
    RA_TRY(ra_store_pass_metrics(b->config->store, pass_id, "emu-count", err));
    RA_TRY(find_metrics(b->config->store, metrics, err));
    for (int32_t t = -1; t < b->shape->run_steps; t++)
        if (t < 0 || ra_shape_counts(b->shape, t))
            RA_TRY(store_step(b, pass_id, t, &steps[t + 1], metrics, err));
    return RA_OK;
}

enum ra_status ra_beat_count(struct ra_beat *b, int ordinal, struct ra_error *err)
{
    struct ra_store *store = b->config->store;
    int64_t pass_id;
    if (!store || !b->ops->count)
        return RA_OK;
    struct ra_step_traffic *steps = calloc((size_t)b->shape->run_steps + 1, sizeof *steps);
    if (!steps)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the traffic of %d steps",
                       b->shape->run_steps);
    enum ra_status st = ra_store_pass_begin(store, b->config->run_ids[b->track->number], ordinal,
                                            "counter", &pass_id, err);
    if (st == RA_OK) {
        st = count_into(b, pass_id, steps, err);
        enum ra_status ended =
            ra_store_pass_end(store, pass_id, st == RA_OK ? RA_RUN_COMPLETE : RA_RUN_FAILED,
                              st == RA_OK ? err : NULL);
        st = st == RA_OK ? ended : st;
    }
    free(steps);
    return st;
}
