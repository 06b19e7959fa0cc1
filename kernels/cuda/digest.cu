/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A group of D / 8 lanes a page, so that a warp serves one to four. Digests are read once for all
 * query heads of a group; the sort is that of evictions, over all pages.
 */
#include "kernels/cuda/digest.cuh"

#include <float.h>

#include "kernels/cuda/select.cuh"

enum { PART = RA_DIGEST_PART, WARPS = RA_DIGEST_THREADS / 32 };

/* --- eight numbers of a row --------------------------------------------------------------------
 */

template <class T> __device__ __forceinline__ void ra_load_part(const T *p, float (&x)[PART])
{
    ra_unpack(ra_ld16(p), x, T());
}
__device__ __forceinline__ void ra_load_part(const float *p, float (&x)[PART])
{
    float half[4];
    for (int i = 0; i < 2; i++) {
        ra_unpack(ra_ld16(p + 4 * i), half, 0.0f);
#pragma unroll
        for (int e = 0; e < 4; e++)
            x[4 * i + e] = half[e];
    }
}

__device__ __forceinline__ void ra_convert(float x, float *to)
{
    *to = x;
}
__device__ __forceinline__ void ra_convert(float x, __half *to)
{
    *to = __float2half_rn(x);
}
__device__ __forceinline__ void ra_convert(float x, __nv_bfloat16 *to)
{
    *to = __float2bfloat16_rn(x);
}
template <class T> __device__ __forceinline__ void ra_store_part(T *p, const float (&x)[PART])
{
    constexpr int kEach = 16 / (int)sizeof(T);
#pragma unroll
    for (int i = 0; i < PART; i += kEach) {
        T some[kEach];
        uint4 bits;
#pragma unroll
        for (int e = 0; e < kEach; e++)
            ra_convert(x[i + e], some + e);
        memcpy(&bits, some, sizeof bits);
        ra_st16(p + i, bits);
    }
}

/* Keys that lie in pages. */
__device__ __forceinline__ int32_t ra_paged(int32_t n, int32_t most)
{
    return n < most ? n : most;
}

/* --- digests -----------------------------------------------------------------------------------
 */

/* T: keys; S: digests of them. */
template <class T, class S, bool kSums>
__global__ void __launch_bounds__(RA_DIGEST_THREADS) digest_pages(ra_digest_args a)
{
    ra_after_earlier();
    int lanes = a.D / PART, group = (int)threadIdx.x / lanes, part = (int)threadIdx.x % lanes;
    int64_t row = blockIdx.y;
    int32_t n = ra_ld_warp(a.n + row), end = ra_paged(n, a.most);
    int32_t begin = a.fresh < 0 ? 0 : n - a.fresh;
    int32_t number = begin / a.page + (int32_t)blockIdx.x * (RA_DIGEST_THREADS / lanes) + group;
    int32_t first = number * a.page;
    begin = begin > first ? begin : first;
    end = end < first + a.page ? end : first + a.page;
    if (begin >= end)
        return;
    float least[PART], largest[PART], x[PART];
    S *digest = (S *)a.digest + (row * a.n_pages + number) * (kSums ? 1 : 2) * a.D + part * PART;
#pragma unroll
    for (int e = 0; e < PART; e++) {
        least[e] = kSums ? 0 : FLT_MAX;
        largest[e] = -FLT_MAX;
    }
    if (begin > first) {
        ra_load_part(digest, least);
        if (!kSums)
            ra_load_part(digest + a.D, largest);
    }
    for (int32_t i = begin; i < end; i++) {
        int64_t at = ra_full_offset(a, row, i, a.D * (int32_t)sizeof(T));
        ra_load_part((const T *)((const char *)a.k + at) + part * PART, x);
#pragma unroll
        for (int e = 0; e < PART; e++) {
            least[e] = kSums ? least[e] + x[e] : x[e] < least[e] ? x[e] : least[e];
            largest[e] = x[e] > largest[e] ? x[e] : largest[e];
        }
    }
    ra_store_part(digest, least);
    if (!kSums)
        ra_store_part(digest + a.D, largest);
}

template <class T>
static cudaError_t launch_digest(bool sums, const ra_digest_args &a, dim3 grid, cudaStream_t stream)
{
    return sums ? ra_launch(digest_pages<T, float, true>, grid, RA_DIGEST_THREADS, 0, stream, a)
                : ra_launch(digest_pages<T, T, false>, grid, RA_DIGEST_THREADS, 0, stream, a);
}

