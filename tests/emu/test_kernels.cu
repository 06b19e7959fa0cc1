/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small kernels of the kinds the backend is made of, right in every schedule: the seed comes from
 * RA_EMU_SEED. They compile unchanged for the card.
 */
#include "kernels/cuda/cuda.cuh"
#include "tests/emu/control.h"

#include <vector>
extern "C" {
#include "tests/support/ra_test.h"
}

#define ALL 0xffffffffu
#define OK(call) assert_int_equal(cudaSuccess, call)

/* A device copy of host values, freed at the end of its scope. */
template <typename T> struct on_card {
    T *p;
    size_t n;
    explicit on_card(const std::vector<T> &values) : p(NULL), n(values.size())
    {
        OK(cudaMalloc(&p, n * sizeof(T)));
        OK(cudaMemcpy(p, values.data(), n * sizeof(T), cudaMemcpyHostToDevice));
    }
    ~on_card()
    {
        cudaFree(p);
    }
    std::vector<T> back() const
    {
        std::vector<T> values(n);
        OK(cudaMemcpy(values.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
        return values;
    }
};

/* Integers as floats: any order of additions gives the same sum. */
static std::vector<float> numbers(int n)
{
    std::vector<float> x((size_t)n);
    for (int i = 0; i < n; i++)
        x[(size_t)i] = (float)(i * 37 % 101);
    return x;
}

/* --- sum in one launch: the last block to finish adds up ---------------------------------------
 */

template <typename T>
__global__ void __launch_bounds__(128)
    sum(const T *x, int n, float *part, unsigned *ticket, float *out)
{
    RA_SHARED(float, warp_sum, 4);
    RA_SHARED(unsigned, turn, 1);
    float s = 0;
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n;
         i += (int)(gridDim.x * blockDim.x))
        s += (float)ra_ld(x + i);
    for (int o = 16; o; o /= 2)
        s += __shfl_xor_sync(ALL, s, o);
    if (threadIdx.x % 32 == 0)
        warp_sum[threadIdx.x / 32] = s;
    __syncthreads();
    if (threadIdx.x == 0) {
        ra_st(part + blockIdx.x, warp_sum[0] + warp_sum[1] + warp_sum[2] + warp_sum[3]);
        __threadfence();
        turn[0] = atomicInc(ticket, gridDim.x - 1);
    }
    __syncthreads();
    if (turn[0] != gridDim.x - 1 || threadIdx.x >= 32)
        return;
    __threadfence();
    s = 0;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += 32)
        s += ra_ld_l2(part + i);
    for (unsigned o = 16; o; o /= 2)
        s += __shfl_down_sync(ALL, s, o);
    if (threadIdx.x == 0)
        ra_st(out, s);
}

static void sums_with_a_ticket(void **state)
{
    (void)state;
    const int sizes[] = {1, 31, 128, 1000, 5003};
    for (int n : sizes) {
        std::vector<float> x = numbers(n);
        float expected = 0;
        for (float v : x)
            expected += v;
        on_card<float> data(x), part(std::vector<float>(7)), out(std::vector<float>(1));
        on_card<unsigned> ticket(std::vector<unsigned>(1));
        for (int again = 0; again < 2; again++) {
            OK(ra_launch(sum<float>, dim3(7), dim3(128), 0, 0, data.p, n, part.p, ticket.p, out.p));
            assert_true(out.back()[0] == expected);
            assert_int_equal(0, ticket.back()[0]);
        }
    }
}

/* --- histogram of digits: atomics in shared, then in global memory ------------------------------
 */

__global__ void histogram(const unsigned *keys, int n, unsigned *bins)
{
    RA_DYN(unsigned, local);
    for (unsigned b = threadIdx.x; b < 256; b += blockDim.x)
        local[b] = 0;
    __syncthreads();
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n;
         i += (int)(gridDim.x * blockDim.x))
        atomicAdd(&local[ra_ld(keys + i) >> 24], 1u);
    __syncthreads();
    for (unsigned b = threadIdx.x; b < 256; b += blockDim.x)
        if (local[b])
            atomicAdd(&bins[b], local[b]);
}

static void counts_digits(void **state)
{
    (void)state;
    std::vector<unsigned> keys(3001), expected(256);
    for (size_t i = 0; i < keys.size(); i++) {
        keys[i] = (unsigned)i * 2654435761u;
        expected[keys[i] >> 24]++;
    }
    on_card<unsigned> data(keys), bins(std::vector<unsigned>(256));
    OK(ra_launch(histogram, dim3(3), dim3(96), 1024, 0, data.p, (int)keys.size(), bins.p));
    assert_true(bins.back() == expected);
}

/* --- cp.async: two stages, each thread reads what another copied ---------------------------------
 */

