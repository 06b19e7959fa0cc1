/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The k-th largest against a sort. Would catch a digit that is skipped or counted twice, keys that
 * do not follow the order of numbers (signs, subnormals, -0), a plateau that outlasts the digits.
 */
#include <math.h>
#include <stdlib.h>

#include "sim/base/kth.h"
#include "tests/support/backend_case.h"
#include "tests/support/ra_test.h"

enum { MOST = 3000 };

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* Lists that differ in which digits tell their values apart. */
static double draw(int kind, uint64_t *seed)
{
    double x = (double)(ra_case_random(seed) >> 11) * 0x1p-53;
    switch (kind) {
    case 0:
        return x; /* one binade and a few more */
    case 1:
        return ldexp(x - 0.5, (int)(ra_case_random(seed) % 2000) - 1040); /* all, both signs */
    case 2:
        return floor(x * 3); /* plateaus */
    case 3:
        return 1 + floor(x * 40) * 0x1p-52; /* the last bits alone */
    case 4:
        return floor(x * 50) * 0x1p-1074; /* subnormals and 0 */
    default:
        return x < 0.5 ? -0.0 : 0.0;
    }
}

static void against_a_sort(void **state)
{
    (void)state;
    uint64_t seed = 3;
    static double values[MOST], sorted[MOST];
    static uint64_t scratch[MOST];
    static const int32_t lengths[] = {1, 2, 24, 25, 49, 300, MOST};
    for (int kind = 0; kind < 6; kind++)
        for (int i = 0; i < 7; i++) {
            int32_t n = lengths[i];
            for (int32_t j = 0; j < n; j++)
                sorted[j] = values[j] = draw(kind, &seed);
            qsort(sorted, (size_t)n, sizeof *sorted, descending);
            for (int32_t k = 1; k <= n; k += 1 + n / 60)
                assert_true(ra_kth_largest(values, n, k, scratch) == sorted[k - 1]);
            assert_true(ra_kth_largest(values, n, n, scratch) == sorted[n - 1]);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_a_sort),
    };
    return cmocka_run_group_tests_name("kth", tests, NULL, NULL);
}
