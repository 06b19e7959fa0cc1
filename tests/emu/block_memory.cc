/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the threads of a block read and write: shared arrays, each a heap allocation of its own, and
 * global memory, each access checked before it is made.
 */
#include "tests/emu/block.h"

namespace
{
struct array {
    const void *key;
    void *memory;
    size_t bytes;
    const char *name;
};

std::vector<array> arrays;
void *dynamic_memory;
} // namespace

void *ra_emu_shared(const void *key, size_t bytes, const char *name)
{
    ra_emu_must_run(name, 0);
    ra_fiber_unwatched books;
    size_t total = bytes;
    for (const struct array &array : arrays) {
        if (array.key == key)
            return array.memory;
        total += (array.bytes + 15) / 16 * 16;
    }
    if (total > RA_EMU_STATIC_LIMIT || total + ra_emu_current->shared_bytes > RA_EMU_SHARED_LIMIT)
        ra_emu_fault("shared array %s: %zu bytes in all, %zu dynamic: too many", name, total,
                     ra_emu_current->shared_bytes);
    arrays.push_back({key, ra_emu_guarded(bytes), bytes, name});
    return arrays.back().memory;
}

void *ra_emu_dynamic()
{
    ra_emu_must_run("dynamic shared memory", 0);
    if (!dynamic_memory)
        dynamic_memory = ra_emu_guarded(ra_emu_current->shared_bytes);
    return dynamic_memory;
}

void ra_emu_free_shared()
{
    for (const struct array &array : arrays) {
        if (!ra_emu_intact(array.memory, array.bytes))
            ra_emu_fault("shared array %s of %zu bytes was written past its end", array.name,
                         array.bytes);
        ra_emu_release(array.memory);
    }
    if (dynamic_memory && !ra_emu_intact(dynamic_memory, ra_emu_current->shared_bytes))
        ra_emu_fault("dynamic shared memory of %zu bytes was written past its end",
                     ra_emu_current->shared_bytes);
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
    if (holds(dynamic_memory, ra_emu_current->shared_bytes))
        return true;
    for (const struct array &array : arrays)
        if (holds(array.memory, array.bytes))
            return true;
    return false;
}

void ra_emu_access(const void *p, size_t bytes, enum ra_emu_kind kind, const char *file, int line)
{
    ra_emu_must_run(file, line);
    const char *what = kind == RA_EMU_STORE ? "store" : "load";
    if ((uintptr_t)p % bytes)
        ra_emu_fault("%s:%d: %s of %zu bytes at %p is not aligned", file, line, what, bytes, p);
    ra_emu_must_hold(p, bytes, what, file, line);
    ra_emu_count_access(p, bytes, kind, file, line);
    ra_emu_early_access(p, bytes, kind, file, line);
    ra_emu_let_others_run();
    if (kind == RA_EMU_STORE)
        ra_emu_publish_store(p, bytes);
    else
        ra_emu_publish_load(p, bytes, file, line);
}

void ra_emu_atomic(const void *p, size_t bytes, const char *file, int line)
{
    ra_emu_must_run(file, line);
    if ((uintptr_t)p % bytes)
        ra_emu_fault("%s:%d: atomic of %zu bytes at %p is not aligned", file, line, bytes, p);
    bool shared = is_shared(p, bytes);
    if (!shared)
        ra_emu_must_hold(p, bytes, "atomic", file, line);
    ra_emu_count_access(p, bytes, RA_EMU_ATOMIC, file, line);
    if (!shared)
        ra_emu_early_access(p, bytes, RA_EMU_ATOMIC, file, line);
    ra_emu_let_others_run();
    if (!shared)
        ra_emu_publish_atomic();
}

void ra_emu_fence()
{
    ra_emu_must_run("__threadfence", 0);
    ra_emu_publish_fence();
}

/* --- cp.async: done at issue or at the wait, never elsewhere
 * ---------------------------------------- */

static void tell(const struct ra_emu_copy &copy)
{
    if (copy.valid)
        ra_fiber_read16(copy.global);
    ra_fiber_write16(copy.shared);
}

static void do_copy(const struct ra_emu_copy &copy)
{
    tell(copy);
    if (copy.valid)
        memcpy(copy.shared, copy.global, 16);
    else
        memset(copy.shared, 0, 16);
}

void ra_emu_cp_async(void *shared, const void *global, bool valid, const char *file, int line)
{
    ra_emu_must_run(file, line);
    if ((uintptr_t)shared % 16)
        ra_emu_fault("%s:%d: cp.async to %p is not aligned", file, line, shared);
    if (valid)
        ra_emu_access(global, 16, RA_EMU_LOAD, file, line);
    tell({shared, global, valid}); /* it may happen from here on */
    if (ra_emu_below(2))
        do_copy({shared, global, valid});
    else
        ra_emu_now->open_group.push_back({shared, global, valid});
}

void ra_emu_cp_commit()
{
    ra_emu_must_run("cp.async", 0);
    ra_emu_now->groups.push_back(std::move(ra_emu_now->open_group));
    ra_emu_now->open_group.clear();
}

void ra_emu_cp_wait(int pending)
{
    ra_emu_must_run("cp.async", 0);
    for (; ra_emu_now->groups.size() > (size_t)pending; ra_emu_now->groups.pop_front())
        for (const struct ra_emu_copy &copy : ra_emu_now->groups.front())
            do_copy(copy);
}

/* A card would let a block end with copies on their way; whoever wrote them did not mean to. */
void ra_emu_cp_leave()
{
    if (ra_emu_now->open_group.size())
        ra_emu_fault("ended with a cp.async that was not committed");
    for (const std::vector<ra_emu_copy> &group : ra_emu_now->groups)
        if (group.size())
            ra_emu_fault("ended with a cp.async that was not waited for");
    ra_emu_now->groups.clear();
}
