/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recycled attention on runs worked out by hand: the nine-word example of the paper's Fig. 1 shape,
 * the edges of the schedule, and what layers share.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/kvset.h"
#include "tests/support/drive.h"
#include "tests/support/ra_test.h"

/* "4 3 0" */
static const char *text_of(const int32_t *list, int32_t n)
{
    static char text[256];
    size_t used = 0;
    text[0] = '\0';
    for (int32_t i = 0; i < n; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, i ? " %d" : "%d", list[i]);
    return text;
}

static const char *order_of(const struct drive *d, int layer)
{
    struct ra_retained view;
    ra_policy_view(d->policy, layer, 0, &view);
    return text_of(view.evict.pos, view.evict.n);
}

/* One KV head, one layer. */
static void small(struct drive *d, int32_t P, int32_t N)
{
    drive_init(d, 1);
    d->P = P;
    d->N = N;
    d->n_layers = 1;
    d->model.Hq = d->model.Hkv = d->model.G = 1;
}

static void step_with(struct drive *d, int32_t t, const double *prob)
{
    struct ra_error err;
    d->step = (struct ra_step){.t = t, .self = d->P + t};
    d->plan = (struct ra_plan){.query_cosine = NAN};
    ra_assert_ok(ra_policy_plan(d->policy, &d->step, &d->plan, &err));
    if (d->plan.scores != RA_SCORES_NONE) {
        assert_non_null(prob);
        struct ra_scores scores = {.prob = prob, .L = d->P + t + 1};
        ra_assert_ok(ra_policy_learn(d->policy, &d->step, &scores, &d->plan, &err));
    }
    ra_policy_advance(d->policy, &d->step);
}

/* PAPER: worked example, L = 5, K = 3, S = 3, T = 4; would catch any change of the rule itself. */
static void test_worked_example(void **state)
{
    (void)state;
    static const double prefill[] = {.40, .05, .10, .25, .20};
    static const double third[] = {.20, .02, .30, .03, .05, .10, .18, .12};
    static const struct {
        const char *retained, *after; /* before the step, ascending; after it, first to go first */
        int keys;
        bool is_full;
    } want[] = {{"0 3 4", "3 0 5", 3, false},
                {"0 3 5", "0 5 6", 3, false},
                {"0 5 6", "6 0 2", 7, true},
                {"0 2 6", "0 2 8", 3, false}};
    static struct drive d;
    struct ra_error err;
    small(&d, 5, 4);
    ra_assert_ok(drive_open(&d, "recycled:k=3,stride=3,pool=1", &err));
    step_with(&d, -1, prefill);
    assert_true(d.plan.rebuilds && !d.plan.is_full && d.plan.rule);
    assert_string_equal(order_of(&d, 0), "4 3 0");
    int32_t keys = 0, C_f = 5, pending = 0, old[3] = {0};
    for (int32_t t = 0; t < 4; t++) {
        struct ra_retained view;
        ra_policy_view(d.policy, 0, 0, &view);
        assert_string_equal(text_of(view.set.pos, view.set.n), want[t].retained);
        memcpy(old, view.set.pos, sizeof old);
        step_with(&d, t, third);
        assert_int_equal(d.plan.is_full, want[t].is_full);
        assert_int_equal(d.plan.rebuilds, want[t].is_full);
        assert_int_equal(d.plan.attend, want[t].is_full ? RA_ATTEND_ALL : RA_ATTEND_CACHE);
        assert_string_equal(order_of(&d, 0), want[t].after);
        /* A full step takes in what was pending, then its own token. */
        C_f += want[t].is_full ? pending + 1 : 0;
        pending = want[t].is_full ? 0 : pending + 1;
        assert_int_equal(C_f, t < 2 ? 5 : 8);
        keys += want[t].is_full ? C_f - 1 : 3;
        if (want[t].is_full) {
            static const int32_t first[] = {0, 3, 4};
            ra_policy_view(d.policy, 0, 0, &view);
            assert_int_equal(ra_kvset_common(view.set.pos, 3, old, 3), 2);
            assert_int_equal(ra_kvset_common(view.set.pos, 3, first, 3), 1);
        }
    }
    assert_int_equal(pending, 1);
    assert_int_equal(keys, 16);
    assert_int_equal(keys + 4, 20); /* with self */
    drive_close(&d);
}

