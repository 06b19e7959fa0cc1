/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decode_split against attention in f64: every way to find a row, every type and group, lengths
 * around the edges of a split and a turn, output, log of the sum, logits, and bytes moved.
 */
#include "kernels/cuda/launch.cuh"
#include "tests/emu/kernel_test.h"

/* Through what keys are found; flags. */
enum { RA_ROWS_INDEX = 1, RA_ROWS_PAGE = 2 };

struct shape {
    int B, Hkv, heads;
    int n;      /* keys of the longest head */
    int splits; /* of the grid */
    int window;
    bool self;
    int by = 0;      /* flags above */
    int closed = -1; /* sequence behind a closed gate */
};

static const char *type_name(float)
{
    return "f32";
}
static const char *type_name(__half)
{
    return "f16";
}
static const char *type_name(__nv_bfloat16)
{
    return "bf16";
}

/* A problem on the host. Heads differ in length; the caches hold more rows than are seen, and rows
 * that no key names are NaN. */
template <class T, int D> struct problem {
    shape s;
    int rows, max_pages;
    std::vector<float> q;
    std::vector<T> k, v, self_k, self_v;
    std::vector<int32_t> n, index, pages, self_in;

    explicit problem(const shape &of) : s(of)
    {
        size_t heads = (size_t)s.B * s.Hkv;
        rows = s.by & RA_ROWS_INDEX ? 2 * s.n + 3 : s.n;
        max_pages = (rows + RA_PAGE - 1) / RA_PAGE + 1;
        size_t stored = heads * (s.by & RA_ROWS_PAGE ? max_pages * RA_PAGE : rows) * D;
        q = random_values<float>(heads * s.heads * D, 2);
        k = random_values<T>(stored, 2);
        v = random_values<T>(stored, 1);
        self_k = random_values<T>(heads * D, 2);
        self_v = random_values<T>(heads * D, 1);
        for (size_t h = 0; h < heads; h++) {
            n.push_back(h % 3 == 1 && s.n > 2 ? s.n - 2 : s.n);
            self_in.push_back(h % 4 == 2);
            /* Distinct positions in no order. */
            std::vector<int32_t> positions(rows);
            for (int i = 0; i < rows; i++) {
                int j = random_below(i + 1);
                positions[i] = positions[j];
                positions[j] = i;
            }
            index.insert(index.end(), positions.begin(), positions.begin() + s.n);
        }
        for (int i = 0; i < s.B * max_pages; i++) {
            int j = random_below(i + 1);
            pages.push_back(i);
            std::swap(pages[i], pages[j]);
        }
        std::vector<bool> seen(stored / D);
        for (int b = 0; b < s.B; b++)
            for (int h = 0; h < s.Hkv; h++)
                for (int i = 0; i < n[b * s.Hkv + h]; i++)
                    seen[row(b, h, i)] = true;
        for (size_t r = 0; r < seen.size(); r++)
            for (int d = 0; d < D && !seen[r]; d++) {
                store(k[r * D + d], NAN);
                store(v[r * D + d], NAN);
            }
    }

    size_t row(int b, int h, int i) const
    {
        int position = s.by & RA_ROWS_INDEX ? index[((size_t)b * s.Hkv + h) * s.n + i] : i;
        if (!(s.by & RA_ROWS_PAGE))
            return ((size_t)b * s.Hkv + h) * rows + position;
        int page = pages[b * max_pages + position / RA_PAGE];
        return ((size_t)page * s.Hkv + h) * RA_PAGE + position % RA_PAGE;
    }

    bool has_self(int head) const
    {
        return s.self && !self_in[head];
    }
    int first(int head) const
    {
        return s.window > 0 && s.window < n[head] ? n[head] - s.window : 0;
    }
};

static const float kScale = 0.25f;

