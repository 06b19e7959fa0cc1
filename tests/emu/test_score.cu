/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scores from a pass over K alone, against f64: logits, log of the sum, bytes moved. Would catch a
 * key left out at the end of a split, V read after all, a head that is not there written to, and a
 * sum that depends on the order of CTAs.
 */
#include "kernels/cuda/launch.cuh"
#include "tests/emu/kernel_test.h"

struct shape {
    int B, Hkv, heads, n, splits, window;
};

static const float kScale = 0.25f;

struct results {
    std::vector<float> logits, lse;
    std::vector<uint32_t> ticket;
};

template <class T> struct problem {
    shape s;
    enum ra_dtype dtype;
    int D, rows; /* of which some are beyond n, and NaN */
    std::vector<float> q;
    std::vector<T> k;
    std::vector<int32_t> n;

    problem(const shape &of, enum ra_dtype type, int dim)
        : s(of), dtype(type), D(dim), rows(of.n + 3)
    {
        size_t heads = (size_t)s.B * s.Hkv;
        q = random_values<float>(heads * s.heads * D, 2);
        k = random_values<T>(heads * rows * D, 2);
        for (size_t head = 0; head < heads; head++) {
            n.push_back(head % 3 == 1 && s.n > 2 ? s.n - 2 : s.n);
            for (size_t i = (size_t)n[head] * D; i < (size_t)rows * D; i++)
                store(k[head * rows * D + i], NAN);
        }
    }
    int first(int head) const
    {
        return s.window > 0 && s.window < n[head] ? n[head] - s.window : 0;
    }
};

/* K once for each part of a group, queries once a split, what is written. */
template <class T> static double floor_bytes(const problem<T> &p)
{
    const shape &s = p.s;
    double bytes = 0;
    int parts = ra_decode_parts(s.heads);
    for (int head = 0; head < s.B * s.Hkv; head++) {
        double keys = p.n[head] - p.first(head);
        bytes += parts * keys * p.D * sizeof(T) + 4.0 * keys * s.heads + 4.0 * s.heads;
        bytes += 4.0 * s.heads * s.splits * (p.D + 4);
    }
    return bytes;
}

/* K in pages: those of a sequence in reverse, all heads of a page together. */
template <class T> struct paged {
    int each; /* pages of a sequence */
    std::vector<int32_t> pages;
    std::vector<T> k;

    explicit paged(const problem<T> &p) : each((p.rows + RA_PAGE - 1) / RA_PAGE)
    {
        int n = p.s.B * each;
        k.resize((size_t)n * p.s.Hkv * RA_PAGE * p.D);
        for (T &x : k)
            store(x, NAN);
        for (int i = 0; i < n; i++)
            pages.push_back(n - 1 - i);
        for (int head = 0; head < p.s.B * p.s.Hkv; head++)
            for (int row = 0; row < p.rows; row++) {
                size_t page = (size_t)pages[(size_t)(head / p.s.Hkv * each + row / RA_PAGE)];
                size_t to = (page * p.s.Hkv + head % p.s.Hkv) * RA_PAGE + row % RA_PAGE;
                memcpy(&k[to * p.D], &p.k[((size_t)head * p.rows + row) * p.D], p.D * sizeof(T));
            }
    }
};

template <class T>
static results launch(const problem<T> &p, test_case &test, bool in_pages = false)
{
    const shape &s = p.s;
    size_t heads = (size_t)s.B * s.Hkv, queries = heads * s.heads;
    size_t rows = heads * ra_decode_parts(s.heads), G = ra_decode_group(s.heads);
    device_array<float> q(p.q), logits(queries * p.rows), lse(queries);
    device_array<float> sums(rows * s.splits * 2 * G);
    paged<T> shuffled(p);
    device_array<T> k(in_pages ? shuffled.k : p.k);
    device_array<int32_t> pages(shuffled.pages);
    device_array<int32_t> n(p.n);
    device_array<uint32_t> ticket(std::vector<uint32_t>(rows, 0));
    ra_decode_args a = {};
    a.q = q.get();
    a.k = k.get();
    a.n = n.get();
    a.lse = lse.get();
    a.logits = logits.get();
    a.partial_sums = sums.get();
    a.ticket = ticket.get();
    a.pages = in_pages ? pages.get() : nullptr;
    a.page_stride = shuffled.each;
    a.row_stride = p.rows;
    a.logit_stride = p.rows;
    a.window = s.window;
    a.Hkv = s.Hkv;
    a.heads = s.heads;
    a.scale = kScale;
    ra_decode_plan plan = {};
    plan.dtype = p.dtype;
    plan.D = p.D;
    plan.B = s.B;
    plan.splits = s.splits;
    plan.gather = in_pages;
    start_counting();
    test.launched(ra_launch_score(plan, a, 0));
    /* Of few keys not all splits have one, and what splits cost is most of it. */
    double bytes = floor_bytes(p);
    if (s.n < 1000)
        test.moved_between("score_keys", 0, 1.01 * bytes + 4096);
    else
        test.moved("score_keys", bytes);
    return {logits.read(), lse.read(), ticket.read()};
}

