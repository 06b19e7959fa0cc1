/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policies against the conformance vectors (tests/vectors/README.md), which numpy wrote: keys,
 * values and queries in memory, scores from sim/scores.h, no trace, engine or backend. Every step's
 * kind and sets, orders of eviction, outputs, mass and error; layer by layer and step by step.
 */
#include <glob.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/text.h"
#include "sim/policy.h"
#include "sim/reference.h"
#include "sim/scores.h"
#include "tests/support/ra_test.h"

enum { MAX_LAYERS = 8, MAX_HEADS = 8, MAX_ROWS = 64, MAX_D = 16 };

/* Nine digits are written; errors are differences of outputs near 1. */
static const double DIGITS = 1e-8;

struct layer {
    const json_t *json;
    float *q;     /* [Hq][W + N][D] */
    float *k, *v; /* [Hkv][P + N][D] */
    float *acc;   /* [Hq][P] */
};

struct vector {
    json_t *root;
    const char *file;
    struct ra_model model;
    int32_t P, N, W;
    int n_layers, ids[MAX_LAYERS];
    struct layer layers[MAX_LAYERS];
    struct ra_policy_spec *spec;
    struct ra_policy *policy;
    struct ra_policy_env env;
    struct ra_scorer *scorer;
    int checked; /* sets */

    /* Of the step in progress. */
    struct ra_step step;
    struct ra_plan plan;
    int n_sets;
    struct ra_positions sets[MAX_HEADS]; /* self included */
    int32_t storage[MAX_HEADS][MAX_ROWS];
    float query[MAX_HEADS * MAX_D];
    double prob[MAX_HEADS * MAX_ROWS], full[MAX_HEADS * MAX_D];
};

/* --- reading -------------------------------------------------------------------------------------
 */

static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    if (!value)
        fail_msg("a vector lacks '%s'", key);
    return value;
}

static int int_of(const json_t *object, const char *key)
{
    return (int)json_integer_value(member(object, key));
}

static size_t flatten(const json_t *value, float *out, size_t used, size_t most)
{
    if (!json_is_array(value)) {
        assert_true(json_is_number(value) && used < most);
        out[used] = (float)json_number_value(value);
        assert_true((double)out[used] == json_number_value(value));
        return used + 1;
    }
    for (size_t i = 0; i < json_array_size(value); i++)
        used = flatten(json_array_get(value, i), out, used, most);
    return used;
}

/* n numbers, all of which f32 holds. */
static float *numbers(const json_t *layer, const char *key, int n)
{
    float *out = malloc((size_t)n * sizeof *out);
    assert_non_null(out);
    assert_int_equal(flatten(member(layer, key), out, 0, (size_t)n), n);
    return out;
}

static void load(struct vector *v, const char *file)
{
    json_error_t error;
    memset(v, 0, sizeof *v);
    v->file = file;
    v->root = json_load_file(file, 0, &error);
    if (!v->root)
        fail_msg("%s: %s", file, error.text);
    const json_t *layers = member(v->root, "layers");
    assert_string_equal(json_string_value(member(v->root, "format")), "rattn-vector");
    assert_string_equal(json_string_value(member(v->root, "version")), "1");
    int Hq = int_of(v->root, "Hq"), Hkv = int_of(v->root, "Hkv");
    v->model = (struct ra_model){.n_layers = int_of(v->root, "n_layers"),
                                 .Hq = Hq,
                                 .Hkv = Hkv,
                                 .G = Hq / Hkv,
                                 .D = int_of(v->root, "D"),
                                 .Dv = int_of(v->root, "Dv"),
                                 .dtype = RA_F32,
                                 .attn_scale = json_number_value(member(v->root, "scale")),
                                 .rope = {.type = RA_ROPE_NONE}};
    v->P = int_of(v->root, "P");
    v->N = int_of(v->root, "N");
    v->W = int_of(v->root, "W");
    v->n_layers = (int)json_array_size(layers);
    assert_true(v->n_layers <= MAX_LAYERS && Hq <= MAX_HEADS && v->P + v->N <= MAX_ROWS &&
                v->model.D <= MAX_D && v->model.Dv <= MAX_D);
    for (int i = 0; i < v->n_layers; i++) {
        struct layer *layer = &v->layers[i];
        layer->json = json_array_get(layers, (size_t)i);
        v->ids[i] = int_of(layer->json, "layer");
        layer->q = numbers(layer->json, "q", Hq * (v->W + v->N) * v->model.D);
        layer->k = numbers(layer->json, "k", Hkv * (v->P + v->N) * v->model.D);
        layer->v = numbers(layer->json, "v", Hkv * (v->P + v->N) * v->model.Dv);
        layer->acc = numbers(layer->json, "acc", Hq * v->P);
    }
}

