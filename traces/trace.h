/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recorded decoding run: queries, keys and values of every step of one or more sequences, as
 * `rattn-trace` 1.0 (traces/FORMAT.md). Sources are a file, or the seeded generator behind
 * "synth:..." names. Reading is by slices into the caller's buffers; nothing is held but the
 * header.
 */
#ifndef RA_TRACES_TRACE_H
#define RA_TRACES_TRACE_H

#include <stdbool.h>

#include "sim/base/hash.h"
#include "sim/model.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ra_trace_layer {
    int id;         /* number in the model */
    int32_t window; /* sliding window w: sees the last w positions, self included; 0: full */
    int32_t first;  /* position of K/V row 0; > 0 only for window layers cut short */
};

struct ra_trace_seq {
    int32_t P, N, W; /* prompt tokens, decode steps, prompt-tail queries stored (>= 1) */
    bool has_tokens, has_logprob, has_acc, has_check, has_token_type;
    int32_t n_check;      /* check steps C, 0 without */
    const char *mode;     /* "teacher_forced", "greedy", ... or "unknown" */
    const char *schedule; /* attention schedule the run was recorded under; "full" by default */
};

struct ra_trace_info {
    const char *path;      /* as given: file name or "synth:..." */
    const char *model_id;  /* "unknown" when absent */
    const char *synthetic; /* NULL for a recording; else what results must say, "synthetic (...)" */
    char sha256[RA_SHA256_HEX]; /* content checksum as stated in the file; "" when it has none */
    struct ra_model model;
    int n_layers;                        /* recorded */
    const struct ra_trace_layer *layers; /* [n_layers] ascending ids */
    int n_seq;
    const struct ra_trace_seq *seqs; /* [n_seq] */
    double check_tolerance;          /* of check rows: 1e-5, or 5e-3 for hook captures */
};

struct ra_trace;

/* Open a file or a "synth:" spelling. Errors name file, tensor, expected, got. */
RA_MUST_CHECK enum ra_status ra_trace_open(struct ra_trace **trace, const char *name,
                                           struct ra_error *err);
void ra_trace_close(struct ra_trace *trace);

/* Borrowed until close. */
const struct ra_trace_info *ra_trace_info(const struct ra_trace *trace);

/* Value of a metadata key, NULL when absent (always NULL for a generated trace, but for
 * "synth.*"). */
const char *ra_trace_metadata(const struct ra_trace *trace, const char *key);

enum ra_trace_part { RA_TRACE_K, RA_TRACE_V, RA_TRACE_Q };

/* Rows [first, first + n) of one head. For K and V rows are positions; for Q row W - 1 is the last
 * prompt token and row W + t step t. */
struct ra_trace_slice {
    int seq, layer; /* layer: index into info->layers */
    enum ra_trace_part part;
    int head;
    int32_t first, n;
};

/* Read a slice in the stored dtype, tightly packed. NaN or Inf is RA_EFORMAT naming tensor, head,
 * row. */
RA_MUST_CHECK enum ra_status ra_trace_read(const struct ra_trace *trace,
                                           const struct ra_trace_slice *slice, void *out,
                                           struct ra_error *err);

/* acc [Hq][P] of a layer, f32; finite and not negative. */
RA_MUST_CHECK enum ra_status ra_trace_acc(const struct ra_trace *trace, int seq, int layer,
                                          float *out, struct ra_error *err);

/* tokens [P + N + 1]. */
RA_MUST_CHECK enum ra_status ra_trace_tokens(const struct ra_trace *trace, int seq, int32_t *out,
                                             struct ra_error *err);

/* logprob [N]: natural log of p(target) under full attention. */
RA_MUST_CHECK enum ra_status ra_trace_logprob(const struct ra_trace *trace, int seq, float *out,
                                              struct ra_error *err);

/* check_steps [n_check], ascending, below N. */
RA_MUST_CHECK enum ra_status ra_trace_check_steps(const struct ra_trace *trace, int seq,
                                                  int32_t *out, struct ra_error *err);

/* Check rows: o [Hq][n_check][Dv], lse [Hq][n_check] (lse may be NULL; NaN where absent). */
RA_MUST_CHECK enum ra_status ra_trace_check_rows(const struct ra_trace *trace, int seq, int layer,
                                                 float *o, float *lse, struct ra_error *err);

/* Token types: [P + N] U8 into out, each an index into the comma-separated list *names as the
 * metadata states it ("text,image"); borrowed. */
RA_MUST_CHECK enum ra_status ra_trace_token_types(const struct ra_trace *trace, int seq,
                                                  uint8_t *out, const char **names,
                                                  struct ra_error *err);

/* Compare the stated checksum with the data. RA_EDIVERGED when they differ or none is stated. */
RA_MUST_CHECK enum ra_status ra_trace_verify_digest(const struct ra_trace *trace,
                                                    struct ra_error *err);

#ifdef __cplusplus
}
#endif

#endif
