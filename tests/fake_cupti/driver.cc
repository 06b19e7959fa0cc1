/* SPDX-License-Identifier: Apache-2.0 */
/* libcuda.so.1 of a card that is emulated. No kernel is launched through it. */
#include <cuda.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <functional>
#include <string>

static int context; /* an address for the one there is */

extern "C" {
CUresult CUDAAPI cuInit(unsigned)
{
    const char *code = getenv("RA_FAKE_CUINIT");
    if (code && strcmp(code, "crash") == 0)
        abort();
    return code ? (CUresult)atoi(code) : CUDA_SUCCESS;
}

CUresult CUDAAPI cuDriverGetVersion(int *version)
{
    *version = 13000;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuGetErrorName(CUresult result, const char **name)
{
    *name = result == CUDA_ERROR_UNKNOWN ? "CUDA_ERROR_UNKNOWN" : NULL;
    return *name ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult CUDAAPI cuDeviceGetCount(int *n)
{
    const char *count = getenv("RA_FAKE_DEVICES");
    *n = count ? atoi(count) : 1;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return ordinal ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetName(char *name, int size, CUdevice)
{
    snprintf(name, (size_t)size, "emulated on the host");
    return CUDA_SUCCESS;
}

/* Each folder has a card of its own: tests that run at once share none. */
CUresult CUDAAPI cuDeviceGetUuid(CUuuid *uuid, CUdevice)
{
    char folder[4096];
    size_t hash = getcwd(folder, sizeof folder) ? std::hash<std::string>()(folder) : 0;
    memset(uuid->bytes, 0x5a, sizeof uuid->bytes);
    memcpy(uuid->bytes + 8, &hash, sizeof hash);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice)
{
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
        *value = 9;
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:
        *value = 0;
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
        *value = 8;
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
        *value = 4 << 20;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult CUDAAPI cuDeviceTotalMem(size_t *bytes, CUdevice)
{
    *bytes = (size_t)1 << 30;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext *made, CUdevice)
{
    *made = reinterpret_cast<CUcontext>(&context);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice)
{
    return CUDA_SUCCESS;
}
}
