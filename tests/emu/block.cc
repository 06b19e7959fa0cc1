/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the blocks of a launch one after another, the threads of a block on fibers: who runs next,
 * where threads meet, and what it means when nobody can. A fault is the program's end.
 */
#include "tests/emu/fiber.h"
#include "tests/emu/internal.h"

#include <algorithm>
#include <deque>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <vector>

struct ra_emu_self *ra_emu_self;
std::recursive_mutex ra_emu_lock;

namespace
{
enum { WARP = 32, MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / WARP };

struct pending_copy {
    void *shared;
    const void *global;
    bool valid;
};

struct lane {
    struct ra_fiber fiber;
    struct ra_emu_self self;
    unsigned warp, index, epoch;
    bool at_barrier;
    std::vector<pending_copy> open_group;
    std::deque<std::vector<pending_copy>> groups;
};

/* Lanes of one mask in one collective. It is open until complete, and busy until all have left. */
struct meeting {
    const char *op, *file;
    int line;
    unsigned mask, arrived, staying;
    uint64_t slot[WARP];
    char order; /* TSan's handle */
};

struct warp {
    unsigned alive, ready;
    uint64_t open, busy;
    struct meeting meetings[WARP + 1];
};

struct array {
    const void *key;
    void *memory;
    size_t bytes;
    const char *name;
};

std::deque<lane> lanes; /* fibers keep addresses of it */
struct warp warps[MAX_WARPS];
struct lane *now;
struct ra_fiber scheduler;

/* The block that runs, and its barrier. */
const struct ra_emu_launch *current;
const std::function<void()> *body;
std::vector<array> arrays;
void *dynamic_memory;
unsigned n_alive, n_arrived, generation, sum, result[2];
const char *barrier_file;
int barrier_line;
uint32_t ready_warps;
char launch_order, end_order, barrier_order[2]; /* TSan's handles */
} // namespace

std::string ra_emu_kernel_name(const char *text)
{
    const char *start = text + strspn(text, "( \n");
    std::string name(start, strcspn(start, "<,() \n"));
    size_t colon = name.rfind(':');
    return colon == std::string::npos ? name : name.substr(colon + 1);
}

