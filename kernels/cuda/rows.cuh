/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which rows (KV heads of a sequence of a layer) a launch serves. Layers and sequences lie in line,
 * [layers][sequences][heads]: a launch may serve some sequences of several layers, and a decision
 * made on the card may leave it nothing to do for some of them.
 */
#ifndef RA_KERNELS_CUDA_ROWS_CUH
#define RA_KERNELS_CUDA_ROWS_CUH

#include "kernels/cuda/vec.cuh"

/* Pointers of a kernel's arguments are those of row 0, unless they say otherwise. */
struct ra_rows {
    int32_t group, stride; /* the launch's i-th row is i / group * stride + i % group; of
                            * group 0: i */
    const int32_t *gate;   /* row r is served where gate[r / per_gate] == gate_value; NULL:
                            * every row is */
    int32_t per_gate, gate_value;
};

__device__ __forceinline__ int64_t ra_row_of(const ra_rows &rows, uint32_t i)
{
    if (rows.group == 0)
        return i;
    uint32_t group = (uint32_t)rows.group;
    return (int64_t)(i / group) * rows.stride + i % group;
}

/* The same for all lanes of a warp, which ask for one row. */
__device__ __forceinline__ bool ra_is_served(const ra_rows &rows, int64_t row)
{
    return !rows.gate ||
           ra_ld_warp(rows.gate + (uint32_t)row / (uint32_t)rows.per_gate) == rows.gate_value;
}

#endif
