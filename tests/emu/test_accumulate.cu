/* SPDX-License-Identifier: Apache-2.0 */
/*
 * accumulate_scores and cut_cache against f64 written plainly here: caches of every awkward length,
 * their positions in no order and with gaps, groups of every size, scores that tie. Would catch a
 * weight of another query head or slot, a score added twice or to a neighbour, a tie that falls to
 * the wrong side, someone recent who goes, and a row of C_r moved other than self's.
 */
#include <algorithm>

#include "kernels/cuda/accumulate.cuh"
#include "kernels/cuda/cut.cuh"
#include "tests/emu/kernel_test.h"

/* --- accumulating ------------------------------------------------------------------------------
 */

struct shape {
    int rows, G, n;
    enum ra_agg agg;
    bool keeps, self_in;
};

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

static void accumulate(const shape &s)
{
    test_case test("accumulate rows=%d G=%d n=%d agg=%d%s%s", s.rows, s.G, s.n, s.agg,
                   s.keeps ? " keeps" : "", s.self_in ? " self in" : "");
    int cap = s.n + 1, stride = (s.n + 5) / 4 * 4, keys = s.n + !s.self_in;
    std::vector<float> logits = random_values<float>((size_t)s.rows * s.G * stride, 8), lse;
    std::vector<double> before, want, want_self;
    for (int row = 0; row < s.rows; row++) {
        std::vector<std::vector<double>> weights(keys);
        for (int g = 0; g < s.G; g++) {
            const float *x = &logits[(size_t)(row * s.G + g) * stride];
            double sum = 0;
            for (int i = 0; i < keys; i++)
                sum += exp((double)x[i]);
            lse.push_back((float)log(sum));
            for (int i = 0; i < keys; i++)
                weights[i].push_back(exp((double)x[i]) / sum);
        }
        for (int i = 0; i < cap; i++) {
            before.push_back(random_unit() + 1.0);
            bool is_entry = i < s.n;
            double received = i < keys ? combine(s.agg, weights[i]) : 0;
            want.push_back(!is_entry ? before.back() : received + (s.keeps ? before.back() : 0));
        }
        want_self.push_back(s.self_in ? NAN : combine(s.agg, weights[s.n]));
    }
    device_array<float> d_logits(logits), d_lse(lse);
    device_array<double> score(before), self_score(s.rows);
    device_array<int32_t> n(std::vector<int32_t>(s.rows, s.n)), self_pos(s.rows),
        position(std::vector<int32_t>(s.rows, 7000)),
        self_in(std::vector<int32_t>(s.rows, s.self_in));
    ra_accumulate_args a = {};
    a.cache.n = n.get();
    a.cache.cap = cap;
    a.cache.score = score.get();
    a.cache.self_score = self_score.get();
    a.cache.self_pos = self_pos.get();
    a.logits = d_logits.get();
    a.lse = d_lse.get();
    a.position = position.get();
    a.self_in = self_in.get();
    a.logit_stride = stride;
    a.G = s.G;
    a.agg = s.agg;
    a.keeps = s.keeps;
    start_counting();
    test.launched(ra_launch_accumulate(s.rows, a, 0));
    int heads = s.agg == RA_AGG_FIRST ? 1 : s.G;
    test.moved("accumulate_scores",
               (double)s.rows * (4.0 * heads * keys + 8.0 * s.n * (1 + s.keeps)));
    std::vector<double> got = score.read(), got_self = self_score.read();
    std::vector<int32_t> whose = self_pos.read();
    for (size_t i = 0; i < want.size(); i++)
        if (!(fabs(got[i] - want[i]) <= 4e-6 * want[i]))
            test.complain("entry %zu: expected %.9g, got %.9g", i, want[i], got[i]);
    for (int row = 0; row < s.rows; row++) {
        if (!s.self_in && !(fabs(got_self[row] - want_self[row]) <= 4e-6 * want_self[row]))
            test.complain("self of row %d: expected %.9g, got %.9g", row, want_self[row],
                          got_self[row]);
        if (whose[row] != (s.self_in ? -1 : 7000))
            test.complain("row %d: self is %d", row, whose[row]);
    }
}

/* --- cutting -----------------------------------------------------------------------------------
 */

