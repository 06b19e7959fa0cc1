/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Offsets beyond 2^31 elements: caches so large that only what is touched of them exists, whose
 * rows, pages and keys that matter lie behind that mark. Would catch a product of 32-bit factors
 * in any address of a kernel. Then contexts of a real length: 131,072 keys attended to, a choice
 * among 1,048,576.
 */
#include <algorithm>

#include "kernels/cuda/append.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/refresh.cuh"
#include "kernels/cuda/select.cuh"
#include "tests/emu/kernel_test.h"

enum { D = 64, ROW_BYTES = D * 2 };
static const int64_t kFar = (int64_t)1 << 31; /* elements: the mark */
static const float kScale = 0.125f;

/* n elements of the card's memory, of which few are touched. */
template <class T> class sparse
{
    T *memory = nullptr;

  public:
    explicit sparse(int64_t n)
    {
#ifdef __CUDACC__
        if (cudaMalloc((void **)&memory, (size_t)n * sizeof(T)) != cudaSuccess) {
            printf("skipped: a card with %.0f GiB free is needed\n",
                   (double)n * sizeof(T) / 0x1p30);
            exit(finish());
        }
#else
        memory = static_cast<T *>(ra_emu_map((size_t)n * sizeof(T)));
        if (!memory)
            abort();
#endif
    }
    sparse(const sparse &) = delete;
    sparse &operator=(const sparse &) = delete;
    ~sparse()
    {
#ifdef __CUDACC__
        cudaFree(memory);
#else
        ra_emu_unmap(memory);
#endif
    }
    T *get() const
    {
        return memory;
    }
    void write(int64_t at, const std::vector<T> &from) const
    {
        cudaMemcpy(memory + at, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice);
    }
    std::vector<T> read(int64_t at, size_t n) const
    {
        std::vector<T> to(n);
        cudaMemcpy(to.data(), memory + at, n * sizeof(T), cudaMemcpyDeviceToHost);
        return to;
    }
};

/* One query head's attention to keys, by the definition. */
struct answer {
    std::vector<double> logits, out;
    double lse;

    answer(const float *q, const std::vector<__half> &k, const std::vector<__half> &v) : out(D)
    {
        double top = -INFINITY, sum = 0;
        for (size_t i = 0; i < k.size() / D; i++) {
            double dot = 0;
            for (size_t d = 0; d < D; d++)
                dot += (double)kScale * q[d] * load(k[i * D + d]);
            logits.push_back(dot);
            top = std::max(top, dot);
        }
        for (double x : logits)
            sum += exp(x - top);
        lse = top + log(sum);
        for (size_t i = 0; i < logits.size(); i++)
            for (size_t d = 0; d < D; d++)
                out[d] += exp(logits[i] - lse) * load(v[i * D + d]);
    }
};

/* --- attention ----------------------------------------------------------------------------------
 */

enum { HEADS = 2, GROUP = 2, KEYS = 48, FAR_ROW = 1 << 25, FAR_PAGE = 1 << 21 };
enum finding { IN_LINE, WINDOW, BY_INDEX, BY_PAGES, BY_BOTH };

/* K and V of two KV heads of which 48 keys matter: those of the second start behind the mark, or
 * all of them lie there. */
struct far_cache {
    enum finding how;
    std::vector<int32_t> position, pages;

    explicit far_cache(enum finding by) : how(by)
    {
        int step = is_indexed() ? 5 : 1;
        for (int i = 0; i < KEYS; i++)
            position.push_back(how == IN_LINE ? i : FAR_ROW - 7 + i * step);
        /* Only the pages of those positions are looked at; the first of them is the last. */
        pages.assign(FAR_ROW / RA_PAGE + 64, -1);
        for (int i = -1; i < 63; i++)
            pages[FAR_ROW / RA_PAGE + i] = FAR_PAGE + 63 - i;
    }
    bool is_indexed() const
    {
        return how == BY_INDEX || how == BY_BOTH;
    }
    bool is_paged() const
    {
        return how == BY_PAGES || how == BY_BOTH;
    }
    int64_t row_stride() const
    {
        return FAR_ROW + 1024;
    }
    int64_t rows() const
    {
        return is_paged() ? (int64_t)(FAR_PAGE + 65) * HEADS * RA_PAGE : HEADS * row_stride();
    }
    int64_t row(int head, int32_t at) const
    {
        if (!is_paged())
            return head * row_stride() + at;
        return ((int64_t)pages[at / RA_PAGE] * HEADS + head) * RA_PAGE + at % RA_PAGE;
    }
    std::vector<__half> fill(const sparse<__half> &memory, int head) const
    {
        std::vector<__half> all = random_values<__half>(KEYS * D, 2);
        for (int i = 0; i < KEYS; i++)
            memory.write(row(head, position[i]) * D,
                         {all.begin() + i * D, all.begin() + (i + 1) * D});
        return all;
    }
};