static void unload(struct vector *v)
{
    for (int i = 0; i < v->n_layers; i++) {
        free(v->layers[i].q);
        free(v->layers[i].k);
        free(v->layers[i].v);
        free(v->layers[i].acc);
    }
    json_decref(v->root);
}

/* The spelling leaves defaults out, `options` has them: both are the same schedule. */
static void open_policy(struct vector *v)
{
    struct ra_error err;
    struct ra_policy_spec *whole;
    char text[512];
    struct ra_writer writer = {text, sizeof text, 0};
    const char *spelling = json_string_value(member(v->root, "policy"));
    json_t *options = json_object_get(v->root, "options");
    ra_assert_ok(ra_policy_parse(&v->spec, spelling, &err));
    ra_write(&writer, "%s", ra_policy_spec_ops(v->spec)->name);
    for (void *at = json_object_iter(options); at; at = json_object_iter_next(options, at))
        ra_write(&writer, "%c%s=%s", strchr(text, ':') ? ',' : ':', json_object_iter_key(at),
                 json_string_value(json_object_iter_value(at)));
    ra_assert_ok(ra_policy_parse(&whole, text, &err));
    assert_string_equal(ra_policy_spec_canonical(whole), ra_policy_spec_canonical(v->spec));
    ra_policy_spec_close(whole);
    v->env = (struct ra_policy_env){.model = &v->model,
                                    .P = v->P,
                                    .N = v->N,
                                    .W = v->W,
                                    .n_layers = v->n_layers,
                                    .layer_ids = v->ids};
    ra_assert_ok(ra_policy_open(&v->policy, v->spec, &v->env, &err));
    ra_assert_ok(ra_scorer_open(&v->scorer, &v->model, v->P, v->P + v->N, &err));
}

static void close_policy(struct vector *v)
{
    ra_scorer_close(v->scorer);
    ra_policy_close(v->policy);
    ra_policy_spec_close(v->spec);
}

/* --- one step ------------------------------------------------------------------------------------
 */

static struct layer *layer_of(struct vector *v)
{
    return &v->layers[v->step.layer];
}

/* Row i of a query head's, from position P - W on. */
static const float *query_row(struct vector *v, int head, int32_t row)
{
    return layer_of(v)->q +
           ((size_t)head * (size_t)(v->W + v->N) + (size_t)row) * (size_t)v->model.D;
}

static const float *rows_of(const struct vector *v, const float *rows, int kv, int width)
{
    return rows + (size_t)kv * (size_t)(v->P + v->N) * (size_t)width;
}

/* This step's queries, and attention over everything. */
static void attend_all(struct vector *v)
{
    const struct ra_model *m = &v->model;
    int32_t L = v->step.self + 1;
    for (int h = 0; h < m->Hq; h++)
        memcpy(v->query + h * m->D, query_row(v, h, v->W + v->step.t),
               (size_t)m->D * sizeof *v->query);
    for (int kv = 0; kv < m->Hkv; kv++)
        ra_reference_attend(&(struct ra_reference){
            .model = m,
            .k = rows_of(v, layer_of(v)->k, kv, m->D),
            .v = rows_of(v, layer_of(v)->v, kv, m->Dv),
            .q = v->query + kv * m->G * m->D,
            .q_step = (size_t)(m->G * m->D),
            .n_steps = 1,
            .first_L = L,
            .prob = v->prob,
            .first_head = kv * m->G,
            .out = v->full + kv * m->G * m->Dv,
        });
}

static enum ra_status tail(void *context, int head, int32_t n, float *q, struct ra_error *err)
{
    struct vector *v = context;
    (void)err;
    memcpy(q, query_row(v, head, v->W - n), (size_t)(n * v->model.D) * sizeof *q);
    return RA_OK;
}

static void learn(struct vector *v, enum ra_scores_when when)
{
    struct ra_error err;
    struct ra_scores scores;
    struct ra_scores_input input = {
        .step = &v->step,
        .prob = v->prob,
        .q = v->query,
        .k = (const char *)layer_of(v)->k,
        .k_stride = (size_t)((v->P + v->N) * v->model.D) * sizeof(float),
        .acc = v->step.t < 0 ? layer_of(v)->acc : NULL,
        .attended = v->sets,
        .tail = tail,
        .context = v,
    };
    if (v->plan.scores != when)
        return;
    ra_assert_ok(ra_scorer_form(v->scorer, &v->plan, &input, &scores, &err));
    ra_assert_ok(ra_policy_learn(v->policy, &v->step, &scores, &v->plan, &err));
}

