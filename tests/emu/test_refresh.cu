/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan_refresh, move_rows and insert_evict against a cache kept plainly here: a life of refreshes
 * and insertions, after each of which every row of C_r must be the row of C_f of its position, its
 * slots dense, its queue in order, and only what is new have moved.
 */
#include <algorithm>

#include "kernels/cuda/refresh.cuh"
#include "tests/emu/kernel_test.h"

enum { PAGE = 16 };

struct shape {
    int rows, Hkv, L; /* L: positions of C_f to begin with */
    int K, row_bytes, n_pinned;
    bool paged, in_place; /* in_place: C_r is a list of positions */
};

/* What is expected of one row: positions, and the order in which they go. */
struct model {
    std::vector<int> set, queue;
};

/* A byte of C_f that tells its row, position and place. */
static uint8_t byte_of(int which, int row, int position, int i)
{
    return (uint8_t)(which * 101 + row * 31 + position * 7 + position / 251 + i);
}

struct world {
    shape s;
    int cap, max_rows, max_pages;
    std::vector<model> want;
    std::vector<int32_t> pages;
    device_array<uint8_t> full_k, full_v, to_k, to_v;
    device_array<int32_t> n, slot_pos, queue, queue_first, queue_n, page_table;
    ra_recycled cache;

    explicit world(const shape &of)
        : s(of), cap(s.K + 2), max_rows(s.L + 40), max_pages(max_rows / PAGE + 1), want(s.rows),
          pages(shuffled_pages()), full_k(full_rows(0)), full_v(full_rows(1)),
          to_k((size_t)s.rows * cap * s.row_bytes), to_v((size_t)s.rows * cap * s.row_bytes),
          n(std::vector<int32_t>(s.rows)), slot_pos((size_t)s.rows * cap),
          queue((size_t)s.rows * cap), queue_first(std::vector<int32_t>(s.rows)),
          queue_n(std::vector<int32_t>(s.rows)),
          page_table(pages), cache{n.get(),           slot_pos.get(), queue.get(),
                                   queue_first.get(), queue_n.get(),  cap}
    {
    }

    /* C_f of K or V; what holds no position is all ones. */
    std::vector<uint8_t> full_rows(int which) const
    {
        std::vector<uint8_t> bytes((size_t)s.rows * (max_pages * PAGE) * s.row_bytes, 0xff);
        for (int row = 0; row < s.rows; row++)
            for (int position = 0; position < s.L; position++)
                for (int i = 0; i < s.row_bytes; i++)
                    bytes[offset(row, position) + i] = byte_of(which, row, position, i);
        return bytes;
    }
    std::vector<int32_t> shuffled_pages() const
    {
        std::vector<int32_t> list;
        for (int i = 0; i < s.rows / s.Hkv * max_pages; i++) {
            list.push_back(i);
            std::swap(list[i], list[random_below(i + 1)]);
        }
        return list;
    }
    size_t offset(int row, int position) const
    {
        size_t at = (size_t)row * max_rows + position;
        if (s.paged) {
            size_t page = pages[(size_t)(row / s.Hkv) * max_pages + position / PAGE];
            at = (page * s.Hkv + row % s.Hkv) * PAGE + position % PAGE;
        }
        return at * s.row_bytes;
    }
    const int32_t *device_pages() const
    {
        return s.paged ? page_table.get() : nullptr;
    }

    void check_lists(test_case &test) const
    {
        std::vector<int32_t> slots = slot_pos.read(), queues = queue.read(), held = n.read(),
                             first = queue_first.read(), queued = queue_n.read();
        for (int row = 0; row < s.rows; row++) {
            const int32_t *slot = &slots[(size_t)row * cap];
            std::vector<int> set(slot, slot + held[row]), order;
            std::sort(set.begin(), set.end());
            if (set != want[row].set)
                test.complain("row %d: holds %d positions, expected %zu, or others", row, held[row],
                              want[row].set.size());
            for (int i = 0; i < queued[row]; i++) {
                int at = queues[(size_t)row * cap + (first[row] + i) % cap];
                order.push_back(at >= 0 && at < held[row] ? slot[at] : -1);
            }
            if (order != want[row].queue)
                test.complain("row %d: %d are queued, expected %zu, or in another order", row,
                              queued[row], want[row].queue.size());
        }
    }

    void check_rows(test_case &test) const
    {
        std::vector<uint8_t> k = to_k.read(), v = to_v.read();
        std::vector<int32_t> slots = slot_pos.read(), held = n.read();
        for (int row = 0; row < s.rows && !s.in_place; row++)
            for (int slot = 0; slot < held[row]; slot++) {
                int position = slots[(size_t)row * cap + slot];
                size_t at = ((size_t)row * cap + slot) * s.row_bytes;
                for (int i = 0; i < s.row_bytes; i++)
                    if (k[at + i] != byte_of(0, row, position, i) ||
                        v[at + i] != byte_of(1, row, position, i)) {
                        test.complain("row %d: slot %d is not position %d", row, slot, position);
                        break;
                    }
            }
    }
};