cudaError_t ra_launch_digest(enum ra_dtype dtype, enum ra_page_digest digest,
                             const ra_digest_args &args, cudaStream_t stream)
{
    int each = RA_DIGEST_THREADS / (args.D / PART), pages = args.n_pages;
    if (args.fresh >= 0)
        pages = args.fresh / args.page + 2 < pages ? args.fresh / args.page + 2 : pages;
    dim3 grid((unsigned)((pages + each - 1) / each), (unsigned)args.n_rows);
    bool sums = digest == RA_PAGE_MEAN;
    return dtype == RA_F16    ? launch_digest<__half>(sums, args, grid, stream)
           : dtype == RA_BF16 ? launch_digest<__nv_bfloat16>(sums, args, grid, stream)
                              : launch_digest<float>(sums, args, grid, stream);
}

/* --- scores ------------------------------------------------------------------------------------
 */

/* Grid (pages, rows), G * D floats of dynamic shared memory. */
template <class S, bool kSums>
__global__ void __launch_bounds__(RA_DIGEST_THREADS) score_pages(ra_rank_args a)
{
    RA_DYN(float, q);
    ra_after_earlier();
    int lanes = a.D / PART, groups = 32 / lanes, lane = (int)threadIdx.x % 32;
    int group = lane / lanes, part = lane % lanes;
    int64_t row = ra_row_of(a.rows, blockIdx.y);
    if (!ra_is_served(a.rows, row))
        return;
    int32_t keys = ra_paged(ra_ld_warp(a.n + row), a.most), n = (keys + a.page - 1) / a.page;
    int32_t tile = WARPS * groups * RA_DIGEST_ROUNDS, low = (int32_t)blockIdx.x * tile;
    if (low >= n)
        return;
    for (int i = (int)threadIdx.x; i < a.G * a.D / 4; i += RA_DIGEST_THREADS)
        ((float4 *)q)[i] = ra_ld((const float4 *)(a.q + row * a.G * a.D) + i);
    __syncthreads();
    low += (int32_t)threadIdx.x / 32 * groups + group;
    for (int round = 0; round < RA_DIGEST_ROUNDS; round++, low += WARPS * groups) {
        bool there = low < n; /* every lane comes to the sums below */
        float least[PART] = {}, largest[PART] = {};
        const S *digest =
            (const S *)a.digest + (row * a.n_pages + low) * (kSums ? 1 : 2) * a.D + part * PART;
        if (there)
            ra_load_part(digest, least);
        if (there && !kSums)
            ra_load_part(digest + a.D, largest);
        int32_t left = keys - low * a.page, held = left < a.page ? left : a.page;
        for (int g = 0; g < a.G; g++) {
            float score = 0;
#pragma unroll
            for (int e = 0; e < PART; e++) {
                float one = q[g * a.D + part * PART + e], x = one * least[e], y = one * largest[e];
                score += kSums || x > y ? x : y;
            }
            for (int offset = lanes / 2; offset > 0; offset /= 2)
                score += ra_shfl_xor(score, offset);
            if (there && part == 0)
                ra_st(a.scores + (row * a.G + g) * a.n_pages + low,
                      kSums ? a.scale * score / (float)held : score);
        }
    }
}

/* --- the order ---------------------------------------------------------------------------------
 */