struct tally {
    int n_full, n_checks;
    int full_at[DRIVE_LAYERS][DRIVE_ROWS];
    bool attends_all;
};

static void count(struct drive *d, void *context)
{
    struct tally *tally = context;
    tally->n_full += d->plan.is_full;
    tally->n_checks += d->plan.checks_query;
    tally->full_at[d->step.layer][d->step.t] = d->plan.is_full;
    for (int i = 0; i < d->n_sets; i++)
        tally->attends_all &= d->n_attended[i] == d->step.self + 1;
}

static struct tally run(struct drive *d, const char *spelling)
{
    struct ra_error err;
    struct tally tally = {.attends_all = true};
    ra_assert_ok(drive_open(d, spelling, &err));
    drive_all(d, count, &tally);
    drive_close(d);
    return tally;
}

/* Ends of the range of schedules: always full, never full, and a budget nothing exceeds. */
static void test_extremes(void **state)
{
    (void)state;
    static struct drive d;
    drive_init(&d, 3);
    struct tally tally = run(&d, "recycled:k=1,stride=1");
    assert_true(tally.attends_all);
    assert_int_equal(tally.n_full, 2 * d.N);
    assert_int_equal(run(&d, "recycled:k=3,stride=21").n_full, 0);
    assert_int_equal(run(&d, "recycled:k=3,stride=20").n_full, 2);
    assert_int_equal(run(&d, "recycled:k=3,stride=6").n_full, 2 * (20 / 6));
    /* K >= P + N - 1 never evicts (after: one more); K = P does; drop lost the last prompt token.
     */
    assert_true(run(&d, "recycled:k=31,stride=7").attends_all);
    assert_true(run(&d, "recycled:k=31,stride=1000,current=snapkv,evict=raw").attends_all);
    assert_true(run(&d, "recycled:k=32,stride=5,attend=after,pool=1").attends_all);
    assert_false(run(&d, "recycled:k=30,stride=1000").attends_all);
    assert_false(run(&d, "recycled:k=12,stride=1000").attends_all);
    assert_false(run(&d, "recycled:k=31,stride=1000,current=drop").attends_all);
}

/* sim >= 1 fires at every check, sim < -1 at none: PAPER's invariant 11 at its ends. */
static void test_thresholds(void **state)
{
    (void)state;
    static struct drive d;
    drive_init(&d, 4);
    struct tally tally = run(&d, "recycled:k=3,stride=3,sim=1");
    assert_int_equal(tally.n_full, 2 * (20 / 3));
    assert_int_equal(tally.n_checks, 2 * (20 / 3));
    assert_int_equal(run(&d, "recycled:k=3,stride=3,sim=1e9").n_full, 2 * (20 / 3));
    tally = run(&d, "recycled:k=3,stride=3,sim=-1.5");
    assert_int_equal(tally.n_full, 0);
    assert_int_equal(tally.n_checks, 2 * (20 / 3));
    assert_int_equal(run(&d, "recycled:k=3,stride=3,sim=-1e300").n_full, 0);
}

