/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of keys: digests brought up to date row by row and all at once, and the order in which
 * queries want the pages, against f64 written plainly here. Would catch a row taken into another
 * page, a page that was begun in an earlier life of its memory, a mean over a whole page where the
 * last is cut short, a tie that falls to the wrong side, and a page that is always wanted but was
 * not put last.
 */
#include <algorithm>

#include "kernels/cuda/digest.cuh"
#include "tests/emu/kernel_test.h"

struct shape {
    int B, Hkv, G, D, n, page, most;
    enum ra_page_digest digest;
    enum ra_agg agg;
    bool newest, first, paged;
    bool whole; /* small whole numbers: nothing is rounded, and scores tie */
};

static enum ra_dtype type_of(float)
{
    return RA_F32;
}
static enum ra_dtype type_of(__half)
{
    return RA_F16;
}
static enum ra_dtype type_of(__nv_bfloat16)
{
    return RA_BF16;
}

template <class T> struct world {
    shape s;
    int rows, most, n_pages, list; /* list: pages of C_f of a sequence */
    std::vector<int32_t> pages;
    std::vector<T> keys;
    std::vector<float> q;

    explicit world(const shape &of)
        : s(of), rows(s.B * s.Hkv), most(std::min(s.most, s.n + 3)),
          n_pages((most + s.page - 1) / s.page), list(s.n / RA_PAGE + 2)
    {
        for (int i = 0; i < s.B * list; i++) {
            pages.push_back(i);
            std::swap(pages[i], pages[random_below(i + 1)]);
        }
        keys = random_values<T>((size_t)s.B * list * s.Hkv * RA_PAGE * s.D, 2);
        q = random_values<float>((size_t)rows * s.G * s.D, 2);
        for (T &one : keys)
            if (s.whole)
                store(one, (float)(random_below(5) - 2));
        for (float &one : q)
            if (s.whole)
                one = (float)(random_below(3) - 1);
    }

    int stride() const
    {
        return list * RA_PAGE;
    }
    const T *key(int row, int position) const
    {
        size_t at = (size_t)row * stride() + position;
        if (s.paged) {
            size_t page = pages[(size_t)(row / s.Hkv) * list + position / RA_PAGE];
            at = (page * s.Hkv + row % s.Hkv) * RA_PAGE + position % RA_PAGE;
        }
        return &keys[at * s.D];
    }
    /* Keys of a page, of n. */
    int held(int number, int n) const
    {
        return std::min(std::min(n, most) - number * s.page, s.page);
    }
    int count(int n) const
    {
        return (std::min(n, most) + s.page - 1) / s.page;
    }
};

/* Least and largest, or the sum, of a dimension. */
template <class T>
static void of_page(const world<T> &w, int row, int number, int n, int d, double *x)
{
    x[0] = INFINITY, x[1] = -INFINITY, x[2] = 0;
    for (int i = 0; i < w.held(number, n); i++) {
        double one = load(w.key(row, number * w.s.page + i)[d]);
        x[0] = std::min(x[0], one);
        x[1] = std::max(x[1], one);
        x[2] += one;
    }
}

template <class T, class S>
static void check_digests(const world<T> &w, const std::vector<S> &got, int n, test_case &test)
{
    int parts = w.s.digest == RA_PAGE_MEAN ? 1 : 2, D = w.s.D;
    for (int row = 0; row < w.rows; row++)
        for (int number = 0; number < w.count(n); number++)
            for (int d = 0; d < D; d++) {
                const S *digest = &got[((size_t)row * w.n_pages + number) * parts * D];
                double x[3];
                of_page(w, row, number, n, d, x);
                bool right = parts == 1 ? fabs(load(digest[d]) - x[2]) <= 1e-5
                                        : load(digest[d]) == x[0] && load(digest[D + d]) == x[1];
                if (!right)
                    test.complain("digest of row %d, page %d, dimension %d of %d keys", row, number,
                                  d, n);
            }
}

static double combine(enum ra_agg agg, const std::vector<double> &x)
{
    double sum = 0, most = x[0];
    for (double one : x) {
        sum += one;
        most = std::max(most, one);
    }
    return agg == RA_AGG_MAX    ? most
           : agg == RA_AGG_MEAN ? sum / (double)x.size()
           : agg == RA_AGG_SUM  ? sum
                                : x[0];
}