template <class T>
static void compare(const problem<T> &p, int query, const results &got, test_case &test)
{
    int head = query / p.s.heads;
    double top = -INFINITY, sum = 0, largest = 0;
    std::vector<double> want(p.rows, NAN);
    for (int i = p.first(head); i < p.n[head]; i++) {
        double dot = 0, size = 0;
        for (int d = 0; d < p.D; d++) {
            double term = kScale * load(p.q[(size_t)query * p.D + d]) *
                          load(p.k[((size_t)head * p.rows + i) * p.D + d]);
            dot += term;
            size += fabs(term);
        }
        want[i] = dot;
        top = dot > top ? dot : top;
        largest = size > largest ? size : largest;
    }
    double bound = 1e-6 + 8 * ldexp(largest, -24);
    for (int i = 0; i < p.rows; i++) {
        double x = got.logits[(size_t)query * p.rows + i];
        sum += isnan(want[i]) ? 0 : exp(want[i] - top);
        if (isnan(want[i]) ? !isnan(x) : !(fabs(x - want[i]) <= bound))
            test.complain("query %d: logit %d: expected %.9g, got %.9g", query, i, want[i], x);
    }
    if (!(fabs(got.lse[query] - (top + log(sum))) <= bound))
        test.complain("query %d: lse: expected %.9g, got %.9g", query, top + log(sum),
                      got.lse[query]);
}

template <class T> static void run(const shape &s, enum ra_dtype dtype, int D)
{
    test_case test("score %s D=%d heads=%d n=%d splits=%d window=%d", ra_dtype_name(dtype), D,
                   s.heads, s.n, s.splits, s.window);
    problem<T> p(s, dtype, D);
    results got = launch(p, test);
    for (int query = 0; query < s.B * s.Hkv * s.heads; query++)
        compare(p, query, got, test);
    for (uint32_t ticket : got.ticket)
        if (ticket != 0)
            test.complain("ticket left at %u", ticket);
    another_order shuffled;
    results again = launch(p, test);
    if (memcmp(again.lse.data(), got.lse.data(), got.lse.size() * sizeof(float)) != 0)
        test.complain("the order of blocks and warps changes the sum");
    results in_pages = launch(p, test, true);
    if (memcmp(in_pages.logits.data(), got.logits.data(), got.logits.size() * sizeof(float)) != 0 ||
        memcmp(in_pages.lse.data(), got.lse.data(), got.lse.size() * sizeof(float)) != 0)
        test.complain("keys in pages score differently");
}

template <class T> static void run_type(enum ra_dtype dtype)
{
    static const int dims[] = {64, 128, 256}, groups[] = {1, 2, 3, 4, 5, 8, 13};
    static const int lengths[] = {1, 2, 31, 32, 33, 129, 300};
    for (int i = 0; i < 14; i++) {
        int D = dims[i % 3];
        shape s = {1 + i % 2,     2, groups[i % 7], lengths[(i + i / 7) % 7], 1 + i % 4,
                   i % 5 ? 0 : 20};
        run<T>(s, dtype, D == 256 && dtype == RA_F32 ? 128 : D);
    }
    run<T>({1, 1, 4, 2000, 8, 0}, dtype, 128);
    run<T>({2, 1, 4, 990, 64, 0}, dtype, 128); /* more splits than a warp has lanes, in f32 */
}

/* Everything with everything. */
template <class T> static void run_all(enum ra_dtype dtype)
{
    for (int D : {64, 128, 256})
        for (int heads : {1, 2, 3, 4, 5, 8, 13})
            for (int n : {1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 300})
                for (int splits : {1, 3})
                    for (int window : {0, 20})
                        if (ra_decode_exists(dtype, D))
                            run<T>({1 + n % 2, 2, heads, n, splits, window}, dtype, D);
}

/* An argument: make emu-full. */
int main(int n_arguments, char **)
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    if (n_arguments > 1) {
        run_all<float>(RA_F32);
        run_all<__half>(RA_F16);
        run_all<__nv_bfloat16>(RA_BF16);
        return finish();
    }
    run_type<float>(RA_F32);
    run_type<__half>(RA_F16);
    run_type<__nv_bfloat16>(RA_BF16);
    return finish();
}
