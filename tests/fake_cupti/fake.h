/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A CUPTI for a card that is emulated: what a launch is, told by who launches. The libraries built
 * here are found by the product as the real ones are; that they hold no record of their own making
 * is their point. Calls in an order that CUPTI forbids end the process.
 *
 * RA_FAKE_CUPTI, a list joined by commas, says what goes wrong:
 *   CALL=CODE     that call returns CODE, always
 *   dropped=N     so many records are told as dropped
 *   lose=N        every N-th kernel leaves no record
 *   zero=N        every N-th kernel's times are 0
 *   passes=N      every set of metrics needs so many passes
 *   ranges=N      so many ranges are dropped
 *   other=NAME    who has subscribed before, beside cuptiSubscribe_v2=39
 *   chip=NAME     of the device; GH100
 *   hide=NAME     the host library does not know this metric
 *   mangle=1      names of kernels are of C++, as a compiler writes them
 *   read=PERCENT  of the bytes that kernels read, what is told as read from DRAM; 100
 */
#ifndef RA_TESTS_FAKE_CUPTI_FAKE_H
#define RA_TESTS_FAKE_CUPTI_FAKE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A kernel that ran, and what it asked of memory, which is known while ranges are counted. */
struct fake_kernel {
    const char *name;
    uint32_t grid[3], block[3];
    uint64_t shared_bytes;
    uint32_t correlation, stream;
    uint32_t graph;   /* 0: of none */
    const void *node; /* of an executable graph; NULL: of none */
    uint64_t start_ns, end_ns;
    uint64_t load_bytes, store_bytes, sectors;
};

struct fake_copy {
    uint32_t correlation, stream, kind; /* enum cudaMemcpyKind; 0 and is_set: a memset */
    int is_set;
    uint64_t bytes, start_ns, end_ns;
};

/* A call of the runtime by this thread: what it starts carries the number that comes back. */
uint32_t fake_cupti_call(const char *name);
void fake_cupti_kernel(const struct fake_kernel *kernel);
void fake_cupti_copy(const struct fake_copy *copy);
/* A graph was made executable; before, each of its nodes was copied. */
void fake_cupti_cloned(const void *node, const void *copy);
void fake_cupti_instantiated(void);
/* Does anybody want to know what kernels ask of memory? */
int fake_cupti_counts(void);

#ifdef __cplusplus
}
#endif

#endif
