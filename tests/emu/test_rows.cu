/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Launches that serve some rows: those must come out as if every row were served, others stay as
 * they were. Would catch a row taken for another, a shut gate that lets something through, and
 * scratch that a row left behind which was not served.
 */
#include "kernels/cuda/refresh.cuh"
#include "kernels/cuda/select.cuh"
#include "tests/emu/kernel_test.h"

enum { LAYERS = 3, B = 4, HKV = 2, ROWS = LAYERS * B * HKV, CAP = 24, K = 20 };

/* Copies first..first + copies - 1 of every layer, where the decision is `value`; -1: always. */
struct part {
    int first, copies, value;
    bool serves(const std::vector<int32_t> &gates, int row) const
    {
        int copy = row / HKV % B;
        return copy >= first && copy < first + copies &&
               (value < 0 || gates[(size_t)(row / HKV)] == value);
    }
    int start() const
    {
        return first * HKV;
    }
    int launched() const
    {
        return LAYERS * copies * HKV;
    }
    ra_rows rows(const int32_t *gate) const
    {
        ra_rows rows = {};
        if (copies < B)
            rows = {copies * HKV, B * HKV, nullptr, 0, 0};
        if (value >= 0) {
            rows.gate = gate + first;
            rows.per_gate = HKV;
            rows.gate_value = value;
        }
        return rows;
    }
};

static std::vector<int32_t> random_gates()
{
    std::vector<int32_t> gates;
    for (int i = 0; i < LAYERS * B; i++)
        gates.push_back(random_below(2));
    return gates;
}

/* A row of `got` is that of `all` where it is served, of `before` elsewhere. */
template <class T>
static void compare(const char *what, const part &p, const std::vector<int32_t> &gates,
                    const device_array<T> &got, const device_array<T> &all,
                    const std::vector<T> &before, test_case &test)
{
    std::vector<T> x = got.read(), y = all.read();
    size_t each = x.size() / ROWS;
    for (int row = 0; row < ROWS; row++) {
        const T *want = p.serves(gates, row) ? y.data() : before.data();
        if (memcmp(&x[(size_t)row * each], want + (size_t)row * each, each * sizeof(T)) != 0)
            test.complain("%s of row %d, %s", what, row,
                          p.serves(gates, row) ? "which is served" : "which is not");
    }
}

/* --- selection -------------------------------------------------------------------------------- */

enum { N = 3000, STRIDE = N + 8, G = 2 };

struct selection {
    device_array<uint32_t> keys, raw_keys;
    device_array<int32_t> chosen, n_chosen, order;
    selection()
        : keys((size_t)ROWS * STRIDE), raw_keys((size_t)ROWS * STRIDE), chosen(ROWS * CAP),
          n_chosen(ROWS), order(ROWS * CAP)
    {
    }
    /* From row `first` on. */
    void run(ra_select_args a, int first, int launched, uint32_t *zeros, test_case &test) const
    {
        ra_select_plan plan = ra_plan_select(8, launched, N);
        device_array<uint32_t> lists(ra_select_lists(plan) / sizeof(uint32_t));
        a.logits += (size_t)first * G * STRIDE;
        a.lse += first * G;
        a.n += first;
        a.keys = keys.get() + (size_t)first * STRIDE;
        a.raw_keys = raw_keys.get() + (size_t)first * STRIDE;
        a.chosen = chosen.get() + first * CAP;
        a.n_chosen = n_chosen.get() + first;
        a.scratch = zeros;
        a.lists = lists.get();
        test.launched(ra_launch_select(plan, a, 0));
        ra_order_args o = {a.chosen, a.n_chosen, a.raw_keys, order.get() + first * CAP,
                           STRIDE,   CAP,        false,      a.rows};
        test.launched(ra_launch_order(launched, K, o, 0));
    }
};

