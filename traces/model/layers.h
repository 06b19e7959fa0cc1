/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pieces of a transformer block that are no matrix product, in f32 as the models compute them.
 * Rows are vectors; arrays are the caller's.
 */
#ifndef RA_TRACES_MODEL_LAYERS_H
#define RA_TRACES_MODEL_LAYERS_H

#include "traces/model/config.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out [n] = x / sqrt(mean(x^2) + eps) * weight; x and out may be the same. Source: Zhang, Sennrich,
 * arXiv:1910.07467. */
void ra_lm_rms_norm(const float *x, const float *weight, int n, double eps, float *out);

/* gate [n] = activation(gate) * up. Source: Shazeer, arXiv:2002.05202. */
void ra_lm_gate(enum ra_lm_activation activation, const float *up, int n, float *gate);

/* cos and sin [D / 2] of a position's angles, from ra_rope_frequencies: the angle is rounded to
 * f32, as the models round it. */
void ra_lm_rope_table(const float *frequencies, int D, int32_t pos, float *cosines, float *sines);

/* Rotate vec [D], "half" layout: i pairs with i + D / 2. Source: Su et al., arXiv:2104.09864. */
void ra_lm_rotate(const float *cosines, const float *sines, int D, float *vec);

/* values[i] = exp(values[i] - top), none of which is above top, 0 below -87; returns their sum. To
 * 3e-7 of each. */
float ra_lm_exp_below(float *values, int n, float top);

/* Natural log of the sum of exp(logits [n]), in f64. */
double ra_lm_log_sum(const float *logits, int n);

/* Index of the greatest of logits [n]; of equals the lowest. */
int32_t ra_lm_likeliest(const float *logits, int n);

/* Natural log of the softmax of logits [n] at `index`, in f64. */
double ra_lm_logprob(const float *logits, int n, int32_t index);

#ifdef __cplusplus
}
#endif

#endif
