/* SPDX-License-Identifier: Apache-2.0 */
/*
 * aggregate_scores, select_topk and order_evictions against the rule in f64, written plainly here:
 * every aggregation, pooling and treatment of the current position, rows of different length in one
 * launch, scores full of ties.
 */
#include <float.h>

#include <algorithm>

#include "kernels/cuda/select.cuh"
#include "tests/emu/kernel_test.h"

struct shape {
    int rows, G, n, K, pool;
    ra_agg agg;
    ra_current current;
    bool raw;    /* evict by unpooled scores */
    int plateau; /* logits take this many values; 0: any */
};

/* The rule, by the definition, on probabilities in f64. */
struct answer {
    std::vector<double> raw, pooled;
    std::vector<int> chosen, order;

    answer(const shape &s, const float *logits, size_t stride, const double *lse, int n)
        : raw(n), pooled(n)
    {
        for (int i = 0; i < n; i++) {
            double first = exp(logits[i] - lse[0]), best = first, sum = 0;
            for (int g = 0; g < s.G; g++) {
                double p = exp(logits[g * stride + i] - lse[g]);
                best = p > best ? p : best;
                sum += p;
            }
            raw[i] = s.agg == RA_AGG_FIRST ? first : s.agg == RA_AGG_MAX ? best : sum;
        }
        for (int i = 0; i < n; i++) {
            pooled[i] = 0;
            for (int j = i - s.pool / 2; j <= i + s.pool / 2; j++)
                if (j >= 0 && j < n && raw[j] > pooled[i])
                    pooled[i] = raw[j];
        }
        choose(s, n);
    }

    /* Of the scores as they are now. */
    void choose(const shape &s, int n)
    {
        bool protects = s.current == RA_CURRENT_SNAPKV;
        int m = s.current == RA_CURRENT_PSEUDO ? n : n - 1;
        chosen = sorted_by(pooled, m);
        chosen.resize(std::min(m, s.K - protects));
        std::sort(chosen.begin(), chosen.end());
        order = sorted_by(s.raw ? raw : pooled, chosen);
        std::reverse(order.begin(), order.end());
        if (protects) {
            chosen.push_back(n - 1);
            order.push_back(n - 1);
        }
    }

    void choose_by(const shape &s, const uint32_t *keys, const uint32_t *raw_keys)
    {
        int n = (int)pooled.size();
        pooled.assign(keys, keys + n);
        if (raw_keys)
            raw.assign(raw_keys, raw_keys + n);
        choose(s, n);
    }

    /* Higher score first, then lower position. */
    static std::vector<int> sorted_by(const std::vector<double> &score, std::vector<int> positions)
    {
        std::stable_sort(positions.begin(), positions.end(),
                         [&](int a, int b) { return score[a] > score[b]; });
        return positions;
    }
    static std::vector<int> sorted_by(const std::vector<double> &score, int m)
    {
        std::vector<int> positions;
        for (int i = 0; i < m; i++)
            positions.push_back(i);
        return sorted_by(score, positions);
    }
};

struct results {
    std::vector<uint32_t> keys, raw_keys;
    std::vector<int32_t> chosen, n_chosen, order;
};

struct problem {
    shape s;
    std::vector<int32_t> n;
    std::vector<float> logits, lse;
    std::vector<double> exact_lse;

    explicit problem(const shape &of) : s(of)
    {
        for (int row = 0; row < s.rows; row++)
            n.push_back(row % 3 == 1 && s.n > 5 ? s.n - 5 : s.n);
        for (int i = 0; i < s.rows * s.G * s.n; i++) {
            /* Distinct values stand so far apart that f32 orders them as f64 does. */
            int value = s.plateau ? random_below(s.plateau) : (int)(random_bits() >> 8);
            logits.push_back(s.plateau ? (float)value / 4 : (float)value * 0x1p-20f - 4);
        }
        for (int head = 0; head < s.rows * s.G; head++) {
            double sum = 0;
            for (int i = 0; i < n[head / s.G]; i++)
                sum += exp(logits[(size_t)head * s.n + i]);
            /* The rule is of the logits and of this sum, as the kernel is given it. */
            lse.push_back((float)log(sum));
            exact_lse.push_back(lse.back());
        }
    }
};