struct knife {
    int rows, heads, n, K, recent, row_bytes;
    enum ra_agg agg;
    int gaps;      /* positions that are no entries, for each that is */
    bool in_place; /* C_r is a list of positions */
    bool ties, told;
};

struct cache {
    std::vector<int32_t> slots; /* position of each */
    std::vector<double> score;
    double self_score;
};

/* Ascending positions below self, the newest of which follow each other where there are no gaps. */
static std::vector<int32_t> some_positions(const knife &k, int self)
{
    std::vector<int32_t> all, some;
    for (int p = 0; p < self; p++)
        all.push_back(p);
    for (int i = 0; i < k.n; i++) {
        int at = k.gaps ? random_below((int)all.size()) : (int)all.size() - 1;
        some.push_back(all[at]);
        all.erase(all.begin() + at);
    }
    return some;
}

/* Who goes by the rule, of the caches that keep the same. */
static int weakest(const knife &k, const cache *caches, int self)
{
    std::vector<int32_t> order = caches[0].slots;
    order.push_back(self);
    std::sort(order.begin(), order.end());
    int found = -1;
    double least = 0;
    for (int i = 0; i < k.n + 1 - k.recent && k.n + 1 > k.K; i++) {
        std::vector<double> each;
        for (int h = 0; h < k.heads; h++) {
            const std::vector<int32_t> &slots = caches[h].slots;
            size_t at = std::find(slots.begin(), slots.end(), order[i]) - slots.begin();
            each.push_back(at == slots.size() ? caches[h].self_score : caches[h].score[at]);
        }
        double score = combine(k.agg, each);
        if (found >= 0 && score > least)
            continue;
        found = order[i];
        least = score;
    }
    return found;
}

