/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/decode_all.cuh"

RA_DECODE_ALL(f16_128, __half, 128)