/* One query head's answer, by the definition. */
template <class T, int D> struct answer {
    std::vector<double> logits, out;
    double lse, largest = 0; /* largest sum of |scale q k| */

    answer(const problem<T, D> &p, int head, int query) : out(D)
    {
        int first = p.first(head), last = p.n[head] + p.has_self(head);
        double top = -INFINITY, sum = 0;
        for (int i = first; i < last; i++) {
            const T *k = key(p, p.k, p.self_k, head, i);
            double dot = 0, size = 0;
            for (int d = 0; d < D; d++) {
                double term = kScale * load(p.q[(size_t)query * D + d]) * load(k[d]);
                dot += term;
                size += fabs(term);
            }
            logits.push_back(dot);
            top = dot > top ? dot : top;
            largest = size > largest ? size : largest;
        }
        for (double x : logits)
            sum += exp(x - top);
        lse = top + log(sum);
        for (int i = first; i < last; i++) {
            const T *v = key(p, p.v, p.self_v, head, i);
            for (int d = 0; d < D; d++)
                out[d] += exp(logits[i - first] - lse) * load(v[d]);
        }
    }

    static const T *key(const problem<T, D> &p, const std::vector<T> &rows,
                        const std::vector<T> &self, int head, int i)
    {
        if (i == p.n[head])
            return &self[(size_t)head * D];
        return &rows[p.row(head / p.s.Hkv, head % p.s.Hkv, i) * D];
    }
};

/* Bytes of the launch: rows, their indices and pages, the query once a split, what is written. */
template <class T, int D, int G, int R> double floor_bytes(const problem<T, D> &p, bool logits)
{
    const shape &s = p.s;
    double bytes = 0;
    for (int head = 0; head < s.B * s.Hkv; head++) {
        int seen = p.n[head] - p.first(head), stride = ra_decode_shape<T, D, G, R>::kStride;
        int chunk = (seen + s.splits - 1) / s.splits;
        chunk = (chunk + stride - 1) / stride * stride;
        int live = chunk ? (seen + chunk - 1) / chunk : 1, keys = seen + p.has_self(head);
        int parts = (s.heads + G - 1) / G;
        bytes += parts * 2.0 * keys * D * sizeof(T);
        bytes += s.by & RA_ROWS_INDEX ? parts * 4.0 * seen : 0;
        if (s.by & RA_ROWS_PAGE)
            bytes += parts * 4.0 * (s.by & RA_ROWS_INDEX ? seen : seen / RA_PAGE);
        bytes += logits ? 4.0 * keys * s.heads : 0;
        bytes += 4.0 * s.heads * (D * live + D + 1);
        bytes += live > 1 ? 2 * 4.0 * s.heads * live * (D + 2) : 0;
    }
    return bytes;
}

template <class T, int D> struct results {
    std::vector<float> out, lse, logits;
    std::vector<uint32_t> ticket;
};

/* start(args, grid) launches. */
template <class T, int D, int G, class Start>
results<T, D> launch_by(const problem<T, D> &p, bool with_logits, Start start, test_case &test)
{
    const shape &s = p.s;
    size_t heads = (size_t)s.B * s.Hkv, queries = heads * s.heads;
    int parts = (s.heads + G - 1) / G;
    size_t ctas = heads * parts * s.splits;
    device_array<float> q(p.q), out(queries * D), lse(queries), logits(queries * (s.n + 1));
    device_array<T> k(p.k), v(p.v), self_k(p.self_k), self_v(p.self_v);
    device_array<int32_t> n(p.n), index(p.index), pages(p.pages), self_in(p.self_in);
    device_array<float> partial(ctas * G * D), sums(ctas * 2 * G);
    device_array<uint32_t> ticket(std::vector<uint32_t>(heads * parts));
    std::vector<int32_t> gates((size_t)s.B, 7);
    if (s.closed >= 0)
        gates[(size_t)s.closed] = 6;
    device_array<int32_t> gate(gates);
    ra_decode_args a = {};
    a.gate = gate.get();
    a.gate_value = 7;
    a.q = q.get();
    a.k = k.get();
    a.v = v.get();
    a.n = n.get();
    a.index = s.by & RA_ROWS_INDEX ? index.get() : nullptr;
    a.pages = s.by & RA_ROWS_PAGE ? pages.get() : nullptr;
    a.self_k = s.self ? self_k.get() : nullptr;
    a.self_v = self_v.get();
    a.self_in = self_in.get();
    a.out = out.get();
    a.lse = lse.get();
    a.logits = logits.get();
    a.partial = partial.get();
    a.partial_sums = sums.get();
    a.ticket = ticket.get();
    a.row_stride = p.rows;
    a.index_stride = s.n;
    a.page_stride = p.max_pages;
    a.logit_stride = s.n + 1;
    a.window = s.window;
    a.Hkv = s.Hkv;
    a.heads = s.heads;
    a.scale = kScale;
    dim3 grid((unsigned)s.splits, (unsigned)(s.Hkv * parts), (unsigned)s.B);
    start_counting();
    test.launched(start(a, grid));
    if (s.closed < 0)
        test.moved("decode_split", floor_bytes<T, D, G, ra_decode_rows<G>()>(p, with_logits));
    return {out.read(), lse.read(), logits.read(), ticket.read()};
}

