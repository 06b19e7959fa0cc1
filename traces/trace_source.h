/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands behind a trace: a constant table of functions, one table per source (a file, the
 * generator). trace.c checks arguments and finiteness once for all of them; a source only answers.
 * Internal to traces/: everybody else reads through traces/trace.h.
 */
#ifndef RA_TRACES_TRACE_SOURCE_H
#define RA_TRACES_TRACE_SOURCE_H

#include "traces/trace.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Hooks are as in traces/trace.h. They may rely on: seq, layer, head within info's counts; rows
 * within the tensor (K and V: from layers[layer].first to P + N; Q: 0 to W + N); n >= 1; out not
 * NULL; an optional part asked for only where the sequence's has_* bit says that it is there.
 * `self` is constant after open, so that several threads may read at once.
 */
struct ra_trace_source_ops {
    const char *name; /* "safetensors", "synth" */

    /* Required. `name` is the whole spelling given by the user, "synth:" included. On failure
     * *self is NULL. Model shapes must have passed ra_model_check. */
    enum ra_status (*open)(void **self, const char *name, struct ra_error *err);
    /* Required. Borrowed until close; constant. */
    const struct ra_trace_info *(*info)(const void *self);
    /* Optional: without it no key has a value. */
    const char *(*metadata)(const void *self, const char *key);
    /* Required. Stored bytes; trace.c looks for NaN and Inf afterwards. */
    enum ra_status (*read)(const void *self, const struct ra_trace_slice *slice, void *out,
                           struct ra_error *err);

    /* Optional, each needed only where a has_* bit may be set. Values are checked by trace.c:
     * acc >= 0 and finite, tokens >= 0, logprob <= 0 (to rounding), check steps ascending below N,
     * o and lse finite. lse may be NULL; a source without it fills it with NaN. */
    enum ra_status (*acc)(const void *self, int seq, int layer, float *out, struct ra_error *err);
    enum ra_status (*tokens)(const void *self, int seq, int32_t *out, struct ra_error *err);
    enum ra_status (*logprob)(const void *self, int seq, float *out, struct ra_error *err);
    enum ra_status (*check_steps)(const void *self, int seq, int32_t *out, struct ra_error *err);
    enum ra_status (*check_rows)(const void *self, int seq, int layer, float *o, float *lse,
                                 struct ra_error *err);
    enum ra_status (*token_types)(const void *self, int seq, uint8_t *out, const char **names,
                                  struct ra_error *err);

    /* Optional: without it the trace has no checksum to verify. */
    enum ra_status (*verify_digest)(const void *self, struct ra_error *err);

    /* Required. Accepts NULL. */
    void (*close)(void *self);
};

/* The source of files and folders; "synth:" names go to ra_trace_source_synth (traces/synth.h). */
extern const struct ra_trace_source_ops ra_trace_source_file;

#ifdef __cplusplus
}
#endif

#endif
