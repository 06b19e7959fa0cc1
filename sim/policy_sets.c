/* SPDX-License-Identifier: Apache-2.0 */
/* Sets side by side in one block. */
#include "sim/policy_sets.h"

#include <stdlib.h>

enum ra_status ra_policy_sets_open(struct ra_policy_sets *sets, const char *name, int n,
                                   int32_t most, struct ra_error *err)
{
    sets->most = most;
    sets->sets = calloc((size_t)n, sizeof *sets->sets);
    sets->pos = calloc((size_t)n * (size_t)most, sizeof *sets->pos);
    if (!sets->sets || !sets->pos)
        return ra_fail(err, RA_ENOMEM, "%s: no memory for %d sets of %d positions", name, n, most);
    return RA_OK;
}

void ra_policy_sets_close(struct ra_policy_sets *sets)
{
    free(sets->sets);
    free(sets->pos);
}

int32_t *ra_policy_sets_room(const struct ra_policy_sets *sets, int number)
{
    return sets->pos + (size_t)number * (size_t)sets->most;
}

void ra_policy_sets_put(struct ra_policy_sets *sets, int number, int32_t n)
{
    sets->sets[number] = (struct ra_positions){.pos = ra_policy_sets_room(sets, number), .n = n};
}