static void compare(const answer &want, const std::vector<float> &out, double lse, test_case &test)
{
    for (int d = 0; d < D && !out.empty(); d++)
        if (!(fabs(out[d] - want.out[d]) <= 1e-5))
            test.complain("output %d: expected %g, got %g", d, want.out[d], out[d]);
    if (!(fabs(lse - want.lse) <= 1e-5))
        test.complain("lse: expected %g, got %g", want.lse, lse);
}

static void attend(enum finding how, bool scores_alone)
{
    test_case test("attention, keys found by way %d%s", how, scores_alone ? ", scores alone" : "");
    far_cache cache(how);
    const int64_t logit_stride = (int64_t)1 << 30;
    const int queries = HEADS * GROUP, splits = 2;
    sparse<__half> k(cache.rows() * D), v(cache.rows() * D);
    sparse<float> logits(queries * logit_stride);
    std::vector<float> q = random_values<float>(queries * D, 2);
    std::vector<answer> want;
    for (int head = 0; head < HEADS; head++) {
        std::vector<__half> keys = cache.fill(k, head), values = cache.fill(v, head);
        for (int g = 0; g < GROUP; g++)
            want.emplace_back(&q[(head * GROUP + g) * D], keys, values);
    }
    std::vector<int32_t> index = cache.position;
    index.insert(index.end(), cache.position.begin(), cache.position.end());
    int32_t n = cache.is_indexed() || how == IN_LINE ? KEYS : cache.position.back() + 1;
    device_array<float> d_q(q), out(queries * D), lse(queries);
    device_array<float> partial(HEADS * splits * GROUP * D), sums(HEADS * splits * 2 * GROUP);
    device_array<int32_t> d_n(std::vector<int32_t>(HEADS, n)), d_index(index), d_pages(cache.pages);
    device_array<uint32_t> ticket(std::vector<uint32_t>(HEADS, 0));
    ra_decode_args a = {};
    a.q = d_q.get();
    a.k = k.get();
    a.v = v.get();
    a.n = d_n.get();
    a.index = cache.is_indexed() ? d_index.get() : nullptr;
    a.pages = cache.is_paged() ? d_pages.get() : nullptr;
    a.out = out.get();
    a.lse = lse.get();
    a.logits = logits.get();
    a.partial = partial.get();
    a.partial_sums = sums.get();
    a.ticket = ticket.get();
    a.row_stride = cache.row_stride();
    a.index_stride = KEYS;
    a.logit_stride = logit_stride;
    a.window = n > KEYS ? KEYS : 0;
    a.Hkv = HEADS;
    a.heads = GROUP;
    a.scale = kScale;
    ra_decode_plan plan = {RA_F16, D, 1, splits, true, cache.is_indexed() || cache.is_paged()};
    test.launched(scores_alone ? ra_launch_score(plan, a, 0) : ra_launch_decode(plan, a, 0));
    std::vector<float> got = out.read(), sum = lse.read();
    for (int query = 0; query < queries; query++) {
        std::vector<float> row(got.begin() + query * D, got.begin() + (query + 1) * D);
        compare(want[query], scores_alone ? std::vector<float>() : row, sum[query], test);
        std::vector<float> written = logits.read(query * logit_stride + n - KEYS, KEYS);
        for (int i = 0; i < KEYS; i++)
            if (!(fabs(written[i] - want[query].logits[i]) <= 1e-5))
                test.complain("query %d, logit %d: expected %g, got %g", query, i,
                              want[query].logits[i], written[i]);
    }
}

/* --- rows that are written and moved -------------------------------------------------------------
 */

