/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's side of a policy, without engine, trace or backend. */
#include "tests/support/drive.h"

#include <math.h>
#include <string.h>

#include "sim/pages.h"
#include "sim/select.h"
#include "tests/support/ra_test.h"

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint32_t drive_random(uint64_t *state, uint32_t n)
{
    *state = mix(*state);
    return (uint32_t)((*state >> 33) % n);
}

static double uniform(uint64_t *state)
{
    *state = mix(*state);
    return (double)(*state >> 11) * 0x1p-53;
}

void drive_init(struct drive *d, uint64_t seed)
{
    memset(d, 0, sizeof *d);
    d->model = (struct ra_model){.n_layers = 16,
                                 .Hq = 4,
                                 .Hkv = 2,
                                 .G = 2,
                                 .D = DRIVE_D,
                                 .Dv = DRIVE_D,
                                 .dtype = RA_F32,
                                 .attn_scale = 1,
                                 .rope = {.type = RA_ROPE_NONE}};
    d->P = 12;
    d->N = 20;
    d->n_layers = 2;
    for (int i = 0; i < DRIVE_LAYERS; i++)
        d->layer_ids[i] = i;
    d->seed = seed;
    d->levels = 4;
    drive_queries(d, 1);
}

void drive_queries(struct drive *d, double jitter)
{
    uint64_t state = mix(d->seed ^ 0x71);
    size_t stride = DRIVE_D, n = (size_t)d->n_layers * (size_t)(d->N + 1);
    for (size_t row = 0; row < n; row++)
        for (size_t i = 0; i < stride; i++) {
            bool is_first = row % (size_t)(d->N + 1) == 0;
            double fresh = 2 * uniform(&state) - 1;
            double old = is_first ? 0 : d->mean[(row - 1) * stride + i];
            d->mean[row * stride + i] = is_first ? fresh : jitter * fresh + (1 - jitter) * old;
        }
}

enum ra_status drive_open(struct drive *d, const char *spelling, struct ra_error *err)
{
    assert_true(d->P + d->N <= DRIVE_ROWS && d->model.Hq <= DRIVE_HEADS);
    RA_TRY(ra_policy_parse(&d->spec, spelling, err));
    d->queries = (struct ra_queries){d->n_layers, DRIVE_D, d->N, d->mean};
    bool needs_queries = ra_policy_spec_needs(d->spec) & RA_NEEDS_QUERIES;
    d->env = (struct ra_policy_env){.model = &d->model,
                                    .P = d->P,
                                    .N = d->N,
                                    .W = d->P,
                                    .n_layers = d->n_layers,
                                    .layer_ids = d->layer_ids,
                                    .queries = needs_queries ? &d->queries : NULL,
                                    .phase = d->phase,
                                    .of = d->of};
    return ra_policy_open(&d->policy, d->spec, &d->env, err);
}

void drive_close(struct drive *d)
{
    ra_policy_close(d->policy);
    ra_policy_spec_close(d->spec);
    d->policy = NULL;
    d->spec = NULL;
}

const double *drive_scores(struct drive *d, int layer, int32_t t)
{
    int32_t L = d->P + t + 1;
    for (int h = 0; h < d->model.Hq; h++) {
        int kv = h / d->model.G, from = d->heads ? d->heads[kv] : kv;
        uint64_t head = (uint64_t)(from * d->model.G + h % d->model.G);
        uint64_t state = mix(d->seed + 1000 * (uint64_t)layer + 100000 * (uint64_t)(t + 1) + head);
        for (int32_t j = 0; j < L; j++)
            d->prob[h * L + j] =
                d->levels ? drive_random(&state, (uint32_t)d->levels) : uniform(&state);
    }
    return d->prob;
}

/* Of what was attended to alone: the rest is 0. */
static void leave_attended(struct drive *d, int32_t L)
{
    bool kept[DRIVE_ROWS];
    for (int h = 0; h < d->model.Hq; h++) {
        int set = d->plan.per_query_head ? h : h / d->model.G;
        memset(kept, 0, sizeof kept);
        for (int32_t i = 0; i < d->n_attended[set]; i++)
            kept[d->attended[set][i]] = true;
        for (int32_t j = 0; j < L; j++)
            d->prob[h * L + j] *= kept[j];
    }
}

static void learn(struct drive *d)
{
    struct ra_error err;
    int32_t L = d->step.self + 1;
    struct ra_scores scores = {.L = L};
    if (d->plan.of == RA_SCORES_OF_PAGES) /* as of as many keys as there are pages */
        scores.L = ra_pages_count(ra_pages_rows(d->plan.pages, L), d->plan.pages->page);
    scores.prob = drive_scores(d, d->step.layer, scores.L - 1 - d->P);
    if (d->plan.of == RA_SCORES_OF_ATTENDED)
        leave_attended(d, L);
    if (!d->by_install || !d->plan.rule) {
        ra_assert_ok(ra_policy_learn(d->policy, &d->step, &scores, &d->plan, &err));
        return;
    }
    struct ra_selector *selector;
    ra_assert_ok(ra_selector_open(&selector, L, &err));
    for (int h = 0; h < d->model.Hkv; h++) {
        struct ra_positions order = ra_selector_choose(
            selector, d->plan.rule, scores.prob + h * d->model.G * L, d->model.G, L);
        ra_policy_install(d->policy, &d->step, h, &order);
    }
    ra_selector_close(selector);
}

static void attend(struct drive *d)
{
    d->n_sets = d->plan.per_query_head ? d->model.Hq : d->model.Hkv;
    for (int i = 0; i < d->n_sets; i++) {
        struct ra_retained view;
        struct ra_positions set = {NULL, 0};
        int32_t *out = d->attended[i], n = 0;
        if (d->plan.attend == RA_ATTEND_CACHE) {
            assert_true(ra_policy_view(d->policy, d->step.layer, i, &view));
            set = view.set;
        } else if (d->plan.attend == RA_ATTEND_SETS) {
            set = d->plan.sets[i];
        } else {
            for (; n < d->step.self; n++)
                out[n] = n;
        }
        for (int32_t j = 0; j < set.n; j++)
            if (set.pos[j] != d->step.self)
                out[n++] = set.pos[j];
        out[n++] = d->step.self;
        d->n_attended[i] = n;
    }
}

void drive_step(struct drive *d, int layer, int32_t t)
{
    struct ra_error err;
    d->step =
        (struct ra_step){.t = t, .self = d->P + t, .layer = layer, .layer_id = d->layer_ids[layer]};
    d->plan = (struct ra_plan){.query_cosine = NAN};
    ra_assert_ok(ra_policy_plan(d->policy, &d->step, &d->plan, &err));
    if (d->plan.scores == RA_SCORES_BEFORE)
        learn(d);
    if (t >= 0)
        attend(d);
    if (d->plan.scores == RA_SCORES_AFTER)
        learn(d);
    ra_policy_advance(d->policy, &d->step);
}

void drive_all(struct drive *d, void (*each)(struct drive *d, void *context), void *context)
{
    int n_steps = d->N + 1, n = d->n_layers * n_steps;
    for (int i = 0; i < n; i++) {
        int layer = d->step_major ? i % d->n_layers : i / n_steps;
        int32_t t = (d->step_major ? i / d->n_layers : i % n_steps) - 1;
        drive_step(d, layer, t);
        if (t >= 0 && each)
            each(d, context);
    }
}
