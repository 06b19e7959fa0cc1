/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shape of the attention that is replayed, in the letters of the literature: Hq query heads, Hkv
 * KV heads, G = Hq/Hkv, D head dimension of queries and keys, Dv of values. Query head h reads KV
 * head h / G. Knows element sizes and the bytes of a row; knows no file and no device.
 */
#ifndef RA_SIM_MODEL_H
#define RA_SIM_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum ra_dtype { RA_F16, RA_BF16, RA_F32 };

enum ra_rope_type {
    RA_ROPE_UNKNOWN, /* the trace does not say; queries cannot be un-rotated */
    RA_ROPE_NONE,    /* no rotation: un-rotating is the identity */
    RA_ROPE_DEFAULT,
    RA_ROPE_LINEAR, /* positions divided by factor */
    RA_ROPE_LLAMA3
};

/* Rotary embedding, "half" layout: dimension i is paired with i + D/2. */
struct ra_rope {
    enum ra_rope_type type;
    double theta;
    double factor;                /* linear, llama3 */
    double low_freq_factor;       /* llama3 */
    double high_freq_factor;      /* llama3 */
    double original_max_position; /* llama3, tokens */
};

struct ra_model {
    int n_layers; /* of the whole model, recorded or not */
    int Hq, Hkv, G, D, Dv;
    enum ra_dtype dtype; /* of stored and cached K and V */
    double attn_scale;   /* logit = attn_scale * q.k */
    struct ra_rope rope;
};

/* Bytes of one element: 2, 2, 4. */
size_t ra_dtype_bytes(enum ra_dtype dtype);

/* "f16", "bf16", "f32". */
const char *ra_dtype_name(enum ra_dtype dtype);

/* Bytes of one token's K and V of one KV head: (D + Dv) * element size. E of the documents. */
size_t ra_model_row_bytes(const struct ra_model *model);

/* Refuse impossible shapes: RA_EFORMAT naming the field, what was expected and what came. */
RA_MUST_CHECK enum ra_status ra_model_check(const struct ra_model *model, struct ra_error *err);

/* Widen n stored elements to f32, exactly. `stored` needs no alignment. Values must be finite. */
void ra_widen(enum ra_dtype dtype, const void *stored, size_t n, float *out);

/* Round n values to the stored type, nearest even. */
void ra_narrow(enum ra_dtype dtype, const float *values, size_t n, void *stored);

/* First element that is NaN or Inf, or n when all are finite. */
size_t ra_first_nonfinite(enum ra_dtype dtype, const void *stored, size_t n);

#ifdef __cplusplus
}
#endif

#endif
