/* SPDX-License-Identifier: Apache-2.0 */
#include <algorithm>

#include "kernels/bench/step.cuh"

typedef __nv_bfloat16 bf16;

/* Random rows whose products with something of size 1 are of size 1. */
static gpu_array<bf16> weights(int64_t rows, int64_t columns, uint64_t seed)
{
    gpu_array<bf16> w((size_t)(rows * columns));
    step_operations::fill(w.get(), w.count(), seed, 1 / sqrtf((float)columns));
    return w;
}

static gpu_array<bf16> vector_of(int64_t n, uint64_t seed)
{
    return weights(n, 1, seed);
}

double step_model::memory(const step_shape &s)
{
    double widest = std::max(std::max(s.qkv(), 2 * s.ffn), s.vocab);
    return s.weight_bytes() + gpu_bed::memory(s.attention()) + s.B * 16.0 * widest + 128e6;
}

step_model::step_model(const step_shape &shape, const gpu_card &card, const step_gemm &products)
    : s(shape), gemm(products), bed(shape.attention(), card)
{
    int attended = s.Hkv * s.heads * s.D;
    uint64_t seed = 100;
    for (int i = 0; i < s.layers; i++, seed += 10)
        layers.push_back({vector_of(s.hidden, seed), weights(s.qkv(), s.hidden, seed + 1),
                          s.has_bias ? vector_of(s.qkv(), seed + 2) : gpu_array<bf16>(1),
                          weights(s.hidden, attended, seed + 3), vector_of(s.hidden, seed + 4),
                          weights(2 * s.ffn, s.hidden, seed + 5),
                          weights(s.hidden, s.ffn, seed + 6)});
    last_norm = vector_of(s.hidden, seed);
    vocabulary = weights(s.vocab, s.hidden, seed + 1);
    x = gpu_array<bf16>((size_t)s.B * s.hidden);
    wide = gpu_array<bf16>((size_t)s.B * std::max(s.qkv(), 2 * s.ffn));
    heads = gpu_array<bf16>((size_t)s.B * std::max(attended, s.ffn));
    y = gpu_array<bf16>((size_t)s.B * s.hidden);
    logits = gpu_array<bf16>((size_t)s.B * s.vocab);
    residual = gpu_array<float>((size_t)s.B * s.hidden);
    other = bed.make_set(0.3);
    step_operations::fill(y.get(), y.count(), 7, 1);
    for (bf16 value : y.read())
        first_residual.push_back(__bfloat162float(value));
    GPU(cudaDeviceSynchronize());
}

void step_model::record_layer(cudaStream_t stream, enum step_kind kind, int number) const
{
    const layer &w = layers[number];
    gpu_layer at = bed.layer(number);
    int attended = s.Hkv * s.heads * s.D, n = s.B * s.hidden;
    step_operations::normalize(stream, residual.get(), w.before.get(), x.get(), s.hidden, s.B);
    gemm.multiply(stream, w.qkv.get(), x.get(), wide.get(), s.qkv(), s.hidden, s.B);
    step_operations::rotate(stream, s, wide.get(), s.has_bias ? w.bias.get() : nullptr, at);
    if (kind == STEP_FULL || kind == STEP_REFRESH)
        bed.attend(stream, number, {GPU_FULL, kind == STEP_REFRESH, false, false});
    if (kind == STEP_RECYCLED) {
        ra_decode_args a = bed.attention(number, GPU_COMPACT);
        a.self_k = at.self_k;
        a.self_v = at.self_v;
        GPU(ra_launch_decode({RA_BF16, s.D, s.B, bed.splits[GPU_COMPACT], false, false}, a,
                             stream));
    }
    step_operations::narrow(stream, at.out, heads.get(), s.B * attended);
    gemm.multiply(stream, w.o.get(), heads.get(), y.get(), s.hidden, attended, s.B);
    step_operations::add(stream, y.get(), residual.get(), n);
    step_operations::normalize(stream, residual.get(), w.after.get(), x.get(), s.hidden, s.B);
    gemm.multiply(stream, w.gate_up.get(), x.get(), wide.get(), 2 * s.ffn, s.hidden, s.B);
    step_operations::gate(stream, wide.get(), heads.get(), s.ffn, s.B);
    gemm.multiply(stream, w.down.get(), heads.get(), y.get(), s.hidden, s.ffn, s.B);
    step_operations::add(stream, y.get(), residual.get(), n);
}

void step_model::record(cudaStream_t stream, enum step_kind kind, int n_layers, int set) const
{
    gemm.use(stream);
    for (int i = 0; i < n_layers; i++)
        record_layer(stream, kind, i);
    if (n_layers < s.layers)
        return;
    step_operations::normalize(stream, residual.get(), last_norm.get(), x.get(), s.hidden, s.B);
    gemm.multiply(stream, vocabulary.get(), x.get(), logits.get(), s.vocab, s.hidden, s.B);
    if (kind == STEP_REFRESH) {
        bed.select(stream, -1);
        bed.order(stream);
        bed.plan(stream, set == 0 ? 0 : other);
        bed.move(stream);
    }
    if (kind == STEP_RECYCLED) {
        bed.advance(stream); /* from L - 1, which is in C_f and may be chosen */
        bed.insert(stream, false);
    }
}

/* From the same residual each time. What rotate writes is the same, too. */
void step_model::start()
{
    GPU(cudaMemcpy(residual.get(), first_residual.data(), residual.bytes(),
                   cudaMemcpyHostToDevice));
    x.poison();
    y.poison();
    wide.poison();
    heads.poison();
    logits.poison();
    bed.forget_new_rows();
}
