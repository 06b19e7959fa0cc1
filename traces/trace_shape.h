/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the metadata of a trace says about the model: shape, rotation, recorded layers and their
 * windows. Everything that rattn-trace 1.0 cannot express is refused here, by name.
 */
#ifndef RA_TRACES_TRACE_SHAPE_H
#define RA_TRACES_TRACE_SHAPE_H

#include "traces/shards.h"
#include "traces/trace.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_trace_shape {
    struct ra_model model;         /* dtype is not stated in the metadata; left as RA_F16 */
    struct ra_trace_layer *layers; /* [n_layers]; ra_trace_shape_fini frees */
    int n_layers;
    double check_tolerance;
};

/* *shape is overwritten, and to be released in any case. Errors: RA_EFORMAT, RA_ENOMEM. */
RA_MUST_CHECK enum ra_status ra_trace_shape_read(const struct ra_shards *shards,
                                                 struct ra_trace_shape *shape,
                                                 struct ra_error *err);
void ra_trace_shape_fini(struct ra_trace_shape *shape);

#ifdef __cplusplus
}
#endif

#endif
