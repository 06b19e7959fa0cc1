/* SPDX-License-Identifier: Apache-2.0 */
/* The copies of a batch that differ, and phase 1 of them. */
#include "sim/engine_member.h"

#include <math.h>
#include <stdlib.h>

int ra_engine_members(const struct ra_replay_config *config)
{
    bool differ = config->spread || config->ragged > 0;
    return differ && config->batch > 1 ? config->batch : 1;
}

/* Lengths fall evenly from that of the first to (1 - ragged) of it. A share such as 0.29 is a
 * little less in f64 than the number that was meant. */
static int32_t rows_dropped(const struct ra_replay_config *config, int32_t P, int number)
{
    if (!(config->ragged > 0) || config->batch < 2)
        return 0;
    return (int32_t)floor(config->ragged * P * number / (config->batch - 1) + 1e-6);
}

struct ra_shape ra_member_shape(const struct ra_replay_config *config,
                                const struct ra_shape *recorded, int number)
{
    struct ra_shape shape = *recorded;
    shape.drop = rows_dropped(config, recorded->P, number);
    shape.P -= shape.drop;
    shape.phase = config->spread ? number : 0;
    shape.of = config->spread ? config->batch : 0;
    if (number > 0)
        shape.types = NULL;
    return shape;
}

static struct ra_replay_config config_of(const struct ra_replay_config *config, int number)
{
    struct ra_replay_config own = *config;
    if (number == 0)
        return own;
    own.by_type = false;
    own.export_paths = NULL;
    own.store = NULL;
    own.run_ids = NULL;
    own.keep = NULL;
    own.n_keep = 0;
    return own;
}

enum ra_status ra_members_open(struct ra_members *members, const struct ra_replay_config *config,
                               const struct ra_shape *shape, struct ra_error *err)
{
    size_t n = (size_t)ra_engine_members(config), n_policies = (size_t)config->n_policies;
    *members = (struct ra_members){.n = (int)n};
    members->list = calloc(n, sizeof *members->list);
    members->tracks = calloc(n * n_policies, sizeof *members->tracks);
    if (!members->list || !members->tracks)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the schedules of %zu copies", n);
    for (size_t i = 0; i < n; i++) {
        struct ra_member *member = &members->list[i];
        *member = (struct ra_member){.config = config_of(config, (int)i),
                                     .shape = ra_member_shape(config, shape, (int)i),
                                     .tracks = members->tracks + i * n_policies};
    }
    for (size_t i = 0; i < n; i++)
        for (size_t p = 0; p < n_policies; p++) {
            struct ra_member *member = &members->list[i];
            enum ra_status st =
                ra_track_open(&member->tracks[p], &member->config, &member->shape, (int)p, err);
            if (st != RA_OK && i > 0)
                return ra_fail_context(err, st, "copy %zu, of %d prompt tokens", i,
                                       member->shape.P);
            RA_TRY(st);
        }
    return RA_OK;
}

void ra_members_close(struct ra_members *members)
{
    for (int i = 0; members->list && members->tracks && i < members->n; i++)
        for (int p = 0; p < members->list[i].config.n_policies; p++)
            ra_track_close(&members->list[i].tracks[p]);
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
    int each = config->ragged > 0 ? 1 : members->n, n = config->n_policies;
    struct ra_policy_spec **specs = calloc((size_t)(each * n), sizeof(struct ra_policy_spec *));
    enum ra_status st = RA_OK;
    if (!specs)
        return ra_fail(err, RA_ENOMEM, "engine: no memory for the schedules of %d copies", each);
    for (int i = 0; i < each * n; i++)
        specs[i] = config->specs[i % n];
    for (int first = 0; st == RA_OK && first < members->n; first += each) {
        st = measure(members, first, specs, each * n, pool, err);
        if (st != RA_OK && st != RA_EINTERRUPTED && first > 0)
            st = ra_fail_context(err, st, "copy %d", first);
    }
    free(specs);
    return st;
}
