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
};

struct ra_synth_like;

/* Opens the recorded trace and fills in what params leave open. RA_EUSAGE where it cannot serve. */
RA_MUST_CHECK enum ra_status ra_synth_like_open(struct ra_synth_like **like, const char *source,
                                                struct ra_synth_like_params *params,
                                                struct ra_error *err);
void ra_synth_like_close(struct ra_synth_like *like);

const struct ra_trace *ra_synth_like_source(const struct ra_synth_like *like);
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
