/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Selection and the order of eviction against the rule in f64, written plainly here: every
 * aggregation, pooling and treatment of the current position, rows of different length in one
 * launch, one CTA or several for a row, scores full of ties or out of the usual range.
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
    int n_sms;   /* 1: one CTA for a row */
    float sink;  /* logarithm of what lies outside the row */

    size_t stride() const
    {
        return (size_t)(n + 3) / 4 * 4;
    }
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
        for (size_t i = 0; i < s.rows * s.G * s.stride(); i++) {
            /* Distinct values stand so far apart that f32 orders them as f64 does. */
            int value = s.plateau ? random_below(s.plateau) : (int)(random_bits() >> 8);
            logits.push_back(s.plateau ? (float)value / 4 : (float)value * 0x1p-20f - 4);
        }
        for (int head = 0; head < s.rows * s.G; head++) {
            double sum = 0;
            for (int i = 0; i < n[head / s.G]; i++)
                sum += exp(logits[head * s.stride() + i]);
            /* The rule is of the logits and of this sum, as the kernel is given it. */
            lse.push_back((float)log(sum) + s.sink);
            exact_lse.push_back(lse.back());
        }
    }
};

/* Logits and, as keys, scores move once; the halo of a tile is read twice. */
static void check_bytes(const problem &p, const ra_select_plan &plan, test_case &test)
{
    const shape &s = p.s;
    double aggregated = 0, keys = 0, counts = 0, ordered = 0;
    for (int row = 0; row < s.rows; row++) {
        int n = p.n[row], m = s.current == RA_CURRENT_PSEUDO ? n : n - 1;
        int wanted = std::min(m, s.K - (s.current == RA_CURRENT_SNAPKV));
        aggregated += 4.0 * n * ((s.agg == RA_AGG_FIRST ? 1 : s.G) + 1 + s.raw);
        keys += 4.0 * m;
        counts += (plan.parts + 1) * (4.0 * RA_SELECT_BINS + 256);
        ordered += 12.0 * wanted;
    }
    test.moved("aggregate_scores", aggregated);
    test.moved("order_evictions", ordered);
    /* Apart from ties and short rows, few are listed beside the chosen. */
    bool bounded = !s.plateau && s.n >= 5000;
    test.moved_between("select_topk", keys, bounded ? 2 * keys + counts : INFINITY);
}

static void check_zeros(const device_array<uint32_t> &scratch, const ra_select_plan &plan,
                        test_case &test)
{
    std::vector<uint32_t> words = scratch.read();
    for (size_t i = 0; i < ra_select_zeros(plan) / 4; i++)
        if (words[i])
            test.complain("word %zu of scratch is left as %#x", i, words[i]);
}

/* Twice from the same scratch, as a graph would. */
static results launch(const problem &p, test_case &test)
{
    const shape &s = p.s;
    size_t n_keys = s.rows * s.stride(), n_chosen = (size_t)s.rows * s.K;
    device_array<float> logits(p.logits), lse(p.lse);
    device_array<int32_t> n(p.n), chosen(n_chosen), counts(s.rows), order(n_chosen);
    device_array<uint32_t> keys(n_keys), raw_keys(n_keys);
    ra_select_plan plan = ra_plan_select(s.n_sms, s.rows, s.n);
    device_array<uint32_t> scratch(ra_select_scratch(plan) / 4);
    cudaMemset(scratch.get(), 0, ra_select_zeros(plan));
    int64_t stride = (int64_t)s.stride();
    ra_select_args a = {};
    a.logits = logits.get(), a.lse = lse.get(), a.n = n.get(), a.keys = keys.get();
    a.raw_keys = s.raw ? raw_keys.get() : nullptr;
    a.chosen = chosen.get(), a.n_chosen = counts.get(), a.scratch = scratch.get();
    a.logit_stride = stride, a.key_stride = stride, a.chosen_stride = s.K;
    a.G = s.G, a.pool = s.pool, a.K = s.K, a.agg = s.agg, a.current = s.current;
    test.launched(ra_launch_select(plan, a, 0));
    check_zeros(scratch, plan, test);
    cudaMemset(chosen.get(), 0xff, n_chosen * 4);
    cudaMemset(counts.get(), 0xff, (size_t)s.rows * 4);
    start_counting();
    test.launched(ra_launch_select(plan, a, 0));
    ra_order_args o = {a.chosen, a.n_chosen, s.raw ? a.raw_keys : a.keys,   order.get(),
                       stride,   s.K,        s.current == RA_CURRENT_SNAPKV};
    test.launched(ra_launch_order(s.rows, std::min(s.K, s.n), o, 0));
    check_bytes(p, plan, test);
    check_zeros(scratch, plan, test);
    return {keys.read(), raw_keys.read(), chosen.read(), counts.read(), order.read()};
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
        if (!(fabs(got - log(score[i])) <= 4e-6 * (1 + fabs(got) / 16)))
            test.complain("row %d: %s key %zu is of %.9g, expected %.9g", row, what, i, got,
                          log(score[i]));
    }
}

