/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `recycled` against a second statement of its rule: the paper's pseudocode, carried over line by
 * line with the options added, on thousands of small random runs full of ties. Compares what is
 * attended, the order of evictions and the full steps at every step, and checks the invariants that
 * hold whatever the scores are.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/drive.h"
#include "tests/support/ra_test.h"

enum { CASES = 3000, MOST = DRIVE_ROWS };

static const char *const aggs[] = {"max", "mean", "first", "sum"};
static const char *const currents[] = {"pseudo", "snapkv", "drop"};

struct options {
    int K, S, pool, agg, current, raw, after, stagger, post;
    double sim; /* NaN: none */
};

/* One layer and KV head of the pseudocode. */
struct model {
    int C_f[MOST], n_f, pending[MOST], n_pending, C_p[MOST], n_p;
    double score[MOST]; /* that orders evictions, of the last full step */
    int n_chosen;       /* entries of that choice not yet evicted */
    double last_evicted;
};

static void aggregate(const double *prob, int G, int L, int agg, double *out)
{
    for (int j = 0; j < L; j++) {
        double sum = 0, most = -INFINITY;
        for (int g = 0; g < G; g++) {
            sum += prob[g * L + j];
            most = fmax(most, prob[g * L + j]);
        }
        out[j] = agg == 0 ? most : agg == 1 ? sum / G : agg == 2 ? prob[j] : sum;
    }
}

static void maxpool(const double *a, int n, int k, double *out)
{
    for (int j = 0; j < n; j++) {
        out[j] = -INFINITY;
        for (int i = j - k / 2; i <= j + k / 2; i++)
            if (i >= 0 && i < n && a[i] > out[j])
                out[j] = a[i];
    }
}

/* sorted(list, key=(-score, position)), by insertion. */
static void sort_best_first(int *list, int n, const double *score)
{
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0; j--) {
            int a = list[j - 1], b = list[j];
            if (score[a] > score[b] || (score[a] == score[b] && a < b))
                break;
            list[j - 1] = b;
            list[j] = a;
        }
}

static void reverse(int *list, int n)
{
    for (int i = 0; i < n / 2; i++) {
        int kept = list[i];
        list[i] = list[n - 1 - i];
        list[n - 1 - i] = kept;
    }
}

static void choose(struct model *m, const struct options *o, const double *prob, int G, int L)
{
    double raw[MOST] = {0}, pooled[MOST] = {0};
    aggregate(prob, G, L, o->agg, raw);
    maxpool(raw, L, o->pool, pooled);
    int n = o->current == 0 ? L : L - 1, K = o->current == 1 ? o->K - 1 : o->K;
    for (int j = 0; j < n; j++)
        m->C_p[j] = j;
    sort_best_first(m->C_p, n, pooled);
    n = n < K ? n : K;
    if (o->raw)
        sort_best_first(m->C_p, n, raw);
    reverse(m->C_p, n);
    if (o->current == 1)
        m->C_p[n++] = L - 1;
    m->n_p = m->n_chosen = n;
    m->last_evicted = -INFINITY;
    memcpy(m->score, o->raw ? raw : pooled, sizeof m->score);
    if (o->current == 1)
        m->score[L - 1] = INFINITY;
}

/* Evictions within a gap ascend in the score of the last full step, then go by age. */
static void check_evicted(struct model *m, int evicted)
{
    if (m->n_chosen > 0) {
        assert_true(m->score[evicted] >= m->last_evicted);
        m->last_evicted = m->score[evicted];
        m->n_chosen--;
        return;
    }
    for (int i = 0; i < m->n_p; i++)
        assert_true(m->C_p[i] > evicted);
}

static void partial(struct model *m, int me, int K)
{
    m->C_p[m->n_p++] = me;
    m->pending[m->n_pending++] = me;
    if (m->n_p <= K)
        return;
    int evicted = m->C_p[0];
    memmove(m->C_p, m->C_p + 1, sizeof m->C_p[0] * (size_t)--m->n_p);
    check_evicted(m, evicted);
}

static void flush(struct model *m, int me)
{
    for (int i = 0; i < m->n_pending; i++)
        m->C_f[m->n_f++] = m->pending[i];
    m->n_pending = 0;
    m->C_f[m->n_f++] = me;
}

/* The mean query, turned back by multiplying with a complex number. */
static void query_at(const struct drive *d, const struct options *o, int layer, int row, double *q)
{
    for (int i = 0; i < DRIVE_D / 2; i++) {
        const double *mean = d->mean + (layer * (d->N + 1) + row) * DRIVE_D;
        float freq = 1 / (float)pow(d->model.rope.theta, 2.0 * i / DRIVE_D);
        double angle = o->post ? 0 : (float)(d->P - 1 + row) * freq;
        q[2 * i] = mean[i] * cos(-angle) - mean[i + DRIVE_D / 2] * sin(-angle);
        q[2 * i + 1] = mean[i] * sin(-angle) + mean[i + DRIVE_D / 2] * cos(-angle);
    }
}

