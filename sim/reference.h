/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention in f64 from stored rows: the measure of every schedule and of every backend. Sums run
 * in a fixed order (dimensions ascending for logits, keys ascending for softmax and output), so the
 * result does not depend on threads or on the width of vector registers.
 */
#ifndef RA_SIM_REFERENCE_H
#define RA_SIM_REFERENCE_H

#include "sim/step.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Queries of one KV head's group, at n_steps consecutive steps.
 *
 *   k, v     stored rows of the KV head, [rows][D] and [rows][Dv], position 0 first
 *   q        n_steps * G query vectors of D f32; those of step s start at s * q_step
 *   first_L  keys of the first step; step s has first_L + s
 *   prob     filled: with L = first_L + s, the probability of key j for query g of step s is at
 *            prob[s * step_stride + (first_head + g) * L + j]
 *   out      [n_steps][G][Dv], step s at s * out_step; NULL if unwanted
 *   max_abs  in: the largest attn_scale * sum_d |q_d k_d| met so far, 0 if none; out: with these
 *            queries; NULL if unwanted
 */
struct ra_reference {
    const struct ra_model *model;
    const void *k, *v;
    const float *q;
    size_t q_step;
    int n_steps;
    int32_t first_L;
    double *prob;
    size_t step_stride;
    int first_head;
    double *out;
    size_t out_step;
    double *max_abs;
};
void ra_reference_attend(const struct ra_reference *call);

/*
 * Outputs of queries over the positions of one set, softmax renormalised over it, and the mass that
 * the set holds of each query's full softmax.
 *
 *   k, v  stored rows of the KV head, [L][D] and [L][Dv]
 *   q     [n_heads][D]
 *   prob  full softmax of query h at prob + h * prob_stride, [L]
 *   set   positions, each below L; at least one
 *   out   filled: [n_heads][Dv]
 *   mass  filled: [n_heads]
 *
 * Where a whole set's probability underflows, the weights are formed anew from the logits.
 */
struct ra_reference_set {
    const struct ra_model *model;
    const void *k, *v;
    const float *q;
    const double *prob;
    size_t prob_stride;
    int n_heads;
    const struct ra_positions *set;
    double *out, *mass;
};
void ra_reference_attend_set(const struct ra_reference_set *call);

/* The softmax of one query q [D] over a set, from its logits: weights at out[position]; other
 * elements are left as they are. k [rows][D] as stored. */
void ra_reference_weigh_set(const struct ra_model *model, const void *k, const float *q,
                            const struct ra_positions *set, double *out);

#ifdef __cplusplus
}
#endif

#endif