static void test_selection(const part &p)
{
    test_case test("choose for copies %d to %d where %d", p.first, p.first + p.copies - 1, p.value);
    std::vector<int32_t> lengths;
    for (int row = 0; row < ROWS; row++)
        lengths.push_back(N - random_below(500));
    device_array<float> logits(random_values<float>((size_t)ROWS * G * STRIDE, 5)),
        lse(random_values<float>(ROWS * G, 1));
    std::vector<int32_t> gates = random_gates();
    device_array<int32_t> n(lengths), gate(gates);
    ra_select_plan largest = ra_plan_select(8, ROWS, N);
    std::vector<uint32_t> nothing(ra_select_zeros(largest) / sizeof(uint32_t));
    device_array<uint32_t> zeros(nothing);
    ra_select_args a = {};
    a.logits = logits.get();
    a.lse = lse.get();
    a.n = n.get();
    a.logit_stride = a.key_stride = STRIDE;
    a.chosen_stride = CAP;
    a.G = G;
    a.pool = 3;
    a.K = K;
    selection all, some, untouched;
    all.run(a, 0, ROWS, zeros.get(), test);
    a.rows = p.rows(gate.get());
    some.run(a, p.start(), p.launched(), zeros.get(), test);
    compare("keys", p, gates, some.keys, all.keys, untouched.keys.read(), test);
    compare("raw keys", p, gates, some.raw_keys, all.raw_keys, untouched.raw_keys.read(), test);
    compare("choice", p, gates, some.chosen, all.chosen, untouched.chosen.read(), test);
    compare("count", p, gates, some.n_chosen, all.n_chosen, untouched.n_chosen.read(), test);
    compare("order", p, gates, some.order, all.order, untouched.order.read(), test);
    if (zeros.read() != nothing)
        test.complain("left something in scratch");
}

/* --- C_r -------------------------------------------------------------------------------------- */

enum { LENGTH = 60, ROW_BYTES = 128, EACH = RA_MOVE_THREADS * 16 / ROW_BYTES };

struct lists {
    std::vector<int32_t> chosen, order, n;
};

/* Any K or fewer of the first `length` positions of each row. */
static lists random_lists(int length)
{
    lists all;
    for (int row = 0; row < ROWS; row++) {
        int count = K - random_below(4), first = random_below(length - 2 * K);
        for (int i = 0; i < CAP; i++) {
            all.chosen.push_back(i < count ? first + 2 * i : -1);
            all.order.push_back(i < count ? first + 2 * (count - 1 - i) : -1);
        }
        all.n.push_back(count);
    }
    return all;
}

/* The rows that a launch is for, in line. */
static lists pack(const lists &all, const part &p)
{
    lists few;
    for (int row = 0; row < ROWS; row++) {
        int copy = row / HKV % B;
        if (copy < p.first || copy >= p.first + p.copies)
            continue;
        auto from = (ptrdiff_t)row * CAP;
        few.chosen.insert(few.chosen.end(), all.chosen.begin() + from,
                          all.chosen.begin() + from + CAP);
        few.order.insert(few.order.end(), all.order.begin() + from, all.order.begin() + from + CAP);
        few.n.push_back(all.n[(size_t)row]);
    }
    return few;
}

struct caches {
    device_array<int32_t> n, slot_pos, queue, queue_first, queue_n, n_moves;
    device_array<int2> moves;
    device_array<uint8_t> k, v;
    caches()
        : n(std::vector<int32_t>(ROWS)), slot_pos(ROWS * CAP), queue(ROWS * CAP),
          queue_first(std::vector<int32_t>(ROWS)), queue_n(std::vector<int32_t>(ROWS)),
          n_moves(ROWS), moves(ROWS * CAP), k((size_t)ROWS * CAP * ROW_BYTES),
          v((size_t)ROWS * CAP * ROW_BYTES)
    {
    }
    ra_recycled from(int first) const
    {
        return {n.get() + first,           slot_pos.get() + first * CAP, queue.get() + first * CAP,
                queue_first.get() + first, queue_n.get() + first,        CAP};
    }
    void refresh(const lists &given, const part &p, const ra_rows &rows,
                 const device_array<uint8_t> &full_k, const device_array<uint8_t> &full_v,
                 test_case &test) const
    {
        device_array<int32_t> chosen(given.chosen), order(given.order), counts(given.n);
        int first = p.start(), launched = p.launched();
        size_t stored = (size_t)first * LENGTH * ROW_BYTES, kept = (size_t)first * CAP * ROW_BYTES;
        ra_plan_args plan = {from(first),
                             chosen.get(),
                             order.get(),
                             counts.get(),
                             moves.get() + first * CAP,
                             n_moves.get() + first,
                             CAP,
                             2,
                             rows};
        test.launched(
            ra_launch(plan_refresh, launched, RA_PLAN_THREADS, ra_plan_shared(CAP), 0, plan));
        ra_move_args move = {plan.moves,
                             plan.n_moves,
                             full_k.get() + stored,
                             full_v.get() + stored,
                             nullptr,
                             k.get() + kept,
                             v.get() + kept,
                             LENGTH,
                             0,
                             CAP,
                             HKV,
                             rows};
        test.launched(ra_launch_move(launched, ROW_BYTES, move, 0));
    }
    void insert(const part &p, const ra_rows &rows, const device_array<uint8_t> &self,
                test_case &test) const
    {
        device_array<int32_t> position(std::vector<int32_t>(ROWS, LENGTH - 1));
        ra_insert_args a = {};
        a.cache = from(p.start());
        a.self_k = a.self_v = self.get();
        a.position = position.get();
        a.to_k = k.get() + (size_t)p.start() * CAP * ROW_BYTES;
        a.to_v = v.get() + (size_t)p.start() * CAP * ROW_BYTES;
        a.n_rows = p.launched();
        a.Hkv = HKV;
        a.row_bytes = ROW_BYTES;
        a.K = K;
        a.rows = rows;
        test.launched(ra_launch(insert_evict, (p.launched() + 3) / 4, RA_INSERT_THREADS, 0, 0, a));
    }
};