void ra_emu_fault(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fflush(stdout);
    fprintf(stderr, "emu: %s", current ? ra_emu_kernel_name(current->text).c_str() : "no kernel");
    if (current && lanes.size()) {
        const struct ra_emu_self &at = now ? now->self : lanes[0].self;
        fprintf(stderr, ", block (%u,%u,%u)", at.block.x, at.block.y, at.block.z);
        if (now)
            fprintf(stderr, ", thread (%u,%u,%u)", at.thread.x, at.thread.y, at.thread.z);
    }
    fprintf(stderr, ", seed %llu: ", (unsigned long long)ra_emu_seed_now());
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

static void set_ready(struct lane *lane)
{
    warps[lane->warp].ready |= 1u << lane->index;
    ready_warps |= 1u << lane->warp;
}

/* Back when the scheduler picks this lane again; unless it is ready, somebody has to make it so. */
static void step_aside(bool ready)
{
    struct lane *me = now;
    if (!ready) {
        warps[me->warp].ready &= ~(1u << me->index);
        if (!warps[me->warp].ready)
            ready_warps &= ~(1u << me->warp);
    }
    ra_fiber_switch(&me->fiber, &scheduler);
}

static void must_run(const char *file, int line)
{
    if (!now)
        ra_emu_fault("%s:%d: called outside a kernel", file, line);
}

/* A place where another thread may come first. */
static void let_others_run()
{
    if (ra_emu_shuffled() && ra_emu_below(8) == 0)
        step_aside(true);
}

unsigned ra_emu_lane()
{
    return now->index;
}

unsigned ra_emu_warp()
{
    return now->warp;
}

unsigned ra_emu_epoch()
{
    return now->epoch;
}

/* --- meetings ------------------------------------------------------------------------------------
 */

/* Complete when all that still run are there. */
static void close_if_complete(struct warp *w, unsigned i)
{
    struct meeting *m = &w->meetings[i];
    if (m->mask & w->alive & ~m->arrived)
        return;
    w->open &= ~(1ull << i);
    m->staying = m->arrived;
    w->ready |= m->arrived;
    ready_warps |= 1u << (w - warps);
}

static bool same_place(const struct meeting *m, const char *op, const char *file, int line)
{
    return m->line == line && !strcmp(m->op, op) && !strcmp(m->file, file);
}

static unsigned join(struct warp *w, const char *op, unsigned mask, const char *file, int line)
{
    unsigned lane = now->index;
    for (uint64_t left = w->open; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctzll(left);
        struct meeting *m = &w->meetings[i];
        if (m->mask == mask && same_place(m, op, file, line))
            return i;
        if (m->mask >> lane & 1 && m->arrived & mask)
            ra_emu_fault("%s with mask %08x at %s:%d, while lanes %08x wait for this one in %s "
                         "with mask %08x at %s:%d",
                         op, mask, file, line, m->arrived, m->op, m->mask, m->file, m->line);
    }
    unsigned i = (unsigned)__builtin_ctzll(~w->busy);
    struct meeting *m = &w->meetings[i];
    m->op = op, m->file = file, m->line = line, m->mask = mask, m->arrived = 0;
    memset(m->slot, 0xff, sizeof m->slot);
    w->open |= 1ull << i;
    w->busy |= 1ull << i;
    return i;
}

const uint64_t *ra_emu_meet(const char *op, unsigned mask, uint64_t value, unsigned *there,
                            const char *file, int line)
{
    must_run(file, line);
    struct lane *me = now;
    struct warp *w = &warps[me->warp];
    if (!(mask >> me->index & 1))
        ra_emu_fault("%s at %s:%d by lane %u, which is not in mask %08x", op, file, line, me->index,
                     mask);
    bool orders = !strcmp(op, "__syncwarp");
    unsigned i = join(w, op, mask, file, line);
    struct meeting *m = &w->meetings[i];
    m->slot[me->index] = value;
    m->arrived |= 1u << me->index;
    me->epoch++;
    if (orders)
        ra_fiber_release(&m->order);
    close_if_complete(w, i);
    if (w->open >> i & 1)
        step_aside(false);
    else if (ra_emu_below(2))
        step_aside(true);
    if (orders)
        ra_fiber_acquire(&m->order);
    m->staying &= ~(1u << me->index);
    if (!m->staying)
        w->busy &= ~(1ull << i);
    *there = m->arrived;
    return m->slot;
}

static void open_barrier()
{
    result[generation & 1] = sum;
    generation++;
    n_arrived = sum = 0;
    for (struct lane &lane : lanes)
        if (lane.at_barrier) {
            lane.at_barrier = false;
            set_ready(&lane);
        }
}

unsigned ra_emu_barrier(unsigned value, const char *file, int line)
{
    must_run(file, line);
    struct lane *me = now;
    if (n_arrived && (barrier_line != line || strcmp(barrier_file, file)))
        ra_emu_fault("__syncthreads at %s:%d, while %u threads wait in the one at %s:%d", file,
                     line, n_arrived, barrier_file, barrier_line);
    barrier_file = file;
    barrier_line = line;
    unsigned mine = generation & 1;
    n_arrived++;
    sum += value;
    me->at_barrier = true;
    me->epoch++;
    ra_fiber_release(&barrier_order[mine]);
    if (n_arrived == n_alive) {
        open_barrier();
        if (ra_emu_below(2))
            step_aside(true);
    } else {
        step_aside(false);
    }
    ra_fiber_acquire(&barrier_order[mine]);
    return result[mine];
}

/* --- memory of the block -------------------------------------------------------------------------
 */

void *ra_emu_shared(const void *key, size_t bytes, const char *name)
{
    must_run(name, 0);
    ra_fiber_unwatched books;
    size_t total = bytes;
    for (const struct array &array : arrays) {
        if (array.key == key)
            return array.memory;
        total += (array.bytes + 15) / 16 * 16;
    }
    if (total > RA_EMU_STATIC_LIMIT || total + current->shared_bytes > RA_EMU_SHARED_LIMIT)
        ra_emu_fault("shared array %s: %zu bytes in all, %zu dynamic: too many", name, total,
                     current->shared_bytes);
    arrays.push_back({key, ra_emu_guarded(bytes), bytes, name});
    return arrays.back().memory;
}

void *ra_emu_dynamic()
{
    must_run("dynamic shared memory", 0);
    if (!dynamic_memory)
        dynamic_memory = ra_emu_guarded(current->shared_bytes);
    return dynamic_memory;
}

static void free_shared()
{
    for (const struct array &array : arrays) {
        if (!ra_emu_intact(array.memory, array.bytes))
            ra_emu_fault("shared array %s of %zu bytes was written past its end", array.name,
                         array.bytes);
        ra_emu_release(array.memory);
    }
    if (dynamic_memory && !ra_emu_intact(dynamic_memory, current->shared_bytes))
        ra_emu_fault("dynamic shared memory of %zu bytes was written past its end",
                     current->shared_bytes);
    ra_emu_release(dynamic_memory);
    dynamic_memory = NULL;
    arrays.clear();
}

static bool is_shared(const void *p, size_t bytes)
{
    auto holds = [&](const void *memory, size_t size) {
        size_t at = (size_t)((uintptr_t)p - (uintptr_t)memory);
        return memory && at < size && bytes <= size - at;
    };
    if (holds(dynamic_memory, current->shared_bytes))
        return true;
    for (const struct array &array : arrays)
        if (holds(array.memory, array.bytes))
            return true;
    return false;
}

void ra_emu_access(const void *p, size_t bytes, enum ra_emu_kind kind, const char *file, int line)
{
    must_run(file, line);
    const char *what = kind == RA_EMU_STORE ? "store" : "load";
    if ((uintptr_t)p % bytes)
        ra_emu_fault("%s:%d: %s of %zu bytes at %p is not aligned", file, line, what, bytes, p);
    ra_emu_must_hold(p, bytes, what, file, line);
    ra_emu_count_access(p, bytes, kind, file, line);
    let_others_run();
}

void ra_emu_atomic(const void *p, size_t bytes, const char *file, int line)
{
    must_run(file, line);
    if ((uintptr_t)p % bytes)
        ra_emu_fault("%s:%d: atomic of %zu bytes at %p is not aligned", file, line, bytes, p);
    if (!is_shared(p, bytes))
        ra_emu_must_hold(p, bytes, "atomic", file, line);
    ra_emu_count_access(p, bytes, RA_EMU_ATOMIC, file, line);
    let_others_run();
}

/* --- cp.async: done at issue or at the wait, never elsewhere
 * ---------------------------------------- */

static void tell(const struct pending_copy &copy)
{
    if (copy.valid)
        ra_fiber_read16(copy.global);
    ra_fiber_write16(copy.shared);
}

static void do_copy(const struct pending_copy &copy)
{
    tell(copy);
    if (copy.valid)
        memcpy(copy.shared, copy.global, 16);
    else
        memset(copy.shared, 0, 16);
}

void ra_emu_cp_async(void *shared, const void *global, bool valid, const char *file, int line)
{
    must_run(file, line);
    if ((uintptr_t)shared % 16)
        ra_emu_fault("%s:%d: cp.async to %p is not aligned", file, line, shared);
    if (valid)
        ra_emu_access(global, 16, RA_EMU_LOAD, file, line);
    tell({shared, global, valid}); /* it may happen from here on */
    if (ra_emu_below(2))
        do_copy({shared, global, valid});
    else
        now->open_group.push_back({shared, global, valid});
}

void ra_emu_cp_commit()
{
    must_run("cp.async", 0);
    now->groups.push_back(std::move(now->open_group));
    now->open_group.clear();
}

void ra_emu_cp_wait(int pending)
{
    must_run("cp.async", 0);
    for (; now->groups.size() > (size_t)pending; now->groups.pop_front())
        for (const struct pending_copy &copy : now->groups.front())
            do_copy(copy);
}

/* --- life of a block -----------------------------------------------------------------------------
 */

static void leave_block()
{
    struct lane *me = now;
    struct warp *w = &warps[me->warp];
    if (me->open_group.size())
        ra_emu_fault("ended with a cp.async that was not committed");
    for (const std::vector<pending_copy> &group : me->groups)
        if (group.size())
            ra_emu_fault("ended with a cp.async that was not waited for");
    me->groups.clear();
    w->alive &= ~(1u << me->index);
    n_alive--;
    for (uint64_t left = w->open; left; left &= left - 1)
        close_if_complete(w, (unsigned)__builtin_ctzll(left));
    if (n_arrived && n_arrived == n_alive)
        open_barrier();
    ra_fiber_release(&end_order);
}

static void fiber_main()
{
    for (;;) {
        ra_fiber_acquire(&launch_order);
        (*body)();
        leave_block();
        step_aside(false);
    }
}

static void report_deadlock()
{
    now = NULL;
    std::string text = "nobody can go on:";
    char part[400];
    if (n_arrived) {
        snprintf(part, sizeof part, " %u of %u threads wait in __syncthreads at %s:%d;", n_arrived,
                 n_alive, barrier_file, barrier_line);
        text += part;
    }
    for (unsigned i = 0; i < MAX_WARPS; i++)
        for (uint64_t left = warps[i].open; left && text.size() < 4000; left &= left - 1) {
            const struct meeting *m = &warps[i].meetings[__builtin_ctzll(left)];
            snprintf(part, sizeof part,
                     " lanes %08x of warp %u wait for lanes %08x in %s with mask %08x at %s:%d;",
                     m->arrived, i, m->mask & warps[i].alive & ~m->arrived, m->op, m->mask, m->file,
                     m->line);
            text += part;
        }
    ra_emu_fault("%s", text.c_str());
}

static unsigned pick(uint32_t set)
{
    for (uint64_t skip = ra_emu_below((uint64_t)__builtin_popcount(set)); skip; skip--)
        set &= set - 1;
    return (unsigned)__builtin_ctz(set);
}

static void run_block(dim3 grid, dim3 block, uint64_t index)
{
    unsigned n = block.x * block.y * block.z;
    memset(warps, 0, sizeof warps);
    n_alive = n;
    n_arrived = generation = sum = 0;
    for (unsigned t = 0; t < n; t++) {
        struct lane *lane = &lanes[t];
        lane->self.thread = {t % block.x, t / block.x % block.y, t / block.x / block.y};
        lane->self.block = {(unsigned)(index % grid.x), (unsigned)(index / grid.x % grid.y),
                            (unsigned)(index / grid.x / grid.y)};
        lane->self.block_dim = block;
        lane->self.grid_dim = grid;
        lane->warp = t / WARP, lane->index = t % WARP, lane->epoch = 0;
        lane->at_barrier = false;
        warps[lane->warp].alive |= 1u << lane->index;
        set_ready(lane);
    }
    ra_fiber_release(&launch_order);
    while (n_alive) {
        if (!ready_warps)
            report_deadlock();
        unsigned w = pick(ready_warps), l = pick(warps[w].ready);
        now = &lanes[w * WARP + l];
        ra_emu_self = &now->self;
        ra_fiber_switch(&scheduler, &now->fiber);
    }
    now = NULL;
    ra_emu_self = NULL;
    ra_fiber_acquire(&end_order);
    ra_emu_count_block_end();
    free_shared();
}

void ra_emu_run(const struct ra_emu_launch &launch, const std::function<void()> &kernel)
{
    unsigned n = launch.block.x * launch.block.y * launch.block.z;
    uint64_t n_blocks = (uint64_t)launch.grid.x * launch.grid.y * launch.grid.z;
    ra_fiber_adopt(&scheduler);
    while (lanes.size() < n) {
        lanes.emplace_back();
        ra_fiber_open(&lanes.back().fiber, fiber_main);
    }
    current = &launch;
    body = &kernel;
    ra_emu_count_launch(launch.text);
    std::vector<uint64_t> order(n_blocks);
    for (uint64_t i = 0; i < n_blocks; i++) {
        uint64_t j = ra_emu_shuffled() ? ra_emu_below(i + 1) : i;
        order[i] = order[j];
        order[j] = i;
    }
    for (uint64_t index : order)
        run_block(launch.grid, launch.block, index);
    ra_emu_count_launch_end();
    ra_emu_check_memory();
    current = NULL;
}
