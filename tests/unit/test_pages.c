/* SPDX-License-Identifier: Apache-2.0 */
/* Digests of pages by hand, and the choice among pages: ties, the newest, page 0, the least. */
#include "tests/support/ra_test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/pages.h"

static const struct ra_model model = {.n_layers = 1,
                                      .Hq = 2,
                                      .Hkv = 1,
                                      .G = 2,
                                      .D = 2,
                                      .Dv = 2,
                                      .dtype = RA_F32,
                                      .attn_scale = 0.5,
                                      .rope = {.type = RA_ROPE_NONE}};

/* Page 0: (1,0) (0,3); page 1: (-2,1) (2,0); page 2, cut short: (0,5). */
static const float keys[] = {1, 0, 0, 3, -2, 1, 2, 0, 0, 5};
static const float queries[] = {1, 0, -1, 2};

static void score(enum ra_page_digest digest, int32_t first, double out[6])
{
    struct ra_error err;
    struct ra_pages *pages;
    ra_assert_ok(ra_pages_open(&pages, &model, 2, digest, 5, &err));
    ra_pages_extend(pages, 0, keys, first); /* in two parts, as steps come */
    ra_pages_extend(pages, 0, keys, 5);
    ra_pages_score(pages, 0, queries, out);
    ra_pages_close(pages);
}

static void bounds_by_hand(void **state)
{
    (void)state;
    /* (1,0): max(0,1), max(-2,2), 0. (-1,2): 0 + 6, 2 + 2, 0 + 10 */
    static const double expected[] = {1, 2, 0, 6, 4, 10};
    double got[6];
    for (int32_t first = 1; first <= 5; first++) {
        score(RA_PAGE_BOUNDS, first, got);
        assert_memory_equal(got, expected, sizeof got);
    }
}

static void means_by_hand(void **state)
{
    (void)state;
    /* Means (.5,1.5) (0,.5) (0,5): halves of products .5 0 0 and 2.5 1 10, through softmax. */
    static const double logits[] = {0.25, 0, 0, 1.25, 0.5, 5};
    double got[6];
    score(RA_PAGE_MEAN, 3, got);
    for (int g = 0; g < 2; g++) {
        const double *row = logits + 3 * g;
        double sum = exp(row[0]) + exp(row[1]) + exp(row[2]);
        for (int i = 0; i < 3; i++)
            assert_true(fabs(got[3 * g + i] - exp(row[i]) / sum) < 1e-15);
    }
}

/* One head, pages of two, L positions; what goes first, first. */
static void expect(struct ra_page_rule rule, const double *scores, int32_t L, const char *expected)
{
    int32_t order[16];
    double scratch[16];
    char text[64] = "";
    rule.page = 2;
    int32_t n = ra_pages_choose(&rule, scores, 1, L, order, scratch);
    for (int32_t i = 0; i < n; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%d", i ? " " : "",
                 (int)order[i]);
    assert_string_equal(text, expected);
}

static void choices_by_hand(void **state)
{
    (void)state;
    static const double equal[] = {3, 3, 3, 3}, rising[] = {1, 2, 3, 0};
    struct ra_page_rule rule = {.K = 6, .least = 1, .takes_newest = true};
    /* Of equal pages the lower ranks higher: it is taken first and goes last. */
    expect(rule, equal, 8, "3 2 1 0 7 6");
    expect(rule, equal, 7, "3 2 1 0 6");
    expect(rule, rising, 8, "3 2 5 4 7 6");
    rule.takes_first = true;
    expect(rule, rising, 8, "5 4 1 0 7 6");
    rule.K = 3; /* one page: the newest leaves page 0 no room */
    expect(rule, rising, 8, "7 6");
    rule.takes_newest = false;
    expect(rule, rising, 8, "1 0");
    rule.takes_first = false;
    expect(rule, rising, 8, "5 4");
    rule.K = 1; /* less than a page: one all the same, or as many as must be */
    expect(rule, rising, 8, "5 4");
    rule.least = 3;
    expect(rule, rising, 8, "1 0 3 2 5 4");
    rule.least = 9;
    expect(rule, rising, 8, "7 6 1 0 3 2 5 4");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_by_hand),
        cmocka_unit_test(means_by_hand),
        cmocka_unit_test(choices_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
