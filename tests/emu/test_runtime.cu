/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fake card: what it counts, refuses, orders and forgets. RA_EMU_SEED is of no matter here.
 */
#include "kernels/cuda/cuda.cuh"
#include "tests/emu/control.h"

#include <string.h>
#include <string>
#include <vector>
extern "C" {
#include "tests/support/ra_test.h"
}

#define OK(call) assert_int_equal(cudaSuccess, call)
/* Refused with `error`, which is then the last error, once. */
#define REFUSED(error, call)                                                                       \
    do {                                                                                           \
        assert_int_equal(error, call);                                                             \
        assert_int_equal(error, cudaGetLastError());                                               \
        assert_int_equal(cudaSuccess, cudaGetLastError());                                         \
    } while (0)

/* --- traffic, against numbers counted by hand --------------------------------------------------
 */

/* Thread t of a block reads 16 bytes at t * step + skip. */
__global__ void read16(const char *x, int step, int skip, uint4 *out)
{
    uint4 v = ra_ld16(x + (int)threadIdx.x * step + skip);
    if (v.x == 1)
        ra_st16(out, v);
}
__global__ void read4(const float *x, int step, float *out)
{
    float v = ra_ld(x + (int)threadIdx.x * step);
    if (v == 1)
        ra_st(out, v);
}
template <int TIMES> __global__ void write4(float *x)
{
    for (int i = 0; i < TIMES; i++)
        ra_st(x + i * (int)blockDim.x + threadIdx.x, 1.0f);
}
__global__ void odd_lanes_twice(const float *x, float *out)
{
    float sum = 0;
    for (unsigned i = 0; i < 1 + threadIdx.x % 2; i++)
        sum += ra_ld(x + threadIdx.x);
    sum = __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += ra_ld(x + threadIdx.x);
    if (sum == 1)
        ra_st(out, sum);
}
__global__ void copy_async(const uint4 *x, unsigned *n)
{
    RA_SHARED(uint4, tile, 32);
    ra_cp_async16_zfill(tile + threadIdx.x, x + threadIdx.x, threadIdx.x < 24);
    ra_cp_async_commit();
    ra_cp_async_wait<0>();
    __syncthreads();
    atomicAdd(n, tile[31 - threadIdx.x].x & 1);
}

static void check(const char *kernel, struct ra_emu_traffic want)
{
    struct ra_emu_traffic got;
    assert_true(ra_emu_get_traffic(kernel, &got));
    assert_int_equal(want.launches, got.launches);
    assert_int_equal(want.load_bytes, got.load_bytes);
    assert_int_equal(want.store_bytes, got.store_bytes);
    assert_int_equal(want.instructions, got.instructions);
    assert_int_equal(want.sectors, got.sectors);
    assert_int_equal(want.min_sectors, got.min_sectors);
    assert_int_equal(want.lines, got.lines);
    assert_int_equal(want.atomics, got.atomics);
    ra_emu_reset_traffic();
    assert_false(ra_emu_get_traffic(kernel, &got));
    assert_int_equal(0, got.launches);
}

