/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The books of one schedule: what a layer-step read, wrote and moved, which positions it attended,
 * and the fingerprint over all of it. Integers only, so every machine and thread count agrees.
 * Logits, ranking keys and index entries are counted at 4 bytes, as kernels store them.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/engine_internal.h"
#include "sim/kvset.h"
#include "sim/pages.h"

static const int64_t WORD = 4;

static int32_t capacity(const struct ra_shape *shape)
{
    return shape->P + shape->run_steps + 1;
}

static double *nan_array(size_t n)
{
    double *values = malloc((n + 1) * sizeof *values);
    for (size_t i = 0; values && i < n; i++)
        values[i] = NAN;
    return values;
}

static enum ra_status open_values(struct ra_track *track, struct ra_error *err)
{
    const struct ra_shape *shape = track->shape;
    size_t steps = (size_t)shape->n_full * (size_t)shape->n_steps;
    size_t Hq = (size_t)shape->model->Hq, Hkv = (size_t)shape->model->Hkv;
    track->flags = calloc(steps + 1, 1);
    track->overlap = nan_array(steps * Hkv);
    if (track->config->quality) {
        track->mass = nan_array(steps * Hq);
        track->err = nan_array(steps * (Hq + 1));
        track->recall = nan_array(steps * Hq);
    }
    if (!track->flags || !track->overlap ||
        (track->config->quality && (!track->mass || !track->err || !track->recall)))
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the figures of %zu layer-steps",
                       steps);
    return RA_OK;
}

enum ra_status ra_track_open(struct ra_track *track, const struct ra_replay_config *config,
                             const struct ra_shape *shape, int number, struct ra_error *err)
{
    size_t Hq = (size_t)shape->model->Hq, Hkv = (size_t)shape->model->Hkv;
    size_t cap = (size_t)capacity(shape);
    *track = (struct ra_track){.config = config,
                               .shape = shape,
                               .spec = config->specs[number],
                               .number = number,
                               .caches = ra_policy_spec_caches(config->specs[number])};
    RA_TRY(ra_track_open_transform(track, err));
    track->lane_hash = calloc((size_t)shape->n_lanes, sizeof *track->lane_hash);
    track->sets = calloc(Hq, sizeof *track->sets);
    track->set_storage = malloc(Hkv * cap * sizeof *track->set_storage);
    track->before = calloc(Hkv, sizeof *track->before);
    track->before_storage = malloc(Hkv * cap * sizeof *track->before_storage);
    track->mark = calloc(cap, 1);
    track->aggregated = malloc(cap * sizeof *track->aggregated);
    track->scratch = malloc(cap * sizeof *track->scratch);
    track->attended = malloc(Hq * (size_t)shape->model->Dv * sizeof *track->attended);
    if (!track->lane_hash || !track->sets || !track->set_storage || !track->before ||
        !track->before_storage || !track->mark || !track->aggregated || !track->scratch ||
        !track->attended)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for a context of %zu", cap);
    for (int l = 0; l < shape->n_lanes; l++)
        ra_sha256_init(&track->lane_hash[l]);
    RA_TRY(open_values(track, err));
    RA_TRY(ra_track_open_residence(track, err));
    RA_TRY(ra_track_open_types(track, err));
    RA_TRY(ra_spool_open(&track->spool, ra_shape_slots(shape), err));
    if (ra_track_exports(track))
        RA_TRY(ra_spool_open(&track->output, ra_shape_slots(shape), err));
    if (config->quality)
        RA_TRY(ra_scorer_open(&track->scorer, shape->model, shape->P, shape->P + shape->run_steps,
                              err));
    return ra_track_restart(track, 1, err);
}

void ra_track_close(struct ra_track *track)
{
    ra_track_end(track);
    ra_spool_close(track->spool);
    ra_spool_close(track->output);
    ra_spool_close(track->keys);
    for (int i = 0; i < track->n_residence; i++) {
        free(track->residence[i].entered);
        free(track->residence[i].now);
    }
    free(track->residence);
    free(track->lane_hash);
    free(track->mass);
    free(track->err);
    free(track->recall);
    free(track->overlap);
    free(track->flags);
    free(track->rows);
    free(track->stays);
    free(track->sets);
    free(track->set_storage);
    free(track->before);
    free(track->before_storage);
    free(track->mark);
    free(track->aggregated);
    free(track->scratch);
    free(track->attended);
    free(track->record);
    free(track->types);
    ra_scorer_close(track->scorer);
    free(track->row_bits);
}

