/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the tensors of a trace lie. Internal to the file source: finds each tensor that the
 * metadata promises, and checks dtype and shape, before anything is read.
 */
#ifndef RA_TRACES_TRACE_TENSORS_H
#define RA_TRACES_TRACE_TENSORS_H

#include "traces/shards.h"
#include "traces/trace.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Tensors that are absent have a NULL tensor. */
struct ra_trace_layer_tensors {
    struct ra_shard_tensor kvq[3]; /* by enum ra_trace_part */
    struct ra_shard_tensor acc, o, lse;
};

struct ra_trace_seq_tensors {
    struct ra_shard_tensor tokens, logprob, check_steps, token_type;
    struct ra_trace_layer_tensors *layers; /* [n_layers] */
};

/* One sequence to be looked up; all borrowed. */
struct ra_trace_find {
    const struct ra_shards *shards;
    const struct ra_trace_info *info;     /* path, model and layers are filled */
    int number;                           /* of the sequence */
    struct ra_trace_seq *seq;             /* filled */
    struct ra_trace_seq_tensors *tensors; /* filled; `layers` has room for all */
};

/* The dtype that q, k and v of the whole trace must have: that of the first K. RA_EFORMAT. */
RA_MUST_CHECK enum ra_status ra_trace_tensors_dtype(const struct ra_shards *shards, int layer_id,
                                                    enum ra_dtype *dtype, struct ra_error *err);

/* Read the metadata of a sequence and find its tensors. RA_EFORMAT names file and tensor. */
RA_MUST_CHECK enum ra_status ra_trace_tensors_find(struct ra_trace_find *s, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