/* Choose `count` positions of 0..L-1 for every row, about `share` of them new. */
static void choose(world &w, int L, int count, double share, std::vector<int32_t> &chosen,
                   std::vector<int32_t> &order)
{
    for (int row = 0; row < w.s.rows; row++) {
        std::vector<int> pool(L), set;
        std::vector<bool> taken(L);
        for (int position : w.want[row].set)
            if ((int)set.size() < count && random_below(1000) >= share * 1000) {
                set.push_back(position);
                taken[position] = true;
            }
        while ((int)set.size() < count) {
            int position = random_below(L);
            if (!taken[position])
                set.push_back(position);
            taken[position] = true;
        }
        std::vector<int> queue = set;
        for (int i = 0; i < count; i++)
            std::swap(queue[i], queue[random_below(i + 1)]);
        std::sort(set.begin(), set.end());
        std::copy(set.begin(), set.end(), chosen.begin() + (size_t)row * w.s.K);
        std::copy(queue.begin(), queue.end(), order.begin() + (size_t)row * w.s.K);
        queue.resize(std::max(count - w.s.n_pinned, 0));
        w.want[row] = {set, queue};
    }
}

template <int kRowBytes> cudaError_t move(const world &w, const ra_move_args &a)
{
    int each = RA_MOVE_THREADS * 16 / kRowBytes;
    return ra_launch(move_rows<kRowBytes>,
                     dim3((unsigned)((w.cap + each - 1) / each), (unsigned)w.s.rows),
                     RA_MOVE_THREADS, 0, 0, a);
}

static void refresh(world &w, int L, int count, double share, test_case &test)
{
    const shape &s = w.s;
    std::vector<int32_t> chosen((size_t)s.rows * s.K, -1), order = chosen;
    std::vector<model> before = w.want;
    std::vector<std::vector<int>> slots;
    std::vector<int32_t> all_slots = w.slot_pos.read(), held = w.n.read();
    for (int row = 0; row < s.rows; row++) {
        const int32_t *slot = &all_slots[(size_t)row * w.cap];
        slots.emplace_back(slot, slot + held[row]);
    }
    choose(w, L, count, share, chosen, order);
    device_array<int32_t> d_chosen(chosen), d_order(order),
        n_chosen(std::vector<int32_t>(s.rows, count)), n_moves(s.rows), n_new(s.rows);
    device_array<int2> moves((size_t)s.rows * w.cap);
    size_t shared = ra_plan_shared(w.cap);
    ra_plan_args plan = {w.cache,     d_chosen.get(), d_order.get(), n_chosen.get(),
                         moves.get(), n_moves.get(),  s.K,           s.n_pinned};
    plan.n_new = n_new.get();
    start_counting();
    test.launched(ra_launch(plan_refresh, s.rows, RA_PLAN_THREADS, shared, 0, plan));
    ra_move_args args = {moves.get(),      n_moves.get(), w.full_k.get(), w.full_v.get(),
                         w.device_pages(), w.to_k.get(),  w.to_v.get(),   w.max_rows,
                         w.max_pages,      w.cap,         s.Hkv};
    if (!s.in_place)
        test.launched(s.row_bytes == 128   ? move<128>(w, args)
                      : s.row_bytes == 256 ? move<256>(w, args)
                                           : move<512>(w, args));
    double planned = 0, moved = 0;
    std::vector<int32_t> counts = n_moves.read(), come = n_new.read();
    for (int row = 0; row < s.rows; row++) {
        /* New, or in a slot that is no more. */
        int fresh = 0, old = (int)slots[row].size(), came = 0;
        for (int position : w.want[row].set) {
            auto at =
                std::find(slots[row].begin(), slots[row].end(), position) - slots[row].begin();
            fresh += at >= std::min(old, count);
            came += at == old;
        }
        if (counts[row] != fresh)
            test.complain("row %d: expected %d moves, got %d", row, fresh, counts[row]);
        if (come[row] != came)
            test.complain("row %d: expected %d to be new, got %d", row, came, come[row]);
        planned += 4.0 * (count + old + 2 * w.want[row].queue.size()) + 12.0 * fresh;
        moved += fresh * (4.0 * s.row_bytes + 8 + (s.paged ? 4 : 0));
    }
    test.moved("plan_refresh", planned);
    if (!s.in_place)
        test.moved("move_rows", moved);
    w.check_lists(test);
    w.check_rows(test);
}

/* What the rule makes of the expected row; the position that went, or -1. */
static int insert_expected(model &m, int position, int K)
{
    int victim = -1;
    if ((int)m.set.size() >= K && !m.queue.empty()) {
        victim = m.queue.front();
        m.queue.erase(m.queue.begin());
        m.set.erase(std::find(m.set.begin(), m.set.end(), victim));
    }
    m.set.push_back(position);
    m.queue.push_back(position);
    return victim;
}

