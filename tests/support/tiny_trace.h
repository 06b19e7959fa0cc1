/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small traces with known values, for tests of what reads them. Check rows are computed here by a
 * plain two-pass softmax in f64. Failures fail the test.
 */
#ifndef RA_TESTS_SUPPORT_TINY_TRACE_H
#define RA_TESTS_SUPPORT_TINY_TRACE_H

#include "traces/trace.h"

struct tiny_trace {
    int32_t P, N, W;
    int Hq, Hkv, D, Dv;
    int n_layers;   /* recorded ids are 0, 2, 4, ... of a model of 2 * n_layers layers */
    int32_t window; /* of every second recorded layer; 0: all are full */
    int32_t first;  /* first position stored of window layers */
    enum ra_dtype dtype;
    int32_t n_check;          /* check steps 0, .., spread over N; 0: none */
    bool has_acc;             /* one part in P for every position */
    bool no_checksum;         /* leave content.sha256 out */
    const char *const *extra; /* metadata: key, value, key, value, NULL; may be NULL */
};

/* P=6, N=4, W=3, 4 query heads, 2 KV heads, D=Dv=8, one full layer, f32, nothing optional. */
struct tiny_trace tiny_trace_default(void);

/*
 * Element d of row `row` of a head: a position for K and V, a row of the tensor for Q. `layer` is
 * the index among the recorded ones. A multiple of 1/64 within [-2, 2): exact in every dtype.
 */
float tiny_trace_value(enum ra_trace_part part, int layer, int head, int32_t row, int d);

/* The i-th check step. */
int32_t tiny_trace_check_step(const struct tiny_trace *t, int32_t i);

void tiny_trace_write(const char *path, const struct tiny_trace *t);

/* Overwrite bytes of one tensor in a finished file. */
void tiny_trace_patch(const char *path, const char *tensor, size_t offset, const void *bytes,
                      size_t n);

#endif
