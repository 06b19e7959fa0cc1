/* SPDX-License-Identifier: Apache-2.0 */
/* Recall against a full sort with heavy ties; relative error against hand values. */
#include "tests/support/ra_test.h"

#include <math.h>
#include <stdlib.h>

#include "sim/quality.h"

static uint64_t seed = 12345;

static uint32_t draw(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % below;
}

static const double *ranked;

static int by_rank(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    if (ranked[x] != ranked[y])
        return ranked[x] < ranked[y] ? 1 : -1;
    return x < y ? -1 : 1;
}

static void recall_counts_hits_among_the_n_best(void **state)
{
    (void)state;
    enum { MOST = 60 };
    double score[MOST];
    uint64_t scratch[MOST];
    int32_t all[MOST], set[MOST];
    for (int trial = 0; trial < 20000; trial++) {
        int32_t L = 1 + (int32_t)draw(MOST), n = 0, hits = 0;
        uint32_t levels = 1 + draw(6);
        for (int32_t j = 0; j < L; j++) {
            score[j] = draw(levels);
            all[j] = j;
            if (draw(3) == 0)
                set[n++] = j;
        }
        ranked = score;
        qsort(all, (size_t)L, sizeof *all, by_rank);
        for (int32_t i = 0; i < n; i++)
            for (int32_t b = 0; b < n; b++)
                hits += set[i] == all[b];
        double got = ra_topk_recall(score, L, set, n, scratch);
        if (n == 0)
            assert_true(isnan(got));
        else
            assert_true(got == (double)hits / n);
    }
}

static void relative_error_by_hand(void **state)
{
    (void)state;
    const double want[] = {3, 4}, got[] = {3, 4.5}, zero[] = {0, 0};
    assert_true(ra_rel_err(got, want, 2) == 0.1);
    assert_true(ra_rel_err(want, want, 2) == 0);
    assert_true(isnan(ra_rel_err(got, zero, 2)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recall_counts_hits_among_the_n_best),
        cmocka_unit_test(relative_error_by_hand),
    };
    return cmocka_run_group_tests_name("quality", tests, NULL, NULL);
}
