/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decode attention of one new query per head over a long list of keys, split over CTAs: one CTA
 * per (split, KV head, sequence) serves every query head of the group, so a key is read once. A
 * lane holds 16 bytes of a row; a warp turns kTurn rows at a time, while K and V of the kStages - 1
 * turns to come are on their way to shared memory, where a lane finds only what it asked for. The
 * CTA that finishes a head last merges its splits: one launch, and the order of the CTAs changes no
 * bit. Arithmetic is f32.
 */
#ifndef RA_KERNELS_CUDA_DECODE_CUH
#define RA_KERNELS_CUDA_DECODE_CUH

#include <float.h>

#include "kernels/cuda/decode_args.cuh"
#include "kernels/cuda/decode_merge.cuh"
#include "kernels/cuda/vec.cuh"

template <class T, int D, int G, int R, int kStages, bool kLogits, bool kGather> struct ra_decode {
    using S = ra_decode_shape<T, D, G, R>;

    const ra_decode_args &a;
    int lane, warp, sub, group;
    int32_t kv_head;     /* sequence * Hkv + KV head */
    int32_t first_query; /* of this CTA, over all sequences */
    int n_heads;         /* of G that exist */
    int32_t n, first, live, chunk;
    bool has_self;
    int32_t from, end, turns, all_turns; /* of this warp: its first key, the end of the split's */
    int32_t next;                        /* what look_up found for the turn to ask for next */
    const char *k, *v;                   /* row 0 of the KV head */

    float q[G][S::kVec], acc[G][S::kVec];
    float top[S::kKept], sum[S::kKept]; /* largest logit so far, sum of weights below it */

    __device__ __forceinline__ explicit ra_decode(const ra_decode_args &args) : a(args)
    {
        lane = (int)threadIdx.x % 32;
        warp = (int)threadIdx.x / 32;
        sub = lane % S::kLanes;
        group = lane / S::kLanes;
    }

    __device__ __forceinline__ int parts() const
    {
        return (a.heads + G - 1) / G;
    }

    /* False: nothing to do here. */
    __device__ __forceinline__ bool locate()
    {
        int head = (int)blockIdx.y / parts(), part = (int)blockIdx.y % parts();
        kv_head = (int32_t)blockIdx.z * a.Hkv + head;
        first_query = kv_head * a.heads + part * G;
        n_heads = a.heads - part * G < G ? a.heads - part * G : G;
        if (a.gate && ra_ld_warp(a.gate + blockIdx.z) != a.gate_value)
            return false;
        n = ra_ld_warp(a.n + kv_head);
        has_self = a.self_k && !(a.self_in && ra_ld_warp(a.self_in + kv_head));
        first = a.window > 0 && a.window < n ? n - a.window : 0;
        int32_t splits = (int32_t)gridDim.x, seen = n - first;
        chunk = (seen + splits - 1) / splits;
        chunk = (chunk + S::kStride - 1) / S::kStride * S::kStride;
        live = chunk > 0 ? (seen + chunk - 1) / chunk : 1;
        bool paged = kGather && a.pages;
        int64_t row = paged ? head * RA_PAGE : kv_head * a.row_stride;
        k = (const char *)a.k + row * S::kBytes;
        v = (const char *)a.v + row * S::kBytes;
        return (int32_t)blockIdx.x < live;
    }

    /*
     * Where a turn's rows are, one a lane; each index and page entry is read once. What is loaded
     * here is used by row_of, a turn later: the page, where a lane's neighbours share it, else the
     * row.
     */
    __device__ __forceinline__ int32_t look_up(int32_t low, int32_t high) const
    {
        int32_t key = low + lane, position = key;
        bool wanted = lane < S::kTurn && key < high;
        if (a.index)
            position = wanted ? ra_ld(a.index + kv_head * a.index_stride + key) : 0;
        if (!a.pages)
            return position;
        int slot = position % RA_PAGE;
        if (!wanted || (!a.index && lane > 0 && slot > 0))
            return 0;
        int32_t page = ra_ld(a.pages + (int64_t)blockIdx.z * a.page_stride + position / RA_PAGE);
        return a.index ? page * a.Hkv * RA_PAGE + slot : page;
    }
    __device__ __forceinline__ int32_t row_of(int32_t found, int32_t low) const
    {
        if (!a.pages || a.index)
            return found;
        int slot = (low + lane) % RA_PAGE;
        int32_t page = ra_shfl(found, lane > slot ? lane - slot : 0);
        return page * a.Hkv * RA_PAGE + slot;
    }

    /* Ask for a lane's part of a turn's rows; zero beyond `high`, for a weight of zero does not
     * hide NaN. */
    __device__ __forceinline__ void ask(uint4 *slot, int32_t low, int32_t high, int32_t found) const
    {
        bool is_self = low >= n;
        int32_t mine = kGather && !is_self ? row_of(found, low) : 0;
        const char *from_k = is_self ? (const char *)a.self_k + (int64_t)kv_head * S::kBytes : k;
        const char *from_v = is_self ? (const char *)a.self_v + (int64_t)kv_head * S::kBytes : v;
        /* Rows in line are one stretch of bytes, 16 a lane. */
        int64_t start = (is_self ? 0 : (int64_t)low * S::kBytes) + lane * 16;
#pragma unroll
        for (int r = 0; r < R; r++) {
            int64_t offset = start + r * 512;
            if (kGather)
                offset = (int64_t)ra_shfl(mine, r * S::kGroups + group) * S::kBytes + sub * 16;
            bool wanted = low + r * S::kGroups + group < high;
            ra_cp_async16_zfill(slot + r * 32, wanted ? from_k + offset : from_k, wanted);
            ra_cp_async16_zfill(slot + (R + r) * 32, wanted ? from_v + offset : from_v, wanted);
        }
    }

    /* Which query head and row of the turn kept value i is of. */
    __device__ __forceinline__ int kept_head(int i) const
    {
        return sub / S::kTwins * S::kKept % S::kHeads + i;
    }
    __device__ __forceinline__ int kept_row() const
    {
        return sub / S::kTwins * S::kKept / S::kHeads * S::kGroups + group;
    }

    /* Lane of this row group that keeps the value of (row r, head g), at [g % kKept]. */
    __device__ __forceinline__ int keeper(int r, int g) const
    {
        return group * S::kLanes + (r * S::kHeads + g) / S::kKept * S::kTwins;
    }

    /* Sum over the lanes of a row, halving what a lane carries while it carries more than one. */
    __device__ __forceinline__ void fold(float (&s)[S::kValues]) const
    {
        int carried = S::kValues;
#pragma unroll
        for (int offset = S::kLanes / 2; offset > 0; offset /= 2) {
            if (carried == 1) {
                s[0] += ra_shfl_xor(s[0], offset);
                continue;
            }
            carried /= 2;
            bool high = lane & offset;
#pragma unroll
            for (int i = 0; i < S::kValues / 2; i++) {
                if (i >= carried)
                    break;
                float keep = high ? s[i + carried] : s[i];
                float send = high ? s[i] : s[i + carried];
                s[i] = keep + ra_shfl_xor(send, offset);
            }
        }
    }

    /* Over the rows of a turn, whose values of one head stand in lanes that differ in these bits.
     */
    template <class F> __device__ __forceinline__ float over_rows(float x, F combine) const
    {
#pragma unroll
        for (int offset = 16; offset > 0; offset /= 2)
            if (offset >= S::kLanes || (offset < S::kLanes && offset >= S::kLanes / R))
                x = combine(x, ra_shfl_xor(x, offset));
        return x;
    }

    __device__ __forceinline__ void logits_of(const uint4 *slot, float (&s)[S::kValues]) const
    {
#pragma unroll
        for (int r = 0; r < R; r++) {
            float x[S::kVec];
            ra_unpack(slot[r * 32], x, T());
#pragma unroll
            for (int g = 0; g < S::kHeads; g++) {
                float dot = 0;
#pragma unroll
                for (int e = 0; e < S::kVec; e++)
                    if (g < G)
                        dot += q[g < G ? g : 0][e] * x[e];
                s[r * S::kHeads + g] = dot;
            }
        }
        fold(s);
    }

    /* Logits to weights relative to the largest seen; what was summed before follows suit. */
    __device__ __forceinline__ void weigh(int32_t low, int32_t high, float (&s)[S::kValues])
    {
        int32_t key = low + kept_row();
        float shrink[S::kKept];
        bool grew = false;
#pragma unroll
        for (int i = 0; i < S::kKept; i++) {
            float logit = s[i] * a.scale;
            if (kLogits && key < high && sub % S::kTwins == 0 && kept_head(i) < n_heads)
                ra_st(a.logits + (first_query + kept_head(i)) * a.logit_stride + key, logit);
            float largest = key < high ? logit : -FLT_MAX;
            largest = over_rows(largest, [](float x, float y) { return x > y ? x : y; });
            largest = largest > top[i] ? largest : top[i];
            grew = grew || largest > top[i];
            shrink[i] = ra_exp(top[i] - largest);
            top[i] = largest;
            s[i] = key < high ? ra_exp(logit - largest) : 0;
            sum[i] = sum[i] * shrink[i] + s[i];
        }
        if (!__any_sync(kWarp, grew))
            return;
#pragma unroll
        for (int g = 0; g < G; g++) {
            float factor = ra_shfl(shrink[g % S::kKept], keeper(0, g));
#pragma unroll
            for (int e = 0; e < S::kVec; e++)
                acc[g][e] *= factor;
        }
    }

    __device__ __forceinline__ void add_values(const uint4 *slot, const float (&s)[S::kValues])
    {
#pragma unroll
        for (int r = 0; r < R; r++) {
            float x[S::kVec];
            ra_unpack(slot[r * 32], x, T());
#pragma unroll
            for (int g = 0; g < G; g++) {
                float weight = ra_shfl(s[g % S::kKept], keeper(r, g));
#pragma unroll
                for (int e = 0; e < S::kVec; e++)
                    acc[g][e] += weight * x[e];
            }
        }
    }

    /* The warp's turns: every fourth of its split's, and in split 0 one more of self alone. */
    __device__ __forceinline__ void plan_turns()
    {
        from = first + (int32_t)blockIdx.x * chunk;
        end = from + chunk < n ? from + chunk : n;
        from += warp * S::kTurn;
        turns = from < end ? (end - from + S::kStride - 1) / S::kStride : 0;
        all_turns = turns + (has_self && blockIdx.x == 0 && warp == 0);
    }
    __device__ __forceinline__ int32_t low_of(int32_t turn) const
    {
        return turn < turns ? from + turn * S::kStride : n;
    }
    __device__ __forceinline__ int32_t high_of(int32_t turn) const
    {
        return turn < turns ? end : n + 1;
    }
    __device__ __forceinline__ int32_t look_up_turn(int32_t turn) const
    {
        return kGather && turn < turns ? look_up(low_of(turn), end) : 0;
    }
    __device__ __forceinline__ void ask_turn(uint4 *ring, int32_t turn, int32_t found) const
    {
        if (turn < all_turns)
            ask(ring + turn % kStages * 2 * R * 32, low_of(turn), high_of(turn), found);
        ra_cp_async_commit();
    }

    /* Before q is here: keys and values of the first turns are on their way. */
    __device__ __forceinline__ void start(uint4 *ring)
    {
        plan_turns();
        int32_t found[kStages];
#pragma unroll
        for (int turn = 0; turn < kStages; turn++)
            found[turn] = look_up_turn(turn);
#pragma unroll
        for (int turn = 0; turn < kStages - 1; turn++)
            ask_turn(ring, turn, found[turn]);
        next = found[kStages - 1];
    }

    __device__ __forceinline__ void run(uint4 *ring)
    {
        for (int32_t turn = 0; turn < all_turns; turn++) {
            const uint4 *slot = ring + turn % kStages * 2 * R * 32;
            float s[S::kValues];
            ra_cp_async_wait<kStages - 2>();
            ask_turn(ring, turn + kStages - 1, next);
            next = look_up_turn(turn + kStages);
            logits_of(slot, s);
            weigh(low_of(turn), high_of(turn), s);
            add_values(slot + R * 32, s);
        }
        ra_cp_async_wait<0>();
    }

    /* q through shared memory: each element is read once for the CTA. */
    __device__ __forceinline__ void load_query(float4 *staged)
    {
        for (int i = (int)threadIdx.x; i < G * D / 4; i += RA_DECODE_THREADS)
            staged[i] = i < n_heads * D / 4
                            ? ra_ld((const float4 *)(a.q + (int64_t)first_query * D) + i)
                            : make_float4(0, 0, 0, 0);
        __syncthreads();
        const float *query = (const float *)staged;
#pragma unroll
        for (int g = 0; g < G; g++)
#pragma unroll
            for (int e = 0; e < S::kVec; e++) {
                q[g][e] = query[g * D + sub * S::kVec + e];
                acc[g][e] = 0;
            }
#pragma unroll
        for (int i = 0; i < S::kKept; i++) {
            top[i] = -FLT_MAX;
            sum[i] = 0;
        }
        __syncthreads();
    }

    /* The warp's sums to shared memory: rows [warp][G][D], tops and sums [warp][G]. */
    __device__ __forceinline__ void publish(float *rows, float *tops, float *sums)
    {
#pragma unroll
        for (int g = 0; g < G; g++)
#pragma unroll
            for (int e = 0; e < S::kVec; e++) {
                float x = acc[g][e];
#pragma unroll
                for (int offset = 16; offset >= S::kLanes; offset /= 2)
                    x += ra_shfl_xor(x, offset);
                if (group == 0)
                    rows[(warp * G + g) * D + sub * S::kVec + e] = x;
            }
#pragma unroll
        for (int i = 0; i < S::kKept; i++) {
            float total = over_rows(sum[i], [](float x, float y) { return x + y; });
            if (kept_row() == 0 && sub % S::kTwins == 0 && kept_head(i) < G) {
                tops[warp * G + kept_head(i)] = top[i];
                sums[warp * G + kept_head(i)] = total;
            }
        }
        __syncthreads();
    }

    __device__ __forceinline__ int64_t place() const
    {
        return (int64_t)blockIdx.z * gridDim.y + blockIdx.y;
    }

    /* The CTA's warps into one: the output where it is the only split, else a partial. */
    __device__ __forceinline__ void merge_warps(const float4 *rows, const float *tops,
                                                const float *sums) const
    {
        int64_t split = place() * gridDim.x + blockIdx.x;
        for (int i = (int)threadIdx.x; i < n_heads * D / 4; i += RA_DECODE_THREADS) {
            int g = i / (D / 4);
            float largest = tops[g], total = 0;
            for (int w = 1; w < RA_DECODE_WARPS; w++)
                largest = tops[w * G + g] > largest ? tops[w * G + g] : largest;
            float4 row = make_float4(0, 0, 0, 0);
            for (int w = 0; w < RA_DECODE_WARPS; w++) {
                float weight = ra_exp(tops[w * G + g] - largest);
                total += weight * sums[w * G + g];
                ra_add_scaled(row, weight, rows[w * G * D / 4 + i]);
            }
            bool leads = i % (D / 4) == 0;
            if (live == 1) {
                float4 zero = make_float4(0, 0, 0, 0);
                ra_add_scaled(zero, total > 0 ? 1 / total : 0, row);
                ra_st((float4 *)(a.out + (int64_t)first_query * D) + i, zero);
                if (leads)
                    splits().write_sums(g, largest, total);
                continue;
            }
            ra_st((float4 *)(a.partial + split * G * D) + i, row);
            if (leads) {
                ra_st(a.partial_sums + split * 2 * G + g, largest);
                ra_st(a.partial_sums + split * 2 * G + G + g, total);
            }
        }
    }

    __device__ __forceinline__ ra_split_merge<D, G> splits() const
    {
        return {a, place(), first_query, n_heads, live, lane, warp};
    }
};