__global__ void __launch_bounds__(64) reverse_tiles(const uint4 *in, uint4 *out, int tiles, int n)
{
    RA_SHARED(uint4, stage, 2 * 64);
    unsigned t = threadIdx.x;
    ra_cp_async16_zfill(&stage[t], in + t, (int)t < n);
    ra_cp_async_commit();
    for (int i = 0; i < tiles; i++) {
        int next = (i + 1) * 64 + (int)t;
        if (i + 1 < tiles)
            ra_cp_async16_zfill(&stage[(i + 1) % 2 * 64 + t], in + next, next < n);
        ra_cp_async_commit();
        ra_cp_async_wait<1>();
        __syncthreads();
        ra_st16(out + i * 64 + t, stage[i % 2 * 64 + 63 - t]);
        __syncthreads();
    }
    ra_cp_async_wait<0>();
}

static void copies_through_two_stages(void **state)
{
    (void)state;
    enum { TILES = 5, N = TILES * 64 - 20 };
    std::vector<uint4> in(N), expected(TILES * 64, make_uint4(0, 0, 0, 0));
    for (unsigned i = 0; i < N; i++) {
        in[i] = make_uint4(i, i + 1, i + 2, i + 3);
        expected[i / 64 * 64 + 63 - i % 64] = in[i];
    }
    on_card<uint4> from(in), to(std::vector<uint4>(TILES * 64));
    OK(ra_launch(reverse_tiles, dim3(1), dim3(64), 0, 0, from.p, to.p, TILES, N));
    std::vector<uint4> got = to.back();
    assert_memory_equal(expected.data(), got.data(), got.size() * sizeof(uint4));
}

/* --- stable compaction: ballots, prefix of warps -------------------------------------------------
 */

__global__ void __launch_bounds__(256) keep_odd(const int *in, int n, int *out, int *n_out)
{
    RA_SHARED(int, before, 8);
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int done = 0;
    for (int base = 0; base < n; base += (int)blockDim.x) {
        int i = base + (int)threadIdx.x;
        int value = i < n ? ra_ld(in + i) : 0;
        unsigned votes = __ballot_sync(ALL, value & 1);
        if (lane == 0)
            before[warp] = __popc(votes);
        int total = __syncthreads_count(value & 1);
        int at = done + __popc(votes & ((1u << lane) - 1));
        for (unsigned w = 0; w < warp; w++)
            at += before[w];
        if (value & 1)
            ra_st(out + at, value);
        done += total;
        __syncthreads();
    }
    if (threadIdx.x == 0)
        ra_st(n_out, done);
}

static void compacts_in_order(void **state)
{
    (void)state;
    std::vector<int> in(1000), expected;
    for (size_t i = 0; i < in.size(); i++) {
        in[i] = (int)(i * i % 997);
        if (in[i] & 1)
            expected.push_back(in[i]);
    }
    on_card<int> from(in), to(std::vector<int>(1000)), count(std::vector<int>(1));
    OK(ra_launch(keep_odd, dim3(1), dim3(256), 0, 0, from.p, 1000, to.p, count.p));
    assert_int_equal((int)expected.size(), count.back()[0]);
    std::vector<int> got = to.back();
    got.resize(expected.size());
    assert_true(got == expected);
}

/* --- every collective, in whole, half and short warps --------------------------------------------
 */

__global__ void collectives(unsigned *out)
{
    unsigned t = threadIdx.x, lane = t % 32, part = lane < 16 ? 0xffffu : 0xffff0000u;
    unsigned *mine = out + t * 12;
    mine[0] = __shfl_sync(ALL, t, 3);
    mine[1] = __shfl_up_sync(ALL, t, 2);
    mine[2] = __shfl_xor_sync(ALL, t, 4, 8);
    mine[3] = lane < 16 ? __shfl_sync(part, t, 5) : __shfl_sync(part, t, 20);
    mine[4] = (unsigned)__any_sync(ALL, lane == 7);
    mine[5] = (unsigned)__all_sync(ALL, lane < 8);
    mine[6] = __match_any_sync(ALL, t % 3);
    mine[7] = __reduce_add_sync(ALL, lane);
    mine[8] = __reduce_max_sync(ALL, lane);
    __syncwarp();
    mine[9] = (unsigned)__syncthreads_or(t == 5);
    mine[10] = (unsigned)__syncthreads_and(t != 5);
    mine[11] = (unsigned)__syncthreads_count(t % 2 == 0);
}

static void collectives_do_what_they_say(void **state)
{
    (void)state;
    enum { N = 40 }; /* the second warp has eight lanes */
    on_card<unsigned> out(std::vector<unsigned>(N * 12));
    OK(ra_launch(collectives, dim3(1), dim3(N), 0, 0, out.p));
    std::vector<unsigned> got = out.back();
    for (unsigned t = 0; t < N; t++) {
        unsigned lane = t % 32, first = t - lane, lanes = first ? 8 : 32, same = 0;
        const unsigned *mine = &got[t * 12];
        for (unsigned l = 0; l < lanes; l++)
            same |= (unsigned)((first + l) % 3 == t % 3) << l;
        assert_int_equal(first + 3, mine[0]);
        assert_int_equal(lane < 2 ? t : t - 2, mine[1]);
        assert_int_equal(t ^ 4, mine[2]);
        assert_int_equal(first + (lane < 16 ? 5 : 20), mine[3]);
        assert_int_equal(1, mine[4]);
        assert_int_equal(lanes == 8, mine[5]);
        assert_int_equal(same, mine[6]);
        assert_int_equal(lanes * (lanes - 1) / 2, mine[7]);
        assert_int_equal(lanes - 1, mine[8]);
        assert_int_equal(1, mine[9]);
        assert_int_equal(0, mine[10]);
        assert_int_equal(N / 2, mine[11]);
    }
}

