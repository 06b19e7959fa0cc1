/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a backend computes, checked: against the f64 reference to the bound of rounding, and among
 * tiles, which do the same work on the same values, bit for bit.
 */
#include <math.h>
#include <string.h>

#include "sim/engine_beat.h"

/* A weight below the least of f32 is lost to a backend. What such weights carry of f16's largest
 * values, over a thousand keys, is smaller than this: outputs below it are held to zero. */
static const double least_output = 0x1p-100;

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
        bool is_zero = sqrt(norm) < least_output;
        double error = is_zero ? sqrt(difference) : sqrt(difference / norm);
        if (!(error <= bound)) /* catches NaN too */
            return ra_fail(err, RA_EDIVERGED,
                           "layer %d, step %d, head %d: the %s backend's output is off by %.3g, "
                           "rounding explains %.3g",
                           b->lane->id, b->step.t, h, b->ops->name, error, bound);
        if (!is_zero && !b->lane->window)
            b->track->worst_err = fmax(b->track->worst_err, error);
    }
    return RA_OK;
}

static enum ra_status check_same(const struct ra_beat *b, const float *first, const float *out,
                                 struct ra_error *err)
{
    if (memcmp(first, out, out_floats(b) * sizeof *out) == 0)
        return RA_OK;
    return ra_fail(err, RA_EDIVERGED,
                   "layer %d, step %d: the %s backend's output is not that of tile 0", b->lane->id,
                   b->step.t, b->ops->name);
}

enum ra_status ra_beat_check_output(struct ra_beat *b, struct ra_error *err)
{
    size_t n = out_floats(b);
    int number = b->member * b->shape->n_lanes + (int)(b->lane - b->shape->lanes);
    float *first = b->first_out + (size_t)number * n;
    bool is_first = b->track->tile == 0;
    if (!ra_shape_counts(b->shape, b->step.t) || b->is_recording)
        return RA_OK;
    if (is_first)
        memcpy(first, b->out, n * sizeof *first);
    if (is_first)
        ra_sha256_bytes(&b->output[b->member], b->out, n * sizeof *b->out);
    if (b->first_repeat && is_first && b->track->output && b->lane->full >= 0)
        RA_TRY(ra_spool_put(b->track->output,
                            ra_shape_slot(b->shape, RA_RECORD_OUT, b->lane->full, b->step.t),
                            b->out, n * sizeof *b->out, err));
    if (b->first_repeat && b->config->quality && (b->ops->caps & RA_CAP_EXACT))
        RA_TRY(check_reference(b, b->out, err));
    return check_same(b, first, b->out, err);
}

/* Of one member and lane of a step, of which `out` is tile 0's. */
static enum ra_status check_tiles(struct ra_beat *b, const float *out, struct ra_error *err)
{
    size_t tile_floats = (size_t)(b->shape->n_lanes * b->members->n) * out_floats(b);
    for (int tile = 1; tile < b->track->n_tiles; tile++) {
        enum ra_status st = check_same(b, out, out + (size_t)tile * tile_floats, err);
        if (st != RA_OK)
            return ra_fail_context(err, st, "tile %d", tile);
    }
    return RA_OK;
}

static enum ra_status check_played(struct ra_beat *b, const float *out, bool is_first,
                                   struct ra_error *err)
{
    bool apart = b->members->n > 1, counts = ra_shape_counts(b->shape, b->step.t);
    enum ra_status st = RA_OK;
    if (apart && is_first && counts && (b->ops->caps & RA_CAP_EXACT))
        st = check_reference(b, out, err);
    if (st == RA_OK)
        st = check_tiles(b, out, err);
    if (st == RA_OK && counts)
        ra_sha256_bytes(&b->output[b->member], out, out_floats(b) * sizeof *out);
    return ra_member_fail(b->members, b->member, st, err);
}

/* All members' of the lane and step at hand. */
static enum ra_status check_members(struct ra_beat *b, const float *out, bool is_first,
                                    struct ra_error *err)
{
    enum ra_status st = RA_OK;
    for (int i = 0; st == RA_OK && i < b->members->n; i++) {
        ra_beat_turn(b, i);
        st = check_played(b, out + (size_t)i * out_floats(b), is_first, err);
    }
    ra_beat_turn(b, 0);
    return st;
}

/* FNV-1a, as good as any to tell which step differs. */
static uint64_t hash_of(const float *out, size_t n)
{
    const unsigned char *bytes = (const unsigned char *)out;
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < n * sizeof *out; i++)
        hash = (hash ^ bytes[i]) * 1099511628211u;
    return hash;
}

enum ra_status ra_beat_check_played(struct ra_beat *b, const float *out, bool is_first,
                                    struct ra_error *err)
{
    const struct ra_shape *shape = b->shape;
    size_t members_floats = (size_t)b->members->n * out_floats(b);
    size_t tile_floats = (size_t)shape->n_lanes * members_floats;
    for (int i = 0; i < b->members->n; i++)
        ra_sha256_init(&b->output[i]);
    for (b->step.t = 0; b->step.t < shape->run_steps; b->step.t++) {
        for (int l = 0; l < shape->n_lanes; l++) {
            b->lane = &shape->lanes[l];
            RA_TRY(check_members(b, out + (size_t)l * members_floats, is_first, err));
        }
        if (ra_shape_counts(shape, b->step.t))
            b->step_outputs[b->step.t + 1] = hash_of(out, tile_floats);
        out += (size_t)b->track->n_tiles * tile_floats;
    }
    return RA_OK;
}
