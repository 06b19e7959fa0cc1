/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Refresh by ranks: a chosen position is known by its place in the ascending list of them, so that
 * what is kept per entry does not grow with the context. What is chosen but not kept moves into
 * slots that hold nothing kept. Where a cache shrinks, entries beyond its new end are not kept, but
 * copied again, so that no holes come to be; their scores, if any, come along.
 */
#include "kernels/cuda/refresh.cuh"

#include "kernels/cuda/vec.cuh"

/* Positions that a thread looks up side by side: each look waits for shared memory. */
enum { AT_ONCE = 4, NO_SLOT = 0xffff };

/* Lists and bitmaps of the row that a CTA plans, in shared memory. */
struct ra_refresh_plan {
    int32_t *chosen;     /* [cap] ascending; the first n count */
    uint16_t *slot_of;   /* [cap] by rank, the place in `chosen` */
    uint16_t *free_slot; /* [cap] slots for what is new, ascending */
    uint32_t *kept;      /* [words] a bit a rank */
    uint32_t *taken;     /* [words] a bit a slot */
    int32_t *again;      /* entries that are copied again */
    int32_t n, words;

    /* The largest rank whose position is not above, 0 where there is none, of each of a few. */
    __device__ __forceinline__ void look_up(const int32_t (&position)[AT_ONCE],
                                            int32_t (&rank)[AT_ONCE]) const
    {
        for (int j = 0; j < AT_ONCE; j++)
            rank[j] = 0;
        for (int32_t step = n > 1 ? 1 << (31 - __clz(n - 1)) : 0; step > 0; step /= 2)
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++)
                if (rank[j] + step < n && chosen[rank[j] + step] <= position[j])
                    rank[j] += step;
    }
};

/* visit(i, its position, its rank) for the positions of a list. */
template <class Visit>
__device__ __forceinline__ void ra_rank_each(const ra_refresh_plan &plan, const int32_t *list,
                                             int32_t n, Visit visit)
{
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += AT_ONCE * RA_PLAN_THREADS) {
        int32_t position[AT_ONCE], rank[AT_ONCE];
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            position[j] = i + j * RA_PLAN_THREADS < n ? ra_ld(list + i + j * RA_PLAN_THREADS) : -1;
        plan.look_up(position, rank);
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            if (i + j * RA_PLAN_THREADS < n)
                visit(i + j * RA_PLAN_THREADS, position[j], rank[j]);
    }
}

/* Bits of a word of which the first n bits of all words count. */
__device__ __forceinline__ uint32_t ra_bits_below(int32_t word, int32_t n)
{
    int32_t used = n - word * 32;
    return used >= 32 ? ~0u : used > 0 ? (1u << used) - 1 : 0;
}

/* visit(word index, bits set before it, word) for each thread's stretch of words. Returns nothing
 * before all threads called; `totals` is free after a barrier. */
template <class Word, class Visit>
__device__ __forceinline__ void ra_count_words(int32_t words, uint32_t *totals, Word word,
                                               Visit visit)
{
    int32_t each = (words + RA_PLAN_THREADS - 1) / RA_PLAN_THREADS;
    int32_t low = (int32_t)threadIdx.x * each, high = low + each < words ? low + each : words;
    uint32_t count = 0;
    for (int32_t w = low; w < high; w++)
        count += (uint32_t)__popc(word(w));
    uint32_t before = ra_sum_below(count, totals);
    for (int32_t w = low; w < high; w++) {
        uint32_t bits = word(w);
        visit(w, before, bits);
        before += (uint32_t)__popc(bits);
    }
    __syncthreads();
}

/* Set bits of a word, ascending: visit(index of the bit, how many came before). */
template <class Visit>
__device__ __forceinline__ void ra_each_bit(int32_t word, uint32_t before, uint32_t bits,
                                            Visit visit)
{
    for (; bits; bits &= bits - 1)
        visit(word * 32 + __ffs((int)bits) - 1, before++);
}

/* Chosen positions, and which slots keep what they hold. */
__device__ __forceinline__ void ra_mark(const ra_plan_args &a, const ra_refresh_plan &plan,
                                        int64_t given, int64_t row)
{
    int32_t n_old = ra_ld_warp(a.cache.n + row), thread = (int32_t)threadIdx.x;
    if (thread == 0)
        *plan.again = 0;
    for (int32_t w = thread; w < plan.words; w += RA_PLAN_THREADS)
        plan.kept[w] = plan.taken[w] = 0;
    for (int32_t i = thread; i < plan.n; i += RA_PLAN_THREADS) {
        plan.chosen[i] = ra_ld(a.chosen + given * a.stride + i);
        plan.slot_of[i] = NO_SLOT;
    }
    __syncthreads();
    int32_t n = n_old < plan.n ? n_old : plan.n;
    auto visit = [&](int32_t slot, int32_t position, int32_t rank) {
        if (plan.chosen[rank] != position)
            return;
        atomicOr(plan.kept + rank / 32, 1u << rank % 32);
        atomicOr(plan.taken + slot / 32, 1u << slot % 32);
        plan.slot_of[rank] = (uint16_t)slot;
    };
    ra_rank_each(plan, a.cache.slot_pos + row * a.cache.cap, n, visit);
    /* Where to find the scores of those that are copied again. */
    auto note = [&](int32_t i, int32_t position, int32_t rank) {
        if (plan.chosen[rank] != position)
            return;
        plan.slot_of[rank] = (uint16_t)(n + i);
        atomicAdd(plan.again, 1);
    };
    if (n > 0)
        ra_rank_each(plan, a.cache.slot_pos + row * a.cache.cap + n, n_old - n, note);
    __syncthreads();
}

