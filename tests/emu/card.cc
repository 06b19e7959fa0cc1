/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fake card: its properties and errors, copies to and from it, and what it refuses to launch.
 */
#include "tests/emu/internal.h"

#include <map>
#include <memory>
#include <stdio.h>
#include <stdlib.h>
#include <vector>

namespace
{
enum { N_SMS = 8, MAX_THREADS = 1024, THREADS_PER_SM = 2048, L2_BYTES = 4 << 20 };
/* Decimal, from the environment: a product cannot call what tests can. */
long long setting(const char *name, long long fallback)
{
    const char *text = getenv(name);
    return text ? atoll(text) : fallback;
}

size_t memory_bytes = (size_t)setting("RA_EMU_MEMORY", 4LL << 30);
int n_sms = (int)setting("RA_EMU_SMS", N_SMS);
long calls_until_failure;
cudaError_t failure;
thread_local cudaError_t last_error;
std::map<const void *, size_t> dynamic_limit; /* of kernels that asked for more than usual */
} // namespace

void ra_emu_set_card(size_t bytes, int sms)
{
    memory_bytes = bytes;
    n_sms = sms;
}

void ra_emu_fail_call(long n, int error)
{
    calls_until_failure = n;
    failure = (cudaError_t)error;
}

bool ra_emu_refused(cudaError_t *error)
{
    *error = failure;
    return calls_until_failure > 0 && --calls_until_failure == 0;
}

cudaError_t ra_emu_result(cudaError_t error)
{
    if (error)
        last_error = error;
    return error;
}

size_t ra_emu_card_memory()
{
    return memory_bytes;
}

int ra_emu_card_sms()
{
    return n_sms;
}

/* --- errors ----------------------------------------------------------------------------------- */

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

#define RA_EMU_ERRORS(X)                                                                           \
    X(cudaSuccess, "no error")                                                                     \
    X(cudaErrorInvalidValue, "invalid argument")                                                   \
    X(cudaErrorMemoryAllocation, "out of memory")                                                  \
    X(cudaErrorInvalidConfiguration, "invalid configuration argument")                             \
    X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                     \
    X(cudaErrorInvalidDevice, "invalid device ordinal")                                            \
    X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                   \
    X(cudaErrorNotReady, "device not ready")                                                       \
    X(cudaErrorLaunchFailure, "unspecified launch failure")                                        \
    X(cudaErrorNotSupported, "operation not supported")                                            \
    X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")       \
    X(cudaErrorStreamCaptureInvalidated,                                                           \
      "operation failed due to a previous error during capture")                                   \
    X(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work")                        \
    X(cudaErrorUnknown, "unknown error")

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
#define X(code, text)                                                                              \
    case code:                                                                                     \
        return #code;
        RA_EMU_ERRORS(X)
#undef X
    }
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
#define X(code, text)                                                                              \
    case code:                                                                                     \
        return text;
        RA_EMU_ERRORS(X)
#undef X
    }
    return "unrecognized error code";
}

/* --- the card --------------------------------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *n)
{
    RA_EMU_ENTER();
    *n = n_sms > 0;
    return ra_emu_result(*n ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int *device)
{
    RA_EMU_ENTER();
    *device = 0;
    return ra_emu_result(cudaSuccess);
}

cudaError_t cudaSetDevice(int device)
{
    RA_EMU_ENTER();
    return ra_emu_result(device ? cudaErrorInvalidDevice : cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    RA_EMU_ENTER();
    if (device || n_sms <= 0)
        return ra_emu_result(cudaErrorInvalidDevice);
    *prop = {};
    snprintf(prop->name, sizeof prop->name, "emulated on the host");
    prop->totalGlobalMem = memory_bytes;
    prop->sharedMemPerBlock = RA_EMU_STATIC_LIMIT;
    prop->sharedMemPerBlockOptin = RA_EMU_SHARED_LIMIT;
    prop->major = 9;
    prop->multiProcessorCount = n_sms;
    prop->maxThreadsPerBlock = MAX_THREADS;
    prop->maxThreadsPerMultiProcessor = THREADS_PER_SM;
    prop->warpSize = 32;
    prop->l2CacheSize = L2_BYTES;
    return ra_emu_result(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    struct cudaDeviceProp prop;
    cudaError_t error = cudaGetDeviceProperties(&prop, device);
    if (error)
        return error;
    const std::map<int, int> values = {
        {cudaDevAttrMaxThreadsPerBlock, prop.maxThreadsPerBlock},
        {cudaDevAttrMaxSharedMemoryPerBlock, (int)prop.sharedMemPerBlock},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, (int)prop.sharedMemPerBlockOptin},
        {cudaDevAttrWarpSize, prop.warpSize},
        {cudaDevAttrMultiProcessorCount, prop.multiProcessorCount},
        {cudaDevAttrL2CacheSize, prop.l2CacheSize},
        {cudaDevAttrMaxThreadsPerMultiProcessor, prop.maxThreadsPerMultiProcessor},
        {cudaDevAttrComputeCapabilityMajor, prop.major},
        {cudaDevAttrComputeCapabilityMinor, prop.minor},
        {cudaDevAttrClockRate, 0},
        {cudaDevAttrMemoryClockRate, 0},
        {cudaDevAttrGlobalMemoryBusWidth, 0},
    };
    auto it = values.find(attribute);
    if (it == values.end())
        return ra_emu_result(cudaErrorInvalidValue);
    *value = it->second;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    RA_EMU_ENTER();
    *version = 0;
    return ra_emu_result(cudaSuccess);
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    return cudaDriverGetVersion(version);
}

/* --- copies ----------------------------------------------------------------------------------- */