static void select(const problem &p, const ra_aggregate_args &scores, ra_select_args &a, int staged,
                   test_case &test)
{
    const shape &s = p.s;
    size_t shared = (RA_AGGREGATE_TILE + (size_t)s.pool - 1) * 4;
    dim3 tiles((unsigned)((s.n + RA_AGGREGATE_TILE - 1) / RA_AGGREGATE_TILE), (unsigned)s.rows);
    test.launched(ra_launch(aggregate_scores, tiles, RA_AGGREGATE_THREADS, shared, 0, scores));
    if (staged)
        test.launched(
            ra_launch(select_topk<true>, s.rows, RA_SELECT_THREADS, (size_t)s.n * 4, 0, a));
    else
        test.launched(ra_launch(select_topk<false>, s.rows, RA_SELECT_THREADS, 0, 0, a));
}

/* Keys are written and, staged, read once; the halo of a tile is read twice. */
static void check_bytes(const problem &p, bool staged, test_case &test)
{
    const shape &s = p.s;
    double aggregated = 0, selected = 0, ordered = 0;
    for (int row = 0; row < s.rows; row++) {
        int n = p.n[row], m = s.current == RA_CURRENT_PSEUDO ? n : n - 1;
        int wanted = std::min(m, s.K - (s.current == RA_CURRENT_SNAPKV));
        aggregated += 4.0 * n * ((s.agg == RA_AGG_FIRST ? 1 : s.G) + 1 + s.raw);
        selected += 4.0 * m * (staged ? 1 : 5) + 4.0 * wanted;
        ordered += 12.0 * wanted;
    }
    test.moved("aggregate_scores", aggregated);
    test.moved("select_topk", selected);
    test.moved("order_evictions", ordered);
}

static results launch(const problem &p, bool staged, test_case &test)
{
    const shape &s = p.s;
    device_array<float> logits(p.logits), lse(p.lse);
    device_array<int32_t> n(p.n), chosen((size_t)s.rows * s.K), n_chosen(s.rows),
        order((size_t)s.rows * s.K);
    device_array<uint32_t> keys((size_t)s.rows * s.n), raw_keys((size_t)s.rows * s.n);
    uint32_t *raw = s.raw ? raw_keys.get() : nullptr;
    ra_aggregate_args scores = {logits.get(), lse.get(), n.get(), keys.get(), raw,
                                s.n,          s.n,       s.G,     s.pool,     s.agg};
    ra_select_args a = {keys.get(), n.get(), chosen.get(), n_chosen.get(),
                        s.n,        s.K,     s.K,          s.current};
    start_counting();
    select(p, scores, a, staged, test);
    int sorted = 1;
    while (sorted < s.K && sorted < s.n)
        sorted *= 2;
    ra_order_args o = {
        chosen.get(), n_chosen.get(), raw ? raw : keys.get(),        order.get(), s.n,
        s.K,          sorted,         s.current == RA_CURRENT_SNAPKV};
    test.launched(ra_launch(order_evictions, s.rows, RA_ORDER_THREADS, (size_t)sorted * 8, 0, o));
    check_bytes(p, staged, test);
    return {keys.read(), raw_keys.read(), chosen.read(), n_chosen.read(), order.read()};
}

static void compare(const char *what, int row, const std::vector<int> &want, const int32_t *got,
                    int room, test_case &test)
{
    for (int i = 0; i < room; i++) {
        int expected = i < (int)want.size() ? want[i] : -1; /* beyond: as it was */
        if (got[i] != expected)
            test.complain("row %d: %s %d: expected %d, got %d", row, what, i, expected, got[i]);
    }
}

