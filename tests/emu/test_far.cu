/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Offsets beyond 32 bits, signed or not: caches, logits and lists so large that only what is
 * touched of them exists, whose rows, pages and keys that matter lie behind that mark. Would catch
 * a product of 32-bit factors in any address of a kernel. Then contexts of a real length: 131,072
 * keys attended to, a choice of 8,192 among 1,048,576 and a cache brought from one such choice to
 * another.
 */
#include <algorithm>

#include "kernels/cuda/append.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/refresh.cuh"
#include "kernels/cuda/select.cuh"
#include "tests/emu/kernel_test.h"
#include "tests/emu/sparse.cuh"

enum { D = 64, ROW_BYTES = D * 2 };
static const float kScale = 0.125f;

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
enum { FIRST_LISTED = FAR_ROW / RA_PAGE - 1, LISTED = 64 }; /* pages */
enum finding { IN_LINE, WINDOW, BY_INDEX, BY_PAGES, BY_BOTH };

/* K and V of two rows, KV heads of one sequence or of two, of which 48 keys matter: those of the
 * second row start behind the mark, or all of them lie there. Of a row's list of pages only those
 * entries are there; the first of those pages is the last in memory. */
struct far_cache {
    enum finding how;
    int sequences, Hkv;

    far_cache(enum finding by, int of) : how(by), sequences(of), Hkv(HEADS / of)
    {
    }
    /* No two rows have the same ones behind the mark: the list of another would show. */
    std::vector<int32_t> positions(int head) const
    {
        std::vector<int32_t> list;
        for (int i = 0; i < KEYS; i++)
            list.push_back(how == IN_LINE ? i : FAR_ROW - 7 + head + i * (is_indexed() ? 5 : 1));
        return list;
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
        return is_paged() ? (int64_t)(FAR_PAGE + 2 * LISTED) * Hkv * RA_PAGE : HEADS * row_stride();
    }
    int32_t page(int sequence, int32_t at) const
    {
        return FAR_PAGE + (sequence + 1) * LISTED - 1 - (at / RA_PAGE - FIRST_LISTED);
    }
    int64_t row(int head, int32_t at) const
    {
        if (!is_paged())
            return head * row_stride() + at;
        return ((int64_t)page(head / Hkv, at) * Hkv + head % Hkv) * RA_PAGE + at % RA_PAGE;
    }
    std::vector<__half> fill(const sparse<__half> &memory, int head) const
    {
        std::vector<__half> all = random_values<__half>(KEYS * D, 2);
        for (int i = 0; i < KEYS; i++)
            memory.write(row(head, positions(head)[i]) * D,
                         {all.begin() + i * D, all.begin() + (i + 1) * D});
        return all;
    }
};

