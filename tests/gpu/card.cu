/* SPDX-License-Identifier: Apache-2.0 */
/* Says which card the programs will run on. Status 3: none, and why. */
#include <stdio.h>

#include "kernels/cuda/cuda.cuh"

int main()
{
    int n = 0, driver = 0, runtime = 0;
    cudaDeviceProp card;
    cudaError_t status = cudaGetDeviceCount(&n);
    if (status == cudaSuccess && n > 0)
        status = cudaGetDeviceProperties(&card, 0);
    if (status != cudaSuccess || n == 0) {
        printf("no card: %s\n",
               status != cudaSuccess ? cudaGetErrorString(status) : "CUDA counts none");
        return 3;
    }
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    printf("%s: %d SMs, %.1f GiB, compute %d.%d, driver for CUDA %d, runtime %d\n", card.name,
           card.multiProcessorCount, (double)card.totalGlobalMem / (1 << 30), card.major,
           card.minor, driver, runtime);
    return 0;
}