static double cosine_of(const struct drive *d, const struct options *o, int layer, int a, int b)
{
    double x[DRIVE_D], y[DRIVE_D], xy = 0, xx = 0, yy = 0;
    query_at(d, o, layer, a, x);
    query_at(d, o, layer, b, y);
    for (int i = 0; i < DRIVE_D; i++) {
        xy += x[i] * y[i];
        xx += x[i] * x[i];
        yy += y[i] * y[i];
    }
    return xy / sqrt(xx * yy);
}

/* The largest number of steps that is at most phase/of of a stride. */
static int ahead(const struct drive *d, int S)
{
    int steps = 0;
    while ((steps + 1) * d->of <= S * d->phase)
        steps++;
    return steps;
}

/* Whether step i is full; moves the reference. */
static bool scheduler(const struct drive *d, const struct options *o, int layer, int i, int *last)
{
    int due = ahead(d, o->S) + (o->stagger ? i + d->layer_ids[layer] : i);
    if (due % o->S != 0)
        return false;
    if (!isnan(o->sim)) {
        double cosine = cosine_of(d, o, layer, i, *last);
        assert_true(d->plan.checks_query && fabs(d->plan.query_cosine - cosine) < 1e-9);
        if (cosine > o->sim)
            return false;
    }
    *last = i;
    return true;
}

static void assert_same_order(struct drive *d, const struct model *m, int h)
{
    struct ra_retained view;
    assert_true(ra_policy_view(d->policy, d->step.layer, h, &view));
    assert_int_equal(view.evict.n, m->n_p);
    assert_int_equal(view.set.n, m->n_p);
    assert_int_equal(view.n_pinned, 0);
    for (int i = 0; i < m->n_p; i++) {
        assert_int_equal(view.evict.pos[i], m->C_p[i]);
        assert_true(i == 0 || view.set.pos[i - 1] < view.set.pos[i]);
        bool found = false;
        for (int j = 0; j < m->n_p; j++)
            found |= view.set.pos[j] == m->C_p[i];
        assert_true(found);
    }
}

/* A = the model's C_p and self, at a full step everything. */
static void assert_attended(const struct drive *d, const struct model *m, int h, bool all)
{
    int32_t n = 0, self = d->step.self;
    for (int32_t pos = 0; pos <= self; pos++) {
        bool want = all || pos == self;
        for (int i = 0; i < m->n_p; i++)
            want |= m->C_p[i] == pos;
        if (!want)
            continue;
        assert_true(n < d->n_attended[h]);
        assert_int_equal(d->attended[h][n++], pos);
    }
    assert_int_equal(d->n_attended[h], n);
}

static void assert_complete(const struct model *m, int32_t rows)
{
    assert_int_equal(m->n_f + m->n_pending, rows);
    for (int i = 0; i < rows; i++)
        assert_int_equal(i < m->n_f ? m->C_f[i] : m->pending[i - m->n_f], i);
}

static int run_layer(struct drive *d, const struct options *o, int layer)
{
    static struct model models[DRIVE_HEADS];
    int G = d->model.G, last = 0, n_full = 0;
    drive_step(d, layer, -1);
    assert_true(d->plan.rebuilds && d->plan.scores == RA_SCORES_AFTER);
    for (int h = 0; h < d->model.Hkv; h++) {
        struct model *m = &models[h];
        m->n_pending = 0;
        for (m->n_f = 0; m->n_f < d->P; m->n_f++)
            m->C_f[m->n_f] = m->n_f;
        choose(m, o, drive_scores(d, layer, -1) + h * G * d->P, G, d->P);
        assert_same_order(d, m, h);
    }
    for (int32_t t = 0; t < d->N; t++) {
        drive_step(d, layer, t);
        bool is_full = scheduler(d, o, layer, t + 1, &last);
        int L = d->P + t + 1;
        n_full += is_full;
        assert_int_equal(d->plan.is_full, is_full);
        assert_int_equal(d->plan.rebuilds, is_full);
        for (int h = 0; h < d->model.Hkv; h++) {
            struct model *m = &models[h];
            if (!is_full || !o->after)
                assert_attended(d, m, h, is_full);
            if (is_full) {
                flush(m, L - 1);
                choose(m, o, drive_scores(d, layer, t) + h * G * L, G, L);
            } else {
                partial(m, L - 1, o->K);
            }
            if (is_full && o->after)
                assert_attended(d, m, h, false);
            assert_complete(m, L);
            assert_same_order(d, m, h);
        }
    }
    assert_true(o->stagger || n_full * o->S <= d->N + ahead(d, o->S));
    return n_full;
}

