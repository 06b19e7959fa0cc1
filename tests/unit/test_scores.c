/* SPDX-License-Identifier: Apache-2.0 */
/* Scores where the vectors do not go: sets whose probability f64 does not hold, and what is
 * lacking. */
#include "tests/support/ra_test.h"

#include <math.h>
#include <string.h>

#include "sim/scores.h"

enum { P = 3, L = 4 };

static const struct ra_model model = {.n_layers = 1,
                                      .Hq = 1,
                                      .Hkv = 1,
                                      .G = 1,
                                      .D = 1,
                                      .Dv = 1,
                                      .dtype = RA_F32,
                                      .attn_scale = 1,
                                      .rope = {.type = RA_ROPE_NONE}};
static const struct ra_step step = {.t = 0, .self = L - 1};
static const struct ra_page_rule rule = {.K = 2, .page = 2, .least = 1};

static enum ra_status form(const struct ra_plan *plan, const struct ra_scores_input *input,
                           double out[L], struct ra_error *err)
{
    struct ra_scorer *scorer;
    struct ra_scores scores;
    RA_TRY(ra_scorer_open(&scorer, &model, P, L, err));
    enum ra_status status = ra_scorer_form(scorer, plan, input, &scores, err);
    if (status == RA_OK)
        memcpy(out, scores.prob, L * sizeof *out);
    ra_scorer_close(scorer);
    return status;
}

/* Logits 0 -1000 -1001 -1003: the softmax over all is 1 0 0 0, that over the last three is not. */
static void weights_far_below_the_largest(void **state)
{
    (void)state;
    static const float q[] = {1}, keys[] = {0, -1000, -1001, -1003};
    static const double prob[] = {1, 0, 0, 0};
    static const int32_t kept[] = {1, 2, 3};
    struct ra_positions set = {kept, 3};
    struct ra_plan plan = {.scores = RA_SCORES_AFTER, .of = RA_SCORES_OF_ATTENDED};
    struct ra_scores_input input = {
        .step = &step, .prob = prob, .q = q, .k = (const char *)keys, .attended = &set};
    struct ra_error err;
    double got[L] = {0}, sum = 1 + exp(-1) + exp(-3);
    ra_assert_ok(form(&plan, &input, got, &err));
    assert_true(got[0] == 0 && fabs(got[1] - 1 / sum) < 1e-15);
    assert_true(fabs(got[2] - exp(-1) / sum) < 1e-15 && fabs(got[3] - exp(-3) / sum) < 1e-15);
    input.q = NULL; /* nothing to form them from: alike */
    ra_assert_ok(form(&plan, &input, got, &err));
    assert_true(got[0] == 0 && got[1] == 1.0 / 3 && got[2] == 1.0 / 3 && got[3] == 1.0 / 3);
}

static void what_lacks_is_named(void **state)
{
    (void)state;
    static const double prob[L] = {1};
    struct ra_scores_input input = {.step = &step, .prob = prob};
    struct ra_error err;
    double got[L] = {0};
    struct ra_plan plan = {.scores = RA_SCORES_BEFORE, .of = RA_SCORES_OF_PAGES, .pages = &rule};
    ra_assert_fails(form(&plan, &input, got, &err), RA_EUSAGE, "needs queries and keys");
    plan.of = RA_SCORES_OF_PROMPT;
    ra_assert_fails(form(&plan, &input, got, &err), RA_EUSAGE, "needs acc");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_far_below_the_largest),
        cmocka_unit_test(what_lacks_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
