/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations of struct ra_backend_ops, which kernels/backend.h describes, as far as they are in
 * other files than the table. self is a struct ra_cuda.
 */
#ifndef RA_KERNELS_CUDA_BACKEND_OPS_CUH
#define RA_KERNELS_CUDA_BACKEND_OPS_CUH

#include "kernels/backend.h"

enum ra_status ra_cuda_attend_full(void *self, int layer, const float *q, bool want_scores,
                                   float *out, struct ra_error *err);
enum ra_status ra_cuda_score(void *self, int layer, const float *q, struct ra_error *err);
enum ra_status ra_cuda_attend_recycled(void *self, int layer, const float *q, bool want_scores,
                                       float *out, struct ra_error *err);
enum ra_status ra_cuda_attend_sets(void *self, int layer, const float *q,
                                   const struct ra_positions *sets, int n_sets, float *out,
                                   struct ra_error *err);
enum ra_status ra_cuda_select(void *self, int layer, const struct ra_select_rule *rule,
                              struct ra_positions *order, struct ra_error *err);
void ra_cuda_adopt(void *self, int layer, int kv_head, const struct ra_retained *retained);
enum ra_status ra_cuda_refresh(void *self, int layer, int64_t *moved, struct ra_error *err);
enum ra_status ra_cuda_insert_evict(void *self, int layer, const int32_t *K, int32_t *evicted,
                                    struct ra_error *err);
enum ra_status ra_cuda_cosine(void *self, int layer, const float *q, double *cosine,
                              struct ra_error *err);
enum ra_status ra_cuda_set_reference(void *self, int layer, const float *q, struct ra_error *err);
enum ra_status ra_cuda_decide(void *self, int layer, const float *q, double sim, bool is_full,
                              double *cosine, struct ra_error *err);
void ra_cuda_branch(void *self, enum ra_branch branch, bool is_taken);
enum ra_status ra_cuda_record_begin(void *self, struct ra_error *err);
enum ra_status ra_cuda_record_step(void *self, int32_t t, struct ra_error *err);
const struct ra_step_launches *ra_cuda_launched(void *self);
enum ra_status ra_cuda_play(void *self, struct ra_step_time *times, const float **out,
                            struct ra_error *err);
enum ra_status ra_cuda_count(void *self, struct ra_step_traffic *steps, struct ra_error *err);
enum ra_status ra_cuda_accumulate(void *self, int layer, enum ra_agg agg, bool keep,
                                  const float **scores, struct ra_error *err);
enum ra_status ra_cuda_cut(void *self, int layer, const struct ra_cut_rule *rule,
                           const int32_t *instead, int32_t *evicted, struct ra_error *err);
enum ra_status ra_cuda_select_pages(void *self, int layer, const float *q,
                                    const struct ra_page_rule *rule, struct ra_positions *order,
                                    struct ra_error *err);

#endif
