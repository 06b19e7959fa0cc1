/* SPDX-License-Identifier: Apache-2.0 */
/* Sets the knobs of a drawn layer so that it measures like a recorded one. Internal to traces/. */
#ifndef RA_TRACES_SYNTH_TUNE_H
#define RA_TRACES_SYNTH_TUNE_H

#include "traces/synth_draw.h"
#include "traces/synth_measure.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Start from layer->knobs and leave the best found there. Each step draws and measures the layer
 * once; ends early when every statistic is well within its tolerance. */
RA_MUST_CHECK enum ra_status ra_synth_tune(struct ra_synth_layer *layer,
                                           const struct ra_measure *target, struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