/* What the group makes of each page. */
template <class T>
static std::vector<double> scores_of(const world<T> &w, int row, int n, double scale)
{
    std::vector<std::vector<double>> each(w.count(n));
    for (int g = 0; g < w.s.G; g++) {
        const float *q = &w.q[(size_t)(row * w.s.G + g) * w.s.D];
        double sum = 0;
        for (int number = 0; number < w.count(n); number++) {
            double score = 0;
            for (int d = 0; d < w.s.D; d++) {
                double x[3], one = (double)q[d];
                of_page(w, row, number, n, d, x);
                score += w.s.digest == RA_PAGE_MEAN ? one * x[2] : std::max(one * x[0], one * x[1]);
            }
            if (w.s.digest == RA_PAGE_MEAN)
                score = exp(scale * score / w.held(number, n));
            each[number].push_back(score);
            sum += score;
        }
        for (std::vector<double> &of : each)
            of.back() /= w.s.digest == RA_PAGE_MEAN ? sum : 1;
    }
    std::vector<double> all;
    for (const std::vector<double> &of : each)
        all.push_back(combine(w.s.agg, of));
    return all;
}

template <class T>
static void check_order(const world<T> &w, int row, const int32_t *order, int n, double scale,
                        test_case &test)
{
    std::vector<double> score = scores_of(w, row, n, scale);
    int count = w.count(n);
    double largest = 0;
    for (double one : score)
        largest = std::max(largest, fabs(one));
    double slack = w.s.whole && w.s.digest == RA_PAGE_BOUNDS ? 0 : 2e-5 * largest;
    if (w.s.first)
        score[0] = 1e300;
    if (w.s.newest)
        score[count - 1] = INFINITY;
    std::vector<bool> seen(count);
    for (int i = 0; i < count; i++) {
        int now = order[i], next = i + 1 < count ? order[i + 1] : now;
        if (now < 0 || now >= count || seen[now] || next < 0 || next >= count) {
            test.complain("row %d: place %d of %d has page %d", row, i, count, now);
            return;
        }
        seen[now] = true;
        bool ties = slack == 0 && score[now] == score[next];
        if (score[now] > score[next] + slack || (ties && now < next))
            test.complain("row %d: page %d of %.9g before page %d of %.9g", row, now, score[now],
                          next, score[next]);
    }
}

/* S: of digests. */
template <class T, class S> static void live(const shape &s)
{
    test_case test("pages B=%d Hkv=%d G=%d D=%d n=%d page=%d most=%d %s agg=%d type=%d%s%s%s%s",
                   s.B, s.Hkv, s.G, s.D, s.n, s.page, s.most,
                   s.digest == RA_PAGE_MEAN ? "sums" : "bounds", s.agg, (int)type_of(T()),
                   s.newest ? " newest" : "", s.first ? " first" : "", s.paged ? " paged" : "",
                   s.whole ? " whole" : "");
    world<T> w(s);
    int parts = s.digest == RA_PAGE_MEAN ? 1 : 2;
    device_array<T> keys(w.keys);
    device_array<int32_t> pages(w.pages), order((size_t)w.rows * w.n_pages), ranked(w.rows);
    device_array<S> digest((size_t)w.rows * w.n_pages * parts * s.D);
    device_array<float> q(w.q), scores((size_t)w.rows * s.G * w.n_pages);
    device_array<uint32_t> ranks((size_t)w.rows * w.n_pages);
    ra_digest_args a = {};
    a.k = keys.get();
    a.pages = s.paged ? pages.get() : nullptr;
    a.digest = digest.get();
    a.row_stride = w.stride();
    a.page_stride = w.list;
    a.n_pages = w.n_pages;
    a.page = s.page;
    a.most = w.most;
    a.n_rows = w.rows;
    a.Hkv = s.Hkv;
    a.D = s.D;
    ra_rank_args r = {};
    r.q = q.get();
    r.digest = digest.get();
    r.scores = scores.get();
    r.keys = ranks.get();
    r.order = order.get();
    r.n_ranked = ranked.get();
    r.n_pages = w.n_pages;
    r.page = s.page;
    r.most = w.most;
    r.D = s.D;
    r.G = s.G;
    r.agg = s.agg;
    r.takes_newest = s.newest;
    r.takes_first = s.first;
    r.scale = 0.25f;
    /* Twice: what a page took in before it was taken back counts no more. */
    for (int n : {s.n, s.n + 1, s.n + 2, s.n + 3, s.n, s.n + 1}) {
        bool all = n == s.n;
        device_array<int32_t> count(std::vector<int32_t>(w.rows, n));
        a.n = r.n = count.get();
        a.fresh = all ? -1 : 1;
        test.launched(ra_launch_digest(type_of(T()), s.digest, a, 0));
        check_digests(w, digest.read(), n, test);
        test.launched(ra_launch_rank(type_of(T()), s.digest, w.rows, w.count(n), r, 0));
        std::vector<int32_t> got = order.read(), counts = ranked.read();
        for (int row = 0; row < w.rows; row++) {
            if (counts[row] != w.count(n))
                test.complain("row %d: expected %d pages, got %d", row, w.count(n), counts[row]);
            check_order(w, row, &got[(size_t)row * w.n_pages], n, 0.25, test);
        }
    }
}