enum ra_status ra_track_widen(struct ra_track *track, const struct ra_plan *plan,
                              struct ra_error *err)
{
    if (!plan->per_query_head || track->is_wide)
        return RA_OK;
    size_t n = (size_t)track->shape->model->Hq * (size_t)capacity(track->shape);
    int32_t *storage = realloc(track->set_storage, n * sizeof *storage);
    if (!storage)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for sets of %zu positions", n);
    track->set_storage = storage;
    track->is_wide = true;
    return RA_OK;
}

bool ra_track_exports(const struct ra_track *track)
{
    return track->config->export_paths && track->config->export_paths[track->number];
}

static bool is_compact(const struct ra_track *track)
{
    return track->caches == RA_CACHES_REDUCED ||
           (track->caches == RA_CACHES_BOTH && track->config->cache == RA_CACHE_COMPACT);
}

void ra_track_before(struct ra_track *track, const struct ra_step *step)
{
    for (int h = 0; h < track->shape->model->Hkv; h++) {
        struct ra_retained view;
        int32_t *copy = track->before_storage + (size_t)h * (size_t)capacity(track->shape);
        ra_policy_view(track->policy, step->layer, h, &view);
        if (view.set.n)
            memcpy(copy, view.set.pos, (size_t)view.set.n * sizeof *copy);
        track->before[h].set = (struct ra_positions){.pos = copy, .n = view.set.n};
    }
}

/* Positions of a set and self, in storage of the track's own. */
static struct ra_positions with_self(struct ra_track *track, int number,
                                     const struct ra_positions *set, int32_t self)
{
    int32_t *out = track->set_storage + (size_t)number * (size_t)capacity(track->shape);
    int32_t n = set->n;
    if (n)
        memcpy(out, set->pos, (size_t)n * sizeof *out);
    if (n == 0 || out[n - 1] != self)
        out[n++] = self;
    return (struct ra_positions){.pos = out, .n = n};
}

/* Rows that G sets of one KV head touch together. */
static int64_t union_size(struct ra_track *track, const struct ra_positions *sets, int G)
{
    int64_t n = 0;
    for (int g = 0; g < G; g++)
        for (int32_t i = 0; i < sets[g].n; i++) {
            n += !track->mark[sets[g].pos[i]];
            track->mark[sets[g].pos[i]] = 1;
        }
    for (int g = 0; g < G; g++)
        for (int32_t i = 0; i < sets[g].n; i++)
            track->mark[sets[g].pos[i]] = 0;
    return n;
}

static void hash_sets(struct ra_track *track, const struct ra_lane *lane,
                      const struct ra_step *step, const struct ra_plan *plan, int n_sets)
{
    struct ra_sha256 *hash = &track->lane_hash[lane - track->shape->lanes];
    for (int i = 0; i < n_sets; i++) {
        const struct ra_positions *set = &track->sets[i];
        ra_sha256_i64(hash, track->config->seq);
        ra_sha256_i64(hash, step->t);
        ra_sha256_i64(hash, lane->id);
        ra_sha256_i64(hash, i);
        ra_sha256_i64(hash, plan->is_full);
        ra_sha256_i64(hash, set->pos ? set->n : -1);
        if (set->pos)
            ra_sha256_i32s(hash, set->pos, (size_t)set->n);
    }
}

