/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each kernel once, as small as makes all its threads meet, for the thread sanitizer to watch: two
 * threads that touch a word of shared or global memory, one of them writing, with no barrier or
 * atomic between. It sees a missing barrier even where the order of this run happened to be right.
 * What comes out must not be NaN; whether it is right is for the other tests.
 */
#include "kernels/cuda/append.cuh"
#include "kernels/cuda/between.cuh"
#include "kernels/cuda/query.cuh"
#include "kernels/cuda/refresh.cuh"
#include "kernels/cuda/score.cuh"
#include "kernels/cuda/select.cuh"
#include "tests/emu/kernel_test.h"

enum { D = 64, G = 2, HEADS = 2, N = 150, K = 40, SPLITS = 3, ROW_BYTES = D * 2 };

/* Attention's operands: one sequence, two KV heads. */
struct attention {
    device_array<float> q{random_values<float>(HEADS * G * D, 1)};
    device_array<__half> k{random_values<__half>(HEADS * N * D, 1)};
    device_array<__half> v{random_values<__half>(HEADS * N * D, 1)};
    device_array<__half> self{random_values<__half>(2 * HEADS * D, 1)};
    device_array<int32_t> n{std::vector<int32_t>(HEADS, N - 2)}, index;
    device_array<float> out{HEADS * G * D}, lse{HEADS * G}, logits{HEADS * G * N};
    device_array<float> partial{HEADS * SPLITS * G * D}, sums{HEADS * SPLITS * 2 * G};
    device_array<uint32_t> ticket{std::vector<uint32_t>(HEADS, 0)};
    ra_decode_args a = {};

    attention() : index(positions())
    {
        a.q = q.get();
        a.k = k.get();
        a.v = v.get();
        a.n = n.get();
        a.out = out.get();
        a.lse = lse.get();
        a.logits = logits.get();
        a.partial = partial.get();
        a.partial_sums = sums.get();
        a.ticket = ticket.get();
        a.row_stride = a.logit_stride = a.index_stride = N;
        a.Hkv = HEADS;
        a.heads = G;
        a.scale = 0.125f;
    }
    static std::vector<int32_t> positions()
    {
        std::vector<int32_t> all;
        for (int i = 0; i < HEADS * N; i++)
            all.push_back(i * 7 % N);
        return all;
    }
};

static void is_written(const std::vector<float> &x, test_case &test)
{
    for (size_t i = 0; i < x.size(); i++)
        if (!(x[i] == x[i]))
            test.complain("value %zu of %zu is not a number", i, x.size());
}

static void attend()
{
    test_case test("decode_split");
    constexpr int R = ra_decode_rows<G>(), kStages = ra_decode_stages<R>();
    constexpr size_t shared = ra_decode_shared<R, kStages>();
    const dim3 grid(SPLITS, HEADS, 1);
    attention of;
    auto in_line = decode_split<__half, D, G, R, true, false>;
    auto by_index = decode_split<__half, D, G, R, false, true>;
    for (auto kernel : {in_line, by_index})
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared);
    test.launched(ra_launch(in_line, grid, RA_DECODE_THREADS, shared, 0, of.a));
    is_written(of.out.read(), test);
    of.a.index = of.index.get();
    of.a.self_k = of.self.get();
    of.a.self_v = of.self.get() + HEADS * D;
    test.launched(ra_launch(by_index, grid, RA_DECODE_THREADS, shared, 0, of.a));
    is_written(of.out.read(), test);
}

static void score()
{
    test_case test("score_keys");
    constexpr int R = ra_decode_rows<G>();
    attention of;
    test.launched(ra_launch(score_keys<__half, D, G, R, false>, dim3(SPLITS, HEADS, 1),
                            RA_DECODE_THREADS, ra_score_shared<R, ra_decode_stages<R>()>(), 0,
                            of.a));
    is_written(of.lse.read(), test);
}

/* Several CTAs a row; the last picks among what all have listed. */
static void choose()
{
    test_case test("aggregate_scores, select_topk, order_evictions");
    const int n = 5000, k = 1500;
    ra_select_plan plan = ra_plan_select(2, 1, n);
    device_array<float> logits(random_values<float>((size_t)G * n, 4)),
        lse(std::vector<float>(G, 8.f));
    device_array<int32_t> d_n(std::vector<int32_t>(1, n)), chosen(k), n_chosen(1), order(k);
    device_array<uint32_t> keys(n), scratch(ra_select_scratch(plan) / 4 + 4);
    cudaMemset(scratch.get(), 0, ra_select_scratch(plan));
    ra_select_args a = {};
    a.logits = logits.get();
    a.lse = lse.get();
    a.n = d_n.get();
    a.keys = keys.get();
    a.chosen = chosen.get();
    a.n_chosen = n_chosen.get();
    a.scratch = scratch.get();
    a.logit_stride = a.key_stride = n;
    a.chosen_stride = a.K = k;
    a.G = G;
    a.pool = 7;
    a.agg = RA_AGG_MAX;
    a.current = RA_CURRENT_PSEUDO;
    test.launched(ra_launch_select(plan, a, 0));
    ra_order_args by = {};
    by.chosen = chosen.get();
    by.n_chosen = n_chosen.get();
    by.keys = keys.get();
    by.order = order.get();
    by.key_stride = n;
    by.chosen_stride = k;
    test.launched(ra_launch_order(1, k, by, 0));
    if (n_chosen.read()[0] != k)
        test.complain("expected %d chosen, got %d", k, n_chosen.read()[0]);
}

