/* SPDX-License-Identifier: Apache-2.0 */
/* What a card's memory gives to a plain read and a plain copy: the measure of everything else. */
#ifndef RA_KERNELS_BENCH_GPU_PLAIN_CUH
#define RA_KERNELS_BENCH_GPU_PLAIN_CUH

#include <memory>

#include "kernels/bench/gpu.cuh"

/* Traffic over memory of its own, `bytes` a launch, so many launches that the L2 holds nothing of
 * the next. */
class gpu_plain
{
    gpu_array<uint8_t> memory;
    gpu_array<uint32_t> never;
    std::unique_ptr<gpu_graph> read_graph, copy_graph;

  public:
    gpu_side read, copy; /* for gpu_time */

    gpu_plain(const gpu_card &card, double bytes_of_launch);

    /* Bytes read plus written per second, of the better. */
    double best() const
    {
        return read.gbps() > copy.gbps() ? read.gbps() : copy.gbps();
    }
};

#endif