void ra_track_attend(struct ra_track *track, const struct ra_step *step, const struct ra_plan *plan,
                     struct ra_layer_step_row *row)
{
    const struct ra_model *m = track->shape->model;
    int32_t L = step->self + 1;
    int n_sets = plan->per_query_head ? m->Hq : m->Hkv;
    int64_t attended = 0, indices = 0;
    row->keys_read = 0;
    for (int i = 0; i < n_sets; i++) {
        struct ra_retained view;
        if (plan->attend == RA_ATTEND_ALL) {
            track->sets[i] = (struct ra_positions){.pos = NULL, .n = L};
        } else if (plan->attend == RA_ATTEND_CACHE) {
            ra_policy_view(track->policy, step->layer, i, &view);
            track->sets[i] = with_self(track, i, &view.set, step->self);
            indices += is_compact(track) ? 0 : view.set.n;
        } else {
            track->sets[i] = with_self(track, i, &plan->sets[i], step->self);
            indices += plan->sets[i].n;
        }
        attended += track->sets[i].n;
    }
    row->keys_read = attended;
    if (plan->per_query_head) {
        row->keys_read = 0;
        for (int h = 0; h < m->Hkv; h++)
            row->keys_read += union_size(track, track->sets + (size_t)(h * m->G), m->G);
    }
    row->selection_bytes = WORD * indices;
    if (ra_shape_counts(track->shape, step->t))
        track->total.keys_attended += plan->per_query_head ? attended : attended * m->G;
}

/* Entries that moved; overlap [Hkv], NaN at the prefill. */
static void rebuilt(struct ra_track *track, const struct ra_step *step,
                    struct ra_layer_step_row *row, double *overlap)
{
    const struct ra_model *m = track->shape->model;
    double sum = 0;
    int defined = 0;
    row->refresh_entries = 0;
    for (int h = 0; h < m->Hkv; h++) {
        struct ra_retained view;
        ra_policy_view(track->policy, step->layer, h, &view);
        const struct ra_positions *old = &track->before[h].set;
        int32_t shared = ra_kvset_common(view.set.pos, view.set.n, old->pos, old->n);
        row->refresh_entries += view.set.n - shared;
        row->selection_bytes += 2 * WORD * view.set.n;
        overlap[h] = step->t >= 0 && view.set.n ? (double)shared / view.set.n : NAN;
        if (!isnan(overlap[h])) {
            sum += overlap[h];
            defined++;
        }
    }
    row->refresh_overlap = defined ? sum / defined : NAN;
    row->refresh_bytes = is_compact(track) && track->caches == RA_CACHES_BOTH
                             ? ra_track_kv_bytes(track, step->layer, row->refresh_entries)
                             : 0;
}

static void add_counts(struct ra_counts *sum, const struct ra_layer_step_row *row)
{
    sum->keys_read += row->keys_read;
    sum->kv_read_bytes += row->kv_read_bytes;
    sum->kv_write_bytes += row->kv_write_bytes;
    sum->refresh_entries += row->refresh_entries;
    sum->refresh_bytes += row->refresh_bytes;
    sum->selection_bytes += row->selection_bytes;
}

/* Bytes of what is kept of each of n pages of all KV heads. */
static int64_t digest_bytes(const struct ra_model *m, const struct ra_page_rule *rule, int64_t n)
{
    int64_t vectors = rule->digest == RA_PAGE_BOUNDS ? 2 : 1;
    return m->Hkv * n * vectors * m->D * (int64_t)ra_dtype_bytes(m->dtype);
}

/* Digests are formed with the prompt, and the newest page's with each row. */
static int64_t digest_upkeep(const struct ra_track *track, const struct ra_step *step,
                             const struct ra_page_rule *rule)
{
    if (step->t < 0)
        return digest_bytes(track->shape->model, rule, ra_pages_count(track->shape->P, rule->page));
    if (rule->rows > 0 && step->self >= rule->rows)
        return 0;
    return 2 * digest_bytes(track->shape->model, rule, 1);
}

/* Scores cost logits and ranking keys, written and read, and a pass over what they are scores of
 * where they are no by-product. Returns the bytes of keys. */
