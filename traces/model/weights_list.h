/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors that a model of a family has: names in its files, shapes, and where each belongs. */
#ifndef RA_TRACES_MODEL_WEIGHTS_LIST_H
#define RA_TRACES_MODEL_WEIGHTS_LIST_H

#include "traces/model/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where files keep a text model: its layers below `body`, its output projection at `head`. */
struct ra_lm_naming {
    const char *body; /* "model." */
    const char *head; /* "lm_head.weight" */
};

struct ra_lm_tensor {
    char name[96];
    int rank; /* 1 or 2 */
    uint64_t shape[2];
    uint64_t n;   /* elements */
    bool is_norm; /* 1 is added where the family multiplies by 1 + w */
    int layer;    /* -1: of the whole model */
    size_t slot;  /* offset of its pointer in struct ra_lm_layer, or in struct ra_lm_weights */
};

size_t ra_lm_tensor_count(const struct ra_lm_config *config);

/* Tensor i < count. `naming` NULL: the name is not wanted. */
struct ra_lm_tensor ra_lm_tensor_at(const struct ra_lm_config *config,
                                    const struct ra_lm_naming *naming, size_t i);

#ifdef __cplusplus
}
#endif

#endif
