/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is told of launches; ra_launch of cuda.cuh tells.
 */
#ifndef RA_KERNELS_CUDA_LAUNCHED_CUH
#define RA_KERNELS_CUDA_LAUNCHED_CUH

/* Told of each launch of this thread that was accepted, while it is `now`. */
struct ra_launch_watch {
    void (*launched)(ra_launch_watch *self, cudaStream_t stream, dim3 grid, dim3 block,
                     size_t smem);
    static inline thread_local ra_launch_watch *now = nullptr;

    static void tell(cudaError_t error, cudaStream_t stream, dim3 grid, dim3 block, size_t smem)
    {
        if (now && error == cudaSuccess)
            now->launched(now, stream, grid, block, smem);
    }
};

#endif
