/* SPDX-License-Identifier: Apache-2.0 */
/* The bed's results against plain f64 on the host. */
#include "kernels/bench/gpu_bed.cuh"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <thread>

void gpu_each(int n, const std::function<void(int)> &call)
{
    int n_threads = std::min(n, (int)std::thread::hardware_concurrency());
    std::vector<std::thread> threads;
    for (int t = 0; t < n_threads; t++)
        threads.emplace_back([&call, n, n_threads, t] {
            for (int i = t; i < n; i += n_threads)
                call(i);
        });
    for (std::thread &thread : threads)
        thread.join();
}

static double decode(enum ra_dtype dtype, const uint8_t *bytes)
{
    if (dtype == RA_F32) {
        float x;
        memcpy(&x, bytes, sizeof x);
        return x;
    }
    uint16_t bits;
    memcpy(&bits, bytes, sizeof bits);
    if (dtype == RA_BF16) {
        uint32_t wide = (uint32_t)bits << 16;
        float x;
        memcpy(&x, &wide, sizeof x);
        return x;
    }
    __half x;
    memcpy((void *)&x, &bits, sizeof x);
    return __half2float(x);
}

/* Which row of the stored K and V, counted from the start of C_f or C_r, key i of a KV head is. */
int64_t gpu_bed::stored_row(enum gpu_keys by, int row, int i) const
{
    int64_t layer = row / (s.B * s.Hkv), of_layer = row % (s.B * s.Hkv);
    if (by == GPU_COMPACT)
        return (int64_t)row * s.K + i;
    if (by != GPU_PAGED)
        return (int64_t)row * s.L + (by == GPU_GATHERED ? host_index[(size_t)row * s.K + i] : i);
    int64_t page = host_pages[of_layer / s.Hkv * n_pages + i / RA_PAGE];
    int64_t slot = (page * s.Hkv + of_layer % s.Hkv) * RA_PAGE + i % RA_PAGE;
    return layer * (int64_t)(kv_layer / row_bytes()) + slot;
}

/* All keys or values of a KV head, [n][D]. */
std::vector<double> gpu_bed::read_rows(const gpu_array<uint8_t> &from, enum gpu_keys by, int row,
                                       int n) const
{
    size_t bytes = row_bytes(), elem = ra_dtype_bytes(s.dtype);
    std::vector<double> x((size_t)n * s.D);
    bool whole = by != GPU_PAGED;
    int64_t first = whole ? (by == GPU_COMPACT ? (int64_t)row * s.K : (int64_t)row * s.L) : 0;
    std::vector<uint8_t> block;
    if (whole)
        block = from.read((size_t)first * bytes, (size_t)(by == GPU_COMPACT ? s.K : s.L) * bytes);
    else
        block = from.read((size_t)(row / (s.B * s.Hkv)) * kv_layer, kv_layer);
    if (!whole)
        first = (int64_t)(row / (s.B * s.Hkv)) * (int64_t)(kv_layer / bytes);
    for (int i = 0; i < n; i++)
        for (int d = 0; d < s.D; d++)
            x[(size_t)i * s.D + d] = decode(
                s.dtype, &block[(size_t)(stored_row(by, row, i) - first) * bytes + d * elem]);
    return x;
}

/* One query head's output by the definition; log of the sum of weights; its logits. */
struct head_answer {
    std::vector<double> out, logits;
    double lse;
};

static head_answer answer(const float *q, const std::vector<double> &k,
                          const std::vector<double> &v, int D)
{
    size_t n = k.size() / (size_t)D;
    head_answer a = {std::vector<double>(D), std::vector<double>(n), 0};
    double top = -INFINITY, sum = 0, scale = 1 / sqrtf((float)D);
    for (size_t i = 0; i < n; i++) {
        for (int d = 0; d < D; d++)
            a.logits[i] += q[d] * k[i * D + d];
        a.logits[i] *= scale;
        top = std::max(top, a.logits[i]);
    }
    for (double x : a.logits)
        sum += exp(x - top);
    a.lse = top + log(sum);
    for (size_t i = 0; i < n; i++)
        for (int d = 0; d < D; d++)
            a.out[d] += exp(a.logits[i] - a.lse) * v[i * D + d];
    return a;
}

static double relative_error(const double *want, const float *got, size_t n)
{
    double off = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        off += (got[i] - want[i]) * (got[i] - want[i]);
        norm += want[i] * want[i];
    }
    return sqrt(off / norm);
}

double gpu_bed::check_head(const gpu_way &way, int row) const
{
    enum gpu_keys by = way.keys;
    int n = by == GPU_COMPACT || by == GPU_GATHERED ? s.K : s.L;
    std::vector<double> rows_k = read_rows(k_of(by), by, row, n);
    std::vector<double> rows_v = read_rows(v_of(by), by, row, n);
    double worst = 0;
    for (int h = 0; h < s.heads; h++) {
        size_t query = (size_t)row * s.heads + h;
        std::vector<float> mine = q.read(query * s.D, s.D), got = out.read(query * s.D, s.D);
        head_answer want = answer(mine.data(), rows_k, rows_v, s.D);
        double error = way.scores_alone ? 0 : relative_error(want.out.data(), got.data(), s.D);
        double off = fabs(lse.read(query, 1)[0] - want.lse);
        worst = !(error <= worst) ? error : worst;
        worst = !(off <= worst) ? off : worst;
        if (!way.logits)
            continue;
        std::vector<float> written = logits.read(query * s.L, n);
        error = relative_error(want.logits.data(), written.data(), n);
        worst = !(error <= worst) ? error : worst;
    }
    return worst;
}

