/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures of merit of one layer-step: what the attended sets hold of the recorded softmax, how far
 * the output over them is from the recorded one, how many of the best positions they have.
 */
#include <math.h>
#include <string.h>

#include "sim/engine_internal.h"
#include "sim/quality.h"
#include "sim/reference.h"
#include "sim/select.h"

/* A' = A without self is all of the set but its last. */
static double recall_of(struct ra_track *track, const struct ra_seen *at, const double *score,
                        const struct ra_positions *set)
{
    if (!set->pos)
        return at->step->self > 0 ? 1 : NAN;
    return ra_topk_recall(score, at->step->self, set->pos, set->n - 1, track->scratch);
}

static void measure_recall(struct ra_track *track, const struct ra_seen *at,
                           const struct ra_plan *plan, double *recall)
{
    const struct ra_model *m = track->shape->model;
    size_t stride = (size_t)(at->step->self + 1);
    for (int i = 0; i < (plan->per_query_head ? m->Hq : m->Hkv); i++) {
        const double *score = at->true_prob + (size_t)i * stride;
        if (!plan->per_query_head) {
            score = track->aggregated;
            if (track->sets[i].pos)
                ra_aggregate(at->true_prob + (size_t)(i * m->G) * stride, stride, m->G,
                             at->step->self + 1, track->agg, track->aggregated);
        }
        recall[i] = recall_of(track, at, score, &track->sets[i]);
    }
}

/* What the set holds of the recorded softmax. */
static void true_mass(const struct ra_seen *at, const struct ra_positions *set, int first, int n,
                      double *mass)
{
    for (int h = 0; h < n; h++) {
        const double *prob = at->true_prob + (size_t)(first + h) * (size_t)(at->step->self + 1);
        mass[h] = 0;
        for (int32_t i = 0; i < set->n; i++)
            mass[h] += prob[set->pos[i]];
    }
}

/* Mass, error and output of query heads first..first+n-1, which attend to one set. */
static void measure_set(struct ra_track *track, const struct ra_seen *at,
                        const struct ra_positions *set, int first, int n, size_t base)
{
    const struct ra_model *m = track->shape->model;
    size_t Dv = (size_t)m->Dv, head = (size_t)first, L = (size_t)(at->step->self + 1);
    double *attended = track->attended + head * Dv, *mass = track->mass + base + head;
    const double *want = at->true_out + head * Dv;
    if (!set->pos) {
        memcpy(attended, at->out + head * Dv, (size_t)n * Dv * sizeof *attended);
        for (size_t h = 0; h < (size_t)n; h++) {
            mass[h] = 1;
            track->err[base + head + h] =
                at->is_true ? 0 : ra_rel_err(attended + h * Dv, want + h * Dv, m->Dv);
        }
        return;
    }
    int kv = first / m->G;
    size_t rows = (size_t)(track->shape->P + track->shape->run_steps) * ra_dtype_bytes(m->dtype);
    ra_reference_attend_set(
        &(struct ra_reference_set){.model = m,
                                   .k = at->k + (size_t)kv * rows * (size_t)m->D,
                                   .v = at->v + (size_t)kv * rows * (size_t)m->Dv,
                                   .q = at->q + head * (size_t)m->D,
                                   .prob = at->prob + head * L,
                                   .prob_stride = L,
                                   .n_heads = n,
                                   .set = set,
                                   .out = attended,
                                   .mass = mass});
    if (!at->is_true)
        true_mass(at, set, first, n, mass);
    for (size_t h = 0; h < (size_t)n; h++)
        track->err[base + head + h] = ra_rel_err(attended + h * Dv, want + h * Dv, m->Dv);
}

static void summarise_heads(const double *values, int n, double *mean, double *extreme, int sign)
{
    double sum = 0;
    int defined = 0;
    *extreme = NAN;
    for (int i = 0; i < n; i++) {
        if (isnan(values[i]))
            continue;
        sum += values[i];
        if (defined++ == 0 || sign * values[i] > sign * *extreme)
            *extreme = values[i];
    }
    *mean = defined ? sum / defined : NAN;
}

static bool is_everything(const struct ra_track *track, int n_sets, int32_t L)
{
    for (int i = 0; i < n_sets; i++)
        if (track->sets[i].n != L)
            return false;
    return true;
}

void ra_track_measure(struct ra_track *track, const struct ra_seen *at, const struct ra_plan *plan,
                      struct ra_layer_step_row *row)
{
    const struct ra_shape *shape = track->shape;
    const struct ra_model *m = shape->model;
    size_t where = ra_shape_at(shape, at->step->layer, at->step->t);
    size_t base = where * (size_t)m->Hq;
    int32_t L = at->step->self + 1;
    int n_sets = plan->per_query_head ? m->Hq : m->Hkv;
    int per_set = m->Hq / n_sets;
    for (int i = 0; i < n_sets; i++)
        measure_set(track, at, &track->sets[i], i * per_set, per_set, base);
    for (int h = 0; h < m->Hq; h++) {
        const struct ra_positions *set = &track->sets[h / per_set];
        track->err_undefined += isnan(track->err[base + (size_t)h]) != 0;
        ra_track_types_head(track, at->true_prob + (size_t)h * (size_t)L, L, set,
                            track->err[base + (size_t)h]);
    }
    ra_track_layer_err(track)[where] = ra_rel_err(track->attended, at->true_out, m->Hq * m->Dv);
    ra_track_types_keys(track, n_sets, L);
    measure_recall(track, at, plan, track->recall + base);
    bool whole = is_everything(track, n_sets, L);
    track->flags[where] = (uint8_t)((plan->is_full ? RA_FLAG_FULL : 0) |
                                    (!plan->is_full || !whole ? RA_FLAG_SPARSE : 0));
    double unused;
    summarise_heads(track->mass + base, m->Hq, &row->mass_recovered_mean, &row->mass_recovered_min,
                    -1);
    summarise_heads(track->err + base, m->Hq, &row->output_rel_err_mean, &row->output_rel_err_max,
                    1);
    summarise_heads(track->recall + base, n_sets, &row->topk_recall, &unused, 1);
}
