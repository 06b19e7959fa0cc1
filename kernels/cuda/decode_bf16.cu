/* SPDX-License-Identifier: Apache-2.0 */
/* decode_split over keys and values in bf16; another head dimension is one line here. */
#include "kernels/cuda/decode_all.cuh"

RA_DECODE_ALL(__nv_bfloat16, 64)
RA_DECODE_ALL(__nv_bfloat16, 128)
RA_DECODE_ALL(__nv_bfloat16, 256)
