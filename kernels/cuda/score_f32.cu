/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/score.cuh"

cudaError_t ra_score_f32(const ra_decode_plan &plan, const ra_decode_args &args,
                         cudaStream_t stream)
{
    return plan.D == 64 ? ra_score_groups<float, 64>(plan, args, stream)
                        : ra_score_groups<float, 128>(plan, args, stream);
}