static void random_options(struct drive *d, struct options *o, uint64_t *state, char *spelling,
                           size_t size)
{
    static const int groups[] = {1, 2, 3, 4};
    d->P = 1 + (int32_t)drive_random(state, 24);
    d->N = 1 + (int32_t)drive_random(state, 24);
    d->n_layers = 1 + (int)drive_random(state, 2);
    d->layer_ids[1] = 1 + (int)drive_random(state, 15);
    d->model.G = groups[drive_random(state, 4)];
    d->model.Hkv = 1 + (int)drive_random(state, 2);
    d->model.Hq = d->model.G * d->model.Hkv;
    d->of = 1 + (int)drive_random(state, 9);
    d->phase = (int)drive_random(state, (uint32_t)d->of);
    d->levels = drive_random(state, 4) ? 2 + (int)drive_random(state, 6) : 0;
    d->by_install = drive_random(state, 2);
    d->model.rope = (struct ra_rope){.type = RA_ROPE_DEFAULT, .theta = 100};
    o->K = 1 + (int)drive_random(state, (uint32_t)(d->P + d->N + 4));
    o->S = 1 + (int)drive_random(state, (uint32_t)(d->N + 2));
    o->pool = 1 + 2 * (int)drive_random(state, 5);
    o->agg = (int)drive_random(state, 4);
    o->current = (int)drive_random(state, 3);
    o->raw = (int)drive_random(state, 2);
    o->after = (int)drive_random(state, 2);
    o->stagger = (int)drive_random(state, 2);
    o->post = (int)drive_random(state, 2);
    o->sim = drive_random(state, 2) ? NAN : (drive_random(state, 2001) - 1000.0) / 1000;
    drive_queries(d, 0.3);
    char sim[32] = "none";
    if (!isnan(o->sim))
        snprintf(sim, sizeof sim, "%.3f", o->sim);
    snprintf(spelling, size,
             "recycled:k=%d,stride=%d,sim=%s,pool=%d,agg=%s,current=%s,evict=%s,attend=%s,query=%s,"
             "stagger=%d",
             o->K, o->S, sim, o->pool, aggs[o->agg], currents[o->current],
             o->raw ? "raw" : "pooled", o->after ? "after" : "before", o->post ? "post" : "pre",
             o->stagger);
}

static void test_against_pseudocode(void **unused)
{
    (void)unused;
    static struct drive d;
    struct ra_error err;
    int n_full = 0, n_dynamic = 0;
    for (uint64_t i = 0; i < CASES; i++) {
        struct options o;
        char spelling[256];
        uint64_t state = i;
        drive_init(&d, i);
        random_options(&d, &o, &state, spelling, sizeof spelling);
        ra_assert_ok(drive_open(&d, spelling, &err));
        for (int layer = 0; layer < d.n_layers; layer++) {
            int n = run_layer(&d, &o, layer);
            n_full += n;
            n_dynamic += isnan(o.sim) ? 0 : n;
        }
        drive_close(&d);
    }
    assert_true(n_full > CASES && n_dynamic > CASES / 10); /* the cases are not trivial */
}

static void assert_fires_as(struct drive *d, void *context)
{
    const bool *want = context;
    assert_int_equal(d->plan.is_full, want[d->step.t + 1]);
}

/* scope=model-prev: decisions of the whole model, made here step by step before any layer runs. */
static void test_model_prev(void **unused)
{
    (void)unused;
    static struct drive d;
    struct ra_error err;
    int n_full = 0, n_checks = 0;
    for (uint64_t i = 0; i < 300; i++) {
        uint64_t state = i;
        bool want[DRIVE_ROWS] = {false};
        char spelling[128];
        struct options o = {.S = 1 + (int)drive_random(&state, 5), .post = (int)(i % 2)};
        o.sim = (drive_random(&state, 1001) - 200.0) / 1000;
        drive_init(&d, i);
        d.n_layers = 3;
        d.step_major = i % 3 == 0;
        d.model.rope = (struct ra_rope){.type = RA_ROPE_DEFAULT, .theta = 100};
        drive_queries(&d, 0.3);
        for (int step = 1, last = 0; step <= d.N; step++) {
            double least = 1;
            for (int layer = 0; layer < 3; layer++)
                least = fmin(least, cosine_of(&d, &o, layer, step - 1, last));
            want[step] = step % o.S == 0 && least <= o.sim;
            last = want[step] ? step : last;
            n_checks += step % o.S == 0;
            n_full += want[step];
        }
        snprintf(spelling, sizeof spelling,
                 "recycled:k=4,stride=%d,sim=%.3f,query=%s,scope=model-prev", o.S, o.sim,
                 o.post ? "post" : "pre");
        ra_assert_ok(drive_open(&d, spelling, &err));
        drive_all(&d, assert_fires_as, want);
        drive_close(&d);
    }
    assert_true(n_full > n_checks / 10 && n_full < n_checks - n_checks / 10);
}

