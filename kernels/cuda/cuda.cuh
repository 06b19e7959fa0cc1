/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one include of every .cu file. Under nvcc each name below is the native construct; under a
 * host compiler (-x c++ -Itests/emu) <emu.h> stands in for the toolkit and runs the same source on
 * fibers. Beyond it, kernels use the toolkit's own names: threadIdx, __syncthreads, __shfl_*_sync,
 * __ballot_sync, atomicAdd, __threadfence, cudaMalloc, ...
 *
 * What kernels must keep to: launches through ra_launch, shared arrays through RA_SHARED and
 * RA_DYN, no inline PTX outside this header, half and bf16 only loaded, stored and converted, the
 * traffic that counts through ra_ld* and ra_st*.
 */
#ifndef RA_KERNELS_CUDA_CUDA_CUH
#define RA_KERNELS_CUDA_CUDA_CUH

#include "kernels/cuda/early.cuh"

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "kernels/cuda/launched.cuh"

/* T name[N]: an array of the block's shared memory, aligned to 16 bytes, holding nothing yet. */
#define RA_SHARED(T, name, N) __shared__ __align__(16) T name[N]

/* T *name: start of the dynamic shared memory of the launch, whatever its size in bytes. */
#define RA_DYN(T, name)                                                                            \
    extern __shared__ __align__(16) unsigned char ra_dyn_bytes[];                                  \
    T *const name = reinterpret_cast<T *>(ra_dyn_bytes)

/* ra_launch(kernel, grid, block, smem, stream, args...): launch, and what cudaGetLastError says of
 * it. Arguments convert to the kernel's parameters. A template takes its arguments as usual:
 * ra_launch(scale<float, 64>, grid, 128, 0, stream, x, n). */
template <typename... P, typename... A>
inline cudaError_t ra_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem,
                             cudaStream_t stream, A &&...args)
{
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = smem;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = ra_early_launches::on ? 1 : 0;
    cudaError_t error = cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
    ra_launch_watch::tell(error, stream, grid, block, smem);
    return error;
}

/* Asked without waiting: has the card done all that the stream was given, has it come to the event?
 * What else is wrong with them is told by the calls that follow. */
inline bool ra_has_run_dry(cudaStream_t stream)
{
    cudaError_t error = cudaStreamQuery(stream);
    if (error == cudaErrorNotReady)
        (void)cudaGetLastError(); /* no failure, but kept as one */
    return error == cudaSuccess;
}
inline bool ra_has_come_to(cudaEvent_t event)
{
    cudaError_t error = cudaEventQuery(event);
    if (error == cudaErrorNotReady)
        (void)cudaGetLastError();
    return error == cudaSuccess;
}

/*
 * Every kernel's every thread comes by here once, before it touches what an earlier launch wrote or
 * reads, and before it ends: all earlier launches are over then. Only now may the next launch
 * start, so that what runs beside this one is the launch ahead of it and no other: what that one
 * does not write may be read before.
 */
__device__ __forceinline__ void ra_after_earlier()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* --- global memory: counted in emulation ------------------------------------------------------ */

/* A load or store of T, 1 to 16 bytes, aligned to its size. */
template <typename T> __device__ __forceinline__ T ra_ld(const T *p)
{
    return *p;
}
template <typename T> __device__ __forceinline__ void ra_st(T *p, T value)
{
    *p = value;
}

/* From L2, past this SM's L1: what another block of the same launch wrote. */
template <typename T> __device__ __forceinline__ T ra_ld_l2(const T *p)
{
    return __ldcg(p);
}

__device__ __forceinline__ uint4 ra_ld16(const void *p)
{
    return *static_cast<const uint4 *>(p);
}
__device__ __forceinline__ void ra_st16(void *p, uint4 value)
{
    *static_cast<uint4 *>(p) = value;
}

/* Read once, not kept in L1; only for memory that nobody writes during the launch. */
__device__ __forceinline__ uint4 ra_ld16_stream(const void *p)
{
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(p));
    return v;
}
/* Written once, first to be evicted. */
__device__ __forceinline__ void ra_st16_stream(void *p, uint4 value)
{
    __stcs(static_cast<uint4 *>(p), value);
}

/* --- cp.async --------------------------------------------------------------------------------- */

/* 16 bytes from global to shared memory, both aligned; there after the wait for its group. */
__device__ __forceinline__ void ra_cp_async16(void *shared, const void *global)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                     static_cast<unsigned>(__cvta_generic_to_shared(shared))),
                 "l"(global)
                 : "memory");
}
/* The same if `valid`, otherwise 16 zero bytes; `global` is not read then. */
__device__ __forceinline__ void ra_cp_async16_zfill(void *shared, const void *global, bool valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     static_cast<unsigned>(__cvta_generic_to_shared(shared))),
                 "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}
/* Close the group of this thread's copies since the last commit. */
__device__ __forceinline__ void ra_cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Wait until at most N of this thread's latest groups are pending. Other threads see the bytes
 * after a barrier. */
template <int N> __device__ __forceinline__ void ra_cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#else
#include <emu.h>
#endif

#endif