static bool is_product;

/* exp2f and logf may bring two scores that f64 barely tells apart to the other order: a card's, or
 * the host's where there are many cases. Then the choice must be that of the keys, which were
 * compared. */
static bool rounds_as_it_likes(const shape &s)
{
#ifdef __CUDACC__
    return s.agg == RA_AGG_MEAN || s.agg == RA_AGG_SUM;
#else
    return is_product && (s.agg == RA_AGG_MEAN || s.agg == RA_AGG_SUM);
#endif
}

static void run(const shape &s)
{
    static const char *const agg[] = {"max", "mean", "first", "sum"};
    static const char *const current[] = {"pseudo", "snapkv", "drop"};
    test_case test("select rows=%d G=%d n=%d K=%d pool=%d %s %s%s plateau=%d sms=%d sink=%g",
                   s.rows, s.G, s.n, s.K, s.pool, agg[s.agg], current[s.current],
                   s.raw ? " raw" : "", s.plateau, s.n_sms, s.sink);
    problem p(s);
    results got = launch(p, test);
    for (int row = 0; row < s.rows; row++) {
        answer want(s, &p.logits[row * s.G * s.stride()], s.stride(), &p.exact_lse[row * s.G],
                    p.n[row]);
        if (got.n_chosen[row] != (int)want.chosen.size())
            test.complain("row %d: expected %zu chosen, got %d", row, want.chosen.size(),
                          got.n_chosen[row]);
        compare_keys("pooled", row, want.pooled, &got.keys[row * s.stride()], test);
        if (s.raw)
            compare_keys("raw", row, want.raw, &got.raw_keys[row * s.stride()], test);
        if (rounds_as_it_likes(s))
            want.choose_by(s, &got.keys[row * s.stride()],
                           s.raw ? &got.raw_keys[row * s.stride()] : nullptr);
        compare("chosen", row, want.chosen, &got.chosen[(size_t)row * s.K], s.K, test);
        compare("order", row, want.order, &got.order[(size_t)row * s.K], s.K, test);
    }
    if (!s.raw)
        return;
    another_order shuffled;
    results again = launch(p, test);
    if (again.chosen != got.chosen || again.order != got.order)
        test.complain("the order of threads changes the choice");
}

/* Keys order as numbers do. */
static void run_keys()
{
    const float value[] = {NAN,   -INFINITY, -FLT_MAX, -100, -1,       -FLT_MIN,
                           -0.0f, 0.0f,      1e-40f,   1,    INFINITY, NAN};
    const int n = sizeof value / sizeof *value, K = n - 1, zero = 6;
    test_case test("keys of special values");
    device_array<float> logits(std::vector<float>(value, value + n)), lse(std::vector<float>{0});
    device_array<int32_t> length(std::vector<int32_t>{n}), chosen(K), n_chosen(1);
    device_array<uint32_t> keys(n);
    ra_select_plan plan = ra_plan_select(1, 1, n);
    device_array<uint32_t> scratch(ra_select_scratch(plan) / 4);
    cudaMemset(scratch.get(), 0, ra_select_zeros(plan));
    ra_select_args a = {logits.get(),
                        lse.get(),
                        length.get(),
                        keys.get(),
                        nullptr,
                        chosen.get(),
                        n_chosen.get(),
                        scratch.get(),
                        n,
                        n,
                        K,
                        1,
                        1,
                        K,
                        RA_AGG_MAX,
                        RA_CURRENT_PSEUDO};
    test.launched(ra_launch_select(plan, a, 0));
    std::vector<uint32_t> got = keys.read();
    for (int i = 1; i < n - 1; i++)
        if (i == zero + 1 ? got[i] != got[i - 1] : got[i] <= got[i - 1])
            test.complain("keys of %g and %g: %#x and %#x", value[i - 1], value[i], got[i - 1],
                          got[i]);
    std::vector<int> all_but_last;
    for (int i = 0; i < K; i++)
        all_but_last.push_back(i);
    compare("chosen", 0, all_but_last, chosen.read().data(), K, test);
}

