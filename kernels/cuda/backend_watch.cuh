/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a recorded step launches, counted and told: in which order which operations launched how
 * large a grid, as a hash, and for whoever watches each kernel's node or place in time.
 * backend_watch.cu.
 */
#ifndef RA_KERNELS_CUDA_BACKEND_WATCH_CUH
#define RA_KERNELS_CUDA_BACKEND_WATCH_CUH

#include "kernels/backend.h"
#include "kernels/cuda/cuda.cuh"

struct ra_cuda_work;

/* For its scope this thread's launches are of the work, in step t. */
class ra_cuda_watched
{
    ra_launch_watch watch;
    ra_launch_watch *before;
    const struct ra_backend_watch *told;
    struct ra_step_launches *count;
    const ra_cuda_work *work;
    int32_t t;
    bool is_captured;

    static void launched(ra_launch_watch *self, cudaStream_t stream, dim3 grid, dim3 block,
                         size_t smem);

  public:
    /* told and count may be NULL; count is of the step. */
    ra_cuda_watched(const struct ra_backend_watch *told, struct ra_step_launches *count,
                    const ra_cuda_work &work, int32_t t, bool is_captured);
    ra_cuda_watched(const ra_cuda_watched &) = delete;
    ra_cuda_watched &operator=(const ra_cuda_watched &) = delete;
    ~ra_cuda_watched();
};

#endif
