/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the blocks of a launch one after another, the threads of a block on fibers: who runs next,
 * where threads meet, and what it means when nobody can. A fault is the program's end.
 */
#include "tests/emu/block.h"

#include <algorithm>
#include <deque>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <vector>

struct ra_emu_self *ra_emu_self;
struct ra_emu_lane_state *ra_emu_now;
const struct ra_emu_launch *ra_emu_current;
std::recursive_mutex ra_emu_lock;

namespace
{
enum { WARP = 32, MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / WARP };

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

std::deque<ra_emu_lane_state> lanes; /* fibers keep addresses of it */
struct warp warps[MAX_WARPS];
struct ra_fiber scheduler;

/* The block that runs, and its barrier. */
const std::function<void()> *body;
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
    fprintf(stderr, "emu: %s",
            ra_emu_current ? ra_emu_kernel_name(ra_emu_current->text).c_str() : "no kernel");
    if (ra_emu_current && lanes.size()) {
        const struct ra_emu_self &at = ra_emu_now ? ra_emu_now->self : lanes[0].self;
        fprintf(stderr, ", block (%u,%u,%u)", at.block.x, at.block.y, at.block.z);
        if (ra_emu_now)
            fprintf(stderr, ", thread (%u,%u,%u)", at.thread.x, at.thread.y, at.thread.z);
    }
    fprintf(stderr, ", seed %llu: ", (unsigned long long)ra_emu_seed_now());
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

static void set_ready(struct ra_emu_lane_state *lane)
{
    warps[lane->warp].ready |= 1u << lane->index;
    ready_warps |= 1u << lane->warp;
}

/* Back when the scheduler picks this lane again; unless it is ready, somebody has to make it so. */
static void step_aside(bool ready)
{
    struct ra_emu_lane_state *me = ra_emu_now;
    if (!ready) {
        warps[me->warp].ready &= ~(1u << me->index);
        if (!warps[me->warp].ready)
            ready_warps &= ~(1u << me->warp);
    }
    ra_fiber_switch(&me->fiber, &scheduler);
}

void ra_emu_must_run(const char *file, int line)
{
    if (!ra_emu_now)
        ra_emu_fault("%s:%d: called outside a kernel", file, line);
}

void ra_emu_let_others_run()
{
    if (ra_emu_shuffled() && ra_emu_below(8) == 0)
        step_aside(true);
}

unsigned ra_emu_lane()
{
    return ra_emu_now->index;
}

unsigned ra_emu_warp()
{
    return ra_emu_now->warp;
}

unsigned ra_emu_barriers()
{
    return generation;
}

unsigned ra_emu_epoch()
{
    return ra_emu_now->epoch;
}

/* --- meetings --------------------------------------------------------------------------------- */

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

/* Mostly one literal, seen from one place. */
static bool same_text(const char *a, const char *b)
{
    return a == b || !strcmp(a, b);
}

static bool same_place(const struct meeting *m, const char *op, const char *file, int line)
{
    return m->line == line && same_text(m->op, op) && same_text(m->file, file);
}

static unsigned join(struct warp *w, const char *op, unsigned mask, const char *file, int line)
{
    unsigned lane = ra_emu_now->index;
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
    ra_emu_must_run(file, line);
    struct ra_emu_lane_state *me = ra_emu_now;
    struct warp *w = &warps[me->warp];
    if (!(mask >> me->index & 1))
        ra_emu_fault("%s at %s:%d by lane %u, which is not in mask %08x", op, file, line, me->index,
                     mask);
    bool orders = RA_FIBER_WATCHED && !strcmp(op, "__syncwarp");
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
    for (struct ra_emu_lane_state &lane : lanes)
        if (lane.at_barrier) {
            lane.at_barrier = false;
            set_ready(&lane);
        }
}

unsigned ra_emu_barrier(unsigned value, const char *file, int line)
{
    ra_emu_must_run(file, line);
    struct ra_emu_lane_state *me = ra_emu_now;
    if (n_arrived && (barrier_line != line || !same_text(barrier_file, file)))
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

/* --- life of a block -------------------------------------------------------------------------- */

static void leave_block()
{
    struct ra_emu_lane_state *me = ra_emu_now;
    struct warp *w = &warps[me->warp];
    ra_emu_cp_leave();
    ra_emu_early_leave();
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
    ra_emu_now = NULL;
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
    if (!ra_emu_shuffled())
        return (unsigned)__builtin_ctz(set);
    for (uint64_t skip = ra_emu_below((uint64_t)__builtin_popcount(set)); skip; skip--)
        set &= set - 1;
    return (unsigned)__builtin_ctz(set);
}

static void run_block(dim3 grid, dim3 block, uint64_t index)
{
    unsigned n = block.x * block.y * block.z;
    for (struct warp &warp : warps)
        warp.alive = warp.ready = 0, warp.open = warp.busy = 0;
    n_alive = n;
    n_arrived = generation = sum = 0;
    for (unsigned t = 0; t < n; t++) {
        struct ra_emu_lane_state *lane = &lanes[t];
        lane->self.thread = {t % block.x, t / block.x % block.y, t / block.x / block.y};
        lane->self.block = {(unsigned)(index % grid.x), (unsigned)(index / grid.x % grid.y),
                            (unsigned)(index / grid.x / grid.y)};
        lane->self.block_dim = block;
        lane->self.grid_dim = grid;
        lane->warp = t / WARP, lane->index = t % WARP, lane->epoch = 0;
        lane->at_barrier = lane->after_earlier = false;
        warps[lane->warp].alive |= 1u << lane->index;
        set_ready(lane);
    }
    ra_fiber_release(&launch_order);
    while (n_alive) {
        if (!ready_warps)
            report_deadlock();
        unsigned w = pick(ready_warps), l = pick(warps[w].ready);
        ra_emu_now = &lanes[w * WARP + l];
        ra_emu_self = &ra_emu_now->self;
        ra_fiber_switch(&scheduler, &ra_emu_now->fiber);
    }
    ra_emu_now = NULL;
    ra_emu_self = NULL;
    ra_fiber_acquire(&end_order);
    ra_emu_count_block_end();
    ra_emu_free_shared();
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
    ra_emu_current = &launch;
    body = &kernel;
    ra_emu_count_launch(launch.text);
    ra_emu_publish_launch(launch);
    ra_emu_early_launch(launch);
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
    ra_emu_current = NULL;
}
