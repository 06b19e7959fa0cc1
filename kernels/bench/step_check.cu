/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step's first layer against plain f64 on the host, at the size that is timed: the weights, keys
 * and values are read back, and nothing is rounded on the way. What the card rounds to bf16 between
 * products, 8 bits each, is the difference that may remain.
 */
#include <algorithm>

#include "kernels/bench/step.cuh"

typedef __nv_bfloat16 bf16;
typedef std::vector<double> row;

static double widen(bf16 x)
{
    return __bfloat162float(x);
}

static row multiply(const gpu_array<bf16> &w, const row &x, int rows)
{
    std::vector<bf16> all = w.read();
    size_t n = x.size();
    row y(rows);
    const int kEach = 256;
    gpu_each((rows + kEach - 1) / kEach, [&](int block) {
        for (int i = block * kEach; i < rows && i < (block + 1) * kEach; i++)
            for (size_t j = 0; j < n; j++)
                y[i] += widen(all[(size_t)i * n + j]) * x[j];
    });
    return y;
}

static row normalize(const row &x, const gpu_array<bf16> &weight)
{
    std::vector<bf16> w = weight.read();
    row y(x.size());
    double sum = 0;
    for (double value : x)
        sum += value * value;
    for (size_t i = 0; i < x.size(); i++)
        y[i] = x[i] / sqrt(sum / (double)x.size() + 1e-5) * widen(w[i]);
    return y;
}

static void rotate(const step_shape &s, double *head)
{
    for (int i = 0; i < s.D / 2; i++) {
        double angle = (s.L - 1) * pow(s.rope_base, -2.0 * i / s.D);
        double x = head[i], y = head[i + s.D / 2];
        head[i] = x * cos(angle) - y * sin(angle);
        head[i + s.D / 2] = x * sin(angle) + y * cos(angle);
    }
}

static row attend(const double *q, const std::vector<bf16> &k, const std::vector<bf16> &v, int D)
{
    size_t n = k.size() / (size_t)D;
    row weight(n), out(D);
    double top = -INFINITY, total = 0;
    for (size_t i = 0; i < n; i++) {
        for (int d = 0; d < D; d++)
            weight[i] += q[d] * widen(k[i * D + d]);
        weight[i] /= sqrt((double)D);
        top = std::max(top, weight[i]);
    }
    for (double &w : weight)
        total += w = exp(w - top);
    for (size_t i = 0; i < n; i++)
        for (int d = 0; d < D; d++)
            out[d] += weight[i] / total * widen(v[i * D + d]);
    return out;
}

static std::vector<bf16> read(const void *from, int64_t rows, int64_t first, int D)
{
    std::vector<bf16> to((size_t)(rows * D));
    GPU(cudaMemcpy(to.data(), (const bf16 *)from + first * D, to.size() * sizeof(bf16),
                   cudaMemcpyDeviceToHost));
    return to;
}

static double relative_error(const row &want, const row &got)
{
    double off = 0, norm = 0;
    for (size_t i = 0; i < want.size(); i++) {
        off += (got[i] - want[i]) * (got[i] - want[i]);
        norm += want[i] * want[i];
    }
    return sqrt(off / norm);
}

/* The new keys and values, both where the recycled step finds self and at the end of C_f. */
double step_model::check_new_rows(int sequence, const row &keys, const row &values) const
{
    gpu_layer at = bed.layer(0);
    double worst = 0;
    const std::pair<const row *, const void *> places[] = {
        {&keys, at.self_k}, {&values, at.self_v}, {&keys, at.k}, {&values, at.v}};
    for (const auto &[want, where] : places) {
        row got;
        for (int head = 0; head < s.Hkv; head++) {
            int64_t of = (int64_t)sequence * s.Hkv + head;
            bool is_self = where == at.self_k || where == at.self_v;
            for (bf16 value : read(where, 1, is_self ? of : of * s.L + s.L - 1, s.D))
                got.push_back(widen(value));
        }
        double error = relative_error(*want, got);
        worst = !(error <= worst) ? error : worst;
    }
    return worst;
}

