/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/decode_all.cuh"

RA_DECODE_ALL(bf16_64, __nv_bfloat16, 64)
