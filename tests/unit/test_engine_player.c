/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A profiled pass that launches something else than the bare ones did is no pass of the same steps:
 * another number of kernels, the same number in another order, and at which step.
 */
#include "tests/support/ra_test.h"

#include <stdio.h>
#include <string.h>

#include "sim/engine_player.h"

enum { STEPS = 3 };
static struct ra_step_launches now[1 + STEPS];

static const struct ra_step_launches *launched(void *self)
{
    (void)self;
    return now;
}

static void launches_are_those_of_the_bare_passes(void **state)
{
    (void)state;
    static const struct ra_step_launches first[1 + STEPS] = {{2, 11}, {5, 7}, {5, 7}, {9, 3}};
    const struct ra_backend_ops ops = {.launched = launched};
    const struct ra_shape shape = {.run_steps = STEPS};
    const struct ra_player player = {.beat = {.ops = &ops, .shape = &shape}};
    struct ra_error err;
    int64_t n;
    memcpy(now, first, sizeof now);
    ra_assert_ok(ra_player_same_launches(&player, first, &n, &err));
    assert_int_equal(n, 21);
    for (int i = 0; i <= STEPS; i++)
        for (int what = 0; what < 2; what++) {
            char place[64];
            memcpy(now, first, sizeof now);
            now[i].n += what == 0;
            now[i].hash ^= what == 1;
            snprintf(place, sizeof place, "step %d: launched %d kernels", i - 1, (int)now[i].n);
            ra_assert_fails(ra_player_same_launches(&player, first, &n, &err), RA_EDIVERGED, place);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(launches_are_those_of_the_bare_passes)};
    return cmocka_run_group_tests_name("engine_player", tests, NULL, NULL);
}