static int64_t scoring_read(const struct ra_track *track, const struct ra_step *step,
                            const struct ra_plan *plan, struct ra_layer_step_row *row)
{
    const struct ra_model *m = track->shape->model;
    int64_t L = step->self + 1, heads = m->Hq + (plan->per_query_head ? m->Hq : m->Hkv);
    int64_t keys = ra_track_k_bytes(track, step->layer, m->Hkv * L);
    if (plan->pages)
        row->selection_bytes += digest_upkeep(track, step, plan->pages);
    if (plan->scores == RA_SCORES_NONE || plan->scores_are_free)
        return 0;
    switch (plan->of) {
    case RA_SCORES_OF_ALL:
        row->selection_bytes += 2 * WORD * L * heads;
        return plan->scores == RA_SCORES_AFTER && track->config->scores == RA_SCORES_FUSED ? 0
                                                                                           : keys;
    case RA_SCORES_OF_ATTENDED: /* weights of the group, and the score of each entry */
        row->selection_bytes += 2 * WORD * row->keys_read * (m->G + 1);
        return 0;
    case RA_SCORES_OF_PROMPT: /* the prefill's own sums */
        row->selection_bytes += 2 * WORD * L * heads;
        return 0;
    case RA_SCORES_OF_WINDOW:
        row->selection_bytes += 2 * WORD * L * heads;
        return keys;
    case RA_SCORES_OF_PAGES:
        RA_BUG_ON(!plan->pages);
        L = ra_pages_count(ra_pages_rows(plan->pages, step->self + 1), plan->pages->page);
        row->selection_bytes += digest_bytes(m, plan->pages, L) + 2 * WORD * L * heads;
        return 0;
    }
    return 0;
}

static int64_t written_rows(const struct ra_track *track, const struct ra_step *step,
                            const struct ra_plan *plan)
{
    const struct ra_model *m = track->shape->model;
    if (step->t >= 0) {
        bool copied = track->caches == RA_CACHES_BOTH && is_compact(track) && !plan->is_full &&
                      !plan->rebuilds;
        return copied ? 2 * m->Hkv : m->Hkv;
    }
    if (track->caches != RA_CACHES_REDUCED)
        return (int64_t)m->Hkv * track->shape->P;
    int64_t rows = 0;
    for (int h = 0; h < m->Hkv; h++) {
        struct ra_retained view;
        ra_policy_view(track->policy, step->layer, h, &view);
        rows += view.set.n;
    }
    return rows;
}

static enum ra_status push_row(struct ra_track *track, const struct ra_layer_step_row *row,
                               struct ra_error *err)
{
    if (!track->config->store && (!track->whole || row->step < 0))
        return RA_OK;
    if (track->n_rows == track->rows_capacity) {
        size_t more = 2 * track->rows_capacity + 256;
        struct ra_layer_step_row *rows = realloc(track->rows, more * sizeof *rows);
        if (!rows)
            return ra_fail(err, RA_ENOMEM, "engine: no memory for %zu rows", more);
        track->rows = rows;
        track->rows_capacity = more;
    }
    track->rows[track->n_rows++] = *row;
    return RA_OK;
}

static void hash_counts(struct ra_sha256 *hash, const struct ra_layer_step_row *row)
{
    const int64_t counts[] = {
        row->step,           row->layer,          row->is_full,         row->keys_read,
        row->kv_read_bytes,  row->kv_write_bytes, row->refresh_entries, row->refresh_bytes,
        row->selection_bytes};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        ra_sha256_i64(hash, counts[i]);
}

static enum ra_status finish(struct ra_track *track, const struct ra_lane *lane,
                             const struct ra_step *step, const struct ra_plan *plan,
                             struct ra_layer_step_row *row, struct ra_error *err)
{
    const struct ra_model *m = track->shape->model;
    if (step->t >= 0 && !ra_shape_counts(track->shape, step->t))
        return RA_OK;
    row->step = step->t;
    row->layer = lane->id;
    row->is_full = plan->is_full;
    row->query_cosine = plan->checks_query ? plan->query_cosine : NAN;
    row->kv_read_bytes = ra_track_kv_bytes(track, step->layer, row->keys_read) + row->refresh_bytes;
    row->kv_read_bytes += scoring_read(track, step, plan, row);
    row->kv_write_bytes =
        ra_track_kv_bytes(track, step->layer, written_rows(track, step, plan)) + row->refresh_bytes;
    if (step->t < 0) {
        add_counts(&track->prefill, row);
    } else {
        hash_sets(track, lane, step, plan, plan->per_query_head ? m->Hq : m->Hkv);
        add_counts(&track->total, row);
        track->full_layer_steps += plan->is_full;
        track->recycled_layer_steps += !plan->is_full;
    }
    hash_counts(&track->lane_hash[lane - track->shape->lanes], row);
    return push_row(track, row, err);
}