double gpu_bed::check_attention(const gpu_way &way)
{
    cudaStream_t stream;
    int n_checked = std::min(s.rows(), (64 + s.heads - 1) / s.heads);
    std::vector<double> error(n_checked, NAN);
    out.poison();
    lse.poison();
    if (way.logits)
        logits.poison();
    GPU(cudaDeviceSynchronize());
    GPU(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    attend_all(stream, way);
    GPU(cudaDeviceSynchronize());
    GPU(cudaStreamDestroy(stream));
    auto check = [&](int i) {
        error[i] = check_head(way, (int)((int64_t)i * (s.rows() - 1) / n_checked));
    };
    gpu_each(n_checked, check);
    double worst = 0;
    for (double x : error)
        worst = !(x <= worst) ? x : worst;
    return worst;
}

int gpu_bed::count_written(const gpu_way &way)
{
    out.poison();
    GPU(cudaDeviceSynchronize());
    attend_all(0, way);
    GPU(cudaDeviceSynchronize());
    int written = 0;
    for (float x : out.read())
        written += !isnan(x);
    return written;
}

/* The score a key stands for: the inverse of the order-preserving map. */
static double score_of(uint32_t key)
{
    uint32_t bits = key >> 31 ? key & 0x7fffffffu : ~key;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* -log of the largest probability of the group within 3 positions, off by how much? */
double gpu_bed::check_keys(int row, const std::vector<uint32_t> &got) const
{
    std::vector<double> raw(s.L, -INFINITY);
    for (int h = 0; h < s.heads; h++) {
        size_t query = (size_t)row * s.heads + h;
        std::vector<float> x = logits.read(query * s.L, s.L);
        double sum = lse.read(query, 1)[0];
        for (int i = 0; i < s.L; i++)
            raw[i] = std::max(raw[i], x[i] - sum);
    }
    double worst = 0;
    for (int i = 0; i < s.L; i++) {
        double want = -INFINITY;
        for (int j = std::max(0, i - 3); j <= std::min(s.L - 1, i + 3); j++)
            want = std::max(want, raw[j]);
        double off = fabs(score_of(got[i]) - want);
        worst = !(off <= worst) ? off : worst;
    }
    return worst;
}

double gpu_bed::check_selection()
{
    keys.poison();
    chosen.poison();
    n_chosen.poison();
    attend_all(0, {GPU_FULL, true, false, false});
    select(0, -1);
    GPU(cudaDeviceSynchronize());
    int n_checked = std::min(s.rows(), 16);
    std::vector<double> off(n_checked, NAN);
    gpu_each(n_checked, [&](int i) {
        int row = (int)((int64_t)i * (s.rows() - 1) / n_checked);
        std::vector<uint32_t> key = keys.read((size_t)row * s.L, s.L);
        std::vector<int32_t> best(s.L), got = chosen.read((size_t)row * s.K, s.K);
        for (int j = 0; j < s.L; j++)
            best[j] = j;
        std::stable_sort(best.begin(), best.end(),
                         [&](int32_t x, int32_t y) { return key[x] > key[y]; });
        std::sort(best.begin(), best.begin() + s.K);
        bool right =
            n_chosen.read(row, 1)[0] == s.K && std::equal(got.begin(), got.end(), best.begin());
        off[i] = right ? check_keys(row, key) : NAN;
    });
    double worst = 0;
    for (double x : off)
        worst = !(x <= worst) ? x : worst;
    return worst;
}

int gpu_bed::check_refresh(int set)
{
    plan(0, 0);
    move(0);
    plan(0, set);
    move(0);
    GPU(cudaDeviceSynchronize());
    int n_checked = std::min(s.rows(), 16);
    std::vector<int> wrong(n_checked, 1);
    gpu_each(n_checked, [&](int i) {
        int row = (int)((int64_t)i * (s.rows() - 1) / n_checked);
        size_t bytes = row_bytes();
        std::vector<int32_t> at = slot_pos.read((size_t)row * s.K, s.K);
        std::vector<int32_t> want = sets[set].read((size_t)row * s.K, s.K), have = at;
        std::sort(have.begin(), have.end());
        wrong[i] = have != want;
        for (const gpu_array<uint8_t> *pair[] = {&k, &cr_k, &v, &cr_v}, **p = pair; p < pair + 4;
             p += 2) {
            std::vector<uint8_t> from = p[0]->read((size_t)row * s.L * bytes, s.L * bytes);
            std::vector<uint8_t> to = p[1]->read((size_t)row * s.K * bytes, s.K * bytes);
            for (int slot = 0; slot < s.K && !wrong[i]; slot++)
                wrong[i] = memcmp(&to[slot * bytes], &from[at[slot] * bytes], bytes) != 0;
        }
    });
    int n_wrong = 0;
    for (int x : wrong)
        n_wrong += x;
    return n_wrong;
}