/* Queries whose cosine is exactly 1 or 0: equality is not "higher than". */
static void test_strictly_higher(void **state)
{
    (void)state;
    static struct drive d;
    small(&d, 5, 4);
    for (int row = 0; row <= 4; row++)
        for (int i = 0; i < DRIVE_D; i++)
            d.mean[row * DRIVE_D + i] = i == (row >= 3) ? 2 : 0; /* turns by 90 degrees at t = 2 */
    struct tally tally = run(&d, "recycled:k=3,stride=1,sim=1");
    assert_int_equal(tally.n_full, 4); /* cosine 1 does not exceed 1 */
    tally = run(&d, "recycled:k=3,stride=1,sim=0");
    assert_int_equal(tally.n_full, 1);
    assert_true(tally.full_at[0][2]); /* cosine 0 does not exceed 0 */
    tally = run(&d, "recycled:k=3,stride=1,sim=-0.001");
    assert_int_equal(tally.n_full, 0);
    /* Without a direction there is nothing to compare, and the step is full. */
    memset(d.mean + DRIVE_D, 0, sizeof d.mean[0] * DRIVE_D);
    tally = run(&d, "recycled:k=3,stride=1,sim=-5");
    assert_true(tally.full_at[0][0]);
    assert_true(tally.full_at[0][1]); /* its reference is the zero query */
    assert_false(tally.full_at[0][2]);
}

/* A rotation is undone before comparing, unless query=post asks for the rotated ones. */
static void test_query_rotation(void **state)
{
    (void)state;
    static struct drive d;
    struct ra_error err;
    small(&d, 5, 4);
    d.model.rope = (struct ra_rope){.type = RA_ROPE_DEFAULT, .theta = 1e30};
    for (int row = 0; row <= 4; row++) { /* one vector, turned by its position in plane 0 alone */
        double angle = 5 - 1 + row;
        memset(d.mean + row * DRIVE_D, 0, sizeof d.mean[0] * DRIVE_D);
        d.mean[row * DRIVE_D] = cos(angle);
        d.mean[row * DRIVE_D + DRIVE_D / 2] = sin(angle);
    }
    assert_int_equal(run(&d, "recycled:k=3,stride=1,sim=0.999").n_full, 0);
    /* Turned by one radian a step: cos 1 = 0.54. */
    assert_int_equal(run(&d, "recycled:k=3,stride=1,sim=0.55,query=post").n_full, 4);
    assert_int_equal(run(&d, "recycled:k=3,stride=2,sim=0.53,query=post").n_full, 2);
    d.model.rope.type = RA_ROPE_UNKNOWN;
    ra_assert_fails(drive_open(&d, "recycled:k=3,stride=1,sim=0.9", &err), RA_EUSAGE, "query=post");
    drive_close(&d);
    assert_int_equal(run(&d, "recycled:k=3,stride=1").n_full, 4);
}

/* model-prev: one layer that turned makes all full, a step after its query did. */
static void test_model_prev(void **state)
{
    (void)state;
    static struct drive d;
    for (int step_major = 0; step_major < 2; step_major++) {
        drive_init(&d, 5);
        d.step_major = step_major;
        d.n_layers = 3;
        for (int layer = 0; layer < 3; layer++)
            for (int row = 0; row <= d.N; row++)
                for (int i = 0; i < DRIVE_D; i++) {
                    bool turned = layer == 1 && row >= 8; /* from step 7 on */
                    d.mean[(layer * (d.N + 1) + row) * DRIVE_D + i] = i == turned;
                }
        struct tally tally = run(&d, "recycled:k=3,stride=1,sim=0.5,scope=model-prev");
        assert_int_equal(tally.n_full, 3);
        for (int layer = 0; layer < 3; layer++)
            assert_true(tally.full_at[layer][8]);
        tally = run(&d, "recycled:k=3,stride=1,sim=0.5");
        assert_int_equal(tally.n_full, 1);
        assert_true(tally.full_at[1][7]);
        /* At t = 0 the query compared is the prefill's own: cosine 1. */
        tally = run(&d, "recycled:k=3,stride=1,sim=1,scope=model-prev");
        assert_true(tally.full_at[0][0]);
        tally = run(&d, "recycled:k=3,stride=1,sim=0.9999,scope=model-prev");
        assert_false(tally.full_at[0][0]);
    }
}