enum ra_status ra_track_close_step(struct ra_track *track, const struct ra_lane *lane,
                                   const struct ra_step *step, const struct ra_plan *plan,
                                   struct ra_layer_step_row *row, struct ra_error *err)
{
    /* A full step refreshes C_r even where the rule is to keep the newest (streaming). */
    bool refreshed = (plan->rebuilds && track->caches == RA_CACHES_BOTH) ||
                     (track->caches == RA_CACHES_BOTH && (plan->is_full || step->t < 0));
    if (refreshed)
        rebuilt(track, step, row,
                ra_shape_counts(track->shape, step->t)
                    ? track->overlap + ra_shape_at(track->shape, step->layer, step->t) *
                                           (size_t)track->shape->model->Hkv
                    : track->aggregated);
    RA_TRY(ra_track_residence(track, step, err));
    return finish(track, lane, step, plan, row, err);
}

struct ra_layer_step_row ra_track_blank_row(void)
{
    return (struct ra_layer_step_row){.mass_recovered_mean = NAN,
                                      .mass_recovered_min = NAN,
                                      .output_rel_err_mean = NAN,
                                      .output_rel_err_max = NAN,
                                      .topk_recall = NAN,
                                      .refresh_overlap = NAN,
                                      .query_cosine = NAN};
}

enum ra_status ra_track_window(struct ra_track *track, const struct ra_lane *lane, int32_t t,
                               struct ra_error *err)
{
    const struct ra_model *m = track->shape->model;
    if (t >= 0 && !ra_shape_counts(track->shape, t))
        return RA_OK;
    int32_t L = track->shape->P + t + 1, visible = L < lane->window ? L : lane->window;
    int64_t E = (int64_t)ra_model_row_bytes(m);
    struct ra_layer_step_row row = ra_track_blank_row();
    row.step = t;
    row.layer = lane->id;
    if (t >= 0) {
        row.keys_read = (int64_t)m->Hkv * visible;
        row.kv_read_bytes = row.keys_read * E;
        row.kv_write_bytes = m->Hkv * E;
        track->total.keys_attended += (int64_t)m->Hq * visible;
        track->window_keys += row.keys_read;
        track->window_read += row.kv_read_bytes;
        track->window_write += row.kv_write_bytes;
        add_counts(&track->total, &row);
    } else {
        row.kv_write_bytes = (int64_t)m->Hkv * visible * E;
        add_counts(&track->prefill, &row);
    }
    hash_counts(&track->lane_hash[lane - track->shape->lanes], &row);
    return push_row(track, &row, err);
}

/* Of a copy there are counts alone. */
static enum ra_status store_member(struct ra_track *track, struct ra_error *err)
{
    struct ra_store *store = track->whole->store;
    for (size_t i = 0; i < track->n_rows; i++) {
        struct ra_layer_step_row *row = &track->rows[i];
        row->run_id = track->whole->run_ids[track->number];
        RA_TRY(
            ra_store_member_step(store, row, track->member, track->shape->P + row->step + 1, err));
    }
    track->n_rows = 0;
    return RA_OK;
}

enum ra_status ra_track_store(struct ra_track *track, struct ra_error *err)
{
    if (track->whole)
        return store_member(track, err);
    struct ra_store *store = track->config->store;
    if (!store)
        return RA_OK;
    int64_t run_id = track->config->run_ids[track->number];
    for (size_t i = 0; i < track->n_rows; i++) {
        track->rows[i].run_id = run_id;
        RA_TRY(ra_store_layer_step(store, &track->rows[i], err));
    }
    for (size_t i = 0; i < track->n_stays; i++) {
        track->stays[i].run_id = run_id;
        RA_TRY(ra_store_retained(store, &track->stays[i], err));
    }
    track->n_rows = 0;
    track->n_stays = 0;
    return RA_OK;
}

void ra_track_fingerprint(struct ra_track *track, char hex[RA_SHA256_HEX])
{
    struct ra_sha256 whole;
    ra_sha256_init(&whole);
    for (int l = 0; l < track->shape->n_lanes; l++) {
        char lane[RA_SHA256_HEX];
        ra_sha256_hex(&track->lane_hash[l], lane);
        ra_sha256_bytes(&whole, lane, RA_SHA256_HEX - 1);
    }
    ra_sha256_hex(&whole, hex);
}
