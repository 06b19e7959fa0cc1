/* SPDX-License-Identifier: Apache-2.0 */
#include "profiler/gpu.h"

#ifdef RA_CUPTI
#include <stdio.h>

#include "profiler/cupti/driver.h"
#include "profiler/cupti/library.h"

static int ask(const struct ra_driver *driver, CUdevice device, CUdevice_attribute what)
{
    int value = -1;
    return driver->cuDeviceGetAttribute(&value, what, device) == CUDA_SUCCESS ? value : -1;
}

enum ra_status ra_gpu_describe(struct ra_gpu *gpu, struct ra_error *err)
{
    const struct ra_driver *driver;
    const struct ra_cupti *cupti;
    CUdevice device = 0;
    CUuuid uuid = {{0}};
    size_t bytes = 0;
    int version = -1;
    RA_TRY(ra_driver_load(&driver, err));
    RA_TRY(ra_cupti_load(&cupti, err));
    *gpu = (struct ra_gpu){.name = "", .uuid = ""};
    if (driver->cuInit(0) != CUDA_SUCCESS || driver->cuDeviceGet(&device, 0) != CUDA_SUCCESS ||
        driver->cuDeviceGetName(gpu->name, (int)sizeof gpu->name, device) != CUDA_SUCCESS ||
        driver->cuDeviceGetUuid(&uuid, device) != CUDA_SUCCESS)
        return ra_fail(err, RA_ENODEV, "cuda: device 0 does not say what it is");
    ra_driver_spell_uuid(&uuid, gpu->uuid);
    if (driver->cuDriverGetVersion(&version) != CUDA_SUCCESS)
        version = -1;
    bool has_size = driver->cuDeviceTotalMem(&bytes, device) == CUDA_SUCCESS;
    gpu->row = (struct ra_device_row){
        .ordinal = 0,
        .uuid = gpu->uuid,
        .name = gpu->name,
        .cc_major = ask(driver, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
        .cc_minor = ask(driver, device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
        .sm_count = ask(driver, device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        .l2_bytes = ask(driver, device, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE),
        .mem_bytes = has_size ? (int64_t)bytes : -1,
        .driver_version = version,
        .runtime_version = -1,
        .cupti_version = (int32_t)cupti->version,
        .sm_clock_khz = ask(driver, device, CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
        .mem_clock_khz = ask(driver, device, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)};
    return RA_OK;
}
#else
enum ra_status ra_gpu_describe(struct ra_gpu *gpu, struct ra_error *err)
{
    (void)gpu;
    return ra_fail(err, RA_ENODEV, "cuda: built without the headers of CUPTI");
}
#endif
