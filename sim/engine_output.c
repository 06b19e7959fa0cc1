/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a backend computes, checked: against the f64 reference to the bound of rounding, and among
 * tiles, which do the same work on the same values, bit for bit.
 */
#include <math.h>
#include <string.h>

#include "sim/engine_beat.h"

static size_t out_floats(const struct ra_beat *b)
{
    return (size_t)(b->shape->model->Hq * b->shape->model->Dv);
}

static enum ra_status check_reference(struct ra_beat *b, const float *out, struct ra_error *err)
{
    const struct ra_model *m = b->shape->model;
    RA_TRY(ra_beat_load_record(b, RA_RECORD_OUT, err));
    const double *want = (const double *)(const void *)b->record;
    double bound =
        ra_kernel_err_bound(b->lane->window ? b->track->max_abs_window : b->track->max_abs_logit);
    for (int h = 0; h < m->Hq; h++) {
        double difference = 0, norm = 0;
        for (int i = h * m->Dv; i < (h + 1) * m->Dv; i++) {
            double gap = (double)out[i] - want[i];
            difference += gap * gap;
            norm += want[i] * want[i];
        }
        double error = norm > 0 ? sqrt(difference / norm) : sqrt(difference);
        if (!(error <= bound)) /* catches NaN too */
            return ra_fail(err, RA_EDIVERGED,
                           "layer %d, step %d, head %d: the %s backend's output is off by %.3g, "
                           "rounding explains %.3g",
                           b->lane->id, b->step.t, h, b->ops->name, error, bound);
        if (norm > 0 && !b->lane->window)
            b->worst_err = fmax(b->worst_err, error);
    }
    return RA_OK;
}

static enum ra_status check_same(const struct ra_beat *b, int layer_id, int32_t t,
                                 const float *first, const float *out, struct ra_error *err)
{
    if (memcmp(first, out, out_floats(b) * sizeof *out) == 0)
        return RA_OK;
    return ra_fail(err, RA_EDIVERGED,
                   "layer %d, step %d: the %s backend's output is not that of tile 0", layer_id, t,
                   b->ops->name);
}

enum ra_status ra_beat_check_output(struct ra_beat *b, struct ra_error *err)
{
    size_t n = out_floats(b);
    float *first = b->first_out + (size_t)(b->lane - b->shape->lanes) * n;
    bool is_first = b->track->tile == 0;
    if (!ra_shape_counts(b->shape, b->step.t) || b->is_recording)
        return RA_OK;
    if (is_first) {
        memcpy(first, b->out, n * sizeof *first);
        ra_sha256_bytes(&b->output, b->out, n * sizeof *b->out);
    }
    if (b->first_repeat && is_first && b->track->output && b->lane->full >= 0)
        RA_TRY(ra_spool_put(b->track->output,
                            ra_shape_slot(b->shape, RA_RECORD_OUT, b->lane->full, b->step.t),
                            b->out, n * sizeof *b->out, err));
    if (b->first_repeat && b->config->quality && (b->ops->caps & RA_CAP_EXACT))
        RA_TRY(check_reference(b, b->out, err));
    return check_same(b, b->lane->id, b->step.t, first, b->out, err);
}

enum ra_status ra_beat_check_played(struct ra_beat *b, const float *out, char *hash,
                                    struct ra_error *err)
{
    const struct ra_shape *shape = b->shape;
    size_t n = out_floats(b), tile_floats = (size_t)shape->n_lanes * n;
    struct ra_sha256 sha;
    ra_sha256_init(&sha);
    for (int32_t t = 0; t < shape->run_steps; t++, out += tile_floats * (size_t)b->track->n_tiles) {
        if (ra_shape_counts(shape, t))
            ra_sha256_bytes(&sha, out, tile_floats * sizeof *out);
        for (int i = shape->n_lanes; i < b->track->n_tiles * shape->n_lanes; i++) {
            int lane = i % shape->n_lanes;
            enum ra_status st = check_same(b, shape->lanes[lane].id, t, out + (size_t)lane * n,
                                           out + (size_t)i * n, err);
            if (st != RA_OK)
                return ra_fail_context(err, st, "tile %d", i / shape->n_lanes);
        }
    }
    ra_sha256_hex(&sha, hash);
    return RA_OK;
}