/* What a cache is: its rows are where the lists say. */
struct snapshot {
    std::vector<int32_t> n, slot_pos, queue, queue_first, queue_n;
    std::vector<uint8_t> k, v;
    explicit snapshot(const caches &c)
        : n(c.n.read()), slot_pos(c.slot_pos.read()), queue(c.queue.read()),
          queue_first(c.queue_first.read()), queue_n(c.queue_n.read()), k(c.k.read()), v(c.v.read())
    {
    }
};

static void compare_caches(const part &p, const std::vector<int32_t> &gates, const caches &got,
                           const caches &all, const snapshot &before, test_case &test)
{
    compare("count", p, gates, got.n, all.n, before.n, test);
    compare("positions", p, gates, got.slot_pos, all.slot_pos, before.slot_pos, test);
    compare("queue", p, gates, got.queue, all.queue, before.queue, test);
    compare("queue's head", p, gates, got.queue_first, all.queue_first, before.queue_first, test);
    compare("queue's length", p, gates, got.queue_n, all.queue_n, before.queue_n, test);
    compare("K", p, gates, got.k, all.k, before.k, test);
    compare("V", p, gates, got.v, all.v, before.v, test);
}

/* Twice, from C_f that holds something else each time: what an earlier refresh moved shows if it is
 * moved again. */
static void test_refresh(const part &p)
{
    test_case test("refresh copies %d to %d where %d", p.first, p.first + p.copies - 1, p.value);
    const part everything = {0, B, -1};
    size_t bytes = (size_t)ROWS * LENGTH * ROW_BYTES;
    std::vector<int32_t> gates = random_gates();
    device_array<int32_t> gate(gates);
    caches all, some;
    for (int turn = 0; turn < 2; turn++) {
        std::vector<uint8_t> k(bytes), v(bytes);
        for (size_t i = 0; i < bytes; i++) {
            k[i] = (uint8_t)random_bits();
            v[i] = (uint8_t)random_bits();
        }
        device_array<uint8_t> full_k(k), full_v(v);
        lists given = random_lists(LENGTH);
        all.refresh(given, everything, {}, full_k, full_v, test);
        if (turn == 0) {
            some.refresh(given, everything, {}, full_k, full_v, test);
            continue;
        }
        snapshot before(some);
        some.refresh(pack(given, p), p, p.rows(gate.get()), full_k, full_v, test);
        compare_caches(p, gates, some, all, before, test);
    }
    if (p.copies < B) /* of one layer */
        return;
    device_array<uint8_t> self(std::vector<uint8_t>((size_t)ROWS * ROW_BYTES, 7));
    snapshot before(some);
    all.insert(everything, {}, self, test);
    some.insert(p, p.rows(gate.get()), self, test);
    for (int row = 0; row < ROWS; row++) {
        bool went_in = some.n.read()[(size_t)row] + some.queue_first.read()[(size_t)row] >
                       before.n[(size_t)row] + before.queue_first[(size_t)row];
        if (went_in != p.serves(gates, row))
            test.complain("self %s row %d", went_in ? "went into" : "is not in", row);
    }
}

int main()
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    const part parts[] = {{0, B, -1}, {0, B, 0}, {0, B, 1}, {0, 1, -1}, {1, 2, -1},
                          {3, 1, -1}, {1, 3, 0}, {2, 1, 1}, {0, 2, 1}};
    for (const part &p : parts) {
        test_selection(p);
        test_refresh(p);
    }
    return finish();
}
