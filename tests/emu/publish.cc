/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a block reads that another of the same launch wrote. Blocks run one after another here, so
 * it is always there; on a card only if the writer passed a fence and a barrier before its block's
 * atomic, and the reader a fence after its own block's. What else would do is not known here: what
 * is not between blocks of a launch, or by one thread, is never found fault with.
 */
#include "tests/emu/block.h"

namespace
{
/* The last store to a word; the table forgets some. */
struct store {
    uintptr_t word;
    uint64_t launch, time;
    unsigned block, thread, barriers;
};
enum { STORES = 1 << 16 };
struct store stores[STORES];

/* Times of a thread's fences, 0: none. */
struct fence {
    uint64_t first, last; /* since its last store; at all */
    unsigned first_barriers, last_barriers;
};
/* An atomic of a block on global memory, and its thread's last fence before. */
struct announcement {
    uint64_t time, fenced;
    unsigned thread, barriers, fenced_barriers;
};

uint64_t launch, now;
unsigned n_threads;
std::vector<struct fence> fences;                            /* [block][thread] */
std::vector<std::vector<struct announcement>> announcements; /* [block]; none if one is all */
} // namespace

static unsigned this_block()
{
    const struct ra_emu_self &self = ra_emu_now->self;
    return (self.block.z * self.grid_dim.y + self.block.y) * self.grid_dim.x + self.block.x;
}

static unsigned this_thread()
{
    return ra_emu_now->warp * warpSize + ra_emu_now->index;
}

static struct store *entry_of(uintptr_t word)
{
    return &stores[word * 0x9e3779b97f4a7c15u >> 48];
}

static struct fence *fence_of(unsigned block, unsigned thread)
{
    return &fences[(size_t)block * n_threads + thread];
}

void ra_emu_publish_launch(const struct ra_emu_launch &of)
{
    size_t n_blocks = (size_t)of.grid.x * of.grid.y * of.grid.z;
    launch++;
    n_threads = of.block.x * of.block.y * of.block.z;
    n_blocks = n_blocks > 1 ? n_blocks : 0;
    fences.assign(n_blocks * n_threads, {});
    announcements.assign(n_blocks, {});
}

void ra_emu_publish_fence()
{
    if (announcements.empty())
        return;
    struct fence *f = fence_of(this_block(), this_thread());
    f->last = ++now;
    f->last_barriers = ra_emu_barriers();
    if (f->first)
        return;
    f->first = f->last;
    f->first_barriers = f->last_barriers;
}

void ra_emu_publish_atomic()
{
    if (announcements.empty())
        return;
    ra_fiber_unwatched books;
    const struct fence *f = fence_of(this_block(), this_thread());
    announcements[this_block()].push_back(
        {++now, f->last, this_thread(), ra_emu_barriers(), f->last_barriers});
}

void ra_emu_publish_store(const void *p, size_t bytes)
{
    if (announcements.empty())
        return;
    unsigned block = this_block(), thread = this_thread();
    now++;
    fence_of(block, thread)->first = 0;
    for (uintptr_t word = (uintptr_t)p / 4; word <= ((uintptr_t)p + bytes - 1) / 4; word++)
        *entry_of(word) = {word, launch, now, block, thread, ra_emu_barriers()};
}

/* What `s` lacks to be visible to who has seen this atomic of its block. */
static const char *lacks(const struct store &s, const struct announcement &to_all)
{
    const struct fence *own = fence_of(s.block, s.thread);
    if (to_all.time < s.time)
        return "an atomic after it";
    if (to_all.thread != s.thread && to_all.barriers <= s.barriers)
        return "a barrier before its block's atomic";
    bool by_writer = own->first > s.time && own->first < to_all.time &&
                     (to_all.thread == s.thread || own->first_barriers < to_all.barriers);
    bool by_announcer = to_all.fenced > s.time &&
                        (to_all.thread == s.thread || to_all.fenced_barriers > s.barriers);
    return by_writer || by_announcer ? NULL : "a fence before its block's atomic";
}

/* What the reader lacks after this atomic of its block: its fence, or the announcer's and a
 * barrier. */
static const char *reader_lacks(unsigned block, const struct announcement &seen)
{
    const struct fence *mine = fence_of(block, this_thread());
    const struct fence *other = fence_of(block, seen.thread);
    bool by_announcer = other->last > seen.time && other->last_barriers < ra_emu_barriers();
    return mine->last > seen.time || by_announcer ? NULL : "a fence of the reader";
}

static const char *pair_lacks(const struct store &s, unsigned reader)
{
    const char *lacking = "an atomic after it";
    for (const struct announcement &each : announcements[s.block])
        if (!(lacking = lacks(s, each)))
            break;
    if (lacking)
        return lacking;
    lacking = "an atomic of the reader's block";
    for (const struct announcement &each : announcements[reader])
        if (!(lacking = reader_lacks(reader, each)))
            break;
    return lacking;
}

void ra_emu_publish_load(const void *p, size_t bytes, const char *file, int line)
{
    if (announcements.empty())
        return;
    unsigned block = this_block();
    for (uintptr_t word = (uintptr_t)p / 4; word <= ((uintptr_t)p + bytes - 1) / 4; word++) {
        const struct store &s = *entry_of(word);
        if (s.word != word || s.launch != launch || s.block == block)
            continue;
        const char *lacking = pair_lacks(s, block);
        if (lacking)
            ra_emu_fault("%s:%d: load of what block %u wrote, which lacks %s", file, line, s.block,
                         lacking);
    }
}
