/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where in C_f a position of a row (KV head of a sequence, or of a layer) is: in line, or in pages
 * of RA_PAGE positions, [pages][Hkv][RA_PAGE][D], of which each sequence has a list.
 */
#ifndef RA_KERNELS_CUDA_PAGES_CUH
#define RA_KERNELS_CUDA_PAGES_CUH

#include "kernels/cuda/cuda.cuh"

enum { RA_PAGE = 16 };

/* Byte offset, by the row_stride, or pages, page_stride and Hkv, of a kernel's arguments. */
template <class Args>
__device__ __forceinline__ int64_t ra_full_offset(const Args &a, int64_t row, int32_t position,
                                                  int32_t row_bytes)
{
    if (!a.pages)
        return (row * a.row_stride + position) * row_bytes;
    int64_t page = ra_ld(a.pages + row / a.Hkv * a.page_stride + position / RA_PAGE);
    return ((page * a.Hkv + row % a.Hkv) * RA_PAGE + position % RA_PAGE) * row_bytes;
}

#endif