/* The kernel compiled here. */
template <class T, int D, int G, bool kLogits, bool kGather>
results<T, D> launch(const problem<T, D> &p, test_case &test)
{
    constexpr int R = ra_decode_rows<G>();
    constexpr size_t shared = ra_decode_shared<R, ra_decode_stages<R>()>();
    auto start = [](const ra_decode_args &a, dim3 grid) {
        cudaFuncSetAttribute(decode_split<T, D, G, R, kLogits, kGather>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
        return ra_launch(decode_split<T, D, G, R, kLogits, kGather>, grid, RA_DECODE_THREADS,
                         shared, 0, a);
    };
    return launch_by<T, D, G>(p, kLogits, start, test);
}

template <class T, int D>
void compare_logits(const problem<T, D> &p, int head, const answer<T, D> &want, const float *got,
                    double bound, test_case &test)
{
    int first = p.first(head), last = first + (int)want.logits.size();
    for (int i = 0; i <= p.s.n; i++) {
        if (i < first || i >= last) {
            if (!isnan(got[i]))
                test.complain("head %d: wrote logit %d of %d", head, i, last);
        } else if (!(fabs(got[i] - want.logits[i - first]) <= bound)) {
            test.complain("head %d: logit %d: expected %.9g, got %.9g", head, i,
                          want.logits[i - first], got[i]);
        }
    }
}

/* launch(problem, test) -> results. */
template <class T, int D, int G, class Launch>
void run_by(const shape &s, bool with_logits, Launch launch)
{
    test_case test("decode %s D=%d G=%d of %d by=%d n=%d splits=%d window=%d self=%d logits=%d",
                   type_name(T()), D, G, s.heads, s.by, s.n, s.splits, s.window, s.self,
                   with_logits);
    problem<T, D> p(s);
    results<T, D> got = launch(p, test);
    for (int query = 0; query < s.B * s.Hkv * s.heads; query++) {
        int head = query / s.heads;
        answer<T, D> want(p, head, query);
        double bound = 1e-6 + 8 * ldexp(want.largest, -24), error = 0, norm = 0;
        for (int d = 0; d < D; d++) {
            double off = got.out[(size_t)query * D + d] - want.out[d];
            error += off * off;
            norm += want.out[d] * want.out[d];
        }
        if (!(sqrt(error) <= bound * sqrt(norm)))
            test.complain("query %d: error %.3g of norm %.3g", query, sqrt(error), sqrt(norm));
        if (!(fabs(got.lse[query] - want.lse) <= bound))
            test.complain("query %d: lse: expected %.9g, got %.9g", query, want.lse,
                          got.lse[query]);
        if (with_logits)
            compare_logits(p, head, want, &got.logits[(size_t)query * (s.n + 1)], bound, test);
    }
    for (uint32_t ticket : got.ticket)
        if (ticket != 0)
            test.complain("ticket left at %u", ticket);
    if (s.B == 1)
        return;
    another_order shuffled;
    results<T, D> again = launch(p, test);
    if (memcmp(again.out.data(), got.out.data(), got.out.size() * sizeof(float)) != 0)
        test.complain("the order of blocks and warps changes the output");
}

template <class T, int D, int G, bool kLogits, bool kGather> void run(const shape &s)
{
    run_by<T, D, G>(s, kLogits, launch<T, D, G, kLogits, kGather>);
}

/* Where keys are equal so are logits, to the bit, wherever in a turn a key stands: selection breaks
 * ties by position. */
template <class T, int D, int G> void run_equal_keys()
{
    test_case test("decode %s D=%d G=%d equal keys", type_name(T()), D, G);
    problem<T, D> p({1, 1, G, 200, 3, 0, true});
    for (size_t i = 0; i < p.k.size(); i++)
        p.k[i] = p.k[i % D];
    memcpy(p.self_k.data(), p.k.data(), D * sizeof(T));
    std::vector<float> logits = launch<T, D, G, true, false>(p, test).logits;
    for (int g = 0; g < G; g++)
        for (int i = 1; i <= 200; i++)
            if (memcmp(&logits[g * 201], &logits[g * 201 + i], sizeof(float)) != 0)
                test.complain("head %d: logit %d: expected %.9g, got %.9g", g, i, logits[g * 201],
                              logits[g * 201 + i]);
}

/* Lengths at the ends of a turn of the CTA and of splits, one less and one more; and short ones. */
template <class T, int D, int G, bool kLogits, bool kGather> void run_edges(int heads)
{
    constexpr int kStride = ra_decode_shape<T, D, G, ra_decode_rows<G>()>::kStride;
    for (int n : {1, 2, kStride - 1, kStride, kStride + 1, 3 * kStride - 1, 3 * kStride + 1})
        run<T, D, G, kLogits, kGather>({1, 2, heads, n, 3, 0, n % 2 == 0});
}

template <class T, int D> void run_groups()
{
    run_edges<T, D, 1, true, false>(1);
    run_edges<T, D, 3, true, false>(3);
    run_edges<T, D, 4, true, false>(4);
    run_edges<T, D, 8, true, false>(8);
}

/* Three heads of several sequences, one of which has self among its keys; windows; more splits
 * than there are keys for; no keys but self. */
template <class T, int D, int G, bool kLogits, bool kGather> void run_batches(int heads, int by)
{
    run<T, D, G, kLogits, kGather>({2, 3, heads, 150, 5, 0, true, by});
    run<T, D, G, kLogits, kGather>({2, 3, heads, 150, 5, 77, false, by});
    run<T, D, G, kLogits, kGather>({1, 1, heads, 33, 17, 0, true, by});
    run<T, D, G, kLogits, kGather>({1, 2, heads, 300, 1, 0, true, by});
    run<T, D, G, kLogits, kGather>({1, 1, heads, 0, 2, 0, true, by});
}

template <class T, int D, int G> void run_rows(int heads)
{
    run_batches<T, D, G, false, false>(heads, 0);
    run_batches<T, D, G, false, true>(heads, RA_ROWS_INDEX);
    run_batches<T, D, G, true, true>(heads, RA_ROWS_PAGE);
    run_batches<T, D, G, true, true>(heads, RA_ROWS_INDEX | RA_ROWS_PAGE);
}

static void run_closed()
{
    test_case test("decode, one sequence of three behind a closed gate");
    shape s = {3, 2, 1, 140, 2, 0, true, 0};
    problem<__half, 64> p(s);
    results<__half, 64> all = launch<__half, 64, 1, true, true>(p, test);
    p.s.closed = 1;
    results<__half, 64> got = launch<__half, 64, 1, true, true>(p, test);
    size_t each = got.out.size() / 3, logits = got.logits.size() / 3;
    for (size_t i = 0; i < got.out.size(); i++)
        if (i / each == 1 ? !isnan(got.out[i]) : !(got.out[i] == all.out[i]))
            test.complain("element %zu is %g, %g with every gate open", i, got.out[i], all.out[i]);
    for (size_t i = logits; i < 2 * logits; i++)
        if (!isnan(got.logits[i]))
            test.complain("wrote logit %zu", i);
    for (uint32_t ticket : got.ticket)
        if (ticket != 0)
            test.complain("left a ticket");
}

/* Every way of reading, at every length of run_edges, by the kernel that the product would take. */
template <class T, int D, int G> void run_all_of(enum ra_dtype dtype, int heads)
{
    constexpr int kStride = ra_decode_shape<T, D, G, ra_decode_rows<G>()>::kStride;
    for (int n : {0, 1, 2, kStride - 1, kStride, kStride + 1, 3 * kStride - 1, 3 * kStride + 1})
        for (int by = 0; by < 4; by++)
            for (int i = 0; i < 8; i++) {
                bool self = (i & 1) || n == 0, with_logits = i & 2;
                int window = i & 4 && n > 2 && !by ? n / 2 : 0;
                auto launch = [&](const problem<T, D> &p, test_case &test) {
                    ra_decode_plan plan = {dtype, D, p.s.B, p.s.splits, with_logits, by != 0};
                    auto start = [&](const ra_decode_args &a, dim3) {
                        return ra_launch_decode(plan, a, 0);
                    };
                    return launch_by<T, D, G>(p, with_logits, start, test);
                };
                run_by<T, D, G>({n == 0 ? 1 : 1 + (i & 1), 2, heads, n, 3, window, self, by},
                                with_logits, launch);
            }
}

template <class T, int D> void run_all(enum ra_dtype dtype)
{
    run_all_of<T, D, 1>(dtype, 1);
    run_all_of<T, D, 2>(dtype, 2);
    run_all_of<T, D, 3>(dtype, 3);
    run_all_of<T, D, 4>(dtype, 4);
    run_all_of<T, D, 8>(dtype, 6);
    run_all_of<T, D, 8>(dtype, 8);
    run_all_of<T, D, 8>(dtype, 12);
}

static int run_product()
{
    run_all<float, 64>(RA_F32);
    run_all<float, 128>(RA_F32);
    run_all<__half, 64>(RA_F16);
    run_all<__half, 128>(RA_F16);
    run_all<__half, 256>(RA_F16);
    run_all<__nv_bfloat16, 64>(RA_BF16);
    run_all<__nv_bfloat16, 128>(RA_BF16);
    run_all<__nv_bfloat16, 256>(RA_BF16);
    return finish();
}

/* An argument: everything with everything, for who has minutes (make emu-full). RA_FEW leaves out
 * most types and dimensions, for who compiles this often. */
int main(int n_arguments, char **)
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    if (n_arguments > 1)
        return run_product();
    run_rows<__half, 64, 4>(4);
#ifndef RA_FEW
    run_closed();
    run_groups<float, 64>();
    run_groups<float, 128>();
    run_groups<__half, 64>();
    run_groups<__half, 128>();
    run_groups<__nv_bfloat16, 64>();
    run_groups<__nv_bfloat16, 128>();
    run_edges<__half, 256, 4, true, false>(4);
    run_rows<__nv_bfloat16, 128, 1>(1);
    run_rows<__half, 128, 8>(8);
    run_equal_keys<__half, 128, 4>();
    run_equal_keys<__nv_bfloat16, 64, 1>();
    run_equal_keys<float, 128, 8>();
    /* Long enough for the bytes to be bounded closely. */
    run<__half, 128, 4, true, true>({1, 1, 4, 3000, 8, 0, true, RA_ROWS_INDEX});
    run<__nv_bfloat16, 64, 8, true, false>({1, 1, 8, 3000, 8, 0, true});
    /* More splits than a batch of the merge, and than a warp has lanes. */
    run<float, 128, 4, true, false>({2, 1, 4, 1000, 64, 0, true});
    run<__half, 64, 1, false, false>({1, 2, 1, 3000, 20, 0, false});
    /* Heads that are not there, and groups of more than one CTA. */
    run_batches<__half, 64, 8, true, false>(5, 0);
    run_batches<__half, 64, 8, true, true>(13, RA_ROWS_INDEX);
#endif
    return finish();
}