static void traffic_is_what_the_hand_counts(void **state)
{
    (void)state;
    char *x;
    OK(cudaMalloc(&x, 65536));
    OK(cudaMemset(x, 0, 65536));
    float *f = reinterpret_cast<float *>(x);
    uint4 *v = reinterpret_cast<uint4 *>(x);
    for (uint64_t seed = 0; seed < 3; seed++) {
        ra_emu_seed(seed);
        ra_emu_reset_traffic();
        ra_emu_count_traffic(1);
        /* 512 bytes in a row: 16 sectors, 4 lines. */
        OK(ra_launch(read16, dim3(1), dim3(32), 0, 0, x, 16, 0, v));
        OK(cudaDeviceSynchronize());
        check("read16", {1, 512, 0, 1, 16, 16, 4, 0});
        /* The same moved by half a sector: one more of both. */
        OK(ra_launch(read16, dim3(1), dim3(32), 0, 0, x, 16, 16, v));
        OK(cudaDeviceSynchronize());
        check("read16", {1, 512, 0, 1, 17, 16, 5, 0});
        /* Rows of 128 bytes, 16 bytes of each: half of every sector is for nothing. */
        OK(ra_launch(read16, dim3(1), dim3(32), 0, 0, x, 128, 0, v));
        OK(cudaDeviceSynchronize());
        check("read16", {1, 512, 0, 1, 32, 16, 32, 0});
        /* Two blocks of two warps ask for the same: four instructions, lines once. */
        OK(ra_launch(read16, dim3(2), dim3(64), 0, 0, x, 16, 0, v));
        OK(cudaDeviceSynchronize());
        check("read16", {1, 2048, 0, 4, 64, 64, 8, 0});
        /* One float for all: asked for 32 times, moved once. */
        OK(ra_launch(read4, dim3(1), dim3(32), 0, 0, f, 0, f));
        OK(cudaDeviceSynchronize());
        check("read4", {1, 128, 0, 1, 1, 1, 1, 0});
        /* One float of each sector. */
        OK(ra_launch(read4, dim3(1), dim3(32), 0, 0, f, 8, f));
        OK(cudaDeviceSynchronize());
        check("read4", {1, 128, 0, 1, 32, 4, 8, 0});
        /* A loop of five, launched twice: the line set begins anew. */
        for (int i = 0; i < 2; i++)
            OK(ra_launch(write4<5>, dim3(1), dim3(32), 0, 0, f));
        OK(cudaDeviceSynchronize());
        check("write4", {2, 0, 1280, 10, 40, 40, 10, 0});
        OK(cudaMemset(x, 0, 65536));
        /* Lanes that fall out of step in a loop meet again: 32 lanes, 16, 32. */
        OK(ra_launch(odd_lanes_twice, dim3(1), dim3(32), 0, 0, f, f));
        OK(cudaDeviceSynchronize());
        check("odd_lanes_twice", {1, 320, 0, 3, 12, 10, 1, 0});
        /* What zfill leaves out is not read. */
        OK(ra_launch(copy_async, dim3(1), dim3(32), 0, 0, v, reinterpret_cast<unsigned *>(x)));
        OK(cudaDeviceSynchronize());
        check("copy_async", {1, 384, 0, 1, 12, 12, 3, 32});
        ra_emu_count_traffic(0);
        OK(ra_launch(read4, dim3(1), dim3(32), 0, 0, f, 0, f));
        OK(cudaDeviceSynchronize());
        struct ra_emu_traffic none;
        assert_false(ra_emu_get_traffic("read4", &none));
    }
    OK(cudaFree(x));
}

/* --- order of streams ---------------------------------------------------------------------------
 */

__global__ void put(int *x, int value)
{
    ra_st(x, value);
}
__global__ void times_ten_plus(int *x, int value)
{
    ra_st(x, ra_ld(x) * 10 + value);
}

struct two_streams {
    cudaStream_t a, b;
    cudaEvent_t event;
    int *x, *pinned;
};

static struct two_streams open_two(unsigned flags)
{
    struct two_streams s = {};
    OK(cudaStreamCreateWithFlags(&s.a, flags));
    OK(cudaStreamCreateWithFlags(&s.b, flags));
    OK(cudaEventCreate(&s.event));
    OK(cudaMalloc(&s.x, sizeof(int)));
    OK(cudaMallocHost(&s.pinned, sizeof(int)));
    return s;
}

static void close_two(struct two_streams *s)
{
    OK(cudaStreamDestroy(s->a));
    OK(cudaStreamDestroy(s->b));
    OK(cudaEventDestroy(s->event));
    OK(cudaFree(s->x));
    OK(cudaFreeHost(s->pinned));
}