/* From nothing to a set, from it to another, and one entry more. */
static void refresh()
{
    test_case test("plan_refresh, move_rows, insert_evict, append_rows");
    attention of;
    const int cap = K + 1;
    device_array<int32_t> n(std::vector<int32_t>(HEADS, 0)), slot_pos(HEADS * cap),
        queue(HEADS * cap), first(HEADS), queued(HEADS), n_moves(HEADS),
        n_chosen(std::vector<int32_t>(HEADS, K)), position(std::vector<int32_t>(HEADS, N - 2));
    device_array<int2> moves(HEADS * cap);
    device_array<__half> to_k(HEADS * cap * D), to_v(HEADS * cap * D);
    ra_recycled cache = {n.get(), slot_pos.get(), queue.get(), first.get(), queued.get(), cap};
    for (int step : {1, 2}) {
        std::vector<int32_t> set;
        for (int i = 0; i < HEADS * K; i++)
            set.push_back(i % K * (step + 1));
        device_array<int32_t> chosen(set);
        ra_plan_args plan = {
            cache, chosen.get(), chosen.get(), n_chosen.get(), moves.get(), n_moves.get(), K, 0};
        test.launched(
            ra_launch(plan_refresh, HEADS, RA_PLAN_THREADS, ra_plan_shared(cap), 0, plan));
        ra_move_args move = {moves.get(), n_moves.get(), of.k.get(), of.v.get(),
                             nullptr,     to_k.get(),    to_v.get(), N,
                             0,           cap,           HEADS};
        test.launched(ra_launch_move(HEADS, ROW_BYTES, move, 0));
    }
    ra_append_args more = {};
    more.self_k = of.self.get();
    more.self_v = of.self.get() + HEADS * D;
    more.full_k = of.k.get();
    more.full_v = of.v.get();
    more.n = of.n.get();
    more.row_stride = N;
    more.n_rows = more.Hkv = HEADS;
    more.row_bytes = ROW_BYTES;
    test.launched(ra_launch_append(more, 0));
    ra_insert_args in = {};
    in.cache = cache;
    in.self_k = more.self_k;
    in.self_v = more.self_v;
    in.position = position.get();
    in.to_k = to_k.get();
    in.to_v = to_v.get();
    in.n_rows = in.Hkv = HEADS;
    in.row_bytes = ROW_BYTES;
    in.K = K;
    test.launched(ra_launch(insert_evict, 1, RA_INSERT_THREADS, 0, 0, in));
    for (int32_t held : n.read())
        if (held != K)
            test.complain("expected %d entries, got %d", K, held);
}

static void compare()
{
    test_case test("query_cosine");
    device_array<float> q(random_values<float>(HEADS * G * D, 1));
    device_array<double> reference(std::vector<double>(D, 1.0)), cosine(1);
    device_array<int32_t> has(std::vector<int32_t>(1, 1)), fires(1);
    ra_query_args a = {};
    a.q = q.get();
    a.reference = reference.get();
    a.has_reference = has.get();
    a.cosine = cosine.get();
    a.fires = fires.get();
    a.n_rows = 1;
    a.Hq = HEADS * G;
    a.D = D;
    a.update = RA_QUERY_SET;
    test.launched(ra_launch(query_cosine, 1, RA_QUERY_THREADS, 0, 0, a));
    if (!(cosine.read()[0] == cosine.read()[0]))
        test.complain("no cosine");
}

static void read_plainly()
{
    test_case test("read_between");
    const size_t bytes = 3 * 16 * RA_BETWEEN_THREADS * RA_BETWEEN_EACH - 16;
    device_array<uint8_t> memory(bytes);
    device_array<uint32_t> never(1);
    start_counting();
    test.launched(ra_launch_between(memory.get(), bytes / 16, never.get(), 0));
    test.moved_between("read_between", (double)bytes, (double)bytes);
}

int main()
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    attend();
    score();
    choose();
    refresh();
    compare();
    read_plainly();
    return finish();
}
