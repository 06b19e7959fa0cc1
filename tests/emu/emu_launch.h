/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Launches: the kernel and copies of its arguments become one closure, run now, later or from a
 * graph.
 */
#ifndef RA_TESTS_EMU_EMU_LAUNCH_H
#define RA_TESTS_EMU_EMU_LAUNCH_H

#include "kernels/cuda/early.cuh"
#include "tests/emu/emu_runtime.h"

#include "kernels/cuda/launched.cuh"

#include <functional>
#include <tuple>
#include <type_traits>

/* What the checks of a launch need to know. */
struct ra_emu_launch {
    const char *text;   /* the launch as written; the kernel's name is its first word */
    const void *kernel; /* key of its attributes */
    dim3 grid, block;
    size_t shared_bytes;
    bool early;          /* programmatic dependent launch */
    cudaStream_t stream; /* in which it was asked for */
};

cudaError_t ra_emu_enqueue(const struct ra_emu_launch &launch, cudaStream_t stream,
                           std::function<void()> body);

#define ra_launch(...) ra_emu_launch_as(#__VA_ARGS__, __VA_ARGS__)

template <typename... P, typename... A>
inline cudaError_t ra_emu_launch_as(const char *text, void (*kernel)(P...), dim3 grid, dim3 block,
                                    size_t shared_bytes, cudaStream_t stream, A &&...args)
{
    static_assert(sizeof...(P) == sizeof...(A), "as many arguments as parameters");
    std::tuple<std::decay_t<P>...> copies(static_cast<P>(args)...);
    cudaError_t error = ra_emu_enqueue({text, reinterpret_cast<const void *>(kernel), grid, block,
                                        shared_bytes, ra_early_launches::on, stream},
                                       stream, [kernel, copies] { std::apply(kernel, copies); });
    ra_launch_watch::tell(error, stream, grid, block, shared_bytes);
    return error;
}

template <typename F>
inline cudaError_t cudaFuncSetAttribute(F *kernel, cudaFuncAttribute attribute, int value)
{
    return ra_emu_func_set(reinterpret_cast<const void *>(kernel), attribute, value);
}
template <typename F>
inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, F *kernel,
                                                                 int threads, size_t shared_bytes)
{
    return ra_emu_occupancy(blocks, reinterpret_cast<const void *>(kernel), threads, shared_bytes);
}

#endif