/* Does the direction fit where the bytes are? */
static bool fits(const void *p, size_t bytes, bool on_card)
{
    enum ra_emu_place place = ra_emu_locate(p, bytes);
    return place != RA_EMU_ASTRIDE && (place == RA_EMU_DEVICE) == on_card;
}

static cudaError_t check_copy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    if (kind == cudaMemcpyDefault)
        return ra_emu_locate(to, bytes) == RA_EMU_ASTRIDE ||
                       ra_emu_locate(from, bytes) == RA_EMU_ASTRIDE
                   ? cudaErrorInvalidValue
                   : cudaSuccess;
    bool to_card = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_card = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    return fits(to, bytes, to_card) && fits(from, bytes, from_card) ? cudaSuccess
                                                                    : cudaErrorInvalidValue;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    RA_EMU_ENTER();
    cudaError_t error = bytes ? check_copy(to, from, bytes, kind) : cudaSuccess;
    if (!error && bytes)
        error = ra_emu_submit(0, [=] { memmove(to, from, bytes); });
    return error ? ra_emu_result(error) : cudaStreamSynchronize(0);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    RA_EMU_ENTER();
    cudaError_t error = bytes ? check_copy(to, from, bytes, kind) : cudaSuccess;
    if (error || !bytes)
        return ra_emu_result(error);
    bool staged = ra_emu_locate(from, bytes) == RA_EMU_PAGEABLE && !ra_emu_capturing();
    if (staged) {
        auto copy =
            std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
        error = ra_emu_submit(stream, ra_emu_watched_copy([=] { memcpy(to, copy->data(), bytes); },
                                                          bytes, kind, false, stream));
    } else {
        error = ra_emu_submit(stream, ra_emu_watched_copy([=] { memmove(to, from, bytes); }, bytes,
                                                          kind, false, stream));
    }
    if (!error && ra_emu_locate(to, bytes) == RA_EMU_PAGEABLE && !ra_emu_capturing())
        return cudaStreamSynchronize(stream);
    return ra_emu_result(error);
}

cudaError_t cudaMemsetAsync(void *p, int byte, size_t bytes, cudaStream_t stream)
{
    RA_EMU_ENTER();
    if (!bytes)
        return cudaSuccess;
    if (!fits(p, bytes, true))
        return ra_emu_result(cudaErrorInvalidValue);
    return ra_emu_result(ra_emu_submit(
        stream, ra_emu_watched_copy([=] { memset(p, byte, bytes); }, bytes, 0, true, stream)));
}

cudaError_t cudaMemset(void *p, int byte, size_t bytes)
{
    return cudaMemsetAsync(p, byte, bytes, 0);
}

/* --- launches --------------------------------------------------------------------------------- */

cudaError_t ra_emu_func_set(const void *kernel, enum cudaFuncAttribute attribute, int value)
{
    RA_EMU_ENTER();
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (value < 0 || value > RA_EMU_SHARED_LIMIT)
            return ra_emu_result(cudaErrorInvalidValue);
        dynamic_limit[kernel] = (size_t)value;
    }
    return ra_emu_result(cudaSuccess);
}

static size_t limit_of(const void *kernel)
{
    auto it = dynamic_limit.find(kernel);
    return it == dynamic_limit.end() ? (size_t)RA_EMU_STATIC_LIMIT : it->second;
}

/* By threads and shared memory; registers are not known. */
cudaError_t ra_emu_occupancy(int *blocks, const void *kernel, int threads, size_t shared_bytes)
{
    RA_EMU_ENTER();
    if (threads <= 0 || threads > MAX_THREADS || shared_bytes > limit_of(kernel))
        return ra_emu_result(cudaErrorInvalidValue);
    *blocks = THREADS_PER_SM / threads;
    int by_shared = (int)(RA_EMU_SHARED_LIMIT / (shared_bytes + 1024));
    *blocks = *blocks < by_shared ? *blocks : by_shared;
    return ra_emu_result(cudaSuccess);
}

cudaError_t ra_emu_enqueue(const struct ra_emu_launch &launch, cudaStream_t stream,
                           std::function<void()> body)
{
    RA_EMU_ENTER();
    const dim3 &g = launch.grid, &b = launch.block;
    if (!g.x || !g.y || !g.z || !b.x || !b.y || !b.z || g.x > 2147483647u || g.y > 65535 ||
        g.z > 65535 || b.x > MAX_THREADS || b.y > MAX_THREADS || b.z > 64 ||
        (uint64_t)b.x * b.y * b.z > MAX_THREADS)
        return ra_emu_result(cudaErrorInvalidConfiguration);
    if (launch.shared_bytes > limit_of(launch.kernel))
        return ra_emu_result(cudaErrorInvalidValue);
    uint32_t call = ra_emu_call("cudaLaunchKernel");
    return ra_emu_result(
        ra_emu_submit(stream, [launch, body, call] { ra_emu_run_kernel(launch, body, call); }));
}
