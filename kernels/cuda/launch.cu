/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/decode_all.cuh"
#include "kernels/cuda/score.cuh"

int ra_decode_group(int heads)
{
    return heads <= 4 ? heads : 8;
}

int ra_decode_parts(int heads)
{
    int G = ra_decode_group(heads);
    return (heads + G - 1) / G;
}

bool ra_decode_exists(enum ra_dtype dtype, int D)
{
    return D == 64 || D == 128 || (D == 256 && dtype != RA_F32);
}

/* CTAs start together, so that one more than fit doubles the time: aim below what fits. Where there
 * are few rows, one CTA an SM keeps memory as busy as more would, and leaves fewer splits to merge;
 * where there are many, two even out the last wave. A split of few keys spends its time on the
 * merge. */
int ra_decode_splits(int n_sms, int rows, int n)
{
    const int kLeast = 64;
    int fit = 4 * rows <= n_sms ? 1 : 2;
    int most = n / kLeast > 1 ? n / kLeast : 1, splits = fit * n_sms / rows;
    splits = splits < 1 ? 1 : splits;
    if (splits > most)
        splits = most;
    return splits < RA_DECODE_MAX_SPLITS ? splits : RA_DECODE_MAX_SPLITS;
}

cudaError_t ra_launch_decode(const ra_decode_plan &plan, const ra_decode_args &args,
                             cudaStream_t stream)
{
    if (!ra_decode_exists(plan.dtype, plan.D))
        return cudaErrorInvalidValue;
    switch (plan.dtype) {
    case RA_F16:
        return plan.D == 64    ? ra_decode_f16_64(plan, args, stream)
               : plan.D == 128 ? ra_decode_f16_128(plan, args, stream)
                               : ra_decode_f16_256(plan, args, stream);
    case RA_BF16:
        return plan.D == 64    ? ra_decode_bf16_64(plan, args, stream)
               : plan.D == 128 ? ra_decode_bf16_128(plan, args, stream)
                               : ra_decode_bf16_256(plan, args, stream);
    default:
        return plan.D == 64 ? ra_decode_f32_64(plan, args, stream)
                            : ra_decode_f32_128(plan, args, stream);
    }
}

cudaError_t ra_launch_score(const ra_decode_plan &plan, const ra_decode_args &args,
                            cudaStream_t stream)
{
    if (!ra_decode_exists(plan.dtype, plan.D))
        return cudaErrorInvalidValue;
    switch (plan.dtype) {
    case RA_F16:
        return ra_score_f16(plan, args, stream);
    case RA_BF16:
        return ra_score_bf16(plan, args, stream);
    default:
        return ra_score_f32(plan, args, stream);
    }
}