/* Keys as the card has them: the new row is its own. */
row step_model::attend_on_host(enum step_kind kind, int sequence, const row &q) const
{
    bool few = kind == STEP_RECYCLED;
    ra_decode_args a = bed.attention(0, few ? GPU_COMPACT : GPU_FULL);
    gpu_layer at = bed.layer(0);
    row out((size_t)s.Hkv * s.heads * s.D);
    gpu_each(s.Hkv, [&](int head) {
        int64_t of = (int64_t)sequence * s.Hkv + head, n = few ? s.K : s.L;
        std::vector<bf16> k = read(a.k, n, of * n, s.D), v = read(a.v, n, of * n, s.D);
        if (few) {
            std::vector<bf16> self = read(at.self_k, 1, of, s.D);
            k.insert(k.end(), self.begin(), self.end());
            self = read(at.self_v, 1, of, s.D);
            v.insert(v.end(), self.begin(), self.end());
        }
        for (int g = 0; g < s.heads; g++) {
            size_t query = ((size_t)head * s.heads + g) * s.D;
            row one = attend(&q[query], k, v, s.D);
            std::copy(one.begin(), one.end(), out.begin() + (int64_t)query);
        }
    });
    return out;
}

std::vector<float> step_model::run_first(enum step_kind kind, int sequence)
{
    cudaStream_t stream;
    start();
    GPU(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    GPU(cudaDeviceSynchronize());
    record(stream, kind, 1);
    GPU(cudaDeviceSynchronize());
    GPU(cudaStreamDestroy(stream));
    return residual.read((size_t)sequence * s.hidden, s.hidden);
}

double step_model::check(enum step_kind kind)
{
    const layer &w = layers[0];
    int sequence = s.B - 1, Hq = s.Hkv * s.heads;
    std::vector<float> got = run_first(kind, sequence);
    row sum;
    for (int i = 0; i < s.hidden; i++)
        sum.push_back(first_residual[(size_t)sequence * s.hidden + i]);
    row before = sum, qkv = multiply(w.qkv, normalize(sum, w.before), s.qkv());
    if (s.has_bias) {
        std::vector<bf16> bias = w.bias.read();
        for (size_t i = 0; i < qkv.size(); i++)
            qkv[i] += widen(bias[i]);
    }
    for (int head = 0; head < Hq + s.Hkv; head++)
        rotate(s, &qkv[(size_t)head * s.D]);
    auto keys = qkv.begin() + (int64_t)Hq * s.D, values = keys + (int64_t)s.Hkv * s.D;
    double new_rows = check_new_rows(sequence, row(keys, values), row(values, qkv.end()));
    qkv.resize((size_t)Hq * s.D);
    row o = multiply(w.o, attend_on_host(kind, sequence, qkv), s.hidden);
    for (int i = 0; i < s.hidden; i++)
        sum[i] += o[i];
    row both = multiply(w.gate_up, normalize(sum, w.after), 2 * s.ffn), hidden(s.ffn);
    for (int i = 0; i < s.ffn; i++)
        hidden[i] = both[i] / (1 + exp(-both[i])) * both[i + s.ffn];
    row down = multiply(w.down, hidden, s.hidden);
    row want, added;
    for (int i = 0; i < s.hidden; i++) {
        want.push_back(sum[i] + down[i] - before[i]);
        added.push_back(got[i] - before[i]);
    }
    double error = relative_error(want, added);
    return error <= new_rows ? new_rows : error; /* NaN, too, is the worse */
}

bool step_model::is_finite(enum step_kind kind)
{
    cudaStream_t stream;
    start();
    GPU(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    GPU(cudaDeviceSynchronize());
    record(stream, kind, s.layers);
    GPU(cudaDeviceSynchronize());
    GPU(cudaStreamDestroy(stream));
    for (float value : residual.read())
        if (!isfinite(value))
            return false;
    for (bf16 value : logits.read())
        if (!isfinite(__bfloat162float(value)))
            return false;
    return true;
}