/* What can't be done is refused. */
static void run_refused()
{
    test_case test("what is refused");
    ra_select_plan plan = ra_plan_select(132, 1, 64);
    ra_select_args good = {};
    good.logit_stride = good.key_stride = 64, good.G = 1, good.pool = 1;
    const auto refuses = [&](const char *what, void (*spoil)(ra_select_args &)) {
        ra_select_args a = good;
        spoil(a);
        if (ra_launch_select(plan, a, 0) != cudaErrorInvalidValue)
            test.complain("%s isn't refused", what);
    };
    refuses("an odd stride of logits", [](ra_select_args &a) { a.logit_stride = 65; });
    refuses("a short stride of keys", [](ra_select_args &a) { a.key_stride = 60; });
    refuses("keys between 16 bytes", [](ra_select_args &a) { a.keys = (uint32_t *)4; });
    refuses("an even pool", [](ra_select_args &a) { a.pool = 2; });
    refuses("too many heads", [](ra_select_args &a) { a.G = RA_AGGREGATE_HEADS + 1; });
    if (ra_launch_order(1, RA_ORDER_MOST + 1, {}, 0) != cudaErrorInvalidValue)
        test.complain("too many to be ordered aren't refused");
}

/* Every option with every other, short rows and long ones, fewer kept than there are and more. */
static int run_product()
{
    is_product = true;
    for (int n : {1, 2, 33, 300, RA_SELECT_SLICE + 1})
        for (int K : {1, 2, n - 1, n, n + 1})
            for (ra_agg agg : {RA_AGG_MAX, RA_AGG_MEAN, RA_AGG_FIRST, RA_AGG_SUM})
                for (ra_current current : {RA_CURRENT_PSEUDO, RA_CURRENT_SNAPKV, RA_CURRENT_DROP})
                    for (int i = 0; i < 2 * 4 * 5 && K > 0; i++) {
                        static const int groups[] = {1, 3, 4, 8}, pools[] = {1, 3, 7, 9, 31};
                        int G = groups[i / 2 % 4], pool = pools[i / 8];
                        int plateau = G == 1 && i % 3 == 0 ? 3 : 0;
                        run({2, G, n, K, pool, agg, current, i % 2 == 1, plateau, 132, 0});
                    }
    return finish();
}

/* An argument: make emu-full. */
int main(int n_arguments, char **)
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    if (n_arguments > 1)
        return run_product();
    run_keys();
    run_refused();
    for (int n : {1, 2, 31, 33, 513})
        for (int K : {1, 2, n - 1, n, n + 1, 40})
            if (K > 0)
                run({2, 4, n, K, 7, RA_AGG_MAX, RA_CURRENT_PSEUDO, false, 0, 132, 0});
    for (ra_agg agg : {RA_AGG_MAX, RA_AGG_MEAN, RA_AGG_FIRST, RA_AGG_SUM})
        for (int G : {1, 3, 4, 8})
            for (int pool : {1, 3, 7, 31})
                run({3, G, 300, 50, pool, agg, RA_CURRENT_PSEUDO, pool == 3, G == 1 ? 5 : 0, 132,
                     0});
    for (ra_current current : {RA_CURRENT_PSEUDO, RA_CURRENT_SNAPKV, RA_CURRENT_DROP})
        for (int K : {1, 64, 199, 201})
            for (int plateau : {0, 3})
                for (bool raw : {false, true})
                    run({2, 2, 200, K, 5, RA_AGG_MAX, current, raw, plateau, 132, 0});
    /* Tiles of the aggregation, slices of a row, everything in one bin. */
    const int slice = RA_SELECT_SLICE;
    for (int n : {slice - 1, 0 + slice, slice + 1, 2 * slice - 1, 2 * slice, 2 * slice + 1, 5000})
        for (int plateau : {0, 40})
            run({2, 2, n, 600, 7, RA_AGG_MAX, RA_CURRENT_SNAPKV, false, plateau, 132, 0});
    for (int n : {200, 5000})
        for (float sink : {20.0f, 128.0f})
            for (int K : {1, 64, n - 1, n + 1})
                run({2, 2, n, K, 1, RA_AGG_MAX, RA_CURRENT_DROP, false, 40, 132, sink});
    for (int K : {1, 3000, 8000})
        for (int n_sms : {1, 132})
            for (int plateau : {1, 2})
                run({1, 1, RA_SELECT_STAGED + 900, K, 1, RA_AGG_MAX, RA_CURRENT_PSEUDO, false,
                     plateau, n_sms, 5});
    run({8, 4, 20000, 1000, 7, RA_AGG_MAX, RA_CURRENT_PSEUDO, false, 0, 132, 0});
    /* As many heads and as many CTAs of a row as there may be. */
    run({2, RA_AGGREGATE_HEADS, 40, 10, 1, RA_AGG_MEAN, RA_CURRENT_PSEUDO, false, 0, 132, 0});
    run({1, 1, RA_SELECT_PARTS * slice, 500, 1, RA_AGG_MAX, RA_CURRENT_DROP, false, 40, 132, 0});
    return finish();
}