/* The score of the chosen of a rank, which moves to another slot or is new. */
__device__ __forceinline__ double ra_first_score(const ra_plan_args &a, const ra_refresh_plan &plan,
                                                 int64_t given, int64_t row, int32_t rank)
{
    if (plan.slot_of[rank] != NO_SLOT)
        return ra_ld(a.cache.score + row * a.cache.cap + plan.slot_of[rank]);
    if (a.given)
        return ra_ld(a.given + given * a.stride + rank);
    return ra_ld(a.cache.self_pos + row) == plan.chosen[rank] ? ra_ld(a.cache.self_score + row) : 0;
}

/* The i-th new position goes to the i-th slot that is not taken. */
__device__ __forceinline__ void ra_pair(const ra_plan_args &a, const ra_refresh_plan &plan,
                                        int64_t given, int64_t row, uint32_t *totals)
{
    ra_count_words(
        plan.words, totals, [&](int32_t w) { return ~plan.taken[w] & ra_bits_below(w, plan.n); },
        [&](int32_t w, uint32_t before, uint32_t bits) {
            ra_each_bit(w, before, bits,
                        [&](int32_t s, uint32_t i) { plan.free_slot[i] = (uint16_t)s; });
        });
    int64_t first = row * a.cache.cap;
    ra_count_words(
        plan.words, totals, [&](int32_t w) { return ~plan.kept[w] & ra_bits_below(w, plan.n); },
        [&](int32_t w, uint32_t before, uint32_t bits) {
            ra_each_bit(w, before, bits, [&](int32_t rank, uint32_t i) {
                int32_t s = plan.free_slot[i];
                ra_st(a.moves + first + i, make_int2(plan.chosen[rank], s));
                ra_st(a.cache.slot_pos + first + s, plan.chosen[rank]);
                if (a.cache.score)
                    ra_st(a.cache.score + first + s, ra_first_score(a, plan, given, row, rank));
                plan.slot_of[rank] = (uint16_t)s;
            });
            if (w < plan.words - 1)
                return;
            int32_t moves = (int32_t)before + __popc(bits);
            ra_st(a.n_moves + row, moves);
            if (a.n_new)
                ra_st(a.n_new + row, moves - *plan.again);
        });
}

__global__ void __launch_bounds__(RA_PLAN_THREADS, 2) plan_refresh(ra_plan_args a)
{
    RA_DYN(uint32_t, memory);
    RA_SHARED(uint32_t, totals, RA_PLAN_THREADS / 32);
    RA_SHARED(int32_t, again, 1);
    ra_after_earlier();
    int64_t given = blockIdx.x, row = ra_row_of(a.rows, blockIdx.x);
    if (!ra_is_served(a.rows, row))
        return;
    ra_refresh_plan plan;
    plan.n = ra_ld_warp(a.n_chosen + given);
    plan.words = (a.cache.cap + 31) / 32;
    plan.again = again;
    plan.kept = memory;
    plan.taken = plan.kept + plan.words;
    plan.chosen = (int32_t *)(plan.taken + plan.words);
    plan.slot_of = (uint16_t *)(plan.chosen + a.cache.cap);
    plan.free_slot = plan.slot_of + a.cache.cap;
    ra_mark(a, plan, given, row);
    ra_pair(a, plan, given, row, totals);
    int32_t queued = plan.n > a.n_pinned ? plan.n - a.n_pinned : 0;
    int32_t *queue = a.cache.queue + row * a.cache.cap;
    ra_rank_each(plan, a.order + given * a.stride, queued, [&](int32_t i, int32_t, int32_t rank) {
        ra_st(queue + i, (int32_t)plan.slot_of[rank]);
    });
    if (threadIdx.x == 0) {
        ra_st(a.cache.n + row, plan.n);
        ra_st(a.cache.queue_first + row, 0);
        ra_st(a.cache.queue_n + row, queued);
        if (a.cache.score)
            ra_st(a.cache.self_pos + row, -1);
    }
}

