/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Selection: scores of a group in log space, radix select by 11 bits from the top, a compaction
 * that keeps the order of positions, and a sort of what was chosen.
 */
#include "kernels/cuda/select.cuh"

#include "kernels/cuda/vec.cuh"

/* Unsigned order of the keys is the order of the numbers, NaN below all; -0 equals 0. */
__device__ __forceinline__ uint32_t ra_key_of(float x)
{
    uint32_t bits = __float_as_uint(x + 0.0f);
    if (x != x)
        return 0;
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/*
 * Log of what `agg` makes of the group's probabilities at one position; of the sum for the mean,
 * which orders alike. Probabilities themselves underflow in f32 where their order still counts.
 */
__device__ __forceinline__ float ra_group_score(const ra_aggregate_args &a, const float *column,
                                                const float *lse)
{
    float top = ra_ld(column) - lse[0], sum = 1;
    if (a.agg == RA_AGG_FIRST)
        return top;
    for (int g = 1; g < a.G; g++) {
        float x = ra_ld(column + g * a.logit_stride) - lse[g];
        bool above = x > top;
        if (a.agg != RA_AGG_MAX) {
            float smaller = ra_exp(above ? top - x : x - top);
            sum = above ? sum * smaller + 1 : sum + smaller;
        }
        top = above ? x : top;
    }
    return a.agg == RA_AGG_MAX ? top : top + logf(sum);
}

__global__ void __launch_bounds__(RA_AGGREGATE_THREADS) aggregate_scores(ra_aggregate_args a)
{
    RA_DYN(float, raw);
    RA_SHARED(float, lse, RA_AGGREGATE_HEADS);
    int64_t row = blockIdx.y;
    int32_t n = ra_ld_warp(a.n + row), low = (int32_t)blockIdx.x * RA_AGGREGATE_TILE;
    if (low >= n)
        return;
    int32_t half = a.pool / 2, thread = (int32_t)threadIdx.x;
    int32_t high = low + RA_AGGREGATE_TILE < n ? low + RA_AGGREGATE_TILE : n;
    for (int g = thread; g < a.G; g += RA_AGGREGATE_THREADS)
        lse[g] = ra_ld(a.lse + row * a.G + g);
    __syncthreads();
    for (int32_t i = low - half + thread; i < high + half; i += RA_AGGREGATE_THREADS) {
        float score = -INFINITY;
        if (i >= 0 && i < n)
            score = ra_group_score(a, a.logits + row * a.G * a.logit_stride + i, lse);
        raw[i - low + half] = score;
    }
    __syncthreads();
    for (int32_t i = low + thread; i < high; i += RA_AGGREGATE_THREADS) {
        float pooled = raw[i - low];
        for (int j = 1; j < a.pool; j++)
            pooled = raw[i - low + j] > pooled ? raw[i - low + j] : pooled;
        ra_st(a.keys + row * a.key_stride + i, ra_key_of(pooled));
        if (a.raw_keys)
            ra_st(a.raw_keys + row * a.key_stride + i, ra_key_of(raw[i - low + half]));
    }
}

/* How many are chosen by their score, of how many. */
__device__ __forceinline__ int32_t ra_candidates(const ra_select_args &a, int32_t n)
{
    return a.current == RA_CURRENT_PSEUDO ? n : n - 1;
}
__device__ __forceinline__ int32_t ra_wanted(const ra_select_args &a, int32_t n)
{
    int32_t wanted = a.K - (a.current == RA_CURRENT_SNAPKV), m = ra_candidates(a, n);
    return wanted < m ? wanted : m;
}

/* One CTA's search; keys are in shared memory or read again from the L2. */
template <bool kStaged> struct ra_search {
    const uint32_t *keys;
    int32_t m;
    uint32_t *bins, *totals; /* shared: [RA_SELECT_BINS], [RA_SELECT_WARPS] */
    uint32_t *found;         /* shared: digit, keys above it */
    int thread, lane, warp;

    __device__ __forceinline__ uint32_t key(int32_t i) const
    {
        return kStaged ? keys[i] : ra_ld(keys + i);
    }

    /* Digits of the keys that begin with `prefix`. A plateau would queue up at one bin: equal
     * digits of a warp are added as one. */
    __device__ __forceinline__ void count_digits(int shift, int bits, uint32_t prefix)
    {
        for (int i = thread; i < RA_SELECT_BINS; i += RA_SELECT_THREADS)
            bins[i] = 0;
        __syncthreads();
        for (int32_t base = warp * 32; base < m; base += RA_SELECT_THREADS) {
            int32_t i = base + lane;
            uint32_t x = i < m ? key(i) : 0;
            bool counts = i < m && (shift + bits == 32 || x >> (shift + bits) == prefix);
            uint32_t digit = x >> shift & ((1u << bits) - 1);
            uint32_t peers = __match_any_sync(kWarp, counts ? digit : ~0u);
            if (counts && __ffs((int)peers) - 1 == lane)
                atomicAdd(bins + digit, (unsigned)__popc(peers));
        }
        __syncthreads();
    }

    /* The digit at which `wanted` keys, counted from the largest, are reached; wanted becomes how
     * many are wanted of that digit. */
    __device__ __forceinline__ uint32_t pick_digit(uint32_t &wanted)
    {
        const int each = RA_SELECT_BINS / RA_SELECT_THREADS;
        int top = RA_SELECT_BINS - 1 - thread * each;
        uint32_t mine = 0;
        for (int j = 0; j < each; j++)
            mine += bins[top - j];
        uint32_t above = ra_sum_below(mine, totals);
        if (above < wanted && wanted <= above + mine) {
            int digit = top;
            while (above + bins[digit] < wanted)
                above += bins[digit--];
            found[0] = (uint32_t)digit;
            found[1] = above;
        }
        __syncthreads();
        wanted -= found[1];
        return found[0];
    }

    /* The wanted-th largest key, and how many equal to it are wanted. */
    __device__ __forceinline__ uint32_t threshold(uint32_t &wanted)
    {
        uint32_t prefix = 0;
        for (int shift = 32 - RA_SELECT_BITS, bits = RA_SELECT_BITS;; shift -= bits) {
            if (shift < 0) {
                bits += shift;
                shift = 0;
            }
            count_digits(shift, bits, prefix);
            prefix = prefix << bits | pick_digit(wanted);
            if (shift == 0)
                return prefix;
        }
    }

    /* In order of position: keys above `least`, and the first `equals` that are equal to it. Each
     * warp counts, then writes, a stretch of its own. */
    __device__ __forceinline__ void write(uint32_t least, uint32_t equals, int32_t *out)
    {
        int32_t stretch = (m + RA_SELECT_WARPS * 32 - 1) / (RA_SELECT_WARPS * 32) * 32;
        int32_t low = warp * stretch, high = low + stretch < m ? low + stretch : m;
        uint32_t above = 0, equal = 0;
        for (int32_t i = low + lane; i - lane < high; i += 32) {
            uint32_t x = i < high ? key(i) : 0;
            above += (uint32_t)__popc(__ballot_sync(kWarp, i < high && x > least));
            equal += (uint32_t)__popc(__ballot_sync(kWarp, i < high && x == least));
        }
        uint32_t above_before = ra_sum_below(lane == 0 ? above : 0, totals);
        __syncthreads();
        uint32_t equal_before = ra_sum_below(lane == 0 ? equal : 0, totals);
        above = ra_shfl(above_before, 0);
        equal = ra_shfl(equal_before, 0);
        const uint32_t lower = (1u << lane) - 1;
        for (int32_t i = low + lane; i - lane < high; i += 32) {
            uint32_t x = i < high ? key(i) : 0;
            bool is_above = i < high && x > least, is_equal = i < high && x == least;
            uint32_t aboves = __ballot_sync(kWarp, is_above), same = __ballot_sync(kWarp, is_equal);
            uint32_t a = above + (uint32_t)__popc(aboves & lower);
            uint32_t e = equal + (uint32_t)__popc(same & lower);
            if (is_above || (is_equal && e < equals))
                ra_st(out + a + (e < equals ? e : equals), i);
            above += (uint32_t)__popc(aboves);
            equal += (uint32_t)__popc(same);
        }
    }
};

template <bool kStaged>
__global__ void __launch_bounds__(RA_SELECT_THREADS) select_topk(ra_select_args a)
{
    RA_SHARED(uint32_t, bins, RA_SELECT_BINS);
    RA_SHARED(uint32_t, totals, RA_SELECT_WARPS);
    RA_SHARED(uint32_t, found, 2);
    RA_DYN(uint32_t, staged);
    int64_t row = blockIdx.x;
    int32_t n = ra_ld_warp(a.n + row), m = ra_candidates(a, n), wanted = ra_wanted(a, n);
    int thread = (int)threadIdx.x;
    const uint32_t *keys = a.keys + row * a.key_stride;
    for (int32_t i = thread; kStaged && i < m; i += RA_SELECT_THREADS)
        staged[i] = ra_ld(keys + i);
    __syncthreads();
    ra_search<kStaged> search = {
        kStaged ? staged : keys, m, bins, totals, found, thread, thread % 32, thread / 32};
    int32_t *out = a.chosen + row * a.chosen_stride;
    if (wanted > 0) {
        uint32_t equals = (uint32_t)wanted, least = search.threshold(equals);
        search.write(least, equals, out);
    }
    if (thread == 0) {
        if (a.current == RA_CURRENT_SNAPKV)
            ra_st(out + wanted, n - 1);
        ra_st(a.n_chosen + row, wanted + (a.current == RA_CURRENT_SNAPKV));
    }
}

template __global__ void select_topk<false>(ra_select_args);
template __global__ void select_topk<true>(ra_select_args);

__global__ void __launch_bounds__(RA_ORDER_THREADS) order_evictions(ra_order_args a)
{
    RA_DYN(uint64_t, entry);
    int64_t row = blockIdx.x;
    int32_t n = ra_ld_warp(a.n_chosen + row), last = -1, thread = (int32_t)threadIdx.x;
    const int32_t *chosen = a.chosen + row * a.chosen_stride;
    int32_t *order = a.order + row * a.chosen_stride;
    if (a.protects)
        last = ra_ld_warp(chosen + --n);
    for (int32_t i = thread; i < a.n_sorted; i += RA_ORDER_THREADS) {
        uint32_t position = i < n ? (uint32_t)ra_ld(chosen + i) : 0;
        uint64_t key = i < n ? ra_ld(a.keys + row * a.key_stride + position) : 0;
        entry[i] = i < n ? key << 32 | (uint32_t)~position : ~(uint64_t)0;
    }
    __syncthreads();
    for (int32_t run = 2; run <= a.n_sorted; run *= 2)
        for (int32_t step = run / 2; step > 0; step /= 2) {
            for (int32_t i = thread; i < a.n_sorted; i += RA_ORDER_THREADS) {
                int32_t j = i ^ step;
                bool ascends = (i & run) == 0;
                if (j > i && (entry[i] > entry[j]) == ascends) {
                    uint64_t swap = entry[i];
                    entry[i] = entry[j];
                    entry[j] = swap;
                }
            }
            __syncthreads();
        }
    for (int32_t i = thread; i < n; i += RA_ORDER_THREADS)
        ra_st(order + i, (int32_t) ~(uint32_t)entry[i]);
    if (a.protects && thread == 0)
        ra_st(order + n, last);
}
