/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ran, told to the double of CUPTI where the process has loaded it: each kernel and copy with
 * the runtime call, and the node of a graph, that it comes from.
 */
#include "tests/emu/internal.h"
#include "tests/fake_cupti/fake.h"

#include <dlfcn.h>
#include <time.h>

namespace
{
struct hooks {
    decltype(&fake_cupti_call) call;
    decltype(&fake_cupti_kernel) kernel;
    decltype(&fake_cupti_copy) copy;
    decltype(&fake_cupti_cloned) cloned;
    decltype(&fake_cupti_instantiated) instantiated;
    decltype(&fake_cupti_counts) counts;
} found;
struct ra_emu_origin origin;
} // namespace

template <class F> static void look_up(void *library, const char *name, F *at)
{
    *at = reinterpret_cast<F>(dlsym(library, name));
}

/* NULL while it is not loaded; the real library tells nothing here. */
static const struct hooks *watcher()
{
    if (found.call)
        return &found;
    void *library = dlopen("libcupti.so.13", RTLD_NOW | RTLD_NOLOAD);
    if (!library || !dlsym(library, "fake_cupti_call"))
        return NULL;
    look_up(library, "fake_cupti_kernel", &found.kernel);
    look_up(library, "fake_cupti_copy", &found.copy);
    look_up(library, "fake_cupti_cloned", &found.cloned);
    look_up(library, "fake_cupti_instantiated", &found.instantiated);
    look_up(library, "fake_cupti_counts", &found.counts);
    look_up(library, "fake_cupti_call", &found.call);
    return &found;
}

static uint64_t now_ns()
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint32_t ra_emu_call(const char *name)
{
    const struct hooks *w = watcher();
    return w ? w->call(name) : 0;
}

void ra_emu_from(const struct ra_emu_origin &from)
{
    origin = from;
}

void ra_emu_cloned(const void *node, const void *copy)
{
    if (const struct hooks *w = watcher())
        w->cloned(node, copy);
}

void ra_emu_instantiated()
{
    if (const struct hooks *w = watcher())
        w->instantiated();
}

/* Streams are numbered as they come by. */
static uint32_t number_of(cudaStream_t stream)
{
    static cudaStream_t seen[64];
    uint32_t i = 0;
    while (i < 63 && seen[i] && seen[i] != stream)
        i++;
    seen[i] = stream;
    return i + 7;
}

void ra_emu_run_kernel(const struct ra_emu_launch &launch, const std::function<void()> &body,
                       uint32_t call)
{
    const struct hooks *w = watcher();
    if (!w) {
        ra_emu_run(launch, body);
        return;
    }
    struct ra_emu_traffic total = {};
    bool counts = w->counts() != 0;
    if (counts) {
        ra_emu_count_traffic(1);
        ra_emu_reset_traffic();
    }
    uint64_t start = now_ns();
    ra_emu_run(launch, body);
    uint64_t end = now_ns();
    if (counts) {
        ra_emu_total_traffic(&total);
        ra_emu_count_traffic(0);
        ra_emu_reset_traffic();
    }
    std::string name = ra_emu_kernel_name(launch.text);
    struct fake_kernel k = {};
    k.name = name.c_str();
    k.grid[0] = launch.grid.x, k.grid[1] = launch.grid.y, k.grid[2] = launch.grid.z;
    k.block[0] = launch.block.x, k.block[1] = launch.block.y, k.block[2] = launch.block.z;
    k.shared_bytes = launch.shared_bytes;
    k.correlation = origin.node ? origin.call : call;
    k.stream = number_of(launch.stream);
    k.graph = origin.graph;
    k.node = origin.node;
    k.start_ns = start;
    k.end_ns = end;
    k.load_bytes = total.load_bytes;
    k.store_bytes = total.store_bytes;
    k.sectors = total.sectors;
    w->kernel(&k);
}

std::function<void()> ra_emu_watched_copy(std::function<void()> work, size_t bytes, int kind,
                                          bool is_set, cudaStream_t stream)
{
    if (!watcher())
        return work;
    uint32_t call = ra_emu_call(is_set ? "cudaMemsetAsync" : "cudaMemcpyAsync");
    return [=] {
        uint64_t start = now_ns();
        work();
        struct fake_copy copy = {};
        copy.correlation = origin.node ? origin.call : call;
        copy.stream = number_of(stream);
        copy.kind = (uint32_t)kind;
        copy.is_set = is_set;
        copy.bytes = bytes;
        copy.start_ns = start;
        copy.end_ns = now_ns();
        watcher()->copy(&copy);
    };
}
