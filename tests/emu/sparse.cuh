/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arrays far larger than what a test touches of them, for offsets beyond 32 bits: on the host they
 * take room only where they are touched, on a card all of it, so that there the mark is lower.
 */
#ifndef RA_TESTS_EMU_SPARSE_CUH
#define RA_TESTS_EMU_SPARSE_CUH

#include "tests/emu/kernel_test.h"

/* Entries of 4 bytes: an offset of as many exceeds 32 bits, on a card those of a signed number. */
#ifdef __CUDACC__
static const int64_t kFar = (int64_t)1 << 31;
#else
static const int64_t kFar = (int64_t)1 << 32;
#endif

/* A card without room; on the host that is a fault. */
struct no_room {
    double bytes;
};

static int n_skipped;

/* A case that finds no room is told, and counts as skipped. */
template <class Case> void where_it_fits(Case run)
{
    int passed = n_passed;
    try {
        run();
    } catch (const no_room &wanted) {
        cudaGetLastError();
        printf("skipped: no %.0f GiB more\n", wanted.bytes / 0x1p30);
        n_passed = passed;
        n_skipped++;
    }
}

/* n elements of the card's memory, of which few are touched. */
template <class T> class sparse
{
    T *memory = nullptr;

  public:
    explicit sparse(int64_t n)
    {
#ifdef __CUDACC__
        if (cudaMalloc((void **)&memory, (size_t)n * sizeof(T)) != cudaSuccess)
            throw no_room{(double)n * sizeof(T)};
#else
        memory = static_cast<T *>(ra_emu_map((size_t)n * sizeof(T)));
        if (!memory)
            abort();
#endif
    }
    sparse(const sparse &) = delete;
    sparse &operator=(const sparse &) = delete;
    ~sparse()
    {
#ifdef __CUDACC__
        cudaFree(memory);
#else
        ra_emu_unmap(memory);
#endif
    }
    T *get() const
    {
        return memory;
    }
    void write(int64_t at, const std::vector<T> &from) const
    {
        cudaMemcpy(memory + at, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice);
    }
    std::vector<T> read(int64_t at, size_t n) const
    {
        std::vector<T> to(n);
        cudaMemcpy(to.data(), memory + at, n * sizeof(T), cudaMemcpyDeviceToHost);
        return to;
    }
};

#endif