/* Write in one stream, fetch in the other; 7 if the order was kept. */
static int across(struct two_streams *s, bool wait_event, bool wait_host)
{
    OK(cudaMemset(s->x, 0, sizeof(int)));
    OK(cudaDeviceSynchronize());
    *s->pinned = -1;
    OK(ra_launch(put, dim3(1), dim3(1), 0, s->a, s->x, 7));
    OK(cudaEventRecord(s->event, s->a));
    if (wait_event)
        OK(cudaStreamWaitEvent(s->b, s->event));
    OK(cudaMemcpyAsync(s->pinned, s->x, sizeof(int), cudaMemcpyDeviceToHost, s->b));
    if (wait_host)
        OK(cudaStreamSynchronize(s->b));
    int seen = *s->pinned;
    OK(cudaDeviceSynchronize());
    return seen;
}

static void what_is_not_waited_for_comes_late_in_some_schedule(void **state)
{
    (void)state;
    struct two_streams s = open_two(cudaStreamNonBlocking);
    int no_event = 0, no_host = 0;
    for (uint64_t seed = 0; seed < 16; seed++) {
        ra_emu_seed(seed);
        assert_int_equal(7, across(&s, true, true));
        no_event += across(&s, false, true) != 7;
        no_host += across(&s, true, false) != 7;
    }
    assert_true(no_event > 0);
    assert_true(no_host > 0);
    close_two(&s);
}

static void the_legacy_stream_waits_for_blocking_ones(void **state)
{
    (void)state;
    struct two_streams s = open_two(cudaStreamDefault);
    for (uint64_t seed = 0; seed < 8; seed++) {
        ra_emu_seed(seed);
        OK(ra_launch(put, dim3(1), dim3(1), 0, s.a, s.x, 1));
        OK(ra_launch(times_ten_plus, dim3(1), dim3(1), 0, 0, s.x, 2));
        OK(ra_launch(times_ten_plus, dim3(1), dim3(1), 0, s.b, s.x, 3));
        int x = 0;
        OK(cudaMemcpy(&x, s.x, sizeof x, cudaMemcpyDeviceToHost));
        assert_int_equal(123, x);
    }
    close_two(&s);
}

/* Each launch of the graph records them anew; what else happens in between does not count. */
static void a_graph_tells_when(void **state)
{
    (void)state;
    struct two_streams s = open_two(cudaStreamNonBlocking);
    cudaEvent_t end;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    float ms = -1, again = -1;
    OK(cudaEventCreate(&end));
    REFUSED(cudaErrorInvalidValue, cudaEventRecordWithFlags(end, s.a, cudaEventRecordExternal));
    OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal));
    OK(cudaEventRecordWithFlags(s.event, s.a, cudaEventRecordExternal));
    OK(ra_launch(put, dim3(1), dim3(1), 0, s.a, s.x, 1));
    OK(cudaEventRecordWithFlags(end, s.a, cudaEventRecordExternal));
    OK(cudaStreamEndCapture(s.a, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    REFUSED(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&ms, s.event, end));
    for (uint64_t seed = 0; seed < 4; seed++) {
        ra_emu_seed(seed);
        OK(cudaGraphLaunch(exec, s.a));
        OK(cudaStreamSynchronize(s.a));
        OK(cudaEventElapsedTime(&ms, s.event, end));
        OK(cudaEventElapsedTime(&again, s.event, end));
        assert_true(ms >= 0 && ms == again);
    }
    OK(cudaGraphExecDestroy(exec));
    OK(cudaGraphDestroy(graph));
    OK(cudaEventDestroy(end));
    close_two(&s);
}

static void events_tell_when(void **state)
{
    (void)state;
    struct two_streams s = open_two(cudaStreamNonBlocking);
    cudaEvent_t end;
    float ms = -1;
    OK(cudaEventCreate(&end));
    for (uint64_t seed = 0; seed < 4; seed++) {
        ra_emu_seed(seed);
        OK(cudaEventRecord(s.event, s.a));
        OK(ra_launch(put, dim3(1), dim3(1), 0, s.a, s.x, 1));
        OK(cudaEventRecord(end, s.a));
        OK(cudaEventSynchronize(end));
        OK(cudaEventQuery(end));
        OK(cudaEventElapsedTime(&ms, s.event, end));
        assert_true(ms >= 0);
    }
    OK(cudaEventDestroy(end));
    OK(cudaEventCreateWithFlags(&end, cudaEventDisableTiming));
    OK(cudaEventRecord(end, s.a));
    REFUSED(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&ms, s.event, end));
    OK(cudaEventDestroy(end));
    close_two(&s);
}

