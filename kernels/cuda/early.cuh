/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which launches may start early; the kernels' side is ra_after_earlier of cuda.cuh.
 */
#ifndef RA_KERNELS_CUDA_EARLY_CUH
#define RA_KERNELS_CUDA_EARLY_CUH

/* For its scope launches of this thread may start before the launch ahead of them in their stream
 * has ended (programmatic dependent launch, sm_90 and later), which must be a kernel's. */
class ra_early_launches
{
    bool before;

  public:
    static inline thread_local bool on = false;
    explicit ra_early_launches(bool allowed) : before(on)
    {
        on = allowed;
    }
    ra_early_launches(const ra_early_launches &) = delete;
    ra_early_launches &operator=(const ra_early_launches &) = delete;
    ~ra_early_launches()
    {
        on = before;
    }
};

#endif
