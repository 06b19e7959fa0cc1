/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A "synth:like=" trace: keeps the recorded trace open, fits a layer when it is first read, draws
 * its rows. Which layer is read first does not matter. Internal to traces/.
 */
#ifndef RA_TRACES_SYNTH_LIKE_H
#define RA_TRACES_SYNTH_LIKE_H

#include "traces/trace.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_synth_like_params {
    int32_t layers, L, N, seed; /* RA_INT_NONE: as in the recorded trace */
    int32_t Hq, Hkv, D;         /* likewise */
    int32_t dtype;              /* 0: as in the recorded trace; else 1 + enum ra_dtype */
};

struct ra_synth_like;

/*
 * Opens the recorded trace and fills in layers, L and N where params leave them open; a Hq, Hkv, D
 * or dtype that is the recorded trace's own counts as not given. RA_EUSAGE where the trace cannot
 * serve. The caller checks the model, before anything is read.
 */
RA_MUST_CHECK enum ra_status ra_synth_like_open(struct ra_synth_like **like, const char *source,
                                                struct ra_synth_like_params *params,
                                                struct ra_error *err);
void ra_synth_like_close(struct ra_synth_like *like);

const struct ra_trace *ra_synth_like_source(const struct ra_synth_like *like);
/* What is drawn: the recorded trace's model without its rotary embedding, of the shape asked for.
 */
const struct ra_model *ra_synth_like_model(const struct ra_synth_like *like);
/* Index in the recorded trace of the layer that `layer` is fitted to. */
int ra_synth_like_source_layer(const struct ra_synth_like *like, int layer);

/* Rows [first, first + n) of a head as f32, before rounding; queries by step, from -P on. */
RA_MUST_CHECK enum ra_status ra_synth_like_read(const struct ra_synth_like *like,
                                                const struct ra_trace_slice *slice, float *out,
                                                struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
