/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of the fake card: each allocation its own, filled with 0xFF, its end watched by ASan or by
 * bytes behind it.
 */
#include "tests/emu/internal.h"
#include "tests/emu/sanitizers.h"

#include <map>
#include <stdlib.h>
#include <sys/mman.h>

namespace
{
struct allocation {
    size_t bytes;
    bool pinned;
};
std::map<uintptr_t, allocation> allocations;
size_t n_allocated;

#ifdef RA_ASAN
constexpr size_t past = 0;
#else
constexpr size_t past = RA_EMU_PAST;
#endif

#ifdef RA_EMU_TSAN
/* Shared memory of a block. TSan takes the allocator's own accesses for races. */
enum { ARENA_BYTES = 1024 * 1024 };
unsigned char *arena;
size_t arena_used;
#endif
} // namespace

#ifdef RA_EMU_TSAN
/* Before any fiber could seem to have written there. */
__attribute__((constructor)) static void map_arena()
{
    arena = static_cast<unsigned char *>(
        mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}
#endif

/* By hand: the sanitizers would take memset for an access by the thread that mentions an array
 * first. */
static void fill(void *p, unsigned char byte, size_t bytes)
{
    volatile unsigned char *to = static_cast<unsigned char *>(p);
    for (size_t i = 0; i < bytes; i++)
        to[i] = byte;
}

void *ra_emu_guarded(size_t bytes)
{
    unsigned char *p;
#ifdef RA_EMU_TSAN
    if (!arena)
        arena = static_cast<unsigned char *>(
            mmap(NULL, ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    p = arena + arena_used;
    arena_used += (bytes + past + 15) / 16 * 16;
#else
    void *memory;
    if (posix_memalign(&memory, 256, bytes + past + !(bytes + past)))
        ra_emu_fault("no memory for %zu bytes", bytes);
    p = static_cast<unsigned char *>(memory);
#endif
    fill(p, 0xff, bytes);
    fill(p + bytes, 0xa5, past);
    return p;
}

bool ra_emu_intact(const void *p, size_t bytes)
{
    const unsigned char *end = static_cast<const unsigned char *>(p) + bytes;
    for (size_t i = 0; i < past; i++)
        if (end[i] != 0xa5)
            return false;
    return true;
}

void ra_emu_release(void *p)
{
#ifdef RA_EMU_TSAN
    (void)p;
    arena_used = 0;
#else
    free(p);
#endif
}

static const std::pair<const uintptr_t, allocation> *find(uintptr_t address)
{
    auto it = allocations.upper_bound(address);
    return it == allocations.begin() ? NULL : &*--it;
}

enum ra_emu_place ra_emu_locate(const void *p, size_t bytes)
{
    uintptr_t address = (uintptr_t)p;
    auto *found = find(address);
    if (!found || address >= found->first + found->second.bytes + (found->second.bytes == 0))
        return RA_EMU_PAGEABLE;
    if (bytes > found->first + found->second.bytes - address)
        return RA_EMU_ASTRIDE;
    return found->second.pinned ? RA_EMU_PINNED : RA_EMU_DEVICE;
}

void ra_emu_must_hold(const void *p, size_t bytes, const char *what, const char *file, int line)
{
    enum ra_emu_place place = ra_emu_locate(p, bytes);
    if (place == RA_EMU_DEVICE || place == RA_EMU_PINNED)
        return;
    auto *found = find((uintptr_t)p);
    if (!found)
        ra_emu_fault("%s:%d: %s of %zu bytes at %p, outside the card's memory", file, line, what,
                     bytes, p);
    ra_emu_fault("%s:%d: %s of %zu bytes at %p, outside the card's memory: byte %zu of an "
                 "allocation of %zu",
                 file, line, what, bytes, p, (size_t)((uintptr_t)p - found->first),
                 found->second.bytes);
}

void ra_emu_check_memory()
{
    for (auto &each : allocations)
        if (!ra_emu_intact((const void *)each.first, each.second.bytes))
            ra_emu_fault("an allocation of %zu bytes was written past its end", each.second.bytes);
}

size_t ra_emu_allocated(void)
{
    return n_allocated;
}

static cudaError_t allocate(void **p, size_t bytes, bool pinned)
{
    if (!p)
        return cudaErrorInvalidValue;
    *p = NULL;
    if (!bytes)
        return cudaSuccess;
    if (!pinned && (bytes > ra_emu_card_memory() || n_allocated > ra_emu_card_memory() - bytes))
        return cudaErrorMemoryAllocation;
    void *memory;
    if (posix_memalign(&memory, 256, bytes + past))
        return cudaErrorMemoryAllocation;
    memset(memory, 0xff, bytes);
    memset(static_cast<char *>(memory) + bytes, 0xa5, past);
    allocations[(uintptr_t)memory] = {bytes, pinned};
    n_allocated += bytes;
    *p = memory;
    return cudaSuccess;
}

static cudaError_t deallocate(void *p, bool pinned)
{
    if (!p)
        return cudaSuccess;
    ra_emu_drain();
    auto it = allocations.find((uintptr_t)p);
    if (it == allocations.end() || it->second.pinned != pinned)
        return cudaErrorInvalidValue;
    if (!ra_emu_intact(p, it->second.bytes))
        ra_emu_fault("an allocation of %zu bytes was written past its end", it->second.bytes);
    n_allocated -= it->second.bytes;
    allocations.erase(it);
    free(p);
    return cudaSuccess;
}

/* The bytes behind it are watched like any other's. */
void *ra_emu_map(size_t bytes)
{
    std::lock_guard<std::recursive_mutex> guard(ra_emu_lock);
    void *memory = mmap(NULL, bytes + past, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    memset(static_cast<char *>(memory) + bytes, 0xa5, past);
    allocations[(uintptr_t)memory] = {bytes, false};
    return memory;
}

void ra_emu_unmap(void *memory)
{
    std::lock_guard<std::recursive_mutex> guard(ra_emu_lock);
    ra_emu_drain();
    auto it = allocations.find((uintptr_t)memory);
    if (it == allocations.end())
        return;
    if (!ra_emu_intact(memory, it->second.bytes))
        ra_emu_fault("a mapping of %zu bytes was written past its end", it->second.bytes);
    munmap(memory, it->second.bytes + past);
    allocations.erase(it);
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    RA_EMU_ENTER();
    return ra_emu_result(allocate(p, bytes, false));
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    RA_EMU_ENTER();
    return ra_emu_result(allocate(p, bytes, true));
}

/* Freeing works even where calls are made to fail: they are for what must be handled. */
cudaError_t cudaFree(void *p)
{
    std::lock_guard<std::recursive_mutex> guard(ra_emu_lock);
    return ra_emu_result(deallocate(p, false));
}

cudaError_t cudaFreeHost(void *p)
{
    std::lock_guard<std::recursive_mutex> guard(ra_emu_lock);
    return ra_emu_result(deallocate(p, true));
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    RA_EMU_ENTER();
    *total_bytes = ra_emu_card_memory();
    *free_bytes = n_allocated < *total_bytes ? *total_bytes - n_allocated : 0;
    return ra_emu_result(cudaSuccess);
}
