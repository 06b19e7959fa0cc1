/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands for the rest of a model between the attention of two layers: a read of so much memory
 * that the next layer finds none of its keys in the L2, as it would behind a model's weights.
 */
#ifndef RA_KERNELS_CUDA_BETWEEN_CUH
#define RA_KERNELS_CUDA_BETWEEN_CUH

#include "kernels/cuda/cuda.cuh"

enum { RA_BETWEEN_THREADS = 256, RA_BETWEEN_EACH = 8 };

/* Read n times 16 bytes. *never is written where their sum is not what it is. */
cudaError_t ra_launch_between(const void *from, uint64_t n, uint32_t *never, cudaStream_t stream);

#endif
