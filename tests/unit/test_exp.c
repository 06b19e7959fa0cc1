/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exp of what is not positive, against long double and, below the smallest normal number, the C
 * library. Would catch a lost term, a bad reduction, and a wrong scale at either end.
 */
#include "sim/base/exp.h"

#include <math.h>

#include "tests/support/backend_case.h"
#include "tests/support/ra_test.h"

static double exp_of(double x)
{
    ra_exp_below(&x, 1, 0);
    return x;
}

/* The same bits wherever in a list, whose end is no multiple of anything. */
static void lists(void **state)
{
    (void)state;
    double list[11];
    for (int n = 1; n <= 10; n++) {
        for (int i = 0; i <= n; i++)
            list[i] = 3 - 0.7 * i;
        ra_exp_below(list, n, 3);
        for (int i = 0; i < n; i++)
            assert_true(list[i] == exp_of(3 - 0.7 * i - 3));
        assert_true(list[n] == 3 - 0.7 * n);
    }
}

static void exp_against_long_double(void **state)
{
    (void)state;
    uint64_t seed = 8;
    for (int i = 0; i < 200000; i++) {
        double x = -(double)(ra_case_random(&seed) >> 11) * 0x1p-53 * (i % 3 ? 20 : 708);
        long double want = expl((long double)x);
        assert_true(fabsl((long double)exp_of(x) - want) <= 1.5L * 0x1p-53L * want);
    }
    for (double x = -708; x > -760; x -= 0.01)
        assert_true(fabs(exp_of(x) - exp(x)) <= 0x1p-1074 + 1e-15 * exp(x));
    assert_true(exp_of(0) == 1 && exp_of(-0.0) == 1);
    assert_true(exp_of(-INFINITY) == 0 && exp_of(-1e300) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(exp_against_long_double),
                                       cmocka_unit_test(lists)};
    return cmocka_run_group_tests_name("exp", tests, NULL, NULL);
}