template <class T> static void live_as(const shape &s)
{
    if (s.digest == RA_PAGE_MEAN)
        live<T, float>(s);
    else
        live<T, T>(s);
}

/* Each digest is read once, whatever the group, and a row that is taken in touches one page. */
static void count_bytes()
{
    test_case test("bytes of digests and scores");
    int n = 1600, n_pages = 100, D = 64, rows = 2, G = 4;
    device_array<__half> keys(random_values<__half>((size_t)rows * n * D, 1)),
        digest((size_t)rows * n_pages * 2 * D);
    device_array<float> q(random_values<float>((size_t)rows * G * D, 1)),
        scores((size_t)rows * G * n_pages);
    device_array<int32_t> count(std::vector<int32_t>(rows, n)), order((size_t)rows * n_pages),
        ranked(rows);
    device_array<uint32_t> ranks((size_t)rows * n_pages);
    ra_digest_args a = {keys.get(), nullptr, count.get(), digest.get(), n, 0, n_pages,
                        16,         n,       -1,          rows,         2, D};
    start_counting();
    test.launched(ra_launch_digest(RA_F16, RA_PAGE_BOUNDS, a, 0));
    test.moved("digest_pages", (double)rows * (2.0 * n * D + 2.0 * 2 * n_pages * D));
    a.fresh = 1;
    start_counting();
    test.launched(ra_launch_digest(RA_F16, RA_PAGE_BOUNDS, a, 0));
    test.moved_between("digest_pages", rows * 2.0 * D * 5, rows * (2.0 * D * 5 + 64));
    ra_rank_args r = {q.get(),
                      digest.get(),
                      count.get(),
                      scores.get(),
                      ranks.get(),
                      order.get(),
                      ranked.get(),
                      n_pages,
                      16,
                      n,
                      D,
                      G,
                      RA_AGG_MAX,
                      true,
                      false,
                      1};
    start_counting();
    test.launched(ra_launch_rank(RA_F16, RA_PAGE_BOUNDS, rows, n_pages, r, 0));
    test.moved("score_pages", rows * (2.0 * 2 * n_pages * D + 4.0 * G * n_pages + 4.0 * G * D * 2));
}

/* An argument: more of the same. */
int main(int n_arguments, char **)
{
    static const int lengths[] = {1, 15, 16, 17, 31, 100, 257, 700}, sizes[] = {1, 4, 16, 64},
                     groups[] = {1, 2, 3, 4, 7, 8, 32}, dims[] = {64, 128, 256};
    setvbuf(stdout, nullptr, _IOLBF, 0);
    for (int i = 0; i < (n_arguments > 1 ? 840 : 84); i++) {
        shape s = {1 + i % 2,
                   1 + i / 2 % 2,
                   groups[i % 7],
                   dims[i / 2 % 3],
                   lengths[i % 8],
                   sizes[i / 5 % 4],
                   1 << 20,
                   (enum ra_page_digest)(i / 4 % 2),
                   (enum ra_agg)(random_below(4)),
                   random_below(2) == 0,
                   random_below(2) == 0,
                   random_below(2) == 0,
                   random_below(2) == 0};
        if (random_below(4) == 0)
            s.most = s.n - random_below(s.n);
        if (i % 3 == 0)
            live_as<__half>(s);
        else if (i % 3 == 1)
            live_as<__nv_bfloat16>(s);
        else
            live_as<float>((s.D = std::min(s.D, 128), s));
    }
    live_as<__half>(
        {1, 1, 2, 64, 9000, 4, 1 << 20, RA_PAGE_BOUNDS, RA_AGG_SUM, true, true, false, true});
    count_bytes();
    return finish();
}
