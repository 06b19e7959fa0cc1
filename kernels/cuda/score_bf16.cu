/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/score.cuh"

cudaError_t ra_score_bf16(const ra_decode_plan &plan, const ra_decode_args &args,
                          cudaStream_t stream)
{
    return plan.D == 64    ? ra_score_groups<__nv_bfloat16, 64>(plan, args, stream)
           : plan.D == 128 ? ra_score_groups<__nv_bfloat16, 128>(plan, args, stream)
                           : ra_score_groups<__nv_bfloat16, 256>(plan, args, stream);
}
