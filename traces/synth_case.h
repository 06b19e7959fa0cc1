/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the "synth:case=" traces, whose properties traces/synth.h states. Internal to traces/. */
#ifndef RA_TRACES_SYNTH_CASE_H
#define RA_TRACES_SYNTH_CASE_H

#include "traces/synth.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The parameters of the spelling, by the table in synth.c. */
struct ra_synth_case_params {
    int32_t which; /* enum ra_synth_case */
    int32_t P, N, W, layers, Hq, Hkv, D, Dv, dtype, seed, window;
};

/* RA_EUSAGE where the shape is too small for the case: key, expected, got. */
RA_MUST_CHECK enum ra_status ra_synth_case_check(const struct ra_synth_case_params *params,
                                                 const char *where, struct ra_error *err);

/* One row of a head, D or Dv values. Rows of Q count from the first stored one. */
void ra_synth_case_row(const struct ra_synth_case_params *params, int layer,
                       enum ra_trace_part part, int head, int32_t row, float *out);

#ifdef __cplusplus
}
#endif

#endif
