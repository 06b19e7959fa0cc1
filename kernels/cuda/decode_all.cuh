/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every instance of decode_split of a type and head dimension: RA_DECODE_ALL(name, T, D) defines
 * ra_decode_NAME, which launches the one that a plan asks for. Groups of 5 to 7 query heads run as
 * 8, larger ones in parts.
 */
#ifndef RA_KERNELS_CUDA_DECODE_ALL_CUH
#define RA_KERNELS_CUDA_DECODE_ALL_CUH

#include "kernels/cuda/launch.cuh"

template <class T, int D, int G, bool kLogits, bool kGather>
cudaError_t ra_decode_launch(const ra_decode_plan &plan, const ra_decode_args &args,
                             cudaStream_t stream)
{
    constexpr int R = ra_decode_rows<G>();
    constexpr size_t shared = ra_decode_shared<R, ra_decode_stages<R>()>();
    dim3 grid((unsigned)plan.splits, (unsigned)(args.Hkv * ra_decode_parts(args.heads)),
              (unsigned)plan.B);
    /* More than 48 KB, static arrays among them, must be asked for. */
    cudaError_t error =
        cudaFuncSetAttribute(decode_split<T, D, G, R, kLogits, kGather>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    if (error != cudaSuccess)
        return error;
    return ra_launch(decode_split<T, D, G, R, kLogits, kGather>, grid, RA_DECODE_THREADS, shared,
                     stream, args);
}

template <class T, int D, int G>
cudaError_t ra_decode_modes(const ra_decode_plan &plan, const ra_decode_args &args,
                            cudaStream_t stream)
{
    if (plan.logits)
        return plan.gather ? ra_decode_launch<T, D, G, true, true>(plan, args, stream)
                           : ra_decode_launch<T, D, G, true, false>(plan, args, stream);
    return plan.gather ? ra_decode_launch<T, D, G, false, true>(plan, args, stream)
                       : ra_decode_launch<T, D, G, false, false>(plan, args, stream);
}

template <class T, int D>
cudaError_t ra_decode_groups(const ra_decode_plan &plan, const ra_decode_args &args,
                             cudaStream_t stream)
{
    switch (ra_decode_group(args.heads)) {
    case 1:
        return ra_decode_modes<T, D, 1>(plan, args, stream);
    case 2:
        return ra_decode_modes<T, D, 2>(plan, args, stream);
    case 3:
        return ra_decode_modes<T, D, 3>(plan, args, stream);
    case 4:
        return ra_decode_modes<T, D, 4>(plan, args, stream);
    default:
        return ra_decode_modes<T, D, 8>(plan, args, stream);
    }
}

#define RA_DECODE_DECLARE(name)                                                                    \
    cudaError_t ra_decode_##name(const ra_decode_plan &plan, const ra_decode_args &args,           \
                                 cudaStream_t stream);
RA_DECODE_DECLARE(f16_64)
RA_DECODE_DECLARE(f16_128)
RA_DECODE_DECLARE(f16_256)
RA_DECODE_DECLARE(bf16_64)
RA_DECODE_DECLARE(bf16_128)
RA_DECODE_DECLARE(bf16_256)
RA_DECODE_DECLARE(f32_64)
RA_DECODE_DECLARE(f32_128)

#define RA_DECODE_ALL(name, T, D)                                                                  \
    cudaError_t ra_decode_##name(const ra_decode_plan &plan, const ra_decode_args &args,           \
                                 cudaStream_t stream)                                              \
    {                                                                                              \
        return ra_decode_groups<T, D>(plan, args, stream);                                         \
    }

#endif
