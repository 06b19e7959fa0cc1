/* SPDX-License-Identifier: Apache-2.0 */
/* What a recording says of itself. Internal to the recorder. */
#ifndef RA_TRACES_MODEL_RECORDER_METADATA_H
#define RA_TRACES_MODEL_RECORDER_METADATA_H

#include "traces/model/recorder.h"
#include "traces/safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Declare every key of traces/FORMAT.md that applies. There is no time stamp: the same run gives
 * the same bytes. */
RA_MUST_CHECK enum ra_status ra_lm_recorder_metadata(struct ra_st_writer *writer,
                                                     const struct ra_lm_recording *recording,
                                                     struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
