/* SPDX-License-Identifier: Apache-2.0 */
/* A CTA a row, or the rows that keep the same. Positions, which are in no order, are read once. */
#include "kernels/cuda/cut.cuh"

/* Who goes, so far. */
struct ra_weakest {
    double score;
    int32_t position; /* -1: nobody */

    __device__ __forceinline__ void take(double other, int32_t at)
    {
        bool weaker =
            at >= 0 && (position < 0 || other < score || (other == score && at > position));
        score = weaker ? other : score;
        position = weaker ? at : position;
    }
};

/* What the threads of a CTA tell each other. */
struct ra_cut_shared {
    int32_t *positions; /* [cap] of the first row, by slot; a thread reads what it put there */
    double *scores;     /* [RA_CUT_WARPS] */
    int32_t *who;       /* [RA_CUT_WARPS] */
    int32_t *slot;      /* [1] */
};

/* The score by which a position is kept: of the first row's slot i and, where rows keep the same,
 * of the slots of the others, which are mostly i too. */
__device__ __forceinline__ double ra_kept_by(const ra_cut_args &a, int64_t row, int32_t n,
                                             int32_t i, int32_t position)
{
    int64_t cap = a.cache.cap;
    double all = ra_ld(a.cache.score + row * cap + i);
    for (int h = 1; h < a.heads && a.agg != RA_AGG_FIRST; h++) {
        const int32_t *slots = a.cache.slot_pos + (row + h) * cap;
        int32_t j = i;
        for (int32_t next = 0; ra_ld(slots + j) != position && next < n; next++)
            j = next;
        double one = ra_ld(a.cache.score + (row + h) * cap + j);
        all = a.agg == RA_AGG_MAX ? (one > all ? one : all) : all + one;
    }
    return a.agg == RA_AGG_MEAN ? all / a.heads : all;
}
__device__ __forceinline__ double ra_self_kept_by(const ra_cut_args &a, int64_t row)
{
    double all = ra_ld(a.cache.self_score + row);
    for (int h = 1; h < a.heads && a.agg != RA_AGG_FIRST; h++) {
        double one = ra_ld(a.cache.self_score + row + h);
        all = a.agg == RA_AGG_MAX ? (one > all ? one : all) : all + one;
    }
    return a.agg == RA_AGG_MEAN ? all / a.heads : all;
}

/* Entries from `least` on. */
__device__ __forceinline__ int32_t ra_count_from(const ra_cut_shared &shared, int32_t n,
                                                 int32_t least)
{
    int32_t count = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += RA_CUT_THREADS)
        count += shared.positions[i] >= least;
    count = (int32_t)__reduce_add_sync(kWarp, (unsigned)count);
    if (threadIdx.x % 32 == 0)
        shared.who[threadIdx.x / 32] = count;
    __syncthreads();
    count = 0;
    for (int w = 0; w < RA_CUT_WARPS; w++)
        count += shared.who[w];
    __syncthreads();
    return count;
}

/* Positions below it may go: `recent` are not, self among them. Where a cache is always cut by one
 * rule those are the last ones without a gap. */