static void insert(world &w, int position, bool appends, test_case &test)
{
    const shape &s = w.s;
    std::vector<uint8_t> k, v;
    for (int row = 0; row < s.rows; row++)
        for (int i = 0; i < s.row_bytes; i++) {
            k.push_back(byte_of(0, row, position, i));
            v.push_back(byte_of(1, row, position, i));
        }
    device_array<uint8_t> self_k(k), self_v(v);
    std::vector<int32_t> most(s.rows, s.K);
    for (int row = 1; row < s.rows; row += 2)
        most[row]++;
    device_array<int32_t> positions(std::vector<int32_t>(s.rows, position)), evicted(s.rows),
        each_K(most);
    ra_insert_args a = {};
    a.cache = w.cache;
    a.self_k = self_k.get();
    a.self_v = self_v.get();
    a.position = positions.get();
    a.to_k = s.in_place ? nullptr : w.to_k.get();
    a.to_v = w.to_v.get();
    a.full_k = appends ? w.full_k.get() : nullptr;
    a.full_v = w.full_v.get();
    a.pages = w.device_pages();
    a.evicted = evicted.get();
    a.row_stride = w.max_rows;
    a.page_stride = w.max_pages;
    a.n_rows = s.rows;
    a.Hkv = s.Hkv;
    a.row_bytes = s.row_bytes;
    a.K = s.K;
    a.each_K = position % 2 ? each_K.get() : nullptr;
    int ctas = (s.rows * 32 + RA_INSERT_THREADS - 1) / RA_INSERT_THREADS;
    start_counting();
    test.launched(ra_launch(insert_evict, ctas, RA_INSERT_THREADS, 0, 0, a));
    test.moved("insert_evict", 2.0 * s.rows * s.row_bytes * (1 + !s.in_place + appends));
    std::vector<uint8_t> full_k = w.full_k.read(), full_v = w.full_v.read();
    std::vector<int32_t> went = evicted.read();
    for (int row = 0; row < s.rows; row++) {
        int victim = insert_expected(w.want[row], position, a.each_K ? most[row] : s.K);
        if (went[row] != victim)
            test.complain("row %d: expected %d to go, got %d", row, victim, went[row]);
        for (int i = 0; i < s.row_bytes && appends; i++)
            if (full_k[w.offset(row, position) + i] != byte_of(0, row, position, i) ||
                full_v[w.offset(row, position) + i] != byte_of(1, row, position, i)) {
                test.complain("row %d: position %d of C_f is not self", row, position);
                break;
            }
    }
    w.check_lists(test);
    w.check_rows(test);
}

/* Refreshes with more and more in common, insertions between them, a smaller cache, a full one. */
static void live(const shape &s)
{
    test_case test("C_r rows=%d L=%d K=%d bytes=%d pinned=%d%s%s", s.rows, s.L, s.K, s.row_bytes,
                   s.n_pinned, s.paged ? " paged" : "", s.in_place ? " in place" : "");
    world w(s);
    int self = s.L;
    for (double share : {1.0, 0.5, 0.1, 0.0, 0.3}) {
        int count = std::min(s.K, self);
        refresh(w, self, count, share, test);
        for (int i = 0; i < 5; i++)
            if (s.n_pinned < s.K || i < 1)
                insert(w, self++, true, test);
    }
    refresh(w, self, std::max(1, s.K / 3), 0.2, test);
    if (s.K > 1)
        insert(w, self++, true, test);
    refresh(w, self, std::min(s.K, self), 0.2, test);
}

static int run_product()
{
    for (int K : {1, 2, 31, 32, 33, 100, 149, 150, 151})
        for (int bytes : {128, 256, 512})
            for (int pinned : {0, 1, 4})
                for (int i = 0; i < 4; i++)
                    if (pinned <= K)
                        live({4, 2, 150, K, bytes, pinned, i % 2 == 1, i / 2 == 1});
    return finish();
}

/* An argument: make emu-full. */
int main(int n_arguments, char **)
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    if (n_arguments > 1)
        return run_product();
    for (int K : {1, 2, 31, 32, 33, 100})
        for (int bytes : {128, 256, 512})
            live({4, 2, 150, K, bytes, 0, K % 2 == 0, false});
    live({3, 1, 40, 40, 128, 0, false, false}); /* K = L */
    live({3, 1, 20, 50, 256, 0, false, false}); /* K > L */
    live({6, 3, 150, 20, 256, 4, true, false}); /* some stay */
    live({2, 2, 150, 5, 256, 5, false, false}); /* all stay: it grows */
    live({6, 3, 150, 40, 256, 0, true, true});
    live({1, 1, 3000, 700, 128, 2, false, false});
    return finish();
}
