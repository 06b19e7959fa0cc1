/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/backend_watch.cuh"

#include <cstddef>
#include <string.h>

#include "kernels/cuda/backend_recording.cuh"

/* The node that a launch became: what comes next in its stream comes after it. */
static void *last_node(cudaStream_t stream)
{
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    const cudaGraphNode_t *nodes = NULL;
    size_t n = 0;
#if defined(CUDART_VERSION) && CUDART_VERSION < 13000
    cudaError_t error = cudaStreamGetCaptureInfo_v2(stream, &status, NULL, NULL, &nodes, &n);
#else
    cudaError_t error = cudaStreamGetCaptureInfo(stream, &status, NULL, NULL, &nodes, NULL, &n);
#endif
    if (error != cudaSuccess || status != cudaStreamCaptureStatusActive || n != 1)
        return NULL;
    return (void *)nodes[0];
}

/* FNV-1a. */
static void mix(uint64_t *hash, const void *bytes, size_t n)
{
    const unsigned char *at = (const unsigned char *)bytes;
    for (size_t i = 0; i < n; i++)
        *hash = (*hash ^ at[i]) * 1099511628211u;
}

void ra_cuda_watched::launched(ra_launch_watch *self, cudaStream_t stream, dim3 grid, dim3 block,
                               size_t smem)
{
    ra_cuda_watched *w = reinterpret_cast<ra_cuda_watched *>(reinterpret_cast<char *>(self) -
                                                             offsetof(ra_cuda_watched, watch));
    const uint64_t shape[] = {grid.x, grid.y, grid.z, block.x, block.y, block.z, smem};
    if (w->count) {
        if (w->count->n == 0)
            w->count->hash = 14695981039346656037u;
        w->count->n++;
        mix(&w->count->hash, w->work->name, strlen(w->work->name) + 1);
        mix(&w->count->hash, shape, sizeof shape);
    }
    if (w->is_captured && w->told && w->told->node)
        w->told->node(w->told->context, w->t, w->work->layer, w->work->op, last_node(stream));
}

ra_cuda_watched::ra_cuda_watched(const struct ra_backend_watch *told_,
                                 struct ra_step_launches *count_, const ra_cuda_work &work_,
                                 int32_t t_, bool is_captured_)
    : watch{launched}, before(ra_launch_watch::now), told(told_), count(count_), work(&work_),
      t(t_), is_captured(is_captured_)
{
    ra_launch_watch::now = &watch;
    if (!is_captured && told && told->work)
        told->work(told->context, t, work->layer, work->op, true);
}

ra_cuda_watched::~ra_cuda_watched()
{
    if (!is_captured && told && told->work)
        told->work(told->context, t, work->layer, work->op, false);
    ra_launch_watch::now = before;
}
