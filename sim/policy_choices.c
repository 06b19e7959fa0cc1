/* SPDX-License-Identifier: Apache-2.0 */
/* One block per full step, found by its number. */
#include "sim/policy_choices.h"

#include <stdlib.h>
#include <string.h>

struct ra_choices {
    int32_t N, most;
    int n_heads;
    int32_t *blocks[]; /* [N + 1], of step t at t + 1: [n_heads] of a count and `most` positions */
};

enum ra_status ra_choices_open(struct ra_choices **choices, int32_t N, int n_heads, int32_t most,
                               struct ra_error *err)
{
    size_t n = (size_t)N + 1;
    struct ra_choices *c = calloc(1, sizeof *c + n * sizeof c->blocks[0]);
    if (!c)
        return ra_fail(err, RA_ENOMEM, "no memory for the choices of %d steps", N);
    c->N = N;
    c->most = most;
    c->n_heads = n_heads;
    *choices = c;
    return RA_OK;
}

void ra_choices_close(struct ra_choices *choices)
{
    for (int32_t i = 0; choices && i <= choices->N; i++)
        free(choices->blocks[i]);
    free(choices);
}

enum ra_status ra_choices_begin(struct ra_choices *choices, int32_t t, struct ra_error *err)
{
    size_t size = (size_t)choices->n_heads * ((size_t)choices->most + 1);
    RA_BUG_ON(t < -1 || t >= choices->N || choices->blocks[t + 1]);
    choices->blocks[t + 1] = calloc(size, sizeof(int32_t));
    if (!choices->blocks[t + 1])
        return ra_fail(err, RA_ENOMEM, "no memory for the choice of step %d", t);
    return RA_OK;
}

static int32_t *entry(const struct ra_choices *choices, int32_t t, int head)
{
    int32_t *block = choices->blocks[t + 1];
    return block ? block + (size_t)head * ((size_t)choices->most + 1) : NULL;
}

void ra_choices_put(struct ra_choices *choices, int32_t t, int head,
                    const struct ra_positions *order)
{
    int32_t *to = entry(choices, t, head);
    RA_BUG_ON(!to || order->n > choices->most);
    to[0] = order->n;
    if (order->n > 0)
        memcpy(to + 1, order->pos, (size_t)order->n * sizeof *to);
}

bool ra_choices_get(const struct ra_choices *choices, int32_t t, int head,
                    struct ra_positions *order)
{
    const int32_t *from = entry(choices, t, head);
    if (from)
        *order = (struct ra_positions){from + 1, from[0]};
    return from != NULL;
}