template <int kRowBytes>
__global__ void __launch_bounds__(RA_MOVE_THREADS) move_rows(ra_move_args a)
{
    ra_after_earlier();
    constexpr int kLanes = kRowBytes / 16, kPerWarp = 32 / kLanes;
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int64_t row = ra_row_of(a.rows, blockIdx.y);
    if (!ra_is_served(a.rows, row))
        return;
    int32_t first = ((int32_t)blockIdx.x * (RA_MOVE_THREADS / 32) + warp) * kPerWarp;
    int32_t n = ra_ld_warp(a.n_moves + row);
    if (first >= n)
        return;
    /* A lane of each row of C_r reads where it comes from. */
    int2 move = make_int2(0, 0);
    int64_t from = 0;
    if (lane % kLanes == 0 && first + lane / kLanes < n) {
        move = ra_ld(a.moves + row * a.cap + first + lane / kLanes);
        from = ra_full_offset(a, row, move.x, kRowBytes);
    }
    int32_t slot = ra_shfl(move.y, lane / kLanes * kLanes);
    from = ra_shfl(from, lane / kLanes * kLanes) + lane % kLanes * 16;
    if (first + lane / kLanes >= n)
        return;
    int64_t to = (row * a.cap + slot) * kRowBytes + lane % kLanes * 16;
    uint4 k = ra_ld16_stream((const char *)a.from_k + from);
    uint4 v = ra_ld16_stream((const char *)a.from_v + from);
    ra_st16((char *)a.to_k + to, k);
    ra_st16((char *)a.to_v + to, v);
}

template __global__ void move_rows<128>(ra_move_args);
template __global__ void move_rows<256>(ra_move_args);
template __global__ void move_rows<512>(ra_move_args);

template <int kRowBytes>
static cudaError_t launch_move(int rows, const ra_move_args &args, cudaStream_t stream)
{
    const int kEach = RA_MOVE_THREADS * 16 / kRowBytes;
    dim3 grid((unsigned)((args.cap + kEach - 1) / kEach), (unsigned)rows);
    return ra_launch(move_rows<kRowBytes>, grid, RA_MOVE_THREADS, 0, stream, args);
}

cudaError_t ra_launch_move(int rows, int row_bytes, const ra_move_args &args, cudaStream_t stream)
{
    return row_bytes == 128   ? launch_move<128>(rows, args, stream)
           : row_bytes == 256 ? launch_move<256>(rows, args, stream)
           : row_bytes == 512 ? launch_move<512>(rows, args, stream)
                              : cudaErrorInvalidValue;
}

/* One lane: a slot for self, whose place in the lists it takes. */
__device__ __forceinline__ int32_t ra_take_slot(const ra_insert_args &a, int64_t row,
                                                int32_t position)
{
    const ra_recycled &c = a.cache;
    int64_t first = row * c.cap;
    int32_t n = ra_ld(c.n + row), head = ra_ld(c.queue_first + row),
            queued = ra_ld(c.queue_n + row), K = a.each_K ? ra_ld(a.each_K + row) : a.K;
    int32_t slot = n, evicted = -1;
    if (n >= K && queued > 0) {
        slot = ra_ld(c.queue + first + head);
        evicted = ra_ld(c.slot_pos + first + slot);
        head = head + 1 < c.cap ? head + 1 : 0;
        queued--;
        ra_st(c.queue_first + row, head);
    } else {
        ra_st(c.n + row, n + 1);
        ra_st(c.queue_n + row, queued + 1);
    }
    int32_t tail = head + queued < c.cap ? head + queued : head + queued - c.cap;
    ra_st(c.queue + first + tail, slot);
    ra_st(c.slot_pos + first + slot, position);
    if (c.score) {
        bool is_known = ra_ld(c.self_pos + row) == position;
        ra_st(c.score + first + slot, is_known ? ra_ld(c.self_score + row) : 0);
        ra_st(c.self_pos + row, -1);
    }
    if (a.evicted)
        ra_st(a.evicted + row, evicted);
    return slot;
}

__global__ void __launch_bounds__(RA_INSERT_THREADS) insert_evict(ra_insert_args a)
{
    ra_after_earlier();
    int lane = (int)threadIdx.x % 32;
    uint32_t given = blockIdx.x * (RA_INSERT_THREADS / 32) + threadIdx.x / 32;
    if (given >= (uint32_t)a.n_rows)
        return;
    int64_t row = ra_row_of(a.rows, given);
    if (!ra_is_served(a.rows, row))
        return;
    int32_t slot = 0;
    int64_t full = 0;
    if (lane == 0) {
        int32_t position = ra_ld(a.position + row);
        slot = ra_take_slot(a, row, position);
        if (a.full_k)
            full = ra_full_offset(a, row, position, a.row_bytes);
    }
    slot = ra_shfl(slot, 0);
    full = ra_shfl(full, 0);
    int64_t to = (row * a.cache.cap + slot) * a.row_bytes;
    for (int i = lane; i < a.row_bytes / 8; i += 32) {
        bool is_v = i >= a.row_bytes / 16;
        int64_t at = (is_v ? i - a.row_bytes / 16 : i) * 16;
        uint4 x = ra_ld16((const char *)(is_v ? a.self_v : a.self_k) + row * a.row_bytes + at);
        if (a.to_k)
            ra_st16((char *)(is_v ? a.to_v : a.to_k) + to + at, x);
        if (a.full_k)
            ra_st16((char *)(is_v ? a.full_v : a.full_k) + full + at, x);
    }
}