/* --- graphs --------------------------------------------------------------------------------------
 */

static void graphs_replay_what_streams_were_told(void **state)
{
    (void)state;
    struct two_streams s = open_two(cudaStreamNonBlocking);
    cudaEvent_t back;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    OK(cudaEventCreate(&back));
    ra_emu_seed(0);
    OK(cudaMemset(s.x, 0, sizeof(int)));
    OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeGlobal));
    OK(ra_launch(times_ten_plus, dim3(1), dim3(1), 0, s.a, s.x, 1));
    OK(cudaEventRecord(s.event, s.a));
    OK(cudaStreamWaitEvent(s.b, s.event));
    OK(ra_launch(times_ten_plus, dim3(1), dim3(1), 0, s.b, s.x, 2));
    OK(cudaEventRecord(back, s.b));
    OK(cudaStreamWaitEvent(s.a, back));
    OK(ra_launch(times_ten_plus, dim3(1), dim3(1), 0, s.a, s.x, 3));
    OK(cudaStreamEndCapture(s.a, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphDestroy(graph));
    for (uint64_t seed = 0; seed < 8; seed++) {
        int x = -1;
        ra_emu_seed(seed);
        OK(cudaMemset(s.x, 0, sizeof(int)));
        OK(cudaDeviceSynchronize());
        for (int i = 0; i < 2; i++)
            OK(cudaGraphLaunch(exec, s.b));
        OK(cudaStreamSynchronize(s.b));
        OK(cudaMemcpy(&x, s.x, sizeof x, cudaMemcpyDeviceToHost));
        assert_int_equal(123123, x);
    }
    OK(cudaGraphExecDestroy(exec));
    OK(cudaEventDestroy(back));
    close_two(&s);
}

static void captures_refuse_what_cards_refuse(void **state)
{
    (void)state;
    struct two_streams s = open_two(cudaStreamNonBlocking);
    cudaGraph_t graph;
    ra_emu_seed(0);
    /* A branch that nobody waits for. */
    OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeGlobal));
    OK(cudaEventRecord(s.event, s.a));
    OK(cudaStreamWaitEvent(s.b, s.event));
    OK(ra_launch(put, dim3(1), dim3(1), 0, s.b, s.x, 2));
    REFUSED(cudaErrorStreamCaptureUnjoined, cudaStreamEndCapture(s.a, &graph));
    assert_null(graph);
    /* Waiting for what does not run. */
    OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeGlobal));
    REFUSED(cudaErrorStreamCaptureUnsupported, cudaStreamSynchronize(s.a));
    REFUSED(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(s.a, &graph));
    OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeGlobal));
    REFUSED(cudaErrorStreamCaptureUnsupported, cudaMemset(s.x, 0, sizeof(int)));
    REFUSED(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(s.a, &graph));
    close_two(&s);
}

/* --- refusals ------------------------------------------------------------------------------------
 */

__global__ void nothing(void)
{
}

static void launches_that_no_card_takes_are_refused(void **state)
{
    (void)state;
    ra_emu_seed(0);
    OK(ra_launch(nothing, dim3(1), dim3(1024), 48 * 1024, 0));
    REFUSED(cudaErrorInvalidConfiguration, ra_launch(nothing, dim3(0), dim3(32), 0, 0));
    REFUSED(cudaErrorInvalidConfiguration, ra_launch(nothing, dim3(1), dim3(1025), 0, 0));
    REFUSED(cudaErrorInvalidConfiguration, ra_launch(nothing, dim3(1), dim3(32, 33), 0, 0));
    REFUSED(cudaErrorInvalidConfiguration, ra_launch(nothing, dim3(1, 65536), dim3(1), 0, 0));
    REFUSED(cudaErrorInvalidValue, ra_launch(nothing, dim3(1), dim3(32), 48 * 1024 + 1, 0));
    OK(cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 100000));
    OK(ra_launch(nothing, dim3(1), dim3(32), 100000, 0));
    REFUSED(cudaErrorInvalidValue, ra_launch(nothing, dim3(1), dim3(32), 100001, 0));
    REFUSED(cudaErrorInvalidValue,
            cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 232449));
}