/* A list for each of two rows; the second's is behind the mark. */
struct far_lists : sparse<int32_t> {
    explicit far_lists(int64_t longest) : sparse(kFar + longest)
    {
    }
    far_lists(const std::vector<int32_t> &first, const std::vector<int32_t> &second)
        : far_lists((int64_t)second.size())
    {
        write(0, first);
        write(kFar, second);
    }
    explicit far_lists(const far_cache &cache) : far_lists(FIRST_LISTED + LISTED)
    {
        for (int sequence = 0; sequence < cache.sequences; sequence++)
            for (int i = FIRST_LISTED; i < FIRST_LISTED + LISTED; i++)
                write(sequence * kFar + i, {cache.page(sequence, i * RA_PAGE)});
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

static void attend(enum finding how, bool scores_alone, int sequences)
{
    test_case test("attention, keys found by way %d, %d sequences%s", how, sequences,
                   scores_alone ? ", scores alone" : "");
    far_cache cache(how, sequences);
    const int queries = HEADS * GROUP, splits = 2;
    std::vector<int32_t> n;
    for (int head = 0; head < HEADS; head++)
        n.push_back(cache.is_indexed() ? KEYS : cache.positions(head).back() + 1);
    sparse<__half> k(cache.rows() * D), v(cache.rows() * D);
    sparse<float> logits((queries - 1) * kFar + n.back() + 1);
    std::vector<float> q = random_values<float>(queries * D, 2);
    std::vector<answer> want;
    for (int head = 0; head < HEADS; head++) {
        std::vector<__half> keys = cache.fill(k, head), values = cache.fill(v, head);
        for (int g = 0; g < GROUP; g++)
            want.emplace_back(&q[(head * GROUP + g) * D], keys, values);
    }
    device_array<float> d_q(q), out(queries * D), lse(queries);
    device_array<float> partial(HEADS * splits * GROUP * D), sums(HEADS * splits * 2 * GROUP);
    device_array<int32_t> d_n(n);
    far_lists index(cache.positions(0), cache.positions(1)), pages(cache);
    device_array<uint32_t> ticket(std::vector<uint32_t>(HEADS, 0));
    ra_decode_args a = {};
    a.q = d_q.get();
    a.k = k.get();
    a.v = v.get();
    a.n = d_n.get();
    a.index = cache.is_indexed() ? index.get() : nullptr;
    a.pages = cache.is_paged() ? pages.get() : nullptr;
    a.out = out.get();
    a.lse = lse.get();
    a.logits = logits.get();
    a.partial = partial.get();
    a.partial_sums = sums.get();
    a.ticket = ticket.get();
    a.row_stride = cache.row_stride();
    a.index_stride = a.page_stride = a.logit_stride = kFar;
    a.window = n[0] > KEYS ? KEYS : 0;
    a.Hkv = cache.Hkv;
    a.heads = GROUP;
    a.scale = kScale;
    ra_decode_plan plan = {RA_F16, D,    sequences,
                           splits, true, cache.is_indexed() || cache.is_paged()};
    test.launched(scores_alone ? ra_launch_score(plan, a, 0) : ra_launch_decode(plan, a, 0));
    std::vector<float> got = out.read(), sum = lse.read();
    for (int query = 0; query < queries; query++) {
        std::vector<float> row(got.begin() + query * D, got.begin() + (query + 1) * D);
        compare(want[query], scores_alone ? std::vector<float>() : row, sum[query], test);
        std::vector<float> written = logits.read(query * kFar + n[query / GROUP] - KEYS, KEYS);
        for (int i = 0; i < KEYS; i++)
            if (!(fabs(written[i] - want[query].logits[i]) <= 1e-5))
                test.complain("query %d, logit %d: expected %g, got %g", query, i,
                              want[query].logits[i], written[i]);
    }
}

/* --- rows that are written and moved -------------------------------------------------------------
 */

static void append(bool is_paged, int sequences)
{
    test_case test("append%s, %d sequences", is_paged ? ", pages" : "", sequences);
    far_cache cache(is_paged ? BY_PAGES : WINDOW, sequences);
    const int32_t position = FAR_ROW + 3;
    sparse<__half> k(cache.rows() * D), v(cache.rows() * D);
    std::vector<__half> self = random_values<__half>(2 * HEADS * D, 2);
    device_array<__half> d_self(self);
    device_array<int32_t> n(std::vector<int32_t>(HEADS, position));
    far_lists pages(cache);
    ra_append_args a = {};
    a.self_k = d_self.get();
    a.self_v = d_self.get() + HEADS * D;
    a.full_k = k.get();
    a.full_v = v.get();
    a.pages = is_paged ? pages.get() : nullptr;
    a.n = n.get();
    a.row_stride = cache.row_stride();
    a.page_stride = kFar;
    a.n_rows = HEADS;
    a.Hkv = cache.Hkv;
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
static void refresh(bool is_paged, int sequences)
{
    test_case test("plan and move%s, %d sequences", is_paged ? ", pages" : "", sequences);
    far_cache cache(is_paged ? BY_PAGES : WINDOW, sequences);
    sparse<__half> k(cache.rows() * D), v(cache.rows() * D);
    std::vector<std::vector<__half>> keys, values;
    for (int head = 0; head < HEADS; head++) {
        keys.push_back(cache.fill(k, head));
        values.push_back(cache.fill(v, head));
    }
    std::vector<int32_t> a = cache.positions(0), b = cache.positions(1);
    far_lists chosen(a, b), order({a.rbegin(), a.rend()}, {b.rbegin(), b.rend()}), pages(cache);
    device_array<int32_t> n_chosen(std::vector<int32_t>(HEADS, KEYS)),
        n(std::vector<int32_t>(HEADS, 0)), slot_pos(HEADS * KEYS), queue(HEADS * KEYS),
        queue_first(HEADS), queue_n(HEADS), n_moves(HEADS);
    device_array<int2> moves(HEADS * KEYS);
    device_array<__half> to_k(HEADS * KEYS * D), to_v(HEADS * KEYS * D);
    ra_plan_args plan = {};
    plan.cache = {n.get(), slot_pos.get(), queue.get(), queue_first.get(), queue_n.get(), KEYS};
    plan.chosen = chosen.get();
    plan.order = order.get();
    plan.n_chosen = n_chosen.get();
    plan.moves = moves.get();
    plan.n_moves = n_moves.get();
    plan.stride = kFar;
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
    move.page_stride = kFar;
    move.cap = KEYS;
    move.Hkv = cache.Hkv;
    test.launched(ra_launch_move(HEADS, ROW_BYTES, move, 0));
    std::vector<int32_t> at = slot_pos.read(), queued = queue.read();
    std::vector<__half> got_k = to_k.read(), got_v = to_v.read();
    for (int i = 0; i < HEADS * KEYS; i++) {
        int head = i / KEYS, which = at[i] - (head ? b : a)[0];
        if (which < 0 || which >= KEYS ||
            memcmp(&got_k[i * D], &keys[head][which * D], ROW_BYTES) != 0 ||
            memcmp(&got_v[i * D], &values[head][which * D], ROW_BYTES) != 0)
            test.complain("head %d, slot %d: not the row of position %d", head, i % KEYS, at[i]);
        int slot = queued[i];
        if (slot < 0 || slot >= KEYS ||
            at[head * KEYS + slot] != (head ? b : a)[KEYS - 1 - i % KEYS])
            test.complain("head %d: number %d to go is in slot %d", head, i % KEYS, slot);
    }
}

/* Of 513 caches with room for 65,536 entries the last lies behind the mark: an entry goes in for
 * another, then rows are moved there. */
static void recycle(bool is_paged)
{
    test_case test("insert and move, many caches%s", is_paged ? ", pages" : "");
    enum { ROWS = 513, LAST = ROWS - 1, CAP = 65536, STRIDE = CAP + 64, GOES = 77, POSITION = 60 };
    std::vector<int32_t> page(ROWS * 4), held(ROWS, 0), n_moves(ROWS, 0);
    for (int i = 0; i < ROWS * 4; i++)
        page[i] = i / 4 == LAST ? FAR_PAGE + i % 4 : i;
    auto full_row = [&](int position) {
        return is_paged ? (int64_t)(FAR_PAGE + position / RA_PAGE) * RA_PAGE + position % RA_PAGE
                        : (int64_t)LAST * STRIDE + position;
    };
    held[LAST] = CAP;
    n_moves[LAST] = KEYS;
    sparse<__half> to_k((int64_t)ROWS * CAP * D), to_v((int64_t)ROWS * CAP * D);
    sparse<__half> full_k((full_row(POSITION) + 4) * D), full_v((full_row(POSITION) + 4) * D);
    sparse<int32_t> slot_pos(ROWS * CAP), queue(ROWS * CAP);
    sparse<int2> moves(ROWS * CAP);
    std::vector<__half> self_k = random_values<__half>(ROWS * D, 2), self_v(self_k);
    std::reverse(self_v.begin(), self_v.end());
    device_array<__half> d_self_k(self_k), d_self_v(self_v);
    device_array<int32_t> pages(page), n(held), first(std::vector<int32_t>(ROWS, 0)), queued(held),
        position(std::vector<int32_t>(ROWS, POSITION)), evicted(ROWS), d_n_moves(n_moves);
    queue.write((int64_t)LAST * CAP, {CAP - 1});
    slot_pos.write((int64_t)LAST * CAP + CAP - 1, {GOES});
    ra_insert_args in = {};
    in.cache = {n.get(), slot_pos.get(), queue.get(), first.get(), queued.get(), CAP};
    in.self_k = d_self_k.get();
    in.self_v = d_self_v.get();
    in.position = position.get();
    in.to_k = to_k.get();
    in.to_v = to_v.get();
    in.full_k = full_k.get();
    in.full_v = full_v.get();
    in.pages = is_paged ? pages.get() : nullptr;
    in.evicted = evicted.get();
    in.row_stride = STRIDE;
    in.page_stride = 4;
    in.n_rows = ROWS;
    in.Hkv = 1;
    in.row_bytes = ROW_BYTES;
    in.K = CAP;
    const unsigned each = RA_INSERT_THREADS / 32;
    test.launched(ra_launch(insert_evict, (ROWS + each - 1) / each, RA_INSERT_THREADS, 0, 0, in));
    auto is_row = [&](const sparse<__half> &memory, int64_t row, const __half *want) {
        return memcmp(memory.read(row * D, D).data(), want, ROW_BYTES) == 0;
    };
    if (evicted.read()[LAST] != GOES ||
        slot_pos.read((int64_t)LAST * CAP + CAP - 1, 1)[0] != POSITION)
        test.complain("the last cache: expected %d to go for %d", GOES, POSITION);
    if (!is_row(to_k, (int64_t)LAST * CAP + CAP - 1, &self_k[LAST * D]) ||
        !is_row(to_v, (int64_t)LAST * CAP + CAP - 1, &self_v[LAST * D]) ||
        !is_row(full_k, full_row(POSITION), &self_k[LAST * D]) ||
        !is_row(full_v, full_row(POSITION), &self_v[LAST * D]))
        test.complain("the last cache: the new entry is not where it belongs");

    std::vector<__half> rows = random_values<__half>(KEYS * D, 2);
    for (int i = 0; i < KEYS; i++) {
        full_k.write(full_row(i) * D, {rows.begin() + i * D, rows.begin() + (i + 1) * D});
        full_v.write(full_row(i) * D, {rows.rbegin() + i * D, rows.rbegin() + (i + 1) * D});
        moves.write((int64_t)LAST * CAP + i, {make_int2(i, CAP - 1 - i)});
    }
    ra_move_args move = {moves.get(),
                         d_n_moves.get(),
                         full_k.get(),
                         full_v.get(),
                         in.pages,
                         to_k.get(),
                         to_v.get(),
                         STRIDE,
                         4,
                         CAP,
                         1};
    const unsigned moved = RA_MOVE_THREADS * 16 / ROW_BYTES;
    test.launched(ra_launch(move_rows<ROW_BYTES>, dim3((KEYS + moved - 1) / moved, ROWS),
                            RA_MOVE_THREADS, 0, 0, move));
    std::vector<__half> back(rows.rbegin(), rows.rend());
    for (int i = 0; i < KEYS; i++)
        if (!is_row(to_k, (int64_t)LAST * CAP + CAP - 1 - i, &rows[i * D]) ||
            !is_row(to_v, (int64_t)LAST * CAP + CAP - 1 - i, &back[i * D]))
            test.complain("the last cache, slot %d: not the row that was moved", CAP - 1 - i);
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

/* By the largest of G query heads, not pooled: the choice is that of the logits. Values are
 * multiples of 1/64, so many of them are equal. */
static void choose(int rows, int G, int n, int K, int64_t stride)
{
    test_case test("choose %d of %d, %d rows of %d heads, %lld apart", K, n, rows, G,
                   (long long)stride);
    const int64_t used = (rows - 1) * stride + n;
    sparse<float> logits((rows * G - 1) * stride + n);
    sparse<uint32_t> keys(used), raw_keys(used);
    sparse<int32_t> chosen(used), order(used);
    std::vector<std::vector<float>> all(rows, std::vector<float>(n, -1));
    for (int head = 0; head < rows * G; head++) {
        std::vector<float> own(n);
        for (int i = 0; i < n; i++) {
            own[i] = (float)random_below(1024) / 64;
            all[head / G][i] = std::max(all[head / G][i], own[i]);
        }
        logits.write(head * stride, own);
    }
    ra_select_plan plan = ra_plan_select(8, rows, n);
    device_array<uint32_t> scratch(ra_select_scratch(plan) / 4 + 4);
    cudaMemset(scratch.get(), 0, ra_select_scratch(plan));
    device_array<float> lse(std::vector<float>(rows * G, 20.f));
    device_array<int32_t> d_n(std::vector<int32_t>(rows, n)), n_chosen(rows);
    ra_select_args a = {};
    a.logits = logits.get();
    a.lse = lse.get();
    a.n = d_n.get();
    a.keys = keys.get();
    a.raw_keys = raw_keys.get();
    a.chosen = chosen.get();
    a.n_chosen = n_chosen.get();
    a.scratch = scratch.get();
    a.logit_stride = a.key_stride = a.chosen_stride = stride;
    a.G = G;
    a.pool = 1;
    a.K = K;
    a.agg = RA_AGG_MAX;
    a.current = RA_CURRENT_PSEUDO;
    test.launched(ra_launch_select(plan, a, 0));
    ra_order_args by = {};
    by.chosen = chosen.get();
    by.n_chosen = n_chosen.get();
    by.keys = raw_keys.get(); /* nothing is pooled: the same */
    by.order = order.get();
    by.key_stride = by.chosen_stride = stride;
    test.launched(ra_launch_order(rows, K, by, 0));
    for (int row = 0; row < rows; row++) {
        std::vector<int32_t> want = largest(all[row], K);
        if (want != chosen.read(row * stride, K))
            test.complain("row %d: not the %d largest", row, K);
        std::stable_sort(want.begin(), want.end(), [&](int32_t x, int32_t y) {
            return all[row][x] < all[row][y] || (all[row][x] == all[row][y] && x > y);
        });
        if (want != order.read(row * stride, K))
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

/* From one choice among n positions to another: what both have stays, the rest moves into the slots
 * of what went. */
static void plan_long(int n, int K)
{
    test_case test("plan a refresh of %d of %d", K, n);
    std::vector<float> score(n);
    device_array<int32_t> held(std::vector<int32_t>(1, 0)), slot_pos(K), queue(K), queue_first(1),
        queue_n(1), n_moves(1), n_chosen(std::vector<int32_t>(1, K));
    device_array<int2> moves(K);
    std::vector<int32_t> before(K, -1);
    size_t shared = ra_plan_shared(K);
    if (shared > 160 * 1024)
        test.complain("%zu bytes of shared memory: a card has fewer", shared);
    test.launched(cudaFuncSetAttribute(plan_refresh, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       (int)shared));
    for (float same : {0.f, .7f, 1.f}) {
        for (float &x : score)
            x = x * same + random_unit() * (1 - same);
        std::vector<int32_t> want = largest(score, K);
        device_array<int32_t> chosen(want), order(std::vector<int32_t>(want.rbegin(), want.rend()));
        ra_plan_args a = {
            {held.get(), slot_pos.get(), queue.get(), queue_first.get(), queue_n.get(), K},
            chosen.get(),
            order.get(),
            n_chosen.get(),
            moves.get(),
            n_moves.get(),
            K,
            0};
        test.launched(ra_launch(plan_refresh, 1, RA_PLAN_THREADS, shared, 0, a));
        std::vector<int32_t> after = slot_pos.read(), sorted(after), queued = queue.read();
        std::vector<int2> moved = moves.read();
        int32_t count = n_moves.read()[0], changed = 0;
        std::sort(sorted.begin(), sorted.end());
        if (sorted != want)
            test.complain("%d held in common: not what was chosen", (int)(same * 100));
        for (int i = 0; i < K; i++) {
            bool stays = std::binary_search(want.begin(), want.end(), before[i]);
            changed += !stays;
            if (stays && after[i] != before[i])
                test.complain("slot %d: %d was to stay, and is %d", i, before[i], after[i]);
            if (i < count && (moved[i].y < 0 || moved[i].y >= K || after[moved[i].y] != moved[i].x))
                test.complain("move %d: %d is not in slot %d", i, moved[i].x, moved[i].y);
            if (queued[i] < 0 || queued[i] >= K || after[queued[i]] != want[K - 1 - i])
                test.complain("number %d to go is in slot %d", i, queued[i]);
        }
        if (count != changed)
            test.complain("expected %d moves, got %d", changed, count);
        before = after;
    }
}

int main()
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    for (int sequences : {1, 2}) {
        for (enum finding how : {IN_LINE, WINDOW, BY_INDEX, BY_PAGES, BY_BOTH})
            where_it_fits([&] { attend(how, false, sequences); });
        for (enum finding how : {IN_LINE, WINDOW, BY_PAGES})
            where_it_fits([&] { attend(how, true, sequences); });
        for (bool is_paged : {false, true}) {
            where_it_fits([&] { append(is_paged, sequences); });
            where_it_fits([&] { refresh(is_paged, sequences); });
        }
    }
    for (bool is_paged : {false, true})
        where_it_fits([&] { recycle(is_paged); });
    where_it_fits([&] { choose(2, 2, 500, 64, kFar); });
    choose(1, 2, 131072, 2048, 131072);
    choose(1, 1, 1048576, 8192, 1048576);
    plan_long(1048576, 8192);
    attend_long(131072);
    if (n_skipped)
        printf("[  SKIPPED ] %d test(s).\n", n_skipped);
    return finish();
}
