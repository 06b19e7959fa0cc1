/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Selection: scores of a group in log space, counted by bin; a list of what is in the K-th one's
 * bin or above it; radix select by 8 bits and a compaction among the listed. Everything is kept in
 * order of position on the way, so that ties fall as they must.
 */
#include "kernels/cuda/select.cuh"

#include "kernels/cuda/vec.cuh"

/* --- scores ----------------------------------------------------------------------------------- */

/* Unsigned order of the keys is the order of the numbers, NaN below all; -0 equals 0. */
__device__ __forceinline__ uint32_t ra_key_of(float x)
{
    uint32_t bits = __float_as_uint(x + 0.0f);
    if (x != x)
        return 0;
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/*
 * Bins of keys: 512 for each factor of two between -64 and -4, where logarithms of probabilities
 * are; all below in the first, all above, which only a few dozen of a head can be, in the last.
 */
static constexpr uint32_t kBinBits = 14, kLastBin = RA_SELECT_BINS - 1;
static constexpr uint32_t kBinBase = 0x3d7fffff; /* key of -64 */

__device__ __forceinline__ uint32_t ra_bin_of(uint32_t key)
{
    uint32_t bin = key < kBinBase ? 0 : (key - kBinBase) >> kBinBits;
    return bin < kLastBin ? bin : kLastBin;
}
__device__ __forceinline__ uint32_t ra_least_of_bin(uint32_t bin)
{
    return bin ? kBinBase + (bin << kBinBits) : 0;
}

/* Additions to counters in shared memory, those of equal neighbours as one: a plateau would queue
 * up at its counter. */
struct ra_counter {
    uint32_t *bins, bin, n;

    __device__ __forceinline__ void add(uint32_t next)
    {
        if (n && next != bin)
            flush();
        bin = next;
        n++;
    }
    __device__ __forceinline__ void flush()
    {
        if (n)
            atomicAdd(bins + bin, n);
        n = 0;
    }
};

/* How many are chosen by their score, of how many. */
__device__ __forceinline__ int32_t ra_candidates(const ra_select_args &a, int32_t n)
{
    return a.current == RA_CURRENT_PSEUDO || n == 0 ? n : n - 1;
}
__device__ __forceinline__ int32_t ra_wanted(const ra_select_args &a, int32_t n)
{
    int32_t wanted = a.K - (a.current == RA_CURRENT_SNAPKV), m = ra_candidates(a, n);
    return wanted < m ? wanted : m;
}

/*
 * Log of what `agg` makes of the group's probabilities at four positions; of the sum for the mean,
 * which orders alike. Probabilities themselves underflow in f32 where their order still counts.
 */
struct ra_group_scores {
    float top[4], sum[4];

    template <bool kSums> __device__ __forceinline__ void add(const float4 &logit, float lse)
    {
        const float x[4] = {logit.x - lse, logit.y - lse, logit.z - lse, logit.w - lse};
#pragma unroll
        for (int e = 0; e < 4; e++) {
            bool above = x[e] > top[e];
            if (kSums) {
                float smaller = ra_exp(above ? top[e] - x[e] : x[e] - top[e]);
                sum[e] = above ? sum[e] * smaller + 1 : sum[e] + smaller;
            }
            top[e] = above ? x[e] : top[e];
        }
    }
    __device__ __forceinline__ void start(const float4 &logit, float lse)
    {
        const float x[4] = {logit.x - lse, logit.y - lse, logit.z - lse, logit.w - lse};
        memcpy(top, x, sizeof x);
        sum[0] = sum[1] = sum[2] = sum[3] = 1;
    }
};

/* Called by all: the heads' logits are asked for, four heads at once, before the barrier behind
 * which lse is there. Nothing is read, and the score means nothing, unless `reads`. */
template <bool kSums>
__device__ __forceinline__ void ra_score(const ra_select_args &a, const float *column, bool reads,
                                         const float *lse, float (&score)[4])
{
    ra_group_scores group = {};
    int heads = a.agg == RA_AGG_FIRST ? 1 : a.G;
    for (int first = 0; first < heads; first += 4) {
        float4 logit[4];
#pragma unroll
        for (int h = 0; h < 4; h++)
            logit[h] = reads && first + h < heads
                           ? ra_ld((const float4 *)(column + (first + h) * a.logit_stride))
                           : make_float4(0, 0, 0, 0);
        if (first == 0)
            __syncthreads();
#pragma unroll
        for (int h = 0; h < 4; h++) {
            if (first + h == 0)
                group.start(logit[0], lse[0]);
            else if (first + h < heads)
                group.add<kSums>(logit[h], lse[first + h]);
        }
    }
#pragma unroll
    for (int e = 0; e < 4; e++)
        score[e] = kSums ? group.top[e] + logf(group.sum[e]) : group.top[e];
}

/* The largest key within `half` of each of the four at tile[at]. */
template <int kHalf>
__device__ __forceinline__ void ra_pool_keys(const uint4 *tile, int at, int half,
                                             uint32_t (&best)[4])
{
    if (kHalf >= 0)
        half = kHalf;
    const int quads = (half + 3) / 4;
#pragma unroll
    for (int q = -quads; q <= quads; q++) {
        uint4 four = tile[at + q];
        const uint32_t key[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int e = 0; e < 4; e++)
#pragma unroll
            for (int o = 0; o < 4; o++) {
                int away = 4 * q + e - o;
                if (-half <= away && away <= half && key[e] > best[o])
                    best[o] = key[e];
            }
    }
}

/* The quads of a tile that are only read, on either side. */
__host__ __device__ __forceinline__ int32_t ra_halo_quads(int32_t pool)
{
    return (pool / 2 + 3) / 4;
}

/* Four keys of one thread at `first`: pooled, written, counted. */
__device__ __forceinline__ void ra_put_keys(const ra_select_args &a, const uint4 *tile, int64_t row,
                                            int32_t first, int32_t n, uint32_t *bins)
{
    int at = (int)threadIdx.x, half = a.pool / 2;
    uint32_t best[4] = {};
    if (half == 0)
        ra_pool_keys<0>(tile, at, 0, best);
    else if (half == 3)
        ra_pool_keys<3>(tile, at, 3, best);
    else
        ra_pool_keys<-1>(tile, at, half, best);
    int32_t m = ra_candidates(a, n);
    ra_counter counter = {bins, 0, 0};
#pragma unroll
    for (int e = 0; e < 4; e++) {
        if (first + e >= n)
            best[e] = 0;
        if (first + e < m)
            counter.add(ra_bin_of(best[e]));
    }
    counter.flush();
    int64_t to = row * a.key_stride + first;
    ra_st16(a.keys + to, make_uint4(best[0], best[1], best[2], best[3]));
    if (a.raw_keys)
        ra_st16(a.raw_keys + to, tile[at]);
}

/* Grid (tiles, rows). bins: of the launch's own rows [rows][RA_SELECT_BINS], to which the counts of
 * keys are added. */
template <bool kSums>
__global__ void __launch_bounds__(RA_AGGREGATE_THREADS, 3)
    aggregate_scores(ra_select_args a, uint32_t *row_bins)
{
    RA_SHARED(uint4, tile, RA_AGGREGATE_THREADS);
    RA_SHARED(uint32_t, bins, RA_SELECT_BINS);
    RA_SHARED(float, lse, RA_AGGREGATE_HEADS);
    ra_after_earlier();
    int64_t row = ra_row_of(a.rows, blockIdx.y);
    if (!ra_is_served(a.rows, row))
        return;
    int32_t thread = (int32_t)threadIdx.x, halo = ra_halo_quads(a.pool);
    int32_t low = (int32_t)blockIdx.x * (RA_AGGREGATE_READ - 8 * halo);
    int32_t n = ra_ld_warp(a.n + row), first = low + 4 * (thread - halo);
    if (low >= n)
        return;
    if (thread < a.G)
        lse[thread] = ra_ld(a.lse + row * a.G + thread);
    ((uint4 *)bins)[thread] = make_uint4(0, 0, 0, 0);
    bool reads = first >= 0 && first < n;
    float score[4];
    ra_score<kSums>(a, a.logits + row * a.G * a.logit_stride + first, reads, lse, score);
    uint32_t key[4];
#pragma unroll
    for (int e = 0; e < 4; e++)
        key[e] = reads && first + e < n ? ra_key_of(score[e]) : 0;
    tile[thread] = make_uint4(key[0], key[1], key[2], key[3]);
    __syncthreads();
    if (thread >= halo && thread < RA_AGGREGATE_THREADS - halo && first < n)
        ra_put_keys(a, tile, row, first, n, bins);
    __syncthreads();
    for (int32_t i = thread; i < RA_SELECT_BINS; i += RA_AGGREGATE_THREADS)
        if (bins[i])
            atomicAdd(row_bins + (int64_t)blockIdx.y * RA_SELECT_BINS + i, bins[i]);
}

/* --- the list --------------------------------------------------------------------------------- */

/* Where the K-th key is. A listed key is known by how far above `least` it is; what is `sure` or
 * further is above the bin. */
struct ra_bin {
    uint32_t least, sure;
    uint32_t wanted; /* keys of the bin */
    bool wide;       /* first or last */
};

/* A listed key is a word: how far above `least` in the upper bits, where in its warp's stretch in
 * the lower. The former doesn't fit if the bin is wide, and is found by the latter. */
static constexpr uint32_t kPlaceBits = 32 - kBinBits - 1, kPlace = (1u << kPlaceBits) - 1;
static_assert(RA_SELECT_MOST / RA_SELECT_WARPS <= 1 << kPlaceBits, "a place fits its bits");
static_assert(RA_SELECT_BINS == 4 * RA_SELECT_THREADS, "four bins of a thread");
static_assert(RA_SELECT_PARTS * RA_SELECT_WARPS <= RA_SELECT_THREADS, "a stretch of a thread");

/* Called by all. four: counts of the bins that end at RA_SELECT_BINS - 1 - 4 * thread. totals:
 * shared [RA_SELECT_WARPS]; found: shared [2]. */
__device__ __forceinline__ ra_bin ra_find_bin(const uint4 &four, int32_t wanted, uint32_t *totals,
                                              uint32_t *found)
{
    if (wanted <= 0)
        return {~0u, 0, 0, false};
    uint32_t mine = four.x + four.y + four.z + four.w, above = ra_sum_below(mine, totals);
    if (above < (uint32_t)wanted && (uint32_t)wanted <= above + mine) {
        uint32_t a = above + four.w, b = a + four.z, c = b + four.y, want = (uint32_t)wanted;
        found[0] = kLastBin - 4 * threadIdx.x - (a < want) - (b < want) - (c < want);
        found[1] = want - (c < want ? c : b < want ? b : a < want ? a : above);
    }
    __syncthreads();
    uint32_t bin = found[0];
    uint32_t sure = bin == kLastBin ? ~0u : ra_least_of_bin(bin + 1) - ra_least_of_bin(bin);
    return {ra_least_of_bin(bin), sure, found[1], bin == 0 || bin == kLastBin};
}

/* One warp's list of the keys of low..high that are not below the bin, in order of position. */
struct ra_lister {
    const uint32_t *keys; /* of the row */
    uint32_t *list;       /* of the stretch */
    int32_t low, high;
    ra_bin bin;
    uint32_t n;

    /* Each lane's four keys that begin at `first`. */
    __device__ __forceinline__ void add(const uint4 &four, int32_t first)
    {
        const uint32_t key[4] = {four.x, four.y, four.z, four.w};
        uint32_t mine = 0;
#pragma unroll
        for (int e = 0; e < 4; e++)
            mine += first + e < high && key[e] >= bin.least;
        uint32_t ones = __ballot_sync(kWarp, mine & 1), twos = __ballot_sync(kWarp, mine & 2);
        uint32_t fours = __ballot_sync(kWarp, mine & 4), lower = (1u << threadIdx.x % 32) - 1;
        uint32_t *to =
            list + n + __popc(ones & lower) + 2 * __popc(twos & lower) + 4 * __popc(fours & lower);
        n += (uint32_t)(__popc(ones) + 2 * __popc(twos) + 4 * __popc(fours));
#pragma unroll
        for (int e = 0; e < 4; e++) {
            if (first + e >= high || key[e] < bin.least)
                continue;
            uint32_t above = key[e] - bin.least, most = 1u << kBinBits;
            ra_st(to++, (above < most ? above : most) << kPlaceBits | (uint32_t)(first + e - low));
        }
    }

    /* Four loads of a lane are under way at once. */
    __device__ __forceinline__ void run()
    {
        int32_t own = 4 * ((int32_t)threadIdx.x % 32);
        for (int32_t i = low; i < high; i += 4 * 128) {
            uint4 four[4];
#pragma unroll
            for (int u = 0; u < 4; u++)
                four[u] = i + 128 * u + own < high ? ra_ld16(keys + i + 128 * u + own)
                                                   : make_uint4(0, 0, 0, 0);
#pragma unroll
            for (int u = 0; u < 4; u++)
                if (i + 128 * u < high)
                    add(four[u], i + 128 * u + own);
        }
    }
};

/* --- the choice ------------------------------------------------------------------------------- */

/* Called by whole warps: the digit at which `wanted` keys, counted from the largest, are reached,
 * of 256 counts; wanted becomes how many are wanted of that digit. */
__device__ __forceinline__ uint32_t ra_pick_digit(const uint32_t *counts, uint32_t &wanted)
{
    int lane = (int)threadIdx.x % 32;
    uint4 upper = ((const uint4 *)counts)[63 - 2 * lane];
    uint4 lower = ((const uint4 *)counts)[62 - 2 * lane];
    const uint32_t count[8] = {upper.w, upper.z, upper.y, upper.x,
                               lower.w, lower.z, lower.y, lower.x};
    uint32_t mine = 0;
#pragma unroll
    for (int e = 0; e < 8; e++)
        mine += count[e];
    uint32_t up_to = ra_sum_lanes(mine), above = up_to - mine;
    uint32_t here = __ballot_sync(kWarp, above < wanted && wanted <= up_to);
    uint32_t digit = 255 - 8 * (uint32_t)lane;
    bool passes = true;
#pragma unroll
    for (int e = 0; e < 8; e++) {
        passes = passes && above + count[e] < wanted;
        above += passes ? count[e] : 0;
        digit -= passes;
    }
    int source = __ffs((int)here) - 1;
    wanted -= ra_shfl(above, source);
    return ra_shfl(digit, source);
}

/* The listed keys of a row in one CTA. Each thread has `each` that follow each other, an odd number
 * for the banks of shared memory, and alone reads what it staged. */
struct ra_choice {
    const uint32_t *keys, *list; /* of the row */
    const uint32_t *starts;      /* shared: keys listed before each stretch, and of all */
    uint2 *staged;               /* shared: [RA_SELECT_STAGED] of how far above, position */
    int32_t n_stretches, stretch;
    ra_bin bin;
    uint32_t begin, end; /* this thread's */

    __device__ __forceinline__ void share()
    {
        uint32_t n = starts[n_stretches];
        uint32_t each = (n + RA_SELECT_THREADS - 1) / RA_SELECT_THREADS | 1;
        begin = each * threadIdx.x < n ? each * threadIdx.x : n;
        end = begin + each < n ? begin + each : n;
    }

    __device__ __forceinline__ int32_t stretch_of(uint32_t i) const
    {
        int32_t low = 0, high = n_stretches;
        while (high - low > 1) {
            int32_t middle = (low + high) / 2;
            if (starts[middle] <= i)
                low = middle;
            else
                high = middle;
        }
        return low;
    }

    __device__ __forceinline__ uint2 unpack(uint32_t word, int32_t low) const
    {
        uint32_t position = (uint32_t)low + (word & kPlace);
        return make_uint2(bin.wide ? ra_ld(keys + position) - bin.least : word >> kPlaceBits,
                          position);
    }

    /* Four loads of a thread are under way at once. */
    __device__ __forceinline__ void stage()
    {
        const uint32_t room = RA_SELECT_STAGED;
        uint32_t last = end < room ? end : room;
        int32_t in = begin < last ? stretch_of(begin) : 0;
        for (uint32_t i = begin; i < last; i += 4) {
            uint32_t word[4] = {};
            int32_t low[4] = {};
#pragma unroll
            for (uint32_t u = 0; u < 4; u++) {
                if (i + u >= last)
                    continue;
                while (starts[in + 1] <= i + u)
                    in++;
                low[u] = in * stretch;
                word[u] = ra_ld_l2(list + low[u] + (i + u - starts[in]));
            }
#pragma unroll
            for (uint32_t u = 0; u < 4; u++)
                if (i + u < last)
                    staged[i + u] = unpack(word[u], low[u]);
        }
    }

    __device__ __forceinline__ uint2 get(uint32_t i) const
    {
        if (i < RA_SELECT_STAGED)
            return staged[i];
        int32_t in = stretch_of(i);
        return unpack(ra_ld_l2(list + in * stretch + (i - starts[in])), in * stretch);
    }

    /* How far above the bin's least the last of the wanted is; *equals: how many of those equal to
     * it are wanted. counts: shared [4][256], all 0. */
    __device__ __forceinline__ uint32_t threshold(uint32_t *counts, uint32_t *equals) const
    {
        uint32_t prefix = 0, wanted = bin.wanted;
        for (int shift = bin.wide ? 24 : 8; shift >= 0; shift -= 8, counts += 256) {
            ra_counter counter = {counts, 0, 0};
            for (uint32_t i = begin; i < end; i++) {
                uint32_t above = get(i).x;
                if (above < bin.sure && (shift == 24 || above >> (shift + 8) == prefix))
                    counter.add(above >> shift & 255);
            }
            counter.flush();
            __syncthreads();
            prefix = prefix << 8 | ra_pick_digit(counts, wanted);
        }
        *equals = wanted;
        return prefix;
    }

    /* In order of position: those further above than `least`, and the first `equals` that are as
     * far. totals: shared [2][RA_SELECT_WARPS]. */
    __device__ __forceinline__ void write(uint32_t least, uint32_t equals, int32_t *out,
                                          uint32_t *totals) const
    {
        uint32_t above = 0, equal = 0;
        for (uint32_t i = begin; i < end; i++) {
            uint32_t x = get(i).x;
            above += x > least;
            equal += x == least;
        }
        above = ra_sum_below(above, totals);
        equal = ra_sum_below(equal, totals + RA_SELECT_WARPS);
        for (uint32_t i = begin; i < end; i++) {
            uint2 x = get(i);
            if (x.x > least || (x.x == least && equal < equals))
                ra_st(out + above + (equal < equals ? equal : equals), (int32_t)x.y);
            above += x.x > least;
            equal += x.x == least;
        }
    }
};

/* Is this the CTA of the row that ends last? What the others wrote is visible to it then. */
__device__ __forceinline__ bool ra_is_last(uint32_t *ticket, uint32_t *shared)
{
    __syncthreads();
    if (gridDim.x == 1)
        return true;
    if (threadIdx.x == 0) {
        __threadfence();
        shared[0] = atomicAdd(ticket, 1u);
    }
    __syncthreads();
    __threadfence();
    return shared[0] + 1 == gridDim.x;
}

/* Keys listed before each stretch, from counts of each. Called by all. */
__device__ __forceinline__ void ra_sum_counts(const uint32_t *counts, int32_t n_stretches,
                                              uint32_t *starts, uint32_t *totals)
{
    int32_t thread = (int32_t)threadIdx.x;
    uint32_t mine = thread < n_stretches ? ra_ld_l2(counts + thread) : 0;
    uint32_t before = ra_sum_below(mine, totals);
    if (thread < n_stretches)
        starts[thread] = before;
    if (thread == n_stretches - 1)
        starts[n_stretches] = before + mine;
    __syncthreads();
}

/* Grid (parts, rows), RA_SELECT_STAGED pairs of dynamic shared memory. */
__global__ void __launch_bounds__(RA_SELECT_THREADS, 2)
    select_topk(ra_select_args a, ra_select_plan p)
{
    RA_DYN(uint2, staged);
    RA_SHARED(uint32_t, counts, 4 * 256);
    RA_SHARED(uint32_t, starts, RA_SELECT_THREADS + 1);
    RA_SHARED(uint32_t, totals, 2 * RA_SELECT_WARPS);
    RA_SHARED(uint32_t, found, 3);
    ra_after_earlier();
    const ra_select_parts at(p);
    int64_t own_row = blockIdx.y, row = ra_row_of(a.rows, blockIdx.y);
    if (!ra_is_served(a.rows, row))
        return;
    int32_t thread = (int32_t)threadIdx.x, warp = thread / 32, stretch = p.slice / RA_SELECT_WARPS;
    int32_t n_stretches = p.parts * RA_SELECT_WARPS;
    uint32_t *bins = a.scratch + own_row * RA_SELECT_BINS;
    uint4 four = ra_ld16(bins + RA_SELECT_BINS - 4 - 4 * thread);
    int32_t n = ra_ld_warp(a.n + row), m = ra_candidates(a, n), wanted = ra_wanted(a, n);
    ((uint2 *)counts)[thread] = make_uint2(0, 0);
    ra_bin bin = ra_find_bin(four, wanted, totals, found);

    int32_t own = (int32_t)blockIdx.x * RA_SELECT_WARPS + warp, low = own * stretch;
    uint32_t *lists = a.lists ? a.lists : a.scratch + at.counts;
    uint32_t *list = lists + (at.list - at.counts) + own_row * n_stretches * stretch;
    uint32_t *listed = lists + own_row * n_stretches;
    const uint32_t *keys = a.keys + row * a.key_stride;
    ra_lister lister = {keys, list + low, low, low + stretch < m ? low + stretch : m, bin, 0};
    lister.run();
    if (thread % 32 == 0)
        ra_st(listed + own, lister.n);
    if (!ra_is_last(a.scratch + at.tickets + own_row, found + 2))
        return;

    ra_st16(bins + 4 * thread, make_uint4(0, 0, 0, 0));
    ra_sum_counts(listed, n_stretches, starts, totals + RA_SELECT_WARPS);
    int32_t *out = a.chosen + row * a.chosen_stride;
    ra_choice choice = {keys, list, starts, staged, n_stretches, stretch, bin, 0, 0};
    choice.share();
    choice.stage();
    if (wanted > 0) {
        uint32_t equals, least = choice.threshold(counts, &equals);
        choice.write(least, equals, out, totals);
    }
    if (thread == 0) {
        ra_st(a.scratch + at.tickets + own_row, 0u);
        if (a.current == RA_CURRENT_SNAPKV)
            ra_st(out + wanted, n - 1);
        ra_st(a.n_chosen + row, wanted + (a.current == RA_CURRENT_SNAPKV));
    }
}

/* --- launches --------------------------------------------------------------------------------- */

static bool can_select(const ra_select_plan &plan, const ra_select_args &a)
{
    uintptr_t places = (uintptr_t)a.logits | (uintptr_t)a.keys | (uintptr_t)a.raw_keys |
                       (uintptr_t)a.scratch | (uintptr_t)(a.logit_stride * 4) |
                       (uintptr_t)(a.key_stride * 4);
    return places % 16 == 0 && plan.rows > 0 && plan.n > 0 && plan.parts <= RA_SELECT_PARTS &&
           a.logit_stride >= plan.n && a.key_stride >= plan.n && a.G > 0 &&
           a.G <= RA_AGGREGATE_HEADS && a.pool > 0 && a.pool % 2 == 1 &&
           a.pool <= RA_AGGREGATE_POOL;
}

cudaError_t ra_launch_select(const ra_select_plan &plan, const ra_select_args &args,
                             cudaStream_t stream)
{
    if (!can_select(plan, args))
        return cudaErrorInvalidValue;
    unsigned rows = (unsigned)plan.rows;
    int tile = RA_AGGREGATE_READ - 8 * ra_halo_quads(args.pool);
    dim3 tiles((unsigned)((plan.n + tile - 1) / tile), rows);
    bool sums = args.agg == RA_AGG_MEAN || args.agg == RA_AGG_SUM;
    cudaError_t status = sums ? ra_launch(aggregate_scores<true>, tiles, RA_AGGREGATE_THREADS, 0,
                                          stream, args, args.scratch)
                              : ra_launch(aggregate_scores<false>, tiles, RA_AGGREGATE_THREADS, 0,
                                          stream, args, args.scratch);
    const size_t shared = RA_SELECT_STAGED * sizeof(uint2);
    if (status == cudaSuccess)
        status = cudaFuncSetAttribute(select_topk, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      (int)shared);
    if (status != cudaSuccess)
        return status;
    return ra_launch(select_topk, dim3((unsigned)plan.parts, rows), RA_SELECT_THREADS, shared,
                     stream, args, plan);
}
