/* SPDX-License-Identifier: Apache-2.0 */
/* Percentile = sorted value at index ceil(p * n) - 1, for every n and p where a slip shows. */
#include "tests/support/ra_test.h"

#include <math.h>

#include "sim/base/stats.h"

static void percentile_is_the_value_at_ceil_pn_minus_1(void **state)
{
    (void)state;
    double sorted[1000];
    for (int i = 0; i < 1000; i++)
        sorted[i] = i;
    for (size_t n = 1; n <= 1000; n++)
        for (unsigned p = 1; p <= 100; p++) {
            size_t rank = 0; /* smallest rank with rank >= p n / 100, in integers */
            while (rank * 100 < p * n)
                rank++;
            assert_true(ra_percentile(sorted, n, p) == (double)(rank - 1));
        }
    assert_true(isnan(ra_percentile(sorted, 0, 50)));
}

static void mean_and_extremes(void **state)
{
    (void)state;
    const double values[] = {3, -1, 7, 7, 0.5};
    assert_true(ra_mean(values, 5) == 16.5 / 5);
    assert_true(ra_min(values, 5) == -1);
    assert_true(ra_max(values, 5) == 7);
    assert_true(isnan(ra_mean(values, 0)) && isnan(ra_min(values, 0)) && isnan(ra_max(values, 0)));
}

static void sort_is_ascending(void **state)
{
    (void)state;
    double values[] = {2, -INFINITY, 1e300, -0.5, 2, 1e-300};
    ra_sort(values, 6);
    for (int i = 1; i < 6; i++)
        assert_true(values[i - 1] <= values[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentile_is_the_value_at_ceil_pn_minus_1),
        cmocka_unit_test(mean_and_extremes),
        cmocka_unit_test(sort_is_ascending),
    };
    return cmocka_run_group_tests_name("stats", tests, NULL, NULL);
}
