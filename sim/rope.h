/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary position embedding, "half" layout, and its inverse: to compare queries before rotation. */
#ifndef RA_SIM_ROPE_H
#define RA_SIM_ROPE_H

#include "sim/model.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Rotate vec [D] back to position 0, in place. Angles are formed as the models form them (inverse
 * frequencies and angle in f32), the rotation itself in f64. RA_ROPE_UNKNOWN is a caller's bug.
 * Source: Su et al., arXiv:2104.09864; llama3 scaling as published with Llama 3.1.
 */
void ra_rope_unrotate(const struct ra_rope *rope, int D, int32_t pos, double *vec);

#ifdef __cplusplus
}
#endif

#endif
