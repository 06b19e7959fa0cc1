/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/bench/gpu_plain.cuh"

#include "kernels/cuda/between.cuh"

gpu_plain::gpu_plain(const gpu_card &card, double bytes_of_launch)
{
    size_t bytes = ((size_t)bytes_of_launch + 4095) / 4096 * 4096;
    size_t cold = 4 * card.l2_bytes + 2 * bytes;
    int launches = (int)((cold + bytes - 1) / bytes);
    launches = launches < 4 ? 4 : launches;
    memory = gpu_array<uint8_t>(bytes * (size_t)launches);
    never = gpu_array<uint32_t>(1);
    read_graph.reset(new gpu_graph([&](cudaStream_t stream) {
        for (int i = 0; i < launches; i++)
            GPU(ra_launch_between(memory.get() + bytes * i, bytes / 16, never.get(), stream));
    }));
    copy_graph.reset(new gpu_graph([&](cudaStream_t stream) {
        for (int i = 0; i < launches; i++)
            GPU(cudaMemcpyAsync(memory.get() + bytes * i, memory.get() + bytes * i + bytes / 2,
                                bytes / 2, cudaMemcpyDeviceToDevice, stream));
    }));
    read = {"read", read_graph.get(), launches, (double)bytes, {}};
    copy = {"copy", copy_graph.get(), launches, (double)bytes, {}};
}
