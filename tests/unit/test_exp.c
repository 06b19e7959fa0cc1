/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exp of what is not positive, against long double and, below the smallest normal number, the C
 * library. Would catch a lost term, a bad reduction, and a wrong scale at either end.
 */
#include "sim/base/exp.h"

#include <math.h>

#include "tests/support/backend_case.h"
#include "tests/support/ra_test.h"

static void exp_against_long_double(void **state)
{
    (void)state;
    uint64_t seed = 8;
    for (int i = 0; i < 200000; i++) {
        double x = -(double)(ra_case_random(&seed) >> 11) * 0x1p-53 * (i % 3 ? 20 : 708);
        long double want = expl((long double)x);
        assert_true(fabsl((long double)ra_exp_below(x) - want) <= 1.5L * 0x1p-53L * want);
    }
    for (double x = -708; x > -760; x -= 0.01)
        assert_true(fabs(ra_exp_below(x) - exp(x)) <= 0x1p-1074 + 1e-15 * exp(x));
    assert_true(ra_exp_below(0) == 1 && ra_exp_below(-0.0) == 1);
    assert_true(ra_exp_below(-INFINITY) == 0 && ra_exp_below(-1e300) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(exp_against_long_double)};
    return cmocka_run_group_tests_name("exp", tests, NULL, NULL);
}