static void memory_ends_where_it_ends(void **state)
{
    (void)state;
    char host[64] = "", *x, *y;
    size_t before = ra_emu_allocated(), free_bytes, total_bytes;
    ra_emu_set_card(1000 + before, 8);
    OK(cudaMalloc(&x, 600));
    REFUSED(cudaErrorMemoryAllocation, cudaMalloc(&y, 401));
    assert_null(y);
    OK(cudaMemGetInfo(&free_bytes, &total_bytes));
    assert_int_equal(400, free_bytes);
    OK(cudaMemcpy(x + 536, host, 64, cudaMemcpyHostToDevice));
    REFUSED(cudaErrorInvalidValue, cudaMemcpy(x + 537, host, 64, cudaMemcpyHostToDevice));
    REFUSED(cudaErrorInvalidValue, cudaMemcpy(host, x, 64, cudaMemcpyHostToDevice));
    REFUSED(cudaErrorInvalidValue, cudaMemcpy(host, host, 64, cudaMemcpyDeviceToHost));
    REFUSED(cudaErrorInvalidValue, cudaMemset(x + 1, 0, 600));
    REFUSED(cudaErrorInvalidValue, cudaFree(x + 1));
    OK(cudaFree(x));
    assert_int_equal(before, ra_emu_allocated());
    ra_emu_set_card((size_t)4 << 30, 8);
}

static void the_card_has_a_name_and_may_be_missing(void **state)
{
    (void)state;
    struct cudaDeviceProp prop;
    int n = -1, sms = 0;
    OK(cudaGetDeviceCount(&n));
    assert_int_equal(1, n);
    OK(cudaGetDeviceProperties(&prop, 0));
    assert_string_equal("emulated on the host", prop.name);
    OK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
    assert_int_equal(8, sms);
    REFUSED(cudaErrorInvalidDevice, cudaSetDevice(1));
    ra_emu_set_card(0, 0);
    REFUSED(cudaErrorNoDevice, cudaGetDeviceCount(&n));
    assert_string_equal("cudaErrorNoDevice", cudaGetErrorName(cudaErrorNoDevice));
    assert_string_equal("no CUDA-capable device is detected",
                        cudaGetErrorString(cudaErrorNoDevice));
    ra_emu_set_card((size_t)4 << 30, 8);
}

static void calls_fail_when_told(void **state)
{
    (void)state;
    char *x, *y;
    ra_emu_fail_call(2, cudaErrorUnknown);
    OK(cudaMalloc(&x, 16));
    REFUSED(cudaErrorUnknown, cudaMalloc(&y, 16));
    OK(cudaMalloc(&y, 16));
    OK(cudaFree(x));
    OK(cudaFree(y));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(traffic_is_what_the_hand_counts),
        cmocka_unit_test(what_is_not_waited_for_comes_late_in_some_schedule),
        cmocka_unit_test(the_legacy_stream_waits_for_blocking_ones),
        cmocka_unit_test(events_tell_when),
        cmocka_unit_test(a_graph_tells_when),
        cmocka_unit_test(graphs_replay_what_streams_were_told),
        cmocka_unit_test(captures_refuse_what_cards_refuse),
        cmocka_unit_test(launches_that_no_card_takes_are_refused),
        cmocka_unit_test(memory_ends_where_it_ends),
        cmocka_unit_test(the_card_has_a_name_and_may_be_missing),
        cmocka_unit_test(calls_fail_when_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