static void test_stagger(void **state)
{
    (void)state;
    static struct drive d;
    drive_init(&d, 6);
    d.n_layers = 3;
    d.layer_ids[1] = 5;
    d.layer_ids[2] = 11;
    struct tally tally = run(&d, "recycled:k=3,stride=4,stagger=1");
    for (int layer = 0; layer < 3; layer++)
        for (int32_t t = 0; t < d.N; t++)
            assert_int_equal(tally.full_at[layer][t], (t + 1 + d.layer_ids[layer]) % 4 == 0);
}

/* Copies that share a batch are full in turn; a stride shorter than the batch, two at a time. */
static void test_phase(void **state)
{
    (void)state;
    static const struct {
        int stride, of, at[8]; /* first full steps of the copies */
    } cases[] = {
        {4, 4, {3, 2, 1, 0}}, {16, 4, {15, 11, 7, 3}}, {5, 3, {4, 3, 1}}, {2, 4, {1, 1, 0, 0}}};
    static struct drive d;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int phase = 0; phase < cases[i].of; phase++) {
            char text[80];
            snprintf(text, sizeof text, "recycled:k=3,stride=%d", cases[i].stride);
            drive_init(&d, 6);
            d.phase = phase;
            d.of = cases[i].of;
            struct tally tally = run(&d, text);
            for (int32_t t = 0; t < d.N; t++)
                assert_int_equal(tally.full_at[0][t],
                                 t >= cases[i].at[phase] &&
                                     (t - cases[i].at[phase]) % cases[i].stride == 0);
        }
}

/* Layers have values of their own. */
static void test_per_layer(void **state)
{
    (void)state;
    static struct drive d;
    struct ra_error err;
    drive_init(&d, 7);
    struct tally tally = run(&d, "recycled:k=3,stride=4,stride@1=5");
    assert_int_equal(tally.n_full, 20 / 4 + 20 / 5);
    ra_assert_ok(drive_open(&d, "recycled:k=3,k@1-15=7,stride=4", &err));
    for (int layer = 0; layer < 2; layer++) {
        struct ra_retained view;
        drive_step(&d, layer, -1);
        ra_policy_view(d.policy, layer, 0, &view);
        assert_int_equal(view.set.n, layer ? 7 : 3);
    }
    drive_close(&d);
    ra_assert_fails(drive_open(&d, "recycled:k=3,k@1-16=7,stride=4", &err), RA_EUSAGE, "k@1-16");
    drive_close(&d);
    ra_assert_fails(drive_open(&d, "recycled:k=3,stride=4,stride@1=5,sim=0,scope=model-prev", &err),
                    RA_EUSAGE, "one stride for all layers, got another at layer 1");
    drive_close(&d);
    ra_assert_fails(drive_open(&d, "recycled:k=3,stride=4,sim=0,sim@1=none,scope=model-prev", &err),
                    RA_EUSAGE, "one sim for all layers");
    drive_close(&d);
}

/* k=a/b is a share of the prompt, rounded down, at least 1. */
static void test_fraction(void **state)
{
    (void)state;
    static const struct {
        const char *spelling;
        int32_t want;
    } rows[] = {{"recycled:k=1/5,stride=9", 2},
                {"recycled:k=1/100,stride=9", 1},
                {"recycled:k=5/12,stride=9", 5}};
    static struct drive d;
    struct ra_error err;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct ra_retained view;
        drive_init(&d, 8);
        ra_assert_ok(drive_open(&d, rows[i].spelling, &err));
        assert_int_equal(ra_policy_spec_k(d.spec, d.P), rows[i].want);
        drive_step(&d, 0, -1);
        ra_policy_view(d.policy, 0, 0, &view);
        assert_int_equal(view.set.n, rows[i].want);
        drive_close(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worked_example), cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_thresholds),     cmocka_unit_test(test_strictly_higher),
        cmocka_unit_test(test_query_rotation), cmocka_unit_test(test_model_prev),
        cmocka_unit_test(test_stagger),        cmocka_unit_test(test_per_layer),
        cmocka_unit_test(test_phase),          cmocka_unit_test(test_fraction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
