/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernels' tests share: named cases that are counted, device arrays that start as NaN so
 * that what a kernel leaves unwritten fails every comparison, random values of each stored type,
 * and the bytes that moved against the floor. Comparisons are written !(error <= bound), which NaN
 * fails.
 */
#ifndef RA_TESTS_EMU_KERNEL_TEST_H
#define RA_TESTS_EMU_KERNEL_TEST_H

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "kernels/cuda/cuda.cuh"
#include "tests/emu/control.h"

static int n_passed, n_failed;

/* One case, named in printf's way; it has passed when it ends without a complaint. */
class test_case
{
    char name[160];
    int complaints = 0;

  public:
    __attribute__((format(printf, 2, 3))) explicit test_case(const char *format, ...)
    {
        va_list args;
        va_start(args, format);
        vsnprintf(name, sizeof name, format, args);
        va_end(args);
    }
    test_case(const test_case &) = delete;
    test_case &operator=(const test_case &) = delete;
    ~test_case()
    {
        (complaints ? n_failed : n_passed)++;
    }

    /* The first few are told. */
    __attribute__((format(printf, 2, 3))) void complain(const char *format, ...)
    {
        if (complaints++ >= 3)
            return;
        va_list args;
        va_start(args, format);
        printf("%s: ", name);
        vprintf(format, args);
        printf("\n");
        va_end(args);
    }

    /* Waits for the launch, which a shuffled schedule may put off. */
    void launched(cudaError_t status)
    {
        if (status == cudaSuccess)
            status = cudaDeviceSynchronize();
        if (status != cudaSuccess)
            complain("launch: %s", cudaGetErrorString(status));
    }

    /* Bytes that `kernel` loaded and stored since start_counting. A card does not count them. */
    void moved_between(const char *kernel, double least, double most)
    {
#ifdef __CUDACC__
        (void)kernel, (void)least, (void)most;
#else
        struct ra_emu_traffic counts;
        if (!ra_emu_get_traffic(kernel, &counts))
            complain("%s: no traffic counted", kernel);
        double got = (double)counts.load_bytes + (double)counts.store_bytes;
        if (!(got >= least && got <= most))
            complain("%s: expected %.0f to %.0f bytes moved, got %.0f", kernel, least, most, got);
#endif
    }

    /* Within 1 % and 4 KB. */
    void moved(const char *kernel, double expected)
    {
        double slack = 0.01 * expected + 4096;
        moved_between(kernel, expected - slack, expected + slack);
    }
};

static inline void start_counting()
{
    ra_emu_count_traffic(1);
    ra_emu_reset_traffic();
}

static inline int finish()
{
    /* The closing lines are cmocka's. */
    printf("[  PASSED  ] %d test(s).\n", n_passed);
    if (n_failed)
        printf("[  FAILED  ] %d test(s), listed above.\n", n_failed);
    return n_failed || !n_passed;
}

static uint64_t random_state = 1;

static inline uint32_t random_bits()
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}
static inline int random_below(int n)
{
    return (int)(random_bits() % (uint32_t)n);
}
/* For as long as it lives, blocks, warps and lanes run in another order than that of RA_EMU_SEED.
 */
struct another_order {
    another_order()
    {
        ra_emu_seed(1000 + random_bits());
    }
    another_order(const another_order &) = delete;
    another_order &operator=(const another_order &) = delete;
    ~another_order()
    {
        const char *seed = getenv("RA_EMU_SEED");
        ra_emu_seed(seed ? strtoull(seed, nullptr, 10) : 0);
    }
};

/* Uniform in -1..1. */
static inline float random_unit()
{
    return (float)((double)random_bits() / 1073741824.0 - 1);
}

static inline void store(float &to, float x)
{
    to = x;
}
static inline void store(__half &to, float x)
{
    to = __float2half_rn(x);
}
static inline void store(__nv_bfloat16 &to, float x)
{
    to = __float2bfloat16_rn(x);
}
static inline double load(float x)
{
    return x;
}
static inline double load(__half x)
{
    return __half2float(x);
}
static inline double load(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

/* n elements of device memory, all bits set: NaN as a number, -1 as an integer. */
template <class T> class device_array
{
    T *memory = nullptr;
    size_t count;

  public:
    explicit device_array(size_t n) : count(n)
    {
        if (cudaMalloc((void **)&memory, n * sizeof(T)) != cudaSuccess)
            abort();
        cudaMemset(memory, 0xff, n * sizeof(T));
    }
    explicit device_array(const std::vector<T> &from) : device_array(from.size())
    {
        cudaMemcpy(memory, from.data(), count * sizeof(T), cudaMemcpyHostToDevice);
    }
    device_array(const device_array &) = delete;
    device_array &operator=(const device_array &) = delete;
    ~device_array()
    {
        cudaFree(memory);
    }

    T *get() const
    {
        return memory;
    }
    std::vector<T> read() const
    {
        std::vector<T> to(count);
        cudaMemcpy(to.data(), memory, count * sizeof(T), cudaMemcpyDeviceToHost);
        return to;
    }
};

template <class T> std::vector<T> random_values(size_t n, float scale)
{
    std::vector<T> x(n);
    for (T &one : x)
        store(one, random_unit() * scale);
    return x;
}

#endif