static void append(bool is_paged)
{
    test_case test("append%s", is_paged ? ", pages" : "");
    far_cache cache(is_paged ? BY_PAGES : WINDOW);
    const int32_t position = FAR_ROW + 3;
    sparse<__half> k(cache.rows() * D), v(cache.rows() * D);
    std::vector<__half> self = random_values<__half>(2 * HEADS * D, 2);
    device_array<__half> d_self(self);
    device_array<int32_t> n(std::vector<int32_t>(HEADS, position)), pages(cache.pages);
    ra_append_args a = {};
    a.self_k = d_self.get();
    a.self_v = d_self.get() + HEADS * D;
    a.full_k = k.get();
    a.full_v = v.get();
    a.pages = is_paged ? pages.get() : nullptr;
    a.n = n.get();
    a.row_stride = cache.row_stride();
    a.n_rows = a.Hkv = HEADS;
    a.row_bytes = ROW_BYTES;
    test.launched(ra_launch_append(a, 0));
    for (int head = 0; head < HEADS; head++) {
        std::vector<__half> got_k = k.read(cache.row(head, position) * D, D);
        std::vector<__half> got_v = v.read(cache.row(head, position) * D, D);
        if (memcmp(got_k.data(), &self[head * D], ROW_BYTES) != 0 ||
            memcmp(got_v.data(), &self[(HEADS + head) * D], ROW_BYTES) != 0)
            test.complain("head %d: its row is not where it belongs", head);
    }
}

/* A cache planned for positions near the end of a long context, and filled from there. */
static void refresh(bool is_paged)
{
    test_case test("plan and move%s", is_paged ? ", pages" : "");
    far_cache cache(is_paged ? BY_PAGES : WINDOW);
    sparse<__half> k(cache.rows() * D), v(cache.rows() * D);
    std::vector<std::vector<__half>> keys, values;
    std::vector<int32_t> chosen;
    for (int head = 0; head < HEADS; head++) {
        keys.push_back(cache.fill(k, head));
        values.push_back(cache.fill(v, head));
        chosen.insert(chosen.end(), cache.position.begin(), cache.position.end());
    }
    device_array<int32_t> d_chosen(chosen), n_chosen(std::vector<int32_t>(HEADS, KEYS));
    device_array<int32_t> pages(cache.pages), n(std::vector<int32_t>(HEADS, 0)),
        slot_pos(HEADS * KEYS), queue(HEADS * KEYS), queue_first(HEADS), queue_n(HEADS),
        n_moves(HEADS);
    device_array<int2> moves(HEADS * KEYS);
    device_array<__half> to_k(HEADS * KEYS * D), to_v(HEADS * KEYS * D);
    ra_plan_args plan = {};
    plan.cache = {n.get(), slot_pos.get(), queue.get(), queue_first.get(), queue_n.get(), KEYS};
    plan.chosen = plan.order = d_chosen.get();
    plan.n_chosen = n_chosen.get();
    plan.moves = moves.get();
    plan.n_moves = n_moves.get();
    plan.stride = KEYS;
    test.launched(ra_launch(plan_refresh, HEADS, RA_PLAN_THREADS, ra_plan_shared(KEYS), 0, plan));
    ra_move_args move = {};
    move.moves = moves.get();
    move.n_moves = n_moves.get();
    move.from_k = k.get();
    move.from_v = v.get();
    move.pages = is_paged ? pages.get() : nullptr;
    move.to_k = to_k.get();
    move.to_v = to_v.get();
    move.row_stride = cache.row_stride();
    move.cap = KEYS;
    move.Hkv = HEADS;
    test.launched(ra_launch_move(HEADS, ROW_BYTES, move, 0));
    std::vector<int32_t> at = slot_pos.read();
    std::vector<__half> got_k = to_k.read(), got_v = to_v.read();
    for (int i = 0; i < HEADS * KEYS; i++) {
        int which = at[i] - cache.position[0], head = i / KEYS;
        if (which < 0 || which >= KEYS ||
            memcmp(&got_k[i * D], &keys[head][which * D], ROW_BYTES) != 0 ||
            memcmp(&got_v[i * D], &values[head][which * D], ROW_BYTES) != 0)
            test.complain("head %d, slot %d: not the row of position %d", head, i % KEYS, at[i]);
    }
}

/* --- selection -----------------------------------------------------------------------------------
 */

