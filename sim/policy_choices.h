/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one layer chose at its full steps, kept for layers that follow it: the engine may run that
 * layer to its end before a follower begins. Memory: full steps * heads * most * 4 bytes.
 */
#ifndef RA_SIM_POLICY_CHOICES_H
#define RA_SIM_POLICY_CHOICES_H

#include "sim/step.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_choices;

/* For steps -1..N-1; a choice holds at most `most` positions. */
RA_MUST_CHECK enum ra_status ra_choices_open(struct ra_choices **choices, int32_t N, int n_heads,
                                             int32_t most, struct ra_error *err);
void ra_choices_close(struct ra_choices *choices); /* accepts NULL */

/* Make room for the choice of step t: an empty one for each head. */
RA_MUST_CHECK enum ra_status ra_choices_begin(struct ra_choices *choices, int32_t t,
                                              struct ra_error *err);

/* Record the order of one head; the step was begun. */
void ra_choices_put(struct ra_choices *choices, int32_t t, int head,
                    const struct ra_positions *order);

/* False where step t was not begun. Borrowed until close. */
bool ra_choices_get(const struct ra_choices *choices, int32_t t, int head,
                    struct ra_positions *order);

#ifdef __cplusplus
}
#endif

#endif