/* The logarithm of the score that the key is of. */
static float score_of(uint32_t key)
{
    uint32_t bits = key >> 31 ? key & 0x7fffffffu : ~key;
    float score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

static void compare_keys(const char *what, int row, const std::vector<double> &score,
                         const uint32_t *key, test_case &test)
{
    for (size_t i = 0; i < score.size(); i++) {
        float got = score_of(key[i]);
        if (!(fabs(got - log(score[i])) <= 4e-6))
            test.complain("row %d: %s key %zu is of %.9g, expected %.9g", row, what, i, got,
                          log(score[i]));
    }
}

/* A card's exp2f and logf may bring two scores that f64 barely tells apart to the other order than
 * the host's. Then the choice must be that of the keys, which were compared. */
static bool rounds_as_it_likes(const shape &s)
{
#ifdef __CUDACC__
    return s.agg == RA_AGG_MEAN || s.agg == RA_AGG_SUM;
#else
    (void)s;
    return false;
#endif
}

static void run(const shape &s, bool staged = true)
{
    if (is_left_out())
        return;
    static const char *const agg[] = {"max", "mean", "first", "sum"};
    static const char *const current[] = {"pseudo", "snapkv", "drop"};
    test_case test("select rows=%d G=%d n=%d K=%d pool=%d %s %s%s plateau=%d%s", s.rows, s.G, s.n,
                   s.K, s.pool, agg[s.agg], current[s.current], s.raw ? " raw" : "", s.plateau,
                   staged ? "" : " from memory");
    problem p(s);
    results got = launch(p, staged, test);
    for (int row = 0; row < s.rows; row++) {
        answer want(s, &p.logits[(size_t)row * s.G * s.n], s.n, &p.exact_lse[row * s.G], p.n[row]);
        if (got.n_chosen[row] != (int)want.chosen.size())
            test.complain("row %d: expected %zu chosen, got %d", row, want.chosen.size(),
                          got.n_chosen[row]);
        compare_keys("pooled", row, want.pooled, &got.keys[(size_t)row * s.n], test);
        if (s.raw)
            compare_keys("raw", row, want.raw, &got.raw_keys[(size_t)row * s.n], test);
        if (rounds_as_it_likes(s))
            want.choose_by(s, &got.keys[(size_t)row * s.n],
                           s.raw ? &got.raw_keys[(size_t)row * s.n] : nullptr);
        compare("chosen", row, want.chosen, &got.chosen[(size_t)row * s.K], s.K, test);
        compare("order", row, want.order, &got.order[(size_t)row * s.K], s.K, test);
    }
    if (!s.raw)
        return;
    another_order shuffled;
    results again = launch(p, staged, test);
    if (again.chosen != got.chosen || again.order != got.order)
        test.complain("the order of threads changes the choice");
}

/* Keys order as numbers do. */
static void run_keys()
{
    const float value[] = {NAN,   -INFINITY, -FLT_MAX, -1, -FLT_MIN,
                           -0.0f, 0.0f,      1e-40f,   1,  INFINITY};
    const int n = sizeof value / sizeof *value;
    test_case test("keys of special values");
    device_array<float> logits(std::vector<float>(value, value + n)), lse(std::vector<float>{0});
    device_array<int32_t> length(std::vector<int32_t>{n});
    device_array<uint32_t> keys(n);
    ra_aggregate_args a = {logits.get(), lse.get(), length.get(), keys.get(), nullptr, n, n, 1, 1,
                           RA_AGG_MAX};
    test.launched(
        ra_launch(aggregate_scores, 1, RA_AGGREGATE_THREADS, RA_AGGREGATE_TILE * 4, 0, a));
    std::vector<uint32_t> got = keys.read();
    for (int i = 1; i < n; i++)
        if (i == 6 ? got[i] != got[i - 1] : got[i] <= got[i - 1])
            test.complain("keys of %g and %g: %#x and %#x", value[i - 1], value[i], got[i - 1],
                          got[i]);
}

int main()
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    run_keys();
    for (int n : {1, 2, 31, 33, 513})
        for (int K : {1, 2, n - 1, n, n + 1, 40})
            if (K > 0)
                run({2, 4, n, K, 7, RA_AGG_MAX, RA_CURRENT_PSEUDO, false, 0});
    for (ra_agg agg : {RA_AGG_MAX, RA_AGG_MEAN, RA_AGG_FIRST, RA_AGG_SUM})
        for (int G : {1, 3, 4, 8})
            for (int pool : {1, 3, 7, 31})
                run({3, G, 300, 50, pool, agg, RA_CURRENT_PSEUDO, pool == 3, G == 1 ? 5 : 0});
    for (ra_current current : {RA_CURRENT_PSEUDO, RA_CURRENT_SNAPKV, RA_CURRENT_DROP})
        for (int K : {1, 64, 199, 201})
            for (int plateau : {0, 3})
                for (bool raw : {false, true})
                    run({2, 2, 200, K, 5, RA_AGG_MAX, current, raw, plateau});
    /* Tiles of the aggregation, stretches of the compaction. */
    for (int n : {0 + RA_AGGREGATE_TILE - 1, 0 + RA_AGGREGATE_TILE, 1 + RA_AGGREGATE_TILE, 5000})
        for (bool staged : {false, true})
            run({2, 2, n, 600, 7, RA_AGG_MAX, RA_CURRENT_PSEUDO, false, staged ? 0 : 40}, staged);
    return finish();
}