/* --- threads that leave early, grids and blocks of three dimensions ------------------------------
 */

__global__ void places(int *out, int *n_late)
{
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    atomicAdd(out + block * blockDim.x * blockDim.y * blockDim.z + thread,
              (int)(block * 100 + thread));
    if (thread % 3 == 0)
        return;
    __syncthreads();
    if (__ballot_sync(ALL, 1) >> thread % 32 & 1)
        atomicAdd(n_late, 1);
}

static void places_are_all_visited_once(void **state)
{
    (void)state;
    enum { BLOCKS = 2 * 3 * 4, THREADS = 4 * 3 * 5 };
    on_card<int> out(std::vector<int>(BLOCKS * THREADS)), late(std::vector<int>(1));
    OK(ra_launch(places, dim3(2, 3, 4), dim3(4, 3, 5), 0, 0, out.p, late.p));
    std::vector<int> got = out.back();
    for (int i = 0; i < BLOCKS * THREADS; i++)
        assert_int_equal(i / THREADS * 100 + i % THREADS, got[(size_t)i]);
    assert_int_equal(BLOCKS * THREADS / 3 * 2, late.back()[0]);
}

/* --- 16-bit floats
 * -------------------------------------------------------------------------------- */

__global__ void convert(const float *x, int n, __half *h, __nv_bfloat16 *b)
{
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) {
        ra_st(h + i, __float2half_rn(ra_ld(x + i)));
        ra_st(b + i, __float2bfloat16_rn(ra_ld(x + i)));
    }
}

__global__ void widen(const __half *h, const __nv_bfloat16 *b, float *out)
{
    float2 x = __half22float2(ra_ld(reinterpret_cast<const __half2 *>(h) + threadIdx.x));
    float2 y = __bfloat1622float2(ra_ld(reinterpret_cast<const __nv_bfloat162 *>(b) + threadIdx.x));
    ra_st(out + 4 * threadIdx.x, x.x);
    ra_st(out + 4 * threadIdx.x + 1, x.y);
    ra_st(out + 4 * threadIdx.x + 2, y.x);
    ra_st(out + 4 * threadIdx.x + 3, y.y);
}

static void half_floats_convert(void **state)
{
    (void)state;
    const float inf = INFINITY;
    std::vector<float> x = {0, -0.0f, 1, -2.5f, 65504, 1e-7f, inf, -inf};
    const float as_half[] = {0, -0.0f, 1, -2.5f, 65504, 1.1920929e-7f, inf, -inf};
    const float as_bf16[] = {0, -0.0f, 1, -2.5f, 65536, 1.00117177e-07f, inf, -inf};
    on_card<float> in(x), out(std::vector<float>(16));
    on_card<__half> h(std::vector<__half>(8));
    on_card<__nv_bfloat16> b(std::vector<__nv_bfloat16>(8));
    OK(ra_launch(convert, dim3(1), dim3(4), 0, 0, in.p, 8, h.p, b.p));
    OK(ra_launch(widen, dim3(1), dim3(4), 0, 0, h.p, b.p, out.p));
    std::vector<float> got = out.back();
    for (size_t i = 0; i < 8; i++) {
        assert_true(got[i / 2 * 4 + i % 2] == as_half[i]);
        assert_true(got[i / 2 * 4 + 2 + i % 2] == as_bf16[i]);
    }
}

/* --- the schedule
 * ---------------------------------------------------------------------------------- */

__global__ void sign_in(int *next, int *order)
{
    order[atomicAdd(next, 1)] = (int)(blockIdx.x * blockDim.x + threadIdx.x);
}

static std::vector<int> order_of_arrival(uint64_t seed)
{
    ra_emu_seed(seed);
    on_card<int> next(std::vector<int>(1)), order(std::vector<int>(256));
    OK(ra_launch(sign_in, dim3(4), dim3(64), 0, 0, next.p, order.p));
    return order.back();
}

static void a_seed_is_a_schedule(void **state)
{
    (void)state;
    std::vector<int> in_order = order_of_arrival(0), seven = order_of_arrival(7);
    for (int i = 0; i < 256; i++)
        assert_int_equal(i, in_order[(size_t)i]);
    assert_true(seven != in_order);
    assert_true(seven != order_of_arrival(8));
    assert_true(seven == order_of_arrival(7));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_with_a_ticket),
        cmocka_unit_test(counts_digits),
        cmocka_unit_test(copies_through_two_stages),
        cmocka_unit_test(compacts_in_order),
        cmocka_unit_test(collectives_do_what_they_say),
        cmocka_unit_test(places_are_all_visited_once),
        cmocka_unit_test(half_floats_convert),
        cmocka_unit_test(a_seed_is_a_schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