static void cut(const knife &k)
{
    test_case test("cut rows=%d heads=%d n=%d K=%d recent=%d bytes=%d agg=%d gaps=%d%s%s%s", k.rows,
                   k.heads, k.n, k.K, k.recent, k.row_bytes, k.agg, k.gaps,
                   k.in_place ? " in place" : "", k.ties ? " ties" : "", k.told ? " told" : "");
    int cap = k.n + 2, self = k.n * (1 + k.gaps) + 1;
    std::vector<cache> caches(k.rows);
    std::vector<int32_t> slot_pos((size_t)k.rows * cap, -1), instead(k.rows, -1), goes, own;
    std::vector<double> score((size_t)k.rows * cap, -1), self_score;
    for (int row = 0; row < k.rows; row++) {
        cache &c = caches[row];
        c.slots = row % k.heads ? caches[row - 1].slots : some_positions(k, self);
        for (int i = k.n - 1; i > 0 && row % 3 != 1; i--) /* else as the row before has them */
            std::swap(c.slots[i], c.slots[random_below(i + 1)]);
        for (int i = 0; i < k.n; i++)
            c.score.push_back(k.ties ? random_below(3) : random_unit());
        c.self_score = k.ties ? random_below(3) : random_unit();
        std::copy(c.slots.begin(), c.slots.end(), slot_pos.begin() + (size_t)row * cap);
        std::copy(c.score.begin(), c.score.end(), score.begin() + (size_t)row * cap);
        self_score.push_back(c.self_score);
        if (k.told)
            instead[row] = row % 4 == 3 ? self : k.n > 0 ? c.slots[random_below(k.n)] : self;
    }
    for (int row = 0; row < k.rows; row++) {
        own.push_back(weakest(k, &caches[row / k.heads * k.heads], self));
        goes.push_back(instead[row] >= 0 ? instead[row] : own[row]);
    }
    size_t bytes = (size_t)k.rows * cap * k.row_bytes;
    std::vector<uint8_t> self_rows((size_t)k.rows * k.row_bytes);
    for (uint8_t &one : self_rows)
        one = (uint8_t)(1 + random_below(200));
    std::vector<uint8_t> other_rows(self_rows.rbegin(), self_rows.rend());
    device_array<uint8_t> self_k(self_rows), self_v(other_rows), to_k(bytes), to_v(bytes);
    device_array<double> d_score(score), d_self_score(self_score);
    device_array<int32_t> n(std::vector<int32_t>(k.rows, k.n)), d_slot_pos(slot_pos),
        queue((size_t)k.rows * cap), queue_first(std::vector<int32_t>(k.rows, cap - 1)),
        queue_n(std::vector<int32_t>(k.rows, 1)), position(std::vector<int32_t>(k.rows, self)),
        self_pos(std::vector<int32_t>(k.rows, self)), d_instead(instead), evicted(k.rows);
    ra_cut_args a = {};
    a.cache = {n.get(), d_slot_pos.get(), queue.get(),        queue_first.get(), queue_n.get(),
               cap,     d_score.get(),    d_self_score.get(), self_pos.get()};
    a.self_k = self_k.get();
    a.self_v = self_v.get();
    a.position = position.get();
    a.instead = d_instead.get();
    a.to_k = k.in_place ? nullptr : to_k.get();
    a.to_v = to_v.get();
    a.evicted = evicted.get();
    a.heads = k.heads;
    a.K = k.K;
    a.recent = k.recent;
    a.row_bytes = k.row_bytes;
    a.agg = k.agg;
    test.launched(ra_launch_cut(k.rows, a, 0));
    std::vector<int32_t> held = n.read(), slots = d_slot_pos.read(), said = evicted.read(),
                         queued = queue_n.read(), ring = queue.read(), whose = self_pos.read();
    std::vector<double> scores = d_score.read();
    std::vector<uint8_t> k_rows = to_k.read(), v_rows = to_v.read();
    for (int row = 0; row < k.rows; row++) {
        if (said[row] != own[row])
            test.complain("row %d: expected %d to go, got %d", row, own[row], said[row]);
        const std::vector<int32_t> &was = caches[row].slots;
        int at = (int)(std::find(was.begin(), was.end(), goes[row]) - was.begin());
        bool enters = goes[row] != self, grows = goes[row] < 0;
        if (held[row] != k.n + grows || queued[row] != 1 + grows || whose[row] != -1)
            test.complain("row %d: %d entries, %d queued, self is %d", row, held[row], queued[row],
                          whose[row]);
        if (grows && ring[(size_t)row * cap] != k.n)
            test.complain("row %d: slot %d is queued last", row, ring[(size_t)row * cap]);
        for (int i = 0; i < cap; i++) {
            size_t entry = (size_t)row * cap + i;
            bool is_self = enters && i == at;
            if (slots[entry] != (is_self ? self : slot_pos[entry]) ||
                scores[entry] != (is_self ? self_score[row] : score[entry]))
                test.complain("row %d: slot %d is position %d of score %g", row, i, slots[entry],
                              scores[entry]);
            for (int b = 0; b < k.row_bytes; b++) {
                size_t from = (size_t)row * k.row_bytes + b, to = entry * k.row_bytes + b;
                bool copied = is_self && !k.in_place;
                if (k_rows[to] != (copied ? self_rows[from] : 0xff) ||
                    v_rows[to] != (copied ? other_rows[from] : 0xff)) {
                    test.complain("row %d: slot %d holds other bytes", row, i);
                    break;
                }
            }
        }
    }
}

/* An argument: every option with every other. */
int main(int n_arguments, char **)
{
    static const int lengths[] = {0, 1, 2, 31, 32, 33, 255, 256, 257, 511, 600};
    static const int groups[] = {1, 2, 3, 4, 7, 8, 12, 32};
    bool full = n_arguments > 1;
    setvbuf(stdout, nullptr, _IOLBF, 0);
    for (int i = 0; i < 11 * 8; i++)
        for (int j = 0; j < (full ? 16 : 1); j++) {
            int way = full ? j : random_below(16), n = lengths[i % 11];
            bool self_in = way / 8 && n > 0;
            accumulate(
                {1 + i % 3, groups[i % 8], n, (enum ra_agg)(way % 4), way / 4 % 2 == 1, self_in});
        }
    for (int i = 0; i < (full ? 4000 : 160); i++) {
        int n = lengths[i % 11], K = i % 3 ? n : n + 1, heads = 1 << random_below(3);
        K = K < 1 ? 1 : K;
        int recent = random_below(3) ? random_below(K + 1) : random_below(2);
        cut({heads * (1 + random_below(3)), heads, n, K, recent, 128 << i % 3,
             (enum ra_agg)random_below(4), random_below(3), random_below(3) == 0,
             random_below(2) == 0, random_below(3) == 0});
    }
    return finish();
}