/* What each head attends to, self included. */
static void list_sets(struct vector *v)
{
    v->n_sets = v->plan.per_query_head ? v->model.Hq : v->model.Hkv;
    for (int i = 0; i < v->n_sets; i++) {
        struct ra_retained view = {.set = {NULL, 0}};
        int32_t *out = v->storage[i], n = 0;
        v->sets[i] = (struct ra_positions){NULL, v->step.self + 1};
        if (v->plan.attend == RA_ATTEND_ALL)
            continue;
        if (v->plan.attend == RA_ATTEND_CACHE)
            assert_true(ra_policy_view(v->policy, v->step.layer, i, &view));
        const struct ra_positions *set =
            v->plan.attend == RA_ATTEND_CACHE ? &view.set : &v->plan.sets[i];
        assert_true(set->n < MAX_ROWS);
        for (; n < set->n; n++)
            out[n] = set->pos[n];
        out[n++] = v->step.self;
        v->sets[i] = (struct ra_positions){out, n};
    }
}

/* --- comparing -----------------------------------------------------------------------------------
 */

static const json_t *at(const struct vector *v, const char *key)
{
    return json_array_get(member(v->layers[v->step.layer].json, key), (size_t)v->step.t);
}

static void write_list(struct ra_writer *writer, const json_t *list)
{
    char *text = json_dumps(list, JSON_ENCODE_ANY | JSON_COMPACT);
    ra_write(writer, "%s", text);
    free(text);
}

static void expect_list(const struct vector *v, const char *what, int head, const json_t *expected,
                        const int32_t *got, int32_t n)
{
    bool same = json_is_array(expected) && (int32_t)json_array_size(expected) == n;
    for (int32_t i = 0; same && i < n; i++)
        same = json_integer_value(json_array_get(expected, (size_t)i)) == got[i];
    if (same)
        return;
    char text[2048];
    struct ra_writer writer = {text, sizeof text, 0};
    write_list(&writer, expected);
    ra_write(&writer, ", got [");
    for (int32_t i = 0; i < n; i++)
        ra_write(&writer, "%s%d", i ? "," : "", got[i]);
    fail_msg("%s: layer %d, step %d, head %d: %s: expected %s]", v->file, v->step.layer_id,
             v->step.t, head, what, text);
}

static void expect_number(const struct vector *v, const char *what, int head, double expected,
                          double got)
{
    if (!(fabs(got - expected) <= DIGITS))
        fail_msg("%s: layer %d, step %d, query head %d: %s: expected %.9g, got %.12g", v->file,
                 v->step.layer_id, v->step.t, head, what, expected, got);
}

static void check_sets(struct vector *v)
{
    const json_t *sets = at(v, "sets");
    assert_int_equal(v->plan.is_full, json_integer_value(at(v, "is_full")));
    assert_int_equal(v->n_sets, json_array_size(sets));
    assert_string_equal(json_string_value(member(v->root, "heads")),
                        v->plan.per_query_head ? "query" : "kv");
    for (int i = 0; i < v->n_sets; i++) {
        const json_t *expected = json_array_get(sets, (size_t)i);
        v->checked++;
        if (v->sets[i].pos)
            expect_list(v, "attended", i, expected, v->sets[i].pos, v->sets[i].n - 1);
        else if (!json_is_null(expected))
            fail_msg("%s: layer %d, step %d, head %d: expected a set, got everything", v->file,
                     v->step.layer_id, v->step.t, i);
    }
}

static double distance(const double *a, const double *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(sum);
}

