/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary position embedding, "half" layout, and its inverse: to look at queries and keys before
 * rotation. */
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

/* The same for many vectors: frequencies [D / 2] are formed once, all 0 for RA_ROPE_NONE. */
void ra_rope_frequencies(const struct ra_rope *rope, int D, float *frequencies);

/* Rotate vec [D] to pos, and back to position 0, in place. */
void ra_rope_turn(const float *frequencies, int D, int32_t pos, double *vec);
void ra_rope_turn_back(const float *frequencies, int D, int32_t pos, double *vec);

#ifdef __cplusplus
}
#endif

#endif
