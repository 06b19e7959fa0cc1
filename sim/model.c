/* SPDX-License-Identifier: Apache-2.0 */
/* Attention shapes and the conversion of stored rows. Rows may start at any byte of a file. */
#include "sim/model.h"

#include <math.h>
#include <string.h>

#include "sim/base/half.h"
#include "sim/base/wide.h"

size_t ra_dtype_bytes(enum ra_dtype dtype)
{
    return dtype == RA_F32 ? 4 : 2;
}

const char *ra_dtype_name(enum ra_dtype dtype)
{
    static const char *const names[] = {"f16", "bf16", "f32"};
    return names[dtype];
}

size_t ra_model_row_bytes(const struct ra_model *model)
{
    return (size_t)(model->D + model->Dv) * ra_dtype_bytes(model->dtype);
}

enum ra_status ra_model_check(const struct ra_model *model, struct ra_error *err)
{
    if (model->n_layers < 1 || model->n_layers > 4096)
        return ra_fail(err, RA_EFORMAT, "n_layers: expected 1 to 4096, got %d", model->n_layers);
    if (model->Hq < 1 || model->Hq > 4096)
        return ra_fail(err, RA_EFORMAT, "n_q_heads: expected 1 to 4096, got %d", model->Hq);
    if (model->Hkv < 1 || model->Hkv > model->Hq || model->Hq % model->Hkv != 0)
        return ra_fail(err, RA_EFORMAT, "n_kv_heads: expected a divisor of n_q_heads %d, got %d",
                       model->Hq, model->Hkv);
    if (model->G != model->Hq / model->Hkv)
        return ra_fail(err, RA_EFORMAT, "group size: expected %d, got %d", model->Hq / model->Hkv,
                       model->G);
    if (model->D < 8 || model->D > 256 || model->D % 8 != 0)
        return ra_fail(err, RA_EFORMAT, "head_dim: expected a multiple of 8 up to 256, got %d",
                       model->D);
    if (model->Dv < 8 || model->Dv > 256 || model->Dv % 8 != 0)
        return ra_fail(err, RA_EFORMAT, "v_head_dim: expected a multiple of 8 up to 256, got %d",
                       model->Dv);
    if (!isfinite(model->attn_scale) || model->attn_scale <= 0)
        return ra_fail(err, RA_EFORMAT, "attn_scale: expected a positive number, got %g",
                       model->attn_scale);
    return RA_OK;
}

static uint16_t load16(const void *stored, size_t i)
{
    uint16_t half;
    memcpy(&half, (const char *)stored + 2 * i, sizeof half);
    return half;
}

RA_WIDE void ra_widen(enum ra_dtype dtype, const void *stored, size_t n, float *out)
{
    switch (dtype) {
    case RA_F16:
        for (size_t i = 0; i < n; i++)
            out[i] = ra_f16_to_f32(load16(stored, i));
        break;
    case RA_BF16:
        for (size_t i = 0; i < n; i++)
            out[i] = ra_bf16_to_f32(load16(stored, i));
        break;
    case RA_F32:
        memcpy(out, stored, n * sizeof *out);
        break;
    }
}

void ra_narrow(enum ra_dtype dtype, const float *values, size_t n, void *stored)
{
    if (dtype == RA_F32) {
        memcpy(stored, values, n * sizeof *values);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint16_t half = dtype == RA_F16 ? ra_f32_to_f16(values[i]) : ra_f32_to_bf16(values[i]);
        memcpy((char *)stored + 2 * i, &half, sizeof half);
    }
}

size_t ra_first_nonfinite(enum ra_dtype dtype, const void *stored, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float value = 0;
        if (dtype == RA_F32)
            memcpy(&value, (const char *)stored + 4 * i, sizeof value);
        if (dtype == RA_F16    ? !ra_f16_is_finite(load16(stored, i))
            : dtype == RA_BF16 ? !ra_bf16_is_finite(load16(stored, i))
                               : !isfinite(value))
            return i;
    }
    return n;
}