static void check_values(struct vector *v)
{
    const struct ra_model *m = &v->model;
    static const double zero[MAX_D];
    for (int h = 0; h < m->Hq; h++) {
        double out[MAX_D], mass = 1;
        const double *full = v->full + h * m->Dv;
        const struct ra_positions *set = &v->sets[v->plan.per_query_head ? h : h / m->G];
        memcpy(out, full, (size_t)m->Dv * sizeof *out);
        if (set->pos)
            ra_reference_attend_set(
                &(struct ra_reference_set){.model = m,
                                           .k = rows_of(v, layer_of(v)->k, h / m->G, m->D),
                                           .v = rows_of(v, layer_of(v)->v, h / m->G, m->Dv),
                                           .q = v->query + h * m->D,
                                           .prob = v->prob + h * (v->step.self + 1),
                                           .prob_stride = (size_t)v->step.self + 1,
                                           .n_heads = 1,
                                           .set = set,
                                           .out = out,
                                           .mass = &mass});
        const json_t *expected = json_array_get(at(v, "out"), (size_t)h);
        for (int d = 0; d < m->Dv; d++)
            expect_number(v, "out", h, json_number_value(json_array_get(expected, (size_t)d)),
                          out[d]);
        expect_number(v, "mass", h, json_number_value(json_array_get(at(v, "mass"), (size_t)h)),
                      mass);
        expect_number(v, "rel_err", h,
                      json_number_value(json_array_get(at(v, "rel_err"), (size_t)h)),
                      distance(out, full, m->Dv) / distance(full, zero, m->Dv));
    }
}

static void check_orders(struct vector *v)
{
    if (!json_object_get(v->layers[v->step.layer].json, "order"))
        return;
    for (int kv = 0; kv < v->model.Hkv; kv++) {
        struct ra_retained view;
        assert_true(ra_policy_view(v->policy, v->step.layer, kv, &view));
        expect_list(v, "order", kv, json_array_get(at(v, "order"), (size_t)kv), view.evict.pos,
                    view.evict.n);
    }
}

static void take_step(struct vector *v, int layer, int32_t t)
{
    struct ra_error err;
    v->step = (struct ra_step){.t = t, .self = v->P + t, .layer = layer, .layer_id = v->ids[layer]};
    v->plan = (struct ra_plan){.query_cosine = NAN};
    attend_all(v);
    ra_assert_ok(ra_policy_plan(v->policy, &v->step, &v->plan, &err));
    learn(v, RA_SCORES_BEFORE);
    if (t >= 0) {
        list_sets(v);
        check_sets(v);
        check_values(v);
    }
    learn(v, RA_SCORES_AFTER);
    ra_policy_advance(v->policy, &v->step);
    if (t >= 0)
        check_orders(v);
}

static void run(const char *file, bool by_step)
{
    struct vector *v = calloc(1, sizeof *v);
    assert_non_null(v);
    load(v, file);
    open_policy(v);
    int n_steps = v->N + 1, n = v->n_layers * n_steps;
    for (int i = 0; i < n; i++)
        take_step(v, by_step ? i % v->n_layers : i / n_steps,
                  (by_step ? i / v->n_layers : i % n_steps) - 1);
    assert_true(v->checked >= v->n_layers * v->N * v->model.Hkv);
    close_policy(v);
    unload(v);
    free(v);
}

static void test_layer_by_layer(void **state)
{
    run(*state, false);
}

static void test_step_by_step(void **state)
{
    run(*state, true);
}

/* A policy that is not a baseline has vectors. */
static void test_coverage(void **state)
{
    const glob_t *files = *state;
    static const char *const without = "full recycled streaming oracle";
    for (int i = 0; ra_policies[i]; i++) {
        char start[64];
        bool found = strstr(without, ra_policies[i]->name) != NULL;
        snprintf(start, sizeof start, "/%s-1.json", ra_policies[i]->name);
        for (size_t j = 0; j < files->gl_pathc; j++)
            found |= strstr(files->gl_pathv[j], start) != NULL;
        if (!found)
            fail_msg("no vectors of %s", ra_policies[i]->name);
    }
}

int main(void)
{
    glob_t files;
    if (glob("tests/vectors/*.json", 0, NULL, &files) != 0) {
        fprintf(stderr, "test_vectors: no tests/vectors/*.json here\n");
        return 1;
    }
    size_t n = 2 * files.gl_pathc + 1;
    struct CMUnitTest *tests = calloc(n, sizeof *tests);
    if (!tests)
        return 1;
    for (size_t i = 0; i < files.gl_pathc; i++) {
        char *file = files.gl_pathv[i];
        tests[2 * i] = (struct CMUnitTest){file, test_layer_by_layer, NULL, NULL, file};
        tests[2 * i + 1] = (struct CMUnitTest){file, test_step_by_step, NULL, NULL, file};
    }
    tests[n - 1] = (struct CMUnitTest){"every policy has some", test_coverage, NULL, NULL, &files};
    int failed = _cmocka_run_group_tests("vectors", tests, n, NULL, NULL);
    free(tests);
    globfree(&files);
    return failed;
}
