/* SPDX-License-Identifier: Apache-2.0 */
/* decode_split over keys and values in f32; another head dimension is one line here. */
#include "kernels/cuda/decode_all.cuh"

RA_DECODE_ALL(float, 64)
RA_DECODE_ALL(float, 128)
