/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `triforce` and `tidal` beyond one sequence and one budget: copies that share a batch verify and
 * correct in turn, and a layer with a smaller budget follows the best of what was chosen.
 */
#include <stdio.h>
#include <string.h>

#include "tests/support/drive.h"
#include "tests/support/ra_test.h"

struct turn {
    int layer, stride, first;
};

static void check_turn(struct drive *d, void *context)
{
    const struct turn *turn = context;
    int32_t t = d->step.t;
    if (d->step.layer == turn->layer)
        assert_int_equal(d->plan.is_full,
                         t >= turn->first && (t - turn->first) % turn->stride == 0);
}

/* A stride shorter than the batch: two at a time. */
static void test_turns(void **state)
{
    (void)state;
    static const struct {
        int stride, of, at[8]; /* first full steps of the copies */
    } cases[] = {
        {4, 4, {3, 2, 1, 0}}, {16, 4, {15, 11, 7, 3}}, {5, 3, {4, 3, 1}}, {2, 4, {1, 1, 0, 0}}};
    static struct drive d;
    struct ra_error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int phase = 0; phase < cases[i].of; phase++)
            for (int policy = 0; policy < 3; policy++) {
                char text[80];
                const char *draft = policy ? "streaming" : "retrieval";
                struct turn turn = {policy == 2, cases[i].stride, cases[i].at[phase]};
                if (policy < 2)
                    snprintf(text, sizeof text, "triforce:k=6,chunk=2,gamma=%d,draft=%s",
                             turn.stride - 1, draft);
                else
                    snprintf(text, sizeof text, "tidal:k=3,select=0,correct=%d", turn.stride);
                drive_init(&d, 6);
                d.phase = phase;
                d.of = cases[i].of;
                ra_assert_ok(drive_open(&d, text, &err));
                drive_all(&d, check_turn, &turn);
                drive_close(&d);
            }
}

/* Positions of all before self that rank above one: by the group's largest, lower first. */
static int rank_of(const double *prob, int G, int32_t L, int32_t pos)
{
    int rank = 0;
    double best[DRIVE_ROWS];
    for (int32_t j = 0; j < L - 1; j++) {
        best[j] = prob[j];
        for (int g = 1; g < G; g++)
            best[j] = prob[g * L + j] > best[j] ? prob[g * L + j] : best[j];
    }
    for (int32_t j = 0; j < L - 1; j++)
        rank += best[j] > best[pos] || (j < pos && best[j] == best[pos]);
    return rank;
}

static void check_followers(struct drive *d, void *context)
{
    static const int32_t budgets[] = {0, 3, 6};
    int layer = d->step.layer, G = d->model.G;
    int32_t L = d->step.self + 1;
    (void)context;
    assert_int_equal(d->plan.is_full, layer == 0);
    if (layer == 0)
        return;
    const double *prob = drive_scores(d, 0, d->step.t);
    for (int h = 0; h < d->model.Hkv; h++) {
        assert_int_equal(d->n_attended[h], budgets[layer] + 1);
        for (int32_t i = 0; i < budgets[layer]; i++)
            assert_true(rank_of(prob + h * G * L, G, L, d->attended[h][i]) < budgets[layer]);
    }
}

static void test_followers(void **state)
{
    (void)state;
    static struct drive d;
    struct ra_error err;
    for (uint64_t seed = 0; seed < 20; seed++) {
        drive_init(&d, seed);
        d.n_layers = 3;
        d.step_major = seed % 2;
        ra_assert_ok(drive_open(&d, "tidal:k=6,k@1=3,select=0", &err));
        drive_all(&d, check_followers, NULL);
        drive_close(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_followers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
