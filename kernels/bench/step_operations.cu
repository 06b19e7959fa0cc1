/* SPDX-License-Identifier: Apache-2.0 */
/* What a decoder's layer does between its products: a few bytes each, so plain kernels. */
#include <algorithm>

#include "kernels/bench/step.cuh"

enum { THREADS = 256 };
typedef __nv_bfloat16 bf16;

static unsigned blocks_of(int64_t n)
{
    return (unsigned)((n + THREADS - 1) / THREADS);
}

static __device__ __forceinline__ float load(const bf16 *x)
{
    return __bfloat162float(ra_ld(x));
}
static __device__ __forceinline__ void store(bf16 *to, float x)
{
    ra_st(to, __float2bfloat16_rn(x));
}

/* Grid (B). */
static __global__ void normalize_rows(const float *residual, const bf16 *weight, bf16 *y, int n)
{
    RA_SHARED(float, sums, THREADS / 32);
    const float *x = residual + (int64_t)blockIdx.x * n;
    float sum = 0;
    for (int i = (int)threadIdx.x; i < n; i += THREADS)
        sum += ra_ld(x + i) * ra_ld(x + i);
    for (int offset = 16; offset > 0; offset /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (threadIdx.x % 32 == 0)
        sums[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    for (int w = 0; w < THREADS / 32; w++)
        sum += sums[w];
    float scale = rsqrtf(sum / (float)n + 1e-5f);
    for (int i = (int)threadIdx.x; i < n; i += THREADS)
        store(y + (int64_t)blockIdx.x * n + i, ra_ld(x + i) * scale * load(weight + i));
}

void step_operations::normalize(cudaStream_t stream, const float *residual, const bf16 *weight,
                                bf16 *y, int n, int B)
{
    GPU(ra_launch(normalize_rows, (unsigned)B, THREADS, 0, stream, residual, weight, y, n));
}

struct rotation {
    const bf16 *qkv, *bias;
    float *q;
    bf16 *k, *v, *self_k, *self_v;
    int Hkv, heads, D, L;
    float base;
};

/* A thread a pair (i, i + D / 2) of a head; grid (pairs, B). Heads: queries, keys, values. */
static __global__ void rotate_rows(rotation a)
{
    int Hq = a.Hkv * a.heads, half = a.D / 2;
    int pair = (int)(blockIdx.x * THREADS + threadIdx.x), head = pair / half, i = pair % half;
    if (head >= Hq + 2 * a.Hkv)
        return;
    int64_t sequence = blockIdx.y, from = sequence * (Hq + 2 * a.Hkv) * a.D;
    int at = head * a.D + i;
    float x = load(a.qkv + from + at) + (a.bias ? load(a.bias + at) : 0);
    float y = load(a.qkv + from + at + half) + (a.bias ? load(a.bias + at + half) : 0);
    if (head < Hq + a.Hkv) {
        /* An angle of 10^5 in f32 would be off by 1 %. */
        double angle = (a.L - 1) * pow((double)a.base, -2.0 * i / a.D);
        float c = (float)cos(angle), s = (float)sin(angle), turned = x * c - y * s;
        y = x * s + y * c;
        x = turned;
    }
    if (head < Hq) {
        float *to = a.q + (sequence * Hq + head) * a.D + i;
        ra_st(to, x);
        ra_st(to + half, y);
        return;
    }
    bool is_key = head < Hq + a.Hkv;
    int64_t row = sequence * a.Hkv + head - Hq - (is_key ? 0 : a.Hkv);
    bf16 *self = (is_key ? a.self_k : a.self_v) + row * a.D + i;
    bf16 *last = (is_key ? a.k : a.v) + (row * a.L + a.L - 1) * a.D + i;
    for (bf16 *to : {self, last}) {
        store(to, x);
        store(to + half, y);
    }
}

void step_operations::rotate(cudaStream_t stream, const step_shape &s, const bf16 *qkv,
                             const bf16 *bias, const gpu_layer &to)
{
    rotation a = {
        qkv,   bias,    to.q, (bf16 *)to.k, (bf16 *)to.v, (bf16 *)to.self_k, (bf16 *)to.self_v,
        s.Hkv, s.heads, s.D,  s.L,          s.rope_base};
    GPU(ra_launch(rotate_rows, dim3(blocks_of(s.qkv() / 2), (unsigned)s.B), THREADS, 0, stream, a));
}

static __global__ void narrow_all(const float *x, bf16 *y, int n)
{
    int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (i < n)
        store(y + i, ra_ld(x + i));
}

void step_operations::narrow(cudaStream_t stream, const float *x, bf16 *y, int n)
{
    GPU(ra_launch(narrow_all, blocks_of(n), THREADS, 0, stream, x, y, n));
}

static __global__ void add_all(const bf16 *x, float *residual, int n)
{
    int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (i < n)
        ra_st(residual + i, ra_ld(residual + i) + load(x + i));
}

void step_operations::add(cudaStream_t stream, const bf16 *x, float *residual, int n)
{
    GPU(ra_launch(add_all, blocks_of(n), THREADS, 0, stream, x, residual, n));
}

static __global__ void gate_rows(const bf16 *gate_up, bf16 *y, int n)
{
    int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    int64_t row = blockIdx.y;
    if (i >= n)
        return;
    float x = load(gate_up + row * 2 * n + i), up = load(gate_up + (row * 2 + 1) * n + i);
    store(y + row * n + i, x / (1 + expf(-x)) * up);
}

void step_operations::gate(cudaStream_t stream, const bf16 *gate_up, bf16 *y, int n, int B)
{
    GPU(ra_launch(gate_rows, dim3(blocks_of(n), (unsigned)B), THREADS, 0, stream, gate_up, y, n));
}

/* Uniform, variance scale^2. */
static __global__ void fill_all(bf16 *to, uint64_t n, uint64_t seed, float scale)
{
    uint64_t step = (uint64_t)gridDim.x * THREADS;
    for (uint64_t i = (uint64_t)blockIdx.x * THREADS + threadIdx.x; i < n; i += step) {
        uint64_t z = (i + 1 + (seed << 40)) * 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        float unit = (float)(z >> 40) / 8388608.0f - 1; /* of 24 bits: -1..1 */
        store(to + i, unit * 1.7320508f * scale);
    }
}

void step_operations::fill(bf16 *to, uint64_t n, uint64_t seed, float scale)
{
    unsigned blocks = (unsigned)std::min<uint64_t>((n + THREADS - 1) / THREADS, 4096);
    GPU(ra_launch(fill_all, blocks, THREADS, 0, (cudaStream_t)0, to, n, seed, scale));
}