/* CTAs of an SM, by their registers. Left to itself, the compiler spills for one more. */
template <int G> constexpr int ra_decode_ctas()
{
    return G <= 3 ? 4 : G <= 4 ? 3 : 2;
}

/* Rows a lane asks for in a turn, and turns under way or in use: enough bytes for the memory's
 * latency, few enough registers. */
template <int G> constexpr int ra_decode_rows()
{
    return G == 1 ? 8 : 4;
}
template <int R> constexpr int ra_decode_stages()
{
    return R == 8 ? 2 : 3;
}

/* Bytes of dynamic shared memory. */
template <int R, int kStages> constexpr size_t ra_decode_shared()
{
    return (size_t)kStages * 2 * R * RA_DECODE_THREADS * 16;
}

/*
 * Launch with grid (splits, Hkv * parts, B): splits <= RA_DECODE_MAX_SPLITS, parts = heads / G
 * rounded up. The number of splits may be fixed for a bucket of lengths: those beyond the keys
 * exit. Keys are found through index and pages where kGather, which are ignored otherwise.
 */
template <class T, int D, int G, int R, bool kLogits, bool kGather,
          int kStages = ra_decode_stages<R>(), int kCtas = ra_decode_ctas<G>()>
__global__ void __launch_bounds__(RA_DECODE_THREADS, kCtas) decode_split(ra_decode_args args)
{
    RA_DYN(uint4, rings);
    RA_SHARED(float4, rows, (RA_DECODE_WARPS * G * D / 4));
    RA_SHARED(float, tops, (RA_DECODE_WARPS * G));
    RA_SHARED(float, sums, (RA_DECODE_WARPS * G));
    RA_SHARED(uint32_t, arrived, 1);
    ra_decode<T, D, G, R, kStages, kLogits, kGather> split(args);
    uint4 *ring = rings + split.warp * kStages * 2 * R * 32 + split.lane;
    if (!args.early)
        ra_after_earlier();
    bool has_keys = split.locate();
    if (has_keys)
        split.start(ring);
    if (args.early)
        ra_after_earlier();
    if (!has_keys)
        return;
    split.load_query(rows);
    split.run(ring);
    split.publish((float *)rows, tops, sums);
    split.merge_warps(rows, tops, sums);
    if (split.live > 1 && split.splits().arrives_last(arrived))
        split.splits().merge((float *)rows);
}

#endif