__device__ __forceinline__ int32_t ra_first_recent(const ra_cut_shared &shared, int32_t n,
                                                   int32_t self, int32_t recent)
{
    int32_t high = self + 1 - recent, low = 0, wanted = recent - 1;
    if (wanted <= 0)
        return high;
    if (ra_count_from(shared, n, high) == wanted)
        return high;
    while (high - low > 1) {
        int32_t middle = (low + high) / 2;
        if (ra_count_from(shared, n, middle) >= wanted)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Position of the weakest of those that may go. */
__device__ __forceinline__ int32_t ra_find_weakest(const ra_cut_args &a,
                                                   const ra_cut_shared &shared, int64_t row,
                                                   int32_t n, int32_t self, int32_t recent)
{
    int32_t end = ra_first_recent(shared, n, self, recent);
    ra_weakest own = {0, -1};
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += RA_CUT_THREADS)
        if (shared.positions[i] < end)
            own.take(ra_kept_by(a, row, n, i, shared.positions[i]), shared.positions[i]);
    if (threadIdx.x == 0 && self < end)
        own.take(ra_self_kept_by(a, row), self);
    for (int offset = 16; offset > 0; offset /= 2) {
        double score = ra_shfl_xor(own.score, offset);
        int32_t position = ra_shfl_xor(own.position, offset);
        own.take(score, position);
    }
    if (threadIdx.x % 32 == 0) {
        shared.scores[threadIdx.x / 32] = own.score;
        shared.who[threadIdx.x / 32] = own.position;
    }
    __syncthreads();
    for (int w = 0; w < RA_CUT_WARPS; w++)
        own.take(shared.scores[w], shared.who[w]);
    return own.position;
}

/* One thread: the lists without who was in `slot`, and with self. */
__device__ __forceinline__ void ra_enter(const ra_recycled &c, int64_t row, int32_t n, int32_t slot,
                                         int32_t self)
{
    int64_t first = row * c.cap;
    ra_st(c.slot_pos + first + slot, self);
    ra_st(c.score + first + slot, ra_ld(c.self_score + row));
    if (slot < n)
        return;
    int32_t queued = ra_ld(c.queue_n + row), tail = ra_ld(c.queue_first + row) + queued;
    ra_st(c.queue + first + (tail < c.cap ? tail : tail - c.cap), slot);
    ra_st(c.queue_n + row, queued + 1);
    ra_st(c.n + row, n + 1);
}

/* Self's row into its slot. */
__device__ __forceinline__ void ra_copy_self(const ra_cut_args &a, int64_t row, int32_t slot)
{
    int64_t from = row * a.row_bytes, to = (row * a.cache.cap + slot) * a.row_bytes;
    int half = a.row_bytes / 16;
    for (int i = (int)threadIdx.x; i < 2 * half; i += RA_CUT_THREADS) {
        bool is_v = i >= half;
        int64_t at = (is_v ? i - half : i) * 16;
        uint4 x = ra_ld16((const char *)(is_v ? a.self_v : a.self_k) + from + at);
        ra_st16((char *)(is_v ? a.to_v : a.to_k) + to + at, x);
    }
}

__device__ __forceinline__ void ra_cut_row(const ra_cut_args &a, const ra_cut_shared &shared,
                                           int64_t row, bool is_first, int32_t own, int32_t self)
{
    int32_t n = ra_ld_warp(a.cache.n + row), instead = ra_ld_warp(a.instead + row);
    int32_t victim = instead >= 0 ? instead : own;
    const int32_t *slots = a.cache.slot_pos + row * a.cache.cap;
    if (threadIdx.x == 0) {
        shared.slot[0] = victim < 0 ? n : -1;
        ra_st(a.cache.self_pos + row, -1);
        if (a.evicted)
            ra_st(a.evicted + row, own);
    }
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < n && victim >= 0; i += RA_CUT_THREADS)
        if ((is_first ? shared.positions[i] : ra_ld(slots + i)) == victim)
            shared.slot[0] = i;
    __syncthreads();
    int32_t slot = shared.slot[0];
    __syncthreads();
    if (slot < 0) /* self is who goes */
        return;
    if (threadIdx.x == 0)
        ra_enter(a.cache, row, n, slot, self);
    if (a.to_k)
        ra_copy_self(a, row, slot);
}

__global__ void __launch_bounds__(RA_CUT_THREADS, 2) cut_cache(ra_cut_args a)
{
    RA_DYN(int32_t, positions);
    RA_SHARED(double, scores, RA_CUT_WARPS);
    RA_SHARED(int32_t, who, RA_CUT_WARPS);
    RA_SHARED(int32_t, slot, 1);
    ra_after_earlier();
    int64_t row = ra_row_of(a.rows, blockIdx.x * (uint32_t)a.heads);
    if (!ra_is_served(a.rows, row))
        return;
    ra_cut_shared shared = {positions, scores, who, slot};
    int32_t n = ra_ld_warp(a.cache.n + row), self = ra_ld_warp(a.position + row), own = -1;
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += RA_CUT_THREADS)
        positions[i] = ra_ld(a.cache.slot_pos + row * a.cache.cap + i);
    int32_t K = a.each ? ra_ld_warp(a.each + 2 * row) : a.K;
    int32_t recent = a.each ? ra_ld_warp(a.each + 2 * row + 1) : a.recent;
    if (n + 1 > K)
        own = ra_find_weakest(a, shared, row, n, self, recent);
    for (int h = 0; h < a.heads; h++)
        ra_cut_row(a, shared, row + h, h == 0, own, self);
}

cudaError_t ra_launch_cut(int rows, const ra_cut_args &args, cudaStream_t stream)
{
    if (args.heads < 1 || rows % args.heads != 0 || (!args.each && args.recent > args.K))
        return cudaErrorInvalidValue;
    size_t shared = (size_t)args.cache.cap * sizeof(int32_t);
    if (shared > 32 * 1024) {
        cudaError_t status = cudaFuncSetAttribute(
            cut_cache, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
        if (status != cudaSuccess)
            return status;
    }
    return ra_launch(cut_cache, (unsigned)(rows / args.heads), RA_CUT_THREADS, shared, stream,
                     args);
}