/* The K largest of n logits, of equal ones the first: by a sort of all. */
static std::vector<int32_t> largest(const std::vector<float> &logits, int K)
{
    std::vector<int32_t> all(logits.size());
    for (size_t i = 0; i < all.size(); i++)
        all[i] = (int32_t)i;
    std::stable_sort(all.begin(), all.end(),
                     [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    all.resize(K);
    std::sort(all.begin(), all.end());
    return all;
}

/* One query head a row, not pooled: the choice is that of the logits. Values are multiples of 1/64,
 * so many of them are equal. */
static void choose(int rows, int n, int K, int64_t stride)
{
    test_case test("choose %d of %d, rows %lld apart", K, n, (long long)stride);
    sparse<float> logits(rows * stride);
    sparse<uint32_t> keys(rows * stride);
    std::vector<std::vector<float>> all(rows, std::vector<float>(n));
    for (int row = 0; row < rows; row++) {
        for (float &x : all[row])
            x = (float)random_below(1024) / 64;
        logits.write(row * stride, all[row]);
    }
    ra_select_plan plan = ra_plan_select(8, rows, n);
    device_array<uint32_t> scratch(ra_select_scratch(plan) / 4 + 4);
    cudaMemset(scratch.get(), 0, ra_select_scratch(plan));
    device_array<float> lse(std::vector<float>(rows, 20.f));
    device_array<int32_t> d_n(std::vector<int32_t>(rows, n)), chosen(rows * K), n_chosen(rows),
        order(rows * K);
    ra_select_args a = {};
    a.logits = logits.get();
    a.lse = lse.get();
    a.n = d_n.get();
    a.keys = keys.get();
    a.chosen = chosen.get();
    a.n_chosen = n_chosen.get();
    a.scratch = scratch.get();
    a.logit_stride = a.key_stride = stride;
    a.chosen_stride = K;
    a.G = a.pool = 1;
    a.K = K;
    a.agg = RA_AGG_MAX;
    a.current = RA_CURRENT_PSEUDO;
    test.launched(ra_launch_select(plan, a, 0));
    ra_order_args by = {};
    by.chosen = chosen.get();
    by.n_chosen = n_chosen.get();
    by.keys = keys.get();
    by.order = order.get();
    by.key_stride = stride;
    by.chosen_stride = K;
    test.launched(ra_launch_order(rows, K, by, 0));
    std::vector<int32_t> got = chosen.read(), evicted = order.read();
    for (int row = 0; row < rows; row++) {
        std::vector<int32_t> want = largest(all[row], K);
        if (memcmp(want.data(), &got[row * K], K * sizeof(int32_t)) != 0)
            test.complain("row %d: not the %d largest", row, K);
        std::stable_sort(want.begin(), want.end(), [&](int32_t x, int32_t y) {
            return all[row][x] < all[row][y] || (all[row][x] == all[row][y] && x > y);
        });
        if (memcmp(want.data(), &evicted[row * K], K * sizeof(int32_t)) != 0)
            test.complain("row %d: not the order of the logits", row);
    }
}

/* --- a long context ------------------------------------------------------------------------------
 */

static void attend_long(int n)
{
    test_case test("attend to %d keys", n);
    const int splits = 32;
    std::vector<__half> k = random_values<__half>((size_t)n * D, 2);
    std::vector<__half> v = random_values<__half>((size_t)n * D, 2);
    std::vector<float> q = random_values<float>(D, 2);
    answer want(q.data(), k, v);
    device_array<__half> d_k(k), d_v(v);
    device_array<float> d_q(q), out(D), lse(1), logits(n + 1), partial(splits * D),
        sums(splits * 2);
    device_array<int32_t> d_n(std::vector<int32_t>(1, n));
    device_array<uint32_t> ticket(std::vector<uint32_t>(1, 0));
    ra_decode_args a = {};
    a.q = d_q.get();
    a.k = d_k.get();
    a.v = d_v.get();
    a.n = d_n.get();
    a.out = out.get();
    a.lse = lse.get();
    a.logits = logits.get();
    a.partial = partial.get();
    a.partial_sums = sums.get();
    a.ticket = ticket.get();
    a.row_stride = n;
    a.logit_stride = n + 1;
    a.Hkv = a.heads = 1;
    a.scale = kScale;
    test.launched(ra_launch_decode({RA_F16, D, 1, splits, true, false}, a, 0));
    compare(want, out.read(), lse.read()[0], test);
    std::vector<float> written = logits.read();
    for (int i = 0; i < n; i++)
        if (!(fabs(written[i] - want.logits[i]) <= 1e-5))
            test.complain("logit %d: expected %g, got %g", i, want.logits[i], written[i]);
}

int main()
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    for (enum finding how : {IN_LINE, WINDOW, BY_INDEX, BY_PAGES, BY_BOTH})
        attend(how, false);
    for (enum finding how : {IN_LINE, WINDOW, BY_PAGES})
        attend(how, true);
    for (bool is_paged : {false, true}) {
        append(is_paged);
        refresh(is_paged);
    }
    choose(3, 500, 64, kFar / 2);
    choose(1, 1048576, 2048, 1048576);
    attend_long(131072);
    return finish();
}