/* Unsigned order of the keys is the order of the numbers, NaN below all. */
__device__ __forceinline__ uint32_t ra_page_key(float x)
{
    uint32_t bits = __float_as_uint(x + 0.0f);
    if (x != x)
        return 0;
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/* Log of the sum of e^x over a query head's pages, a warp a head. */
__device__ __forceinline__ float ra_log_sum(const float *scores, int32_t n)
{
    int lane = (int)threadIdx.x % 32;
    float top = -FLT_MAX, sum = 0;
    for (int32_t i = lane; i < n; i += 32) {
        float x = ra_ld(scores + i), larger = x > top ? x : top;
        sum = sum * ra_exp(top - larger) + ra_exp(x - larger);
        top = larger;
    }
    float most = top;
    for (int offset = 16; offset > 0; offset /= 2) {
        float x = ra_shfl_xor(most, offset);
        most = x > most ? x : most;
    }
    sum *= ra_exp(top - most);
    for (int offset = 16; offset > 0; offset /= 2)
        sum += ra_shfl_xor(sum, offset);
    return most + logf(sum);
}

/* What `agg` makes of a page's scores; of shares of a softmax the logarithm, which orders alike and
 * does not underflow. A mean orders as its sum. */
template <bool kSums>
__device__ __forceinline__ float ra_group_score(const ra_rank_args &a, const float *scores,
                                                const float *log_sums)
{
    bool adds = a.agg == RA_AGG_MEAN || a.agg == RA_AGG_SUM;
    int heads = a.agg == RA_AGG_FIRST ? 1 : a.G;
    float all = 0;
    for (int g = 0; g < heads; g++) {
        float x = ra_ld(scores + (int64_t)g * a.n_pages) - (kSums ? log_sums[g] : 0.0f);
        float more = x > all ? x : all, less = x > all ? all : x;
        if (adds)
            more = kSums ? more + log1pf(ra_exp(less - more)) : all + x;
        all = g == 0 ? x : more;
    }
    return all;
}

/* Grid (rows). */
template <bool kSums>
__global__ void __launch_bounds__(RA_RANK_THREADS, 2) rank_pages(ra_rank_args a)
{
    RA_SHARED(float, log_sums, RA_RANK_HEADS);
    ra_after_earlier();
    int64_t row = ra_row_of(a.rows, blockIdx.x);
    if (!ra_is_served(a.rows, row))
        return;
    int32_t keys = ra_paged(ra_ld_warp(a.n + row), a.most), n = (keys + a.page - 1) / a.page;
    const float *scores = a.scores + row * a.G * a.n_pages;
    if (kSums) {
        for (int g = (int)threadIdx.x / 32; g < a.G; g += RA_RANK_THREADS / 32) {
            float log_sum = ra_log_sum(scores + (int64_t)g * a.n_pages, n);
            if (threadIdx.x % 32 == 0)
                log_sums[g] = log_sum;
        }
        __syncthreads();
    }
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += RA_RANK_THREADS) {
        uint32_t key = ra_page_key(ra_group_score<kSums>(a, scores + i, log_sums));
        if (i == 0 && a.takes_first) /* where only the newest is wanted it does not matter */
            key = ~1u;
        if (i == n - 1 && a.takes_newest)
            key = ~0u;
        ra_st(a.keys + row * a.n_pages + i, key);
    }
    if (threadIdx.x == 0)
        ra_st(a.n_ranked + row, n);
}

template <class S, bool kSums>
static cudaError_t launch_rank(int rows, int longest, const ra_rank_args &a, cudaStream_t stream)
{
    int tile = WARPS * 32 / (a.D / PART) * RA_DIGEST_ROUNDS;
    dim3 tiles((unsigned)((longest + tile - 1) / tile), (unsigned)rows);
    size_t shared = (size_t)a.G * (size_t)a.D * sizeof(float);
    cudaError_t status =
        ra_launch(score_pages<S, kSums>, tiles, RA_DIGEST_THREADS, shared, stream, a);
    if (status == cudaSuccess)
        status = ra_launch(rank_pages<kSums>, (unsigned)rows, RA_RANK_THREADS, 0, stream, a);
    return status;
}

cudaError_t ra_launch_rank(enum ra_dtype dtype, enum ra_page_digest digest, int rows, int longest,
                           const ra_rank_args &args, cudaStream_t stream)
{
    if (args.G > RA_RANK_HEADS || longest < 1 || longest > RA_ORDER_MOST)
        return cudaErrorInvalidValue;
    cudaError_t status =
        digest == RA_PAGE_MEAN ? launch_rank<float, true>(rows, longest, args, stream)
        : dtype == RA_F16      ? launch_rank<__half, false>(rows, longest, args, stream)
        : dtype == RA_BF16     ? launch_rank<__nv_bfloat16, false>(rows, longest, args, stream)
                               : launch_rank<float, false>(rows, longest, args, stream);
    if (status != cudaSuccess)
        return status;
    ra_order_args order = {};
    order.n_chosen = args.n_ranked;
    order.keys = args.keys;
    order.order = args.order;
    order.key_stride = order.chosen_stride = args.n_pages;
    order.rows = args.rows;
    return ra_launch_order(rows, longest, order, stream);
}
