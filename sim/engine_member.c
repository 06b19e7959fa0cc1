/* SPDX-License-Identifier: Apache-2.0 */
/* What of a batch differs, and phase 1 of it. */
#include "sim/engine_member.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int ra_engine_members(const struct ra_replay_config *config)
{
    bool differ = config->spread || config->ragged > 0 || config->with;
    return differ && config->batch > 1 ? config->batch : 1;
}

int ra_replay_sequences(const struct ra_replay_config *config)
{
    return config->with ? ra_engine_members(config) : 1;
}

/* Lengths fall evenly from that of the first to (1 - ragged) of it. A share such as 0.29 is a
 * little less in f64 than the number that was meant. */
static int32_t rows_dropped(const struct ra_replay_config *config, int32_t P, int number)
{
    if (!(config->ragged > 0) || config->batch < 2)
        return 0;
    return (int32_t)floor(config->ragged * P * number / (config->batch - 1) + 1e-6);
}

/* A sequence of its own, not a copy of the first. */
static bool is_own(const struct ra_replay_config *config, int number)
{
    return number == 0 || config->with;
}

static void set_phase(const struct ra_replay_config *config, int number, struct ra_shape *shape)
{
    shape->phase = config->spread ? number : 0;
    shape->of = config->spread ? config->batch : 0;
}

struct ra_shape ra_member_shape(const struct ra_replay_config *config,
                                const struct ra_shape *recorded, int number)
{
    struct ra_shape shape = *recorded;
    shape.drop = rows_dropped(config, recorded->P, number);
    shape.P -= shape.drop;
    set_phase(config, number, &shape);
    if (number > 0)
        shape.types = NULL;
    return shape;
}

struct ra_replay_config ra_member_config(const struct ra_replay_config *config, int number)
{
    struct ra_replay_config own = *config;
    if (number == 0)
        return own;
    if (config->with) {
        const struct ra_companion *other = &config->with[number - 1];
        own.trace = other->trace;
        own.seq = other->seq;
        own.export_paths = other->export_paths;
        own.run_ids = other->run_ids;
        return own;
    }
    own.by_type = false;
    own.export_paths = NULL;
    own.store = NULL;
    own.run_ids = NULL;
    own.keep = NULL;
    own.n_keep = 0;
    return own;
}

static bool same_rope(const struct ra_rope *a, const struct ra_rope *b)
{
    return a->type == b->type && a->theta == b->theta && a->factor == b->factor &&
           a->low_freq_factor == b->low_freq_factor && a->high_freq_factor == b->high_freq_factor &&
           a->original_max_position == b->original_max_position;
}

static void describe(const struct ra_model *m, char *text, size_t size)
{
    snprintf(text, size, "%d layers, %d query and %d KV heads, D = %d, Dv = %d, %s", m->n_layers,
             m->Hq, m->Hkv, m->D, m->Dv, ra_dtype_name(m->dtype));
}

/* One backend holds them, so what it is told of one must be true of all. */
static enum ra_status check_alike(const struct ra_member *first, const struct ra_member *other,
                                  struct ra_error *err)
{
    const struct ra_shape *a = &first->shape, *b = &other->shape;
    const struct ra_model *m = a->model, *n = b->model;
    char expected[128], got[128];
    describe(m, expected, sizeof expected);
    describe(n, got, sizeof got);
    if (strcmp(expected, got) != 0)
        return ra_fail(err, RA_EUSAGE, "%s: in a batch with %s: expected its %s, got %s",
                       b->info->path, a->info->path, expected, got);
    if (m->attn_scale != n->attn_scale || !same_rope(&m->rope, &n->rope))
        return ra_fail(err, RA_EUSAGE,
                       "%s: in a batch with %s: expected its attn_scale %g and its rotary "
                       "embedding, got attn_scale %g",
                       b->info->path, a->info->path, m->attn_scale, n->attn_scale);
    bool same = a->n_lanes == b->n_lanes;
    for (int l = 0; same && l < a->n_lanes; l++)
        same = a->lanes[l].id == b->lanes[l].id && a->lanes[l].window == b->lanes[l].window;
    if (!same)
        return ra_fail(err, RA_EUSAGE,
                       "%s: in a batch with %s: expected the same layers and windows recorded; "
                       "choose those that both have (--layers)",
                       b->info->path, a->info->path);
    if (a->run_steps != b->run_steps)
        return ra_fail(err, RA_EUSAGE,
                       "%s: sequence %d: in a batch with %s: expected %d steps, got %d; choose "
                       "those that both have (--steps)",
                       b->info->path, other->config.seq, a->info->path, a->run_steps, b->run_steps);
    return RA_OK;
}

enum ra_status ra_member_fail(const struct ra_members *members, int number, enum ra_status st,
                              struct ra_error *err)
{
    const struct ra_member *member = &members->list[number];
    const struct ra_replay_config *config = &member->config;
    if (members->n == 1 || st == RA_OK || st == RA_EINTERRUPTED)
        return st;
    if (config->with)
        return ra_fail_context(err, st, "%s, sequence %d", member->shape.info->path, config->seq);
    if (st == RA_EDIVERGED)
        return ra_fail_context(err, st, "copy %d", number);
    if (number == 0) /* as it would be without copies */
        return st;
    return ra_fail_context(err, st, "copy %d, of %d prompt tokens", number, member->shape.P);
}

