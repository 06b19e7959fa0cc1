/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scores without attention: logits of every key and their log-sum-exp, from a pass over K alone.
 * The way to score for those whose attention kernel gives no logits (as FlashAttention's), and
 * before attending. Turns, folds and logits are decode_split's; V is not read, and there is no
 * output.
 */
#ifndef RA_KERNELS_CUDA_SCORE_CUH
#define RA_KERNELS_CUDA_SCORE_CUH

#include "kernels/cuda/launch.cuh"

template <class T, int D, int G, int R, int kStages, bool kGather>
struct ra_score : ra_decode<T, D, G, R, kStages, true, kGather> {
    using base = ra_decode<T, D, G, R, kStages, true, kGather>;
    using S = typename base::S;

    __device__ __forceinline__ explicit ra_score(const ra_decode_args &args) : base(args)
    {
    }

    /* Rows in line are one stretch of bytes, 16 a lane; zero beyond the split's end. */
    __device__ __forceinline__ void ask_keys(uint4 *ring, int32_t turn, int32_t found) const
    {
        uint4 *slot = ring + turn % kStages * R * 32;
        int32_t low = this->low_of(turn), high = this->high_of(turn);
        int32_t mine = kGather ? this->row_of(found, low) : 0;
#pragma unroll
        for (int r = 0; r < R; r++) {
            bool wanted = turn < this->turns && low + r * S::kGroups + this->group < high;
            int64_t offset = (int64_t)low * S::kBytes + this->lane * 16 + r * 512;
            if (kGather)
                offset = (int64_t)ra_shfl(mine, r * S::kGroups + this->group) * S::kBytes +
                         this->sub * 16;
            ra_cp_async16_zfill(slot + r * 32, wanted ? this->k + offset : this->k, wanted);
        }
        ra_cp_async_commit();
    }

    __device__ __forceinline__ void start_keys(uint4 *ring)
    {
        this->plan_turns();
        int32_t found[kStages];
#pragma unroll
        for (int turn = 0; turn < kStages; turn++)
            found[turn] = this->look_up_turn(turn);
#pragma unroll
        for (int turn = 0; turn < kStages - 1; turn++)
            ask_keys(ring, turn, found[turn]);
        this->next = found[kStages - 1];
    }

    __device__ __forceinline__ void run_keys(uint4 *ring)
    {
        for (int32_t turn = 0; turn < this->turns; turn++) {
            float s[S::kValues];
            ra_cp_async_wait<kStages - 2>();
            ask_keys(ring, turn + kStages - 1, this->next);
            this->next = this->look_up_turn(turn + kStages);
            this->logits_of(ring + turn % kStages * R * 32, s);
            this->weigh(this->low_of(turn), this->high_of(turn), s);
        }
        ra_cp_async_wait<0>();
    }

    /* Largest logit and sum of each head: of the warp to shared memory [warp][G], of the CTA to the
     * log-sum-exp where it is the only split, else to the partial sums. */
    __device__ __forceinline__ void merge(float *tops, float *sums) const
    {
#pragma unroll
        for (int i = 0; i < S::kKept; i++) {
            float total = this->over_rows(this->sum[i], [](float x, float y) { return x + y; });
            if (this->kept_row() == 0 && this->sub % S::kTwins == 0 && this->kept_head(i) < G) {
                tops[this->warp * G + this->kept_head(i)] = this->top[i];
                sums[this->warp * G + this->kept_head(i)] = total;
            }
        }
        __syncthreads();
        int g = (int)threadIdx.x;
        if (g >= this->n_heads)
            return;
        float largest = -FLT_MAX, total = 0;
        for (int w = 0; w < RA_DECODE_WARPS; w++)
            largest = tops[w * G + g] > largest ? tops[w * G + g] : largest;
        for (int w = 0; w < RA_DECODE_WARPS; w++)
            total += ra_exp(tops[w * G + g] - largest) * sums[w * G + g];
        if (this->live == 1) {
            ra_st(this->a.lse + this->first_query + g, largest + logf(total));
            return;
        }
        float *to = this->a.partial_sums + (this->place() * gridDim.x + blockIdx.x) * 2 * G + g;
        ra_st(to, largest);
        ra_st(to + G, total);
    }
};

/* Bytes of dynamic shared memory: K alone is staged. */
template <int R, int kStages> constexpr size_t ra_score_shared()
{
    return (size_t)kStages * R * RA_DECODE_THREADS * 16;
}

/* Launch and arguments as decode_split's; v, out and self are not looked at. */
template <class T, int D, int G, int R, bool kGather, int kStages = ra_decode_stages<R>()>
__global__ void __launch_bounds__(RA_DECODE_THREADS, ra_decode_ctas<G>())
    score_keys(ra_decode_args args)
{
    RA_DYN(uint4, rings);
    RA_SHARED(float4, query, (G * D / 4));
    RA_SHARED(float, tops, (RA_DECODE_WARPS * G));
    RA_SHARED(float, sums, (RA_DECODE_WARPS * G));
    RA_SHARED(uint32_t, arrived, 1);
    ra_after_earlier();
    ra_score<T, D, G, R, kStages, kGather> split(args);
    if (!split.locate())
        return;
    uint4 *ring = rings + split.warp * kStages * R * 32 + split.lane;
    split.start_keys(ring);
    split.load_query(query);
    split.run_keys(ring);
    split.merge(tops, sums);
    if (split.live > 1 && split.splits().arrives_last(arrived))
        split.splits().merge_sums();
}

template <class T, int D, int G>
cudaError_t ra_score_launch(const ra_decode_plan &plan, const ra_decode_args &args,
                            cudaStream_t stream)
{
    constexpr int R = ra_decode_rows<G>();
    dim3 grid((unsigned)plan.splits, (unsigned)(args.Hkv * ra_decode_parts(args.heads)),
              (unsigned)plan.B);
    return plan.gather ? ra_launch(score_keys<T, D, G, R, true>, grid, RA_DECODE_THREADS,
                                   ra_score_shared<R, ra_decode_stages<R>()>(), stream, args)
                       : ra_launch(score_keys<T, D, G, R, false>, grid, RA_DECODE_THREADS,
                                   ra_score_shared<R, ra_decode_stages<R>()>(), stream, args);
}

template <class T, int D>
cudaError_t ra_score_groups(const ra_decode_plan &plan, const ra_decode_args &args,
                            cudaStream_t stream)
{
    switch (ra_decode_group(args.heads)) {
    case 1:
        return ra_score_launch<T, D, 1>(plan, args, stream);
    case 2:
        return ra_score_launch<T, D, 2>(plan, args, stream);
    case 3:
        return ra_score_launch<T, D, 3>(plan, args, stream);
    case 4:
        return ra_score_launch<T, D, 4>(plan, args, stream);
    default:
        return ra_score_launch<T, D, 8>(plan, args, stream);
    }
}

/* By type; D as in the plan. */
cudaError_t ra_score_f16(const ra_decode_plan &plan, const ra_decode_args &args,
                         cudaStream_t stream);
cudaError_t ra_score_bf16(const ra_decode_plan &plan, const ra_decode_args &args,
                          cudaStream_t stream);
cudaError_t ra_score_f32(const ra_decode_plan &plan, const ra_decode_args &args,
                         cudaStream_t stream);

#endif