/* KV heads are independent: permuting them permutes the sets, and groups never mix. */
static void test_permuted_heads(void **unused)
{
    (void)unused;
    static struct drive a, b;
    static const int heads[] = {2, 0, 1};
    struct ra_error err;
    for (uint64_t i = 0; i < 50; i++) {
        drive_init(&a, i);
        a.model.Hkv = 3;
        a.model.Hq = 6;
        b = a;
        b.heads = heads;
        ra_assert_ok(drive_open(&a, "recycled:k=5,stride=4,pool=3", &err));
        ra_assert_ok(drive_open(&b, "recycled:k=5,stride=4,pool=3", &err));
        for (int32_t t = -1; t < a.N; t++) {
            drive_step(&a, 0, t);
            drive_step(&b, 0, t);
            for (int h = 0; t >= 0 && h < 3; h++) {
                int32_t n = b.n_attended[h];
                assert_int_equal(n, a.n_attended[heads[h]]);
                assert_memory_equal(b.attended[h], a.attended[heads[h]], (size_t)n * sizeof n);
            }
        }
        drive_close(&a);
        drive_close(&b);
    }
}

/* share: choosers behave as without it; followers take over, at full steps of theirs, their sets.
 */
static void test_share(void **unused)
{
    (void)unused;
    static struct drive d;
    static struct ra_retained views[DRIVE_ROWS][2];
    static int32_t orders[DRIVE_ROWS][2][DRIVE_ROWS];
    struct ra_error err;
    for (uint64_t i = 0; i < 60; i++) {
        drive_init(&d, i);
        d.n_layers = 3;
        d.layer_ids[1] = 2;
        d.layer_ids[2] = 9;
        d.by_install = i % 2;
        d.levels = i % 3 ? 4 : 0;
        ra_assert_ok(drive_open(
            &d, i % 4 ? "recycled:k=5,stride=4,share=2" : "recycled:k=5,k@9=3,stride=3,share=2",
            &err));
        int32_t stride = i % 4 ? 4 : 3, K = i % 4 ? 5 : 3;
        for (int layer = 0; layer < 3; layer++)
            for (int32_t t = -1; t < d.N; t++) {
                drive_step(&d, layer, t);
                bool due = t < 0 || (t + 1) % stride == 0;
                assert_int_equal(d.plan.is_full, due && layer < 2 && t >= 0);
                assert_int_equal(d.plan.rebuilds, due);
                assert_int_equal(d.plan.rule != NULL, due && layer < 2);
                for (int h = 0; h < 2; h++) {
                    struct ra_retained view;
                    ra_policy_view(d.policy, layer, h, &view);
                    if (layer == 1) {
                        views[t + 1][h] = view;
                        memcpy(orders[t + 1][h], view.evict.pos,
                               (size_t)view.evict.n * sizeof(int32_t));
                    }
                    if (!due) { /* an ordinary recycled step, followers included */
                        assert_int_equal(view.evict.pos[view.evict.n - 1], d.step.self);
                        assert_true(view.evict.n <= (layer < 2 ? 5 : K));
                    }
                    if (layer < 2 || !due)
                        continue;
                    int32_t n = views[t + 1][h].evict.n < K ? views[t + 1][h].evict.n : K;
                    assert_int_equal(view.evict.n, n);
                    assert_memory_equal(view.evict.pos,
                                        orders[t + 1][h] + views[t + 1][h].evict.n - n,
                                        (size_t)n * sizeof n);
                    bool has_self = false;
                    for (int32_t j = 0; j < n; j++)
                        has_self |= view.set.pos[j] == d.step.self;
                    assert_int_equal(t < 0 ? n + !has_self : d.n_attended[h], n + !has_self);
                }
            }
        drive_close(&d);
    }
    ra_assert_fails(drive_open(&d, "recycled:k=5,stride=4,share=2/7", &err), RA_EUSAGE, "got 7");
    drive_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_pseudocode),
        cmocka_unit_test(test_model_prev),
        cmocka_unit_test(test_permuted_heads),
        cmocka_unit_test(test_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