static enum ra_status open_shape(struct ra_members *members, int number, struct ra_error *err)
{
    struct ra_member *first = &members->list[0], *member = &members->list[number];
    const struct ra_replay_config *config = &first->config;
    if (!is_own(config, number)) {
        member->shape = ra_member_shape(config, &first->shape, number);
        return RA_OK;
    }
    RA_TRY(ra_shape_open(&member->shape, &member->config, err));
    set_phase(config, number, &member->shape);
    return check_alike(first, member, err);
}

enum ra_status ra_members_open(struct ra_members *members, const struct ra_replay_config *config,
                               struct ra_error *err)
{
    size_t n = (size_t)ra_engine_members(config), n_policies = (size_t)config->n_policies;
    *members = (struct ra_members){.n = (int)n};
    members->list = calloc(n, sizeof *members->list);
    members->tracks = calloc(n * n_policies, sizeof *members->tracks);
    enum ra_status st = RA_OK;
    if (!members->list || !members->tracks)
        st = ra_fail(err, RA_ENOMEM, "engine: no memory for the schedules of %zu copies", n);
    for (size_t i = 0; st == RA_OK && i < n; i++) {
        members->list[i].config = ra_member_config(config, (int)i);
        members->list[i].tracks = members->tracks + i * n_policies;
        st = open_shape(members, (int)i, err);
    }
    if (st != RA_OK)
        ra_members_close(members);
    return st;
}

static enum ra_status form_queries(struct ra_members *members, struct ra_error *err)
{
    const struct ra_replay_config *config = &members->list[0].config;
    bool compares = false;
    for (int p = 0; p < config->n_policies; p++)
        compares |= (ra_policy_spec_needs(config->specs[p]) & RA_NEEDS_QUERIES) != 0;
    for (int i = 0; compares && i < members->n; i++) {
        struct ra_member *member = &members->list[i];
        if (is_own(config, i))
            RA_TRY(ra_shape_form_queries(&member->shape, &member->config, err));
        else {
            member->shape.queries = members->list[0].shape.queries;
            member->shape.query_means = members->list[0].shape.query_means;
        }
    }
    return RA_OK;
}

/* What counters will see a copy do beside the first must be known of it. */
static bool is_counted(const struct ra_replay_config *config, int number)
{
    return !is_own(config, number) && config->store && (config->profile & RA_PROFILE_COUNTERS);
}

enum ra_status ra_members_begin(struct ra_members *members, struct ra_error *err)
{
    RA_TRY(form_queries(members, err));
    for (int i = 0; i < members->n; i++)
        for (int p = 0; p < members->list[i].config.n_policies; p++) {
            struct ra_member *member = &members->list[i];
            enum ra_status st =
                ra_track_open(&member->tracks[p], &member->config, &member->shape, p, err);
            RA_TRY(ra_member_fail(members, i, st, err));
            if (is_counted(&members->list[0].config, i)) {
                member->tracks[p].whole = &members->list[0].config;
                member->tracks[p].member = i;
            }
        }
    return RA_OK;
}

void ra_members_close(struct ra_members *members)
{
    for (int i = 0; members->list && members->tracks && i < members->n; i++) {
        struct ra_member *member = &members->list[i];
        for (int p = 0; p < member->config.n_policies; p++)
            ra_track_close(&member->tracks[p]);
        if (!is_own(&members->list[0].config, i))
            continue;
        ra_shape_close(&member->shape);
        ra_decode_rows_close(&member->rows);
    }
    free(members->list);
    free(members->tracks);
    *members = (struct ra_members){0};
}

/* One of several measurements that a caller sees as one. */
struct part {
    const struct ra_replay_config *whole;
    uint64_t number, of;
};

static void show_part(void *context, const char *what, uint64_t done, uint64_t total)
{
    const struct part *part = context;
    part->whole->progress(part->whole->progress_context, what, part->number * total + done,
                          part->of * total);
}

/* Members from `first` on, which are of one length. */
static enum ra_status measure(const struct ra_members *members, int first,
                              struct ra_policy_spec *const *specs, int n_specs,
                              struct ra_pool *pool, struct ra_error *err)
{
    const struct ra_member *member = &members->list[first];
    struct ra_replay_config config = member->config;
    int each = n_specs / config.n_policies;
    struct part part = {.whole = &member->config,
                        .number = (uint64_t)(first / each),
                        .of = (uint64_t)(members->n / each)};
    config.specs = specs;
    config.n_policies = n_specs;
    if (config.progress) {
        config.progress = show_part;
        config.progress_context = &part;
    }
    return ra_engine_measure(&config, &member->shape, member->tracks, pool, err);
}

enum ra_status ra_members_measure(const struct ra_members *members, struct ra_pool *pool,
                                  struct ra_error *err)
{
    const struct ra_replay_config *config = &members->list[0].config;
    bool alone = config->ragged > 0 || config->with;
    int each = alone ? 1 : members->n, n = config->n_policies;
    struct ra_policy_spec **specs = calloc((size_t)(each * n), sizeof(struct ra_policy_spec *));
    enum ra_status st = RA_OK;
    if (!specs)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the schedules of %d copies", each);
    for (int i = 0; i < each * n; i++)
        specs[i] = config->specs[i % n];
    for (int first = 0; st == RA_OK && first < members->n; first += each) {
        st = measure(members, first, specs, each * n, pool, err);
        st = ra_member_fail(members, first, st, err);
    }
    free(specs);
    return st;
}
